"""synthesize: the dense model writes training rows, prompts and answers, out of nothing (Magpie, 2406.08464)."""

import json
import logging
import sys
import time
from pathlib import Path

from transformers import GenerationConfig

from trl_prune.checkpoints import write_text
from trl_prune.checkpoints.companions import GENERATION
from trl_prune.data.generation.decoding import end_ids
from trl_prune.data.generation.engines import check_engine
from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.generation.sampling import Sampling
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.synthesis import SynthesisSettings, check_user_end, synthesize_rows, user_prefix
from trl_prune.errors import InputError
from trl_prune.recipe import Recipe
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import SYNTHESIZED_ROWS, Run
from trl_prune.runs.generation import ANSWERS, answer_generator
from trl_prune.runs.sharing import share_main, single_process_share, write_in_processes
from trl_prune.runs.stage import Stage


ROWS = "rows.jsonl"
logger = logging.getLogger("trl_prune")


def synthesis_settings(run: Run) -> SynthesisSettings:
    """Return the recipe's settings of synthesis."""
    section, seed = run.recipe.synthesize, run.recipe.seed
    return SynthesisSettings(
        Sampling(section.max_prompt_tokens, section.batch_size, section.prompt_temperature, seed),
        Sampling(section.max_new_tokens, section.batch_size, section.temperature, seed),
        run.recipe.chat_template_kwargs,
    )


def _generator(run: Run, folder: Path, share: ProcessShare) -> AnswerGenerator:
    section = run.recipe.synthesize
    return answer_generator(run, section.engine, section.engine_kwargs, folder, share)


def write_share(run: Run, folder: Path, share: ProcessShare) -> None:
    """Generate one process's share of the texts; each round waits for all processes."""
    synthesize_rows(run.recipe.synthesized_rows, _generator(run, folder, share), synthesis_settings(run))


def execute(run: Run, part: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Write the rows, reusing every text that an earlier or interrupted attempt stored."""
    start, count = time.perf_counter(), run.recipe.synthesized_rows
    write_in_processes(run, __name__, folder)
    share = single_process_share("synthesize", "batch")
    written = synthesize_rows(count, _generator(run, folder, share), synthesis_settings(run))
    write_text(folder / ROWS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written.rows))
    if len(written.rows) < count:
        logger.warning(
            "the dense model wrote %d of %d rows in %d draws; the others: %s",
            len(written.rows),
            count,
            written.drawn,
            written.rejected,
        )
    run.forget_rows()
    metrics = {"rows": len(written.rows), "drawn": written.drawn, "rejected": written.rejected}
    return StageOutput({SYNTHESIZED_ROWS: ROWS}, metrics, {"seconds": time.perf_counter() - start})


def inputs(run: Run, part: str) -> dict[str, str]:  # noqa: ARG001
    """Return the fingerprint of the dense model."""
    return {"dense": run.teacher_fingerprint}


def settings(run: Run, part: str) -> dict:  # noqa: ARG001
    """Return the settings that determine the rows."""
    section = run.recipe.synthesize.model_dump(mode="json")
    values = {"synthesize": section, "rows": run.recipe.synthesized_rows, "seed": run.recipe.seed, "dtype": run.dtype}
    return values | run.recipe.template_settings


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return how many rows will be written."""
    section = run.recipe.synthesize
    return (
        f"{run.recipe.synthesized_rows} rows by the dense model, prompts up to {section.max_prompt_tokens} tokens, "
        f"answers up to {section.max_new_tokens}"
    )


def is_configured(recipe: Recipe) -> bool:
    """Return whether a dataset of the recipe is written by the dense model."""
    return recipe.synthesized_rows > 0


def parts(recipe: Recipe) -> list[str]:
    """Return the one part, if there is something to write."""
    return [""] * is_configured(recipe)


def check(run: Run) -> None:
    """Check the engine, and that the chat template lets a model write users' turns."""
    section, tokenizer, variables = run.recipe.synthesize, run.teacher.tokenizer, run.recipe.chat_template_kwargs
    check_engine(section.engine, section.engine_kwargs, "synthesize.engine_kwargs")
    path = run.teacher_dir / GENERATION
    config = GenerationConfig.from_pretrained(run.teacher_dir) if path.is_file() else GenerationConfig()
    try:
        user_prefix(tokenizer, variables)
        check_user_end(tokenizer, end_ids(config, tokenizer), variables)
    except InputError as error:
        raise InputError(f"dataset.synthesize: {error}") from error


STAGE = Stage(
    "synthesize",
    inputs,
    settings,
    execute,
    describe,
    parts=parts,
    is_configured=is_configured,
    check=check,
    keeps=(ANSWERS,),
)

if __name__ == "__main__":
    sys.exit(share_main("synthesize", write_share))
