"""Score a model's units on the recipe's calibration texts."""

import shutil
import time
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path

import torch
from datasets import Dataset
from tqdm.auto import tqdm

from trl_prune.data.batches import calibration_batches, num_texts, rows_in_one_text, sample
from trl_prune.data.teacher import within_context
from trl_prune.errors import InputError
from trl_prune.pruning.importance.blockwise import score_by_blocks
from trl_prune.pruning.importance.forward import Batch
from trl_prune.pruning.importance.memory import ScoringNeeds, scoring_needs
from trl_prune.pruning.importance.one_block import OneBlockModel, why_not_one_by_one
from trl_prune.pruning.importance.scores import Scores, empty_scores, score
from trl_prune.pruning.surgery.cut import meta_model
from trl_prune.recipe.score import ScoreSection
from trl_prune.runs.context import Run, dataset_fingerprint
from trl_prune.runs.own_answers import asked_prompts, own_answer_batches, own_answer_tokens


SCORES, PARTIAL, STATES = "scores.safetensors", "partial.safetensors", "states"
SECONDS_BETWEEN_SAVES = 20.0


def calibration(run: Run) -> list[dict[str, torch.Tensor]]:
    """Return the recipe's calibration batches, dicts of `(batch, tokens)` tensors.

    Where the texts are the dense model's own answers, the batches have COUNTED, and missing answers are generated.
    """
    section = run.recipe.score
    if section.is_generated:
        return own_answer_batches(run)
    drawn = sample(_rows(run), _num_rows(section), run.recipe.seed)
    forms = [rows_in_one_text(drawn, count) for count in section.rows_per_text]
    length = within_context(section.max_length, run.config)
    return calibration_batches(chain.from_iterable(forms), run.tokenizer, section.batch_size, length)


def calibration_inputs(run: Run) -> dict[str, str]:
    """Return the fingerprints of the dense model and of the calibration rows."""
    section = run.recipe.score.read_dataset
    rows = dataset_fingerprint(run.rows(section)) if section else run.dataset_fingerprint
    return {"dense": run.dense_fingerprint, "calibration": rows}


def calibration_settings(run: Run) -> dict:
    """Return the settings that determine the calibration texts and what the dense model makes of them."""
    section = run.recipe.score
    values = {"score": section.determining, "dtype": run.dtype}
    return values | (run.recipe.template_settings if section.is_generated else {})


def calibration_tokens(run: Run) -> int:
    """Return how many tokens the calibration texts have; the most there can be before answers are generated."""
    if run.recipe.score.is_generated:
        return own_answer_tokens(run)
    return _read_tokens(run, *calibration_inputs(run).values())


@lru_cache(maxsize=1)
def _read_tokens(run: Run, *_: str) -> int:
    return sum(int(batch["attention_mask"].sum()) for batch in calibration(run))


def expected_texts(run: Run) -> int:
    """Return how many calibration texts there are at most."""
    section = run.recipe.score
    rows = min(len(_rows(run)), _num_rows(section))
    return sum(num_texts(rows, count) for count in section.rows_per_text)


def _num_rows(section: ScoreSection) -> int:
    """Return how many rows make `samples` texts, with each row in every form."""
    return max(int(section.samples / sum(Fraction(1, count) for count in section.rows_per_text)), 1)


def _rows(run: Run) -> Dataset:
    section = run.recipe.score.read_dataset
    return run.rows(section) if section else run.dataset


def describe_texts(run: Run) -> str:
    """Return what the calibration texts are, in words."""
    section = run.recipe.score
    if section.is_generated:
        prompts = len(asked_prompts(run))
        return f"the dense model's answers to {prompts} prompts, up to {section.answer_tokens} tokens each"
    numbers = " and ".join(map(str, section.rows_per_text))
    examples = f" of {numbers} rows each" * (section.rows_per_text != [1])
    return f"{expected_texts(run)} texts{examples}"


def check_texts(run: Run) -> None:
    """Check that there are calibration texts.

    Raises:
        InputError: rows cannot be read, or the dense model cannot be asked for its answers.
    """
    section = run.recipe.score
    if section.read_dataset is not None:
        run.rows(section.read_dataset)
    if section.is_generated:
        if is_out_of_core(run):
            raise InputError(
                f"score.dataset is 'generated', for which all of the model must be in memory, "
                f"{gigabytes(needs(run).in_memory)}; set score.device_map to auto, or name a dataset with answers"
            )
        asked_prompts(run)


def score_checkpoint(run: Run, model_dir: Path, folder: Path) -> Scores:
    """Return a model's scores on the calibration texts.

    Args:
        run: the run, for its calibration texts.
        model_dir: the dense model, or an intermediate one when pruning in rounds.
        folder: where partial sums or states are saved, so that an interrupted pass resumes.
    """
    batches = calibration(run)
    metadata = {"calibration": calibration_inputs(run)["calibration"], "seed": run.recipe.seed}
    if is_out_of_core(run):
        return _score_by_blocks(run, model_dir, batches, metadata, folder / STATES)
    return _score_in_memory(run, model_dir, batches, metadata, folder / PARTIAL)


def _score_in_memory(run: Run, model_dir: Path, batches: list[Batch], metadata: dict, partial: Path) -> Scores:
    model = run.load_for_scoring(model_dir)
    scores = Scores.load(partial) if partial.is_file() else empty_scores(model, metadata)
    bar = tqdm(batches[scores.num_batches :], "score", len(batches), initial=scores.num_batches, unit="batch")
    return score(model, bar, run.recipe.score.tokens, scores, _saver(partial))


def _score_by_blocks(run: Run, model_dir: Path, batches: list[Batch], metadata: dict, states: Path) -> Scores:
    source = OneBlockModel(model_dir, getattr(torch, run.dtype), run.device)
    scores = empty_scores(source.model, metadata)
    with tqdm(desc="score", total=len(source), unit="block") as bar:
        return score_by_blocks(source, batches, run.recipe.score.tokens, scores, states, bar.update)


def remove_partial(folder: Path) -> None:
    """Remove what an interrupted pass would have resumed from."""
    (folder / PARTIAL).unlink(missing_ok=True)
    shutil.rmtree(folder / STATES, ignore_errors=True)


def is_out_of_core(run: Run) -> bool:
    """Return whether one block at a time is scored: if the recipe says so, or where the model exceeds the memory."""
    section = run.recipe.score
    if section.out_of_core is not None:
        return section.out_of_core
    if section.device_map is not None or why_not_one_by_one(run.config):
        return False
    return needs(run).in_memory > _free_memory(run)


def check_way(run: Run) -> None:
    """Check that the model can be scored as the recipe says.

    Raises:
        InputError: its blocks cannot run one by one.
    """
    reason = why_not_one_by_one(run.config)
    if run.recipe.score.out_of_core and reason:
        raise InputError(f"score.out_of_core runs one block at a time, which {run.config.model_type} cannot: {reason}")


def describe_way(run: Run) -> str:
    """Return how the model is scored, with what memory and disk, in words."""
    required = needs(run)
    if is_out_of_core(run):
        return (
            f"block by block, with up to {gigabytes(required.by_blocks)} of memory and {gigabytes(required.disk)} of "
            f"disk meanwhile (all of the model: {gigabytes(required.in_memory)})"
        )
    return f"{gigabytes(required.in_memory)} of memory"


def states_on_disk(run: Run) -> int:
    """Return the bytes that scoring writes and removes again, 0 with the model in memory."""
    return needs(run).disk if is_out_of_core(run) else 0


@lru_cache(maxsize=1)
def needs(run: Run) -> ScoringNeeds:
    """Return what scoring the dense model needs."""
    section = run.recipe.score
    itemsize = getattr(torch, run.dtype).itemsize
    return scoring_needs(meta_model(run.config), itemsize, section.samples, section.max_length, section.tokens)


@lru_cache(maxsize=1)
def _free_memory(run: Run) -> int:
    """Return the free bytes of the device that models run on, as they were when first asked."""
    from accelerate.utils import get_max_memory

    return get_max_memory()[0 if run.device == "cuda" else "cpu"]


def gigabytes(number: float) -> str:
    """Return a number of bytes as text."""
    value = number / 1e9
    return f"{value:,.0f} GB" if value >= 100 else f"{value:.3g} GB"


def _saver(path: Path) -> Callable[[Scores], None]:
    last = time.monotonic()

    def save(scores: Scores) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_SAVES:
            scores.save(path)
            last = time.monotonic()

    return save
