"""Judge a draft: what the target accepts of it, what its steps cost, and how much faster decoding is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from trl_prune.evaluation.speculative import acceptance
from trl_prune.evaluation.speculative.acceptance import TextAcceptance, rounds_of_texts, text_acceptance
from trl_prune.evaluation.speculative.costs import StepCosts, depth_cost, measure_costs, medians
from trl_prune.evaluation.speculative.drafting import (
    Decoding,
    Difference,
    generate_drafted,
    generate_plain,
    have_equal_embeddings,
)
from trl_prune.evaluation.speculative.generation import MeasuredDrafting, differences, measure_drafting
from trl_prune.evaluation.speculative.prediction import DepthCost, Rounds, best, expected_tokens, speed_up
from trl_prune.evaluation.speculative.texts import GREEDY, REFERENCE, SAMPLED, SpeculativePrompt, Text


@dataclass(frozen=True)
class SpeculativeSettings:
    """How drafts are judged.

    Attributes:
        draft_lengths: numbers of tokens that the draft proposes in a round.
        batch_sizes: numbers of texts decoded together, for costs and predictions, beside 1; transformers' assisted
            generation, which is timed, decodes one text at a time.
        max_new_tokens: the most tokens of a continuation.
        sampled: whether sampling is judged beside greedy decoding.
        temperature: of sampling.
        timed_prompts: how many prompts are decoded with each draft length, and timed.
        end_ids: the ids that end a continuation.
        seed: of sampling.
    """

    draft_lengths: tuple[int, ...] = (1, 2, 3, 4, 5, 8, 10)
    batch_sizes: tuple[int, ...] = (1, 4, 8)
    max_new_tokens: int = 128
    sampled: bool = True
    temperature: float = 1.0
    timed_prompts: int = 8
    end_ids: tuple[int, ...] = ()
    seed: int = 0

    def decoding(self, kind: str) -> Decoding:
        """Return how texts of a kind are decoded."""
        temperature = self.temperature if kind == SAMPLED else 0.0
        return Decoding(self.max_new_tokens, self.end_ids, temperature, self.seed)


@dataclass(frozen=True)
class ExpectedAcceptance:
    """The exact expected acceptance over texts of one kind.

    Attributes:
        texts: number of texts.
        tokens: number of judged tokens.
        alpha: mean acceptance of decoding of this kind: the agreement for greedy texts, else the overlap.
        overlap: mean of sum_v min(p_v, q_v).
        agreement: share of tokens at which both models have the same likeliest one.
        by_capability: `{texts, tokens, alpha}` by capability.
        by_output_position: `{start, end, tokens, alpha}` of ranges of the output.
        rounds: what decoding these texts is expected to take, by draft length; empty for given answers, which the
            target would not write.
    """

    texts: int
    tokens: int
    alpha: float
    overlap: float
    agreement: float
    by_capability: dict[str, dict[str, float]]
    by_output_position: list[dict[str, float]]
    rounds: dict[int, Rounds]


@dataclass(frozen=True)
class Prediction:
    """Predicted speed-ups at one batch size, by draft length.

    Attributes:
        formula: the paper's: one acceptance for all tokens, and verifying as cheap as a step.
        expected: from the acceptance along the texts and the measured cost of verifying.
        bound: of a draft whose every token is accepted, at the measured costs.
    """

    formula: dict[int, float]
    expected: dict[int, float]
    bound: dict[int, float]

    @property
    def best(self) -> int:
        """The draft length with the largest expected speed-up."""
        return best(self.expected)


@dataclass(frozen=True)
class Speculation:
    """A model as another one's draft.

    Attributes:
        expected: the expected acceptance by kind of text: `greedy`, `sampled` by the target, and `reference`, given
            answers.
        measured: what decoding took, one text at a time, by kind; empty where the embeddings of both models have
            different sizes, because transformers then refuses the draft.
        costs: costs of steps, one entry for each batch size, of which one is 1.
        compared: how many greedy texts with the draft were compared with the target's own.
        differences: where they differed.
        target_depth: what the target's blocks and head weigh.
        parameters: the target's and the draft's number of parameters.
        dtype: the target's, as `float32`.
    """

    expected: dict[str, ExpectedAcceptance]
    measured: dict[str, MeasuredDrafting]
    costs: list[StepCosts]
    compared: int
    differences: list[Difference]
    target_depth: DepthCost
    parameters: tuple[int, int]
    dtype: str

    @property
    def one_text(self) -> StepCosts:
        """The costs of decoding one text at a time, which is what is timed."""
        return next(costs for costs in self.costs if costs.batch_size == 1)

    @property
    def decoded(self) -> list[str]:
        """The kinds of text that the target writes: `greedy`, and `sampled` where that was asked for."""
        return [kind for kind, expected in self.expected.items() if expected.rounds]

    def prediction(self, kind: str, costs: StepCosts) -> Prediction:
        """Return the predicted speed-ups for texts of a kind, `greedy` or `sampled`, at the costs of a batch size."""
        return predict(self.expected[kind], costs)


def predict(expected: ExpectedAcceptance, costs: StepCosts) -> Prediction:
    """Return the speed-ups that acceptance and costs predict."""
    ratio, verification = costs.cost_ratio.value, medians(costs.verification)
    lengths = expected.rounds
    return Prediction(
        {g: speed_up(expected_tokens(expected.alpha, g), g, ratio) for g in lengths},
        {g: speed_up(rounds.tokens_per_call, g, ratio, verification[g]) for g, rounds in lengths.items()},
        {g: speed_up(g + 1, g, ratio, verification[g]) for g in lengths},
    )


def continue_prompts(
    target: PreTrainedModel,
    prompts: Sequence[SpeculativePrompt],
    settings: SpeculativeSettings,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[Text]]:
    """Return the texts that drafts are judged on, by kind: the target's own continuations, and given answers.

    `progress` is called after each continuation.
    """
    kinds = [GREEDY, *([SAMPLED] if settings.sampled else [])]
    texts = {kind: [] for kind in kinds}
    for kind in kinds:
        for index, prompt in enumerate(prompts):
            decoding = settings.decoding(kind)
            ids = generate_plain(target, prompt.ids, replace(decoding, seed=settings.seed + index))
            texts[kind].append(Text(prompt.ids, ids, prompt.capability))
            progress()
    given = [Text(prompt.ids, prompt.reference, prompt.capability) for prompt in prompts if prompt.reference]
    return texts | ({REFERENCE: given} if given else {})


def measure_speculation(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    texts: dict[str, list[Text]],
    settings: SpeculativeSettings,
    progress: Callable[[], object] = lambda: None,
) -> Speculation:
    """Judge a draft on texts.

    Args:
        target: the model that decodes, in eval mode.
        draft: the draft, in eval mode, on the same device, with the target's ids.
        texts: `continue_prompts` of the target with the same settings.
        settings: how drafts are judged.
        progress: called after each text that is decoded and timed, with each draft length and without.

    Raises:
        InputError: a model's logits are not finite, or both models are one object.
    """
    expected = {kind: expect(target, draft, kind, found, settings) for kind, found in texts.items()}
    greedy = texts[GREEDY]
    context = sum(len(text.prompt) + len(text.continuation) // 2 for text in greedy) // len(greedy)
    batches = sorted({1, *settings.batch_sizes})  # one text at a time is what is timed
    costs = [measure_costs(target, draft, settings.draft_lengths, size, context) for size in batches]
    sizes = tuple(sum(weight.numel() for weight in model.parameters()) for model in (target, draft))
    dtype = str(target.dtype).removeprefix("torch.")
    judged = Speculation(expected, {}, costs, 0, [], depth_cost(target), sizes, dtype)
    if not have_equal_embeddings(target, draft):
        return judged
    kinds = [kind for kind in texts if kind != REFERENCE]
    measured = {
        kind: _decode(target, draft, texts[kind], settings.decoding(kind), settings, progress) for kind in kinds
    }
    rest = differences_of_the_rest(target, draft, greedy, judged.prediction(GREEDY, judged.one_text).best, settings)
    found = [*measured[GREEDY].differences, *rest]
    return replace(judged, measured=measured, compared=len(greedy), differences=found)


def _decode(  # noqa: PLR0913
    target: PreTrainedModel,
    draft: PreTrainedModel,
    texts: Sequence[Text],
    decoding: Decoding,
    settings: SpeculativeSettings,
    progress: Callable[[], object],
) -> MeasuredDrafting:
    timed = texts[: settings.timed_prompts]
    return measure_drafting(target, draft, timed, settings.draft_lengths, decoding, progress)


def differences_of_the_rest(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    greedy: Sequence[Text],
    length: int,
    settings: SpeculativeSettings,
) -> list[Difference]:
    """Decode the prompts that were not timed with one draft length, and return where greedy texts differ."""
    done, decoding = settings.timed_prompts, settings.decoding(GREEDY)
    rest = greedy[done:]
    drafted = [generate_drafted(target, draft, text.prompt, decoding, length).ids for text in rest]
    found = differences(target, rest, drafted, length, decoding)
    return [replace(one, prompt=one.prompt + done) for one in found]


def expect(
    target: PreTrainedModel, draft: PreTrainedModel, kind: str, texts: Sequence[Text], settings: SpeculativeSettings
) -> ExpectedAcceptance:
    """Return the expected acceptance of a draft on texts of a kind."""
    found = text_acceptance(target, draft, texts, settings.temperature)
    rate = acceptance.greedy_rate if kind == GREEDY else acceptance.sampled_rate
    return ExpectedAcceptance(
        len(found),
        sum(len(text.overlap) for text in found),
        acceptance.mean_rate(found, rate),
        acceptance.mean_rate(found, acceptance.sampled_rate),
        acceptance.mean_rate(found, acceptance.greedy_rate),
        acceptance.by_capability(found, rate),
        acceptance.by_output_position(found, rate),
        _rounds(kind, found, settings.draft_lengths),
    )


def _rounds(kind: str, texts: Sequence[TextAcceptance], draft_lengths: Sequence[int]) -> dict[int, Rounds]:
    if kind == REFERENCE:
        return {}
    return {length: rounds_of_texts(texts, length, kind == GREEDY) for length in draft_lengths}
