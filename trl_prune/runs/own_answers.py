"""Calibration texts in the dense model's own words: prompts of the recipe's rows, answered by the dense model."""

from collections.abc import Sequence

import torch

from trl_prune.data.answered_prompts import answered, answered_batches, row_prompts
from trl_prune.data.batches import sample
from trl_prune.data.generation.engines import build_engine
from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.generation.missing import read_answers
from trl_prune.data.generation.prompts import Prompt
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.generation.store import AnswerStore
from trl_prune.data.teacher import LazyTeacher, context_length, within_context
from trl_prune.errors import InputError
from trl_prune.runs.context import Run
from trl_prune.runs.sharing import single_process_share


# Where the answers are kept.
STAGE, ANSWERS = "score", "answers"


def own_answer_batches(run: Run) -> list[dict[str, torch.Tensor]]:
    """Return batches of prompts with the dense model's answers; answers that are not stored yet are generated.

    Returns:
        Dicts with `input_ids`, `attention_mask` and COUNTED, each `(batch, tokens)`.

    Raises:
        InputError: every answer is empty.
    """
    prompts = asked_prompts(run)
    generator = _generator(run)
    try:
        answers = generator.answers(prompts, _sampling(run))
    finally:
        generator.engine.close()
    texts = answered(prompts, answers, run.tokenizer)
    if not texts:
        raise InputError(
            f"score.dataset is 'generated', and the dense model answers none of {len(prompts)} prompts of "
            f"{run.recipe.dataset.path!r} with a word; name a dataset with answers"
        )
    return answered_batches(texts, run.tokenizer, run.recipe.score.batch_size)


def asked_prompts(run: Run) -> list[Prompt]:
    """Return the prompts that the dense model answers.

    Raises:
        InputError: no row has a prompt that leaves room for an answer.
    """
    section = run.recipe.score
    longest = within_context(section.max_length, run.config) - section.answer_tokens
    rows = sample(run.dataset, section.samples, run.recipe.seed)
    prompts = row_prompts(rows, run.tokenizer, run.recipe.chat_template_kwargs, longest)
    if not prompts:
        raise InputError(
            f"score.dataset is 'generated', and {run.recipe.dataset.path!r} has no row with an answer behind "
            f"a prompt of at most {longest:,} tokens, which leaves room for {section.answer_tokens:,} of an answer"
        )
    return prompts


def summary(run: Run) -> dict[str, int]:
    """Return how many prompts were asked, and of their stored answers how many are empty or reached the limit."""
    prompts = asked_prompts(run)
    answers = [answer for answer in _stored(run, prompts) if answer is not None]
    empty = sum(not answer.text.strip() for answer in answers)
    return {"asked": len(prompts), "empty": empty, "unfinished": sum(not answer.finished for answer in answers)}


def own_answer_tokens(run: Run) -> int:
    """Return how many tokens the texts have: the most that there can be as long as answers are missing."""
    prompts = asked_prompts(run)
    answers = _stored(run, prompts)
    if None in answers:
        return sum(len(prompt.ids) + run.recipe.score.answer_tokens for prompt in prompts)
    return sum(len(text.ids) for text in answered(prompts, answers, run.tokenizer))


def _stored(run: Run, prompts: Sequence[Prompt]) -> list[Answer | None]:
    store = AnswerStore(run.folder.stage_dir(STAGE) / ANSWERS)
    return read_answers(prompts, _sampling(run), _fingerprint(run), store)


def _generator(run: Run) -> AnswerGenerator:
    model = LazyTeacher(
        lambda: run.load_for_scoring(run.dense_dir), run.tokenizer, _fingerprint(run), context_length(run.config)
    )
    folder, share = run.folder.stage_dir(STAGE) / ANSWERS, single_process_share("answer", "batch")
    return AnswerGenerator(build_engine("transformers", model, {}), run.tokenizer, folder, share)


def _fingerprint(run: Run) -> str:
    return f"{run.dense_fingerprint} {run.dtype}"


def _sampling(run: Run) -> Sampling:
    return Sampling(run.recipe.score.answer_tokens)
