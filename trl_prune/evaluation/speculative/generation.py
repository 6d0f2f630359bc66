"""Decode prompts with several draft lengths and without a draft, in turn, and time it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from transformers import PreTrainedModel

from trl_prune.evaluation.speculative.drafting import (
    Decoding,
    Difference,
    first_difference,
    generate_drafted,
    generate_plain,
)
from trl_prune.evaluation.speculative.prediction import Rounds, total
from trl_prune.evaluation.speculative.texts import Text
from trl_prune.evaluation.timing import Interval, speed_up, timed_repeats


PLAIN = "plain"
# Tokens that are decoded before anything is timed.
WARM_UP_TOKENS = 4


@dataclass(frozen=True)
class MeasuredDrafting:
    """What decoding some prompts with a draft took.

    Attributes:
        rounds: counted calls, proposed and accepted tokens, by draft length.
        speed_up: seconds a token without the draft over those with it, by draft length: the median over prompts,
            each decoded both ways one after the other.
        differences: of greedy decoding, where it left the target's own text.
    """

    rounds: dict[int, Rounds]
    speed_up: dict[int, Interval]
    differences: list[Difference]


def measure_drafting(  # noqa: PLR0913
    target: PreTrainedModel,
    draft: PreTrainedModel,
    texts: Sequence[Text],
    draft_lengths: Sequence[int],
    decoding: Decoding,
    progress: Callable[[], object] = lambda: None,
) -> MeasuredDrafting:
    """Decode each prompt without the draft and with each draft length, one after the other.

    Args:
        target: the target.
        draft: the draft.
        texts: the prompts; with greedy decoding their continuations are the target's own.
        draft_lengths: numbers of proposed tokens.
        decoding: how texts are decoded; prompt number i has the seed plus i.
        progress: called between timings, once for each text and way of decoding it.
    """
    short = replace(decoding, max_new_tokens=min(WARM_UP_TOKENS, decoding.max_new_tokens))
    for length in draft_lengths:
        generate_drafted(target, draft, texts[0].prompt, short, length)
    decoded: dict[str, list] = {PLAIN: [], **{str(length): [] for length in draft_lengths}}
    calls = {PLAIN: _each(texts, decoding, decoded[PLAIN], lambda *args: generate_plain(target, *args))}
    for length in draft_lengths:
        one = _drafted_by(target, draft, length)
        calls[str(length)] = _each(texts, decoding, decoded[str(length)], one)
    seconds = {name: [] for name in calls}
    for repeat in islice(timed_repeats(calls, warm_up=0), len(texts)):
        for name, value in repeat.items():
            seconds[name].append(value)
            progress()
    plain = _per_token(seconds[PLAIN], [len(ids) for ids in decoded[PLAIN]])
    drafted = {length: decoded[str(length)] for length in draft_lengths}
    speeds = {
        length: speed_up(plain, _per_token(seconds[str(length)], [len(one.ids) for one in found]))
        for length, found in drafted.items()
    }
    return MeasuredDrafting(
        {length: total(one.counts(length) for one in found) for length, found in drafted.items()},
        speeds,
        [
            difference
            for length, found in drafted.items()
            for difference in differences(target, texts, [one.ids for one in found], length, decoding)
        ],
    )


def _drafted_by(target: PreTrainedModel, draft: PreTrainedModel, length: int) -> Callable:
    return lambda prompt, decoding: generate_drafted(target, draft, prompt, decoding, length)


def _each(texts: Sequence[Text], decoding: Decoding, results: list, decode: Callable) -> Callable[[], None]:
    """Return a call that decodes the next prompt and keeps its result."""
    order: Iterator[tuple[int, Text]] = iter(enumerate(texts))

    def call() -> None:
        index, text = next(order)
        results.append(decode(text.prompt, replace(decoding, seed=decoding.seed + index)))

    return call


def _per_token(seconds: Sequence[float], tokens: Sequence[int]) -> list[float]:
    return [value / max(count, 1) for value, count in zip(seconds, tokens, strict=True)]


def differences(
    target: PreTrainedModel, texts: Sequence[Text], drafted: Sequence[list[int]], length: int, decoding: Decoding
) -> list[Difference]:
    """Return where greedy texts with a draft differ from the target's own; sampled ones are not compared."""
    if decoding.temperature:
        return []
    found = []
    for index, (text, ids) in enumerate(zip(texts, drafted, strict=True)):
        difference = first_difference(target, text.prompt, text.continuation, ids)
        if difference is not None:
            found.append(Difference(index, length, *difference))
    return found
