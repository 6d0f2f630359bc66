"""Generate the answers that are not stored yet, and read them all."""

from collections.abc import Sequence

from trl_prune.data.generation.engine import Engine
from trl_prune.data.generation.prompts import Prompt
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.generation.store import AnswerStore, answer_key
from trl_prune.data.sharing import ProcessShare


def plan_batches(prompts: Sequence[Prompt], batch_size: int) -> list[list[int]]:
    """Return batches of prompt indices, sorted by the expected length, longest first.

    The first batch needs the most memory, so a batch size that does not fit fails at the start.
    """
    order = sorted(range(len(prompts)), key=lambda index: (*_expected_lengths(prompts[index]), index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _expected_lengths(prompt: Prompt) -> tuple[int, int]:
    return -(len(prompt.ids) + prompt.expected_new_tokens), -prompt.expected_new_tokens


def generate_missing(
    prompts: Sequence[Prompt], engine: Engine, sampling: Sampling, store: AnswerStore, share: ProcessShare
) -> None:
    """Generate and store the answers of one process's share that are not stored yet.

    Batches are planned from all prompts, so that an interrupted run goes on with the same batches: in bf16, answers
    depend slightly on which prompts share a batch. Of equal prompts one is generated.

    Args:
        prompts: all prompts.
        engine: what generates; it is not called if nothing is missing.
        sampling: the generation settings.
        store: where each group of answers goes as soon as it is finished.
        share: the batches of this process; its progress counts groups of answers.
    """
    by_key = {answer_key(prompt, sampling, engine.fingerprint): prompt for prompt in prompts}
    keys, unique = list(by_key), list(by_key.values())
    batches = plan_batches(unique, sampling.batch_size)[share.process_index :: share.num_processes]
    stored = store.read(keys)
    missing = [index for batch in batches for index in batch if keys[index] not in stored]
    if not missing:
        return
    progress = iter(share.progress(list(range(0, len(missing), sampling.batch_size))))
    for group in engine.generate([unique[index] for index in missing], sampling):
        store.write({keys[missing[position]]: answer for position, answer in group.items()})
        next(progress, None)
    next(progress, None)  # a progress bar closes at the end of its list


def read_answers(
    prompts: Sequence[Prompt], sampling: Sampling, fingerprint: str, store: AnswerStore
) -> list[Answer | None]:
    """Return the stored answer to each prompt, None where there is none."""
    keys = [answer_key(prompt, sampling, fingerprint) for prompt in prompts]
    stored = store.read(keys)
    return [stored.get(key) for key in keys]
