"""What the scoring pass of selection costs beside two bare passes over the same batches.

    python benchmarks/selection_scoring.py [--rows 24] [--dtype float32] [--rounds 3]

SmolLM2-135M and the same without blocks 20 to 25, on rows of the quickstart. `bare` is `model(input_ids).logits` of
both models over the same padded batches; ours computes the mean Jensen-Shannon divergence and the cross-entropy of
every row: with separate passes, with the blocks that both models share run once, and one model after the other, with
the dense model's final states on disk in between. CPU seconds are the least of the rounds, one thread.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from trl_prune import prune
from trl_prune.checkpoints import load_model, load_tokenizer
from trl_prune.data.selection.row_batches import AnswerRows, RowBatch
from trl_prune.data.selection.scoring import RowScores, ScoreSpec, score_rows
from trl_prune.data.starter import starter_rows
from trl_prune.data.teacher import LazyTeacher
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.smollm2 import smollm2
from trl_prune.trainers.preparation import prepare_numbered


KEPT = [layer for layer in range(30) if not 20 <= layer < 26]
BATCH_TOKENS = 1024


def bare_passes(models: list[PreTrainedModel], batches: list[RowBatch]) -> None:
    """Compute all logits of both models."""
    with torch.inference_mode():
        for batch in batches:
            for model in models:
                _ = model(**batch.inputs, use_cache=False).logits


def ours(spec: ScoreSpec) -> RowScores:
    """Score all rows."""
    with TemporaryDirectory() as folder:
        return score_rows(Path(folder), spec)


def cpu_seconds(function: Callable) -> tuple[float, RowScores | None]:
    """Return a call's CPU seconds and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def load_models(dtype: str) -> list[PreTrainedModel]:
    """Return the dense and the pruned model."""
    with TemporaryDirectory() as folder:
        pruned = prune(smollm2(), Path(folder) / "pruned", keep={"num_hidden_layers": KEPT})
        return [load_model(path, dtype, "cpu") for path in (smollm2(), pruned)]


def prepared_rows(count: int) -> list[dict]:
    """Return rows of the quickstart as a trainer prepares them."""
    rows = starter_rows()
    sampled = Dataset.from_list(list(rows)[:: len(rows) // count][:count])
    return prepare_numbered(sampled, {"max_length": 512, "use_cpu": True}, load_tokenizer(smollm2())).to_list()


def measure(models: list[PreTrainedModel], rows: list[dict], rounds: int) -> None:
    """Print the table."""
    answers = AnswerRows.read(rows)
    batches = list(answers.batches(answers.order, BATCH_TOKENS))
    teachers = [LazyTeacher(lambda model=model: model, load_tokenizer(smollm2()), str(id(model))) for model in models]
    spec = partial(ScoreSpec, rows, *teachers, batch_tokens=BATCH_TOKENS)
    methods: dict[str, Callable] = {
        "bare": partial(bare_passes, models, batches),
        "separate": partial(ours, spec()),
        "shared blocks": partial(ours, spec(blocks_of=decoder_blocks)),
        "one after the other": partial(ours, spec(resident=False)),
    }
    methods["bare"]()  # warm-up
    measured = [{name: cpu_seconds(method) for name, method in methods.items()} for _ in range(rounds)]
    least = {name: min(one[name][0] for one in measured) for name in methods}
    print(f"{len(rows)} rows, {answers.lengths.sum():,} tokens, {answers.answer_tokens.sum():,} of answers")
    print("| method | CPU seconds | x bare | largest difference of a row's divergence |\n|---|---|---|---|")
    for name in methods:
        difference = ""
        if name != "bare":
            one, reference = (measured[-1][key][1].divergence for key in (name, "separate"))
            difference = f"{np.nanmax(np.abs(one - reference)):.1g}"
        print(f"| {name} | {least[name]:.2f} | {least[name] / least['bare']:.2f} | {difference} |")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure(load_models(options.dtype), prepared_rows(options.rows), options.rounds)


if __name__ == "__main__":
    main()
