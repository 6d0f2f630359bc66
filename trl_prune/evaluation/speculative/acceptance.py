"""The exact expected acceptance of a draft's tokens on given texts: no sampling noise, and no generation."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.errors import InputError
from trl_prune.evaluation.speculative.prediction import Rounds, expected_rounds, total
from trl_prune.evaluation.speculative.texts import Text
from trl_prune.losses.lm_head import lm_head
from trl_prune.losses.overlap import HeadOverlap, overlap_heads
from trl_prune.losses.targets import HeadTarget


# Bounds of the positions in the output that are reported apart.
BUCKET_ENDS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class TextAcceptance:
    """The acceptance of a draft at each token of a continuation, all `(n,)`.

    Attributes:
        overlap: sum_v min(p_v, q_v): the probability that the draft's sample is accepted at this position.
        agrees: whether both models have the same likeliest token: whether greedy decoding accepts.
        given_token: min(1, q/p) of the token that the text has: the same probability, given that this token results.
        capability: the prompt's.
    """

    overlap: np.ndarray
    agrees: np.ndarray
    given_token: np.ndarray
    capability: str | None = None


@torch.inference_mode()
def text_acceptance(
    target: PreTrainedModel, draft: PreTrainedModel, texts: Iterable[Text], temperature: float = 1.0
) -> list[TextAcceptance]:
    """Return the acceptance at every token of every continuation, each text read once by both models.

    Args:
        target: the model that decodes, in eval mode.
        draft: the draft, in eval mode, on the same device; the ids of both mean the same.
        texts: the texts; only the tokens of continuations are judged.
        temperature: divides the logits of both models, above 0; agreement does not depend on it.

    Raises:
        InputError: a model's logits are not finite.
    """
    return [_text_acceptance(target, draft, text, temperature) for text in texts]


def _text_acceptance(
    target: PreTrainedModel, draft: PreTrainedModel, text: Text, temperature: float
) -> TextAcceptance:
    ids = torch.tensor([text.prompt + text.continuation], device=target.device)
    first = len(text.prompt)
    sides = [HeadTarget(_states(model, ids, first), lm_head(model)) for model in (target, draft)]
    found = overlap_heads(*sides, ids[0, first:], temperature)
    check_finite(found)
    given_token = (found.draft_log_probs - found.log_probs).exp().clamp(max=1)
    arrays = (part.cpu().numpy() for part in (found.overlap.double(), found.agrees, given_token.double()))
    return TextAcceptance(*arrays, text.capability)


def _states(model: PreTrainedModel, ids: Tensor, first: int) -> Tensor:
    """Return the final states before each token from the `first` on, `(n, hidden_size)`."""
    return model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0, first - 1 : -1]


def check_finite(overlap: HeadOverlap) -> None:
    """Check that both models' logits are numbers.

    Raises:
        InputError: they are not; the sentence names the model.
    """
    for name, values in (("target", overlap.log_probs), ("draft", overlap.draft_log_probs)):
        if values.isnan().any() or (name == "target" and not values.isfinite().all()):
            raise InputError(f"the {name} model's logits are not finite: broken weights, or a dtype that overflows")


def sampled_rate(text: TextAcceptance) -> np.ndarray:
    """Return the acceptance of sampling at each token."""
    return text.overlap


def greedy_rate(text: TextAcceptance) -> np.ndarray:
    """Return the acceptance of greedy decoding at each token, 0 or 1."""
    return text.agrees.astype(float)


def mean_rate(texts: Sequence[TextAcceptance], rate: Callable[[TextAcceptance], np.ndarray]) -> float | None:
    """Return the mean acceptance over all tokens; None without any."""
    values = np.concatenate([rate(text) for text in texts]) if texts else np.zeros(0)
    return float(values.mean()) if len(values) else None


def by_capability(
    texts: Sequence[TextAcceptance], rate: Callable[[TextAcceptance], np.ndarray]
) -> dict[str, dict[str, float]]:
    """Return `{texts, tokens, alpha}` of each capability; empty where prompts name none."""
    names = dict.fromkeys(text.capability for text in texts if text.capability is not None)
    groups = {name: [text for text in texts if text.capability == name] for name in names}
    return {
        name: {"texts": len(group), "tokens": sum(len(rate(text)) for text in group), "alpha": mean_rate(group, rate)}
        for name, group in groups.items()
    }


def by_output_position(
    texts: Sequence[TextAcceptance], rate: Callable[[TextAcceptance], np.ndarray]
) -> list[dict[str, float]]:
    """Return `{start, end, tokens, alpha}` of consecutive ranges of tokens in the continuations."""
    starts = (0, *BUCKET_ENDS[:-1])
    found = []
    for start, end in zip(starts, BUCKET_ENDS, strict=True):
        values = np.concatenate([rate(text)[start:end] for text in texts]) if texts else np.zeros(0)
        if len(values):
            last = min(end, max(len(rate(text)) for text in texts))
            found.append({"start": start, "end": last, "tokens": len(values), "alpha": float(values.mean())})
    return found


def rounds_of_texts(texts: Sequence[TextAcceptance], draft_length: int, is_greedy: bool) -> Rounds:
    """Return what decoding these texts with a draft is expected to take, along each text.

    Args:
        texts: the acceptances on continuations by the target: greedy ones, or sampled ones.
        draft_length: tokens that the draft proposes in a round.
        is_greedy: whether greedy decoding is meant, else sampling.
    """
    rates = (greedy_rate(text) if is_greedy else text.given_token for text in texts)
    return total(expected_rounds(rate, draft_length) for rate in rates)
