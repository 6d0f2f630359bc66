"""Whether a draft pays, said in sentences, and what would."""

from collections.abc import Mapping, Sequence

from trl_prune.evaluation.speculative.costs import medians
from trl_prune.evaluation.speculative.drafting import Difference
from trl_prune.evaluation.speculative.measurement import Speculation
from trl_prune.evaluation.speculative.prediction import DepthCost, best, deepest_draft, expected_tokens, speed_up
from trl_prune.evaluation.speculative.texts import GREEDY
from trl_prune.evaluation.timing import Interval


# The speed-up for which a draft is worth a second model in memory.
WORTHWHILE = 1.2
# The acceptance of a well trained draft, assumed to say which depth would pay with one.
ASSUMED_ACCEPTANCE = 0.8
# The largest gap of two logits, by dtype, that the order of additions may turn: some roundings of logits of 10 to 30.
TIE_GAPS = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}


def warnings(speculation: Speculation) -> list[str]:
    """Return what the user should know before using a draft, in sentences."""
    return [*_size(speculation), *_embedding(speculation), *_texts(speculation), *_pays(speculation)]


def _size(speculation: Speculation) -> list[str]:
    target, draft = speculation.parameters
    if draft < target:
        return []
    return [f"The draft has {draft:,} parameters and the target {target:,}: a draft that is not smaller cannot pay."]


def _embedding(speculation: Speculation) -> list[str]:
    if speculation.measured:
        return []
    return [
        "The embeddings of target and draft are padded to different sizes, with which transformers refuses to decode: "
        "acceptance, costs and predictions are given, and nothing was timed."
    ]


def _texts(speculation: Speculation) -> list[str]:
    tie = TIE_GAPS.get(speculation.dtype, TIE_GAPS["float32"])
    found = speculation.differences
    ties = [one for one in found if one.logit_gap is not None and abs(one.logit_gap) <= tie]
    others = [one for one in found if one not in ties]
    sentences = []
    if ties:
        largest = max(abs(one.logit_gap) for one in ties)
        sentences.append(
            f"{_differs(speculation, ties)}, by at most {largest:.2g} between the logits of the two tokens: tokens "
            "verified together are added up in another order, which decides near ties."
        )
    if others:
        gaps = [abs(one.logit_gap) for one in others if one.logit_gap is not None]
        largest = f", by up to {max(gaps):.2g} between the logits of the two tokens" if gaps else ""
        sentences.append(
            f"{_differs(speculation, others)}{largest}: this is no tie (up to {tie:g} in {speculation.dtype}), the "
            "draft changed the text."
        )
    return sentences


def _differs(speculation: Speculation, differences: Sequence[Difference]) -> str:
    count = len({one.prompt for one in differences})
    return f"Greedy text with the draft differs from the target's own on {count} of {speculation.compared} prompts"


def pays(speculation: Speculation, kind: str) -> bool | None:
    """Return whether the best draft length decodes texts of a kind faster than no draft does.

    That is what the whole interval of the fastest length says, and the best prediction where nothing could be timed.
    None where texts were timed too seldom for an interval.
    """
    if kind not in speculation.measured:
        prediction = speculation.prediction(kind, speculation.one_text)
        return prediction.expected[prediction.best] > 1
    speed = _fastest(speculation, kind)[1]
    return speed.low > 1 if speed.is_known else None


def _fastest(speculation: Speculation, kind: str) -> tuple[int, Interval]:
    measured = speculation.measured[kind].speed_up
    length = best({g: speed.value for g, speed in measured.items()})
    return length, measured[length]


def _pays(speculation: Speculation) -> list[str]:
    verdicts = {kind: pays(speculation, kind) for kind in speculation.decoded}
    unknown = [
        f"Whether {kind} decoding gains is unknown: the best draft length, {length}, was measured at {speed}."
        for kind in verdicts
        if verdicts[kind] is None
        for length, speed in [_fastest(speculation, kind)]
    ]
    losing = [_no_gain(speculation, kind) for kind, verdict in verdicts.items() if verdict is False]
    return [*unknown, *losing, *([f"{_bound(speculation)} {depth_advice(speculation)}"] if losing else [])]


def _no_gain(speculation: Speculation, kind: str) -> str:
    if kind in speculation.measured:
        length, speed = _fastest(speculation, kind)
        return f"No draft length pays for {kind} decoding: the best, {length}, was measured at {speed}."
    prediction = speculation.prediction(kind, speculation.one_text)
    gain = prediction.expected[prediction.best]
    return f"No draft length pays for {kind} decoding: the best, {prediction.best}, is predicted to give {gain:.2f}x."


def _bound(speculation: Speculation) -> str:
    ratio = speculation.one_text.cost_ratio.value
    bound = max(speculation.prediction(GREEDY, speculation.one_text).bound.values())
    # A draft that is as slow as the target gains less with every token: 1/c is no bound of it.
    limit = f", and less than {1 / ratio:.2f}x with any" if ratio < 1 else ""
    return (
        f"A step of the draft costs {ratio:.2f} of the target's, so that even a draft whose every token is accepted "
        f"gives at most {bound:.2f}x with these draft lengths{limit}."
    )


def depth_advice(speculation: Speculation) -> str:
    """Return a sentence on how many blocks a draft may have to give a worthwhile speed-up."""
    measured = speculation.expected[GREEDY].alpha
    verification = medians(speculation.one_text.verification)
    free = dict.fromkeys(verification, 1.0)
    depths = [
        _depth(speculation.target_depth, acceptance, cost)
        for cost in (verification, free)
        for acceptance in (measured, ASSUMED_ACCEPTANCE)
    ]
    return (
        f"Depths that give {WORTHWHILE}x, by the weights that a step reads: at the measured acceptance of "
        f"{measured:.2f} {depths[0]}, at an assumed {ASSUMED_ACCEPTANCE} {depths[1]}; and if judging several tokens "
        f"cost no more than a step, as on a GPU with few texts, {depths[2]} and {depths[3]}. A draft of fewer blocks "
        "reaches the same acceptance only by training."
    )


def _depth(depth: DepthCost, acceptance: float, verification: Mapping[int, float]) -> str:
    blocks = deepest_draft(acceptance, depth, verification, WORTHWHILE)
    if blocks is None:
        return "none"
    ratio = depth.ratio(blocks)
    length = best({g: speed_up(expected_tokens(acceptance, g), g, ratio, cost) for g, cost in verification.items()})
    return f"up to {blocks} of {depth.blocks} blocks (cost {ratio:.2f}, {length} proposed tokens)"
