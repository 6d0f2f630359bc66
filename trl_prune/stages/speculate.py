"""speculate: the pruned and recovered models as drafts of the dense one in speculative decoding."""

import json
import time
from dataclasses import asdict
from pathlib import Path

from tqdm.auto import tqdm

from trl_prune.checkpoints import load_config, write_json
from trl_prune.errors import InputError
from trl_prune.evaluation.speculative.measurement import continue_prompts, measure_speculation
from trl_prune.evaluation.speculative.summary import acceptance_summary, speed_summary
from trl_prune.evaluation.speculative.texts import GREEDY, Text
from trl_prune.recipe import Recipe
from trl_prune.recipe.speculate import is_model_name
from trl_prune.reporting.plots.speculative import ACCEPTANCE_BY_POSITION, SPEED_UP_BY_LENGTH
from trl_prune.reporting.speculation import SPECULATION_TABLE, show_speculation
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.speculation import (
    check_draft,
    draft_dir,
    draft_hash,
    drafts_of,
    load_draft,
    longest_prompt,
    prompts_section,
    run_prompts,
    run_settings,
    section_of,
)
from trl_prune.runs.stage import Stage


# The part that writes the dense model's texts, on which drafts are judged.
TARGET = "dense"
TEXTS = "texts.json"
# Keys of the section that do not change the dense model's texts, or that decide what each part is.
NOT_OF_TEXTS = ("drafts", "draft_lengths", "batch_sizes", "timed_prompts")


def execute(run: Run, part: str, folder: Path) -> StageOutput:
    """Write the dense model's texts, or judge a draft on them."""
    start = time.perf_counter()
    target = run.load(TARGET)
    settings = run_settings(run, target)
    if part == TARGET:
        prompts = run_prompts(run)
        with _bar(part, len(prompts) * (2 if settings.sampled else 1)) as bar:
            texts = continue_prompts(target, prompts, settings, bar.update)
        write_json(folder / TEXTS, {kind: [asdict(text) for text in found] for kind, found in texts.items()})
        counts = {kind: len(found) for kind, found in texts.items()}
        return StageOutput({"texts": TEXTS}, {"texts": counts}, {"seconds": time.perf_counter() - start})
    try:
        texts = read_texts(run)
        timed = min(settings.timed_prompts, len(texts[GREEDY])) * (2 if settings.sampled else 1)
        with _bar(part, timed * (1 + len(settings.draft_lengths))) as bar:
            found = measure_speculation(target, load_draft(run, part), texts, settings, bar.update)
    except InputError as error:
        raise InputError(f"speculate.drafts: {part!r}: {error}") from error
    timing = {"seconds": time.perf_counter() - start, "speed": speed_summary(found)}
    return StageOutput({}, acceptance_summary(found), timing)


def _bar(part: str, total: int) -> tqdm:
    return tqdm(total=total, desc=f"speculate {part}", unit="text", mininterval=1.0)


def read_texts(run: Run) -> dict[str, list[Text]]:
    """Return the texts that drafts are judged on, by kind."""
    texts = json.loads(run.folder.output("speculate", "texts", TARGET).read_text())
    return {kind: [Text(**text) for text in found] for kind, found in texts.items()}


def parts(recipe: Recipe) -> list[str]:
    """Return the dense model and the drafts."""
    return [TARGET, *drafts_of(recipe)]


def needs(recipe: Recipe) -> list[str]:
    """Return the stages that make the drafts."""
    names = [draft for draft in drafts_of(recipe).values() if is_model_name(draft)]
    return list(dict.fromkeys(recipe.stage_of(name) for name in names))


def inputs(run: Run, part: str) -> dict[str, str]:
    """Return the fingerprints of the dense model, and of the prompts or the draft and the texts."""
    if part == TARGET:
        return {"dense": run.dense_fingerprint, "prompts": run.fingerprint(prompts_section(run.recipe))}
    texts = run.folder.result_hash("speculate", TARGET)
    return {"dense": run.dense_fingerprint, "draft": draft_hash(run, part), "texts": texts}


def settings(run: Run, part: str) -> dict:
    """Return the settings that determine the texts, or what is measured on them."""
    section = section_of(run.recipe).model_dump(mode="json")
    left_out = NOT_OF_TEXTS if part == TARGET else ("drafts",)
    values = {name: value for name, value in section.items() if name not in left_out}
    return {"speculate": values, "seed": run.recipe.seed, "dtype": run.dtype} | run.recipe.template_settings


def describe(run: Run, part: str) -> str:
    """Return what is decoded."""
    section = section_of(run.recipe)
    modes = "greedy and sampled" if section.sampled else "greedy"
    if part == TARGET:
        return f"{modes} answers to {section.prompts} prompts, up to {section.max_new_tokens} tokens"
    lengths = ", ".join(map(str, section.draft_lengths))
    return f"as the dense model's draft, {modes}, {lengths} tokens a round"


def is_configured(recipe: Recipe) -> bool:
    """Return whether the recipe has a `speculate` section."""
    return recipe.speculate is not None


def check(run: Run) -> None:
    """Check prompts, and the drafts that exist already."""
    if run.config.is_encoder_decoder:
        raise InputError(f"model {run.recipe.model!r} is an encoder-decoder model; wanted: a decoder")
    longest = max(len(prompt.ids) for prompt in run_prompts(run))
    for name, draft in drafts_of(run.recipe).items():
        if is_model_name(draft):  # cut from the dense model, and with its tokenizer
            continue
        folder = draft_dir(run, name)
        check_draft(name, folder, run.tokenizer)
        room = longest_prompt([load_config(folder)], section_of(run.recipe))
        if room is not None and longest > room:
            raise InputError(
                f"speculate.drafts: {draft!r} has room for prompts of {room:,} tokens beside an answer, and one has "
                f"{longest:,}; lower speculate.max_new_tokens, or name other prompts"
            )


STAGE = Stage(
    "speculate",
    inputs,
    settings,
    execute,
    describe,
    parts,
    needs,
    is_configured,
    check,
    panels=(SPECULATION_TABLE, SPEED_UP_BY_LENGTH, ACCEPTANCE_BY_POSITION),
    show=show_speculation,
)
