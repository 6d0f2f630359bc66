"""Run the teacher over prepared sequences and encode its predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.codecs import Arrays, Codec
from trl_prune.data.teacher_cache.sequences import PreparedRow, SequenceSpan, random_shifts
from trl_prune.errors import InputError
from trl_prune.losses.lm_head import LMHead, lm_head
from trl_prune.losses.positions import MASKED


# Tokens per shard: an interrupted process loses at most one shard.
SHARD_TOKENS = 1 << 16


# Tokens on which the head's logits are compared with the model's.
PROBE_TOKENS = 16


# Maximum relative difference between recomputed values: rounding of another implementation is far smaller, another
# teacher or a shift by one position far larger.
TOLERANCE = 0.1


@dataclass(frozen=True)
class CacheSpec:
    """What to write to a cache.

    Attributes:
        rows: prepared rows: `input_ids`, `labels` and, if packed, `seq_lengths`.
        teacher: the model, loaded only if a shard is missing.
        codec: encodes its predictions.
        batch_size: sequences per forward pass; affects speed, not content.
        vocab_size: the student's, if smaller than the teacher's (whose head is padded); the mass on the ids beyond is
            left out.
        shard_tokens: tokens per shard.
    """

    rows: Sequence[PreparedRow]
    teacher: LazyTeacher
    codec: Codec
    batch_size: int = 16
    vocab_size: int | None = None
    shard_tokens: int = SHARD_TOKENS


class TeacherEncoder:
    """A loaded teacher that encodes its predictions for sequences.

    Attributes:
        spec: rows, teacher and codec.
        model: the teacher, in eval mode.
        head: its LM head, truncated to `spec.vocab_size` ids.
    """

    def __init__(self, spec: CacheSpec):
        self.spec = spec
        self.model = spec.teacher.load().eval()
        full_head = lm_head(self.model)
        check_head(self.model, full_head, spec.rows[0]["input_ids"][:PROBE_TOKENS])
        self.head = full_head.truncated(spec.vocab_size)

    def encode_shard(self, spans: list[SequenceSpan]) -> list[Arrays]:
        """Return the arrays of each sequence of a shard; sequences of similar length share a batch."""
        order = sorted(range(len(spans)), key=lambda index: (-spans[index].num_tokens, index))
        arrays: dict[int, Arrays] = {}
        for start in range(0, len(order), self.spec.batch_size):
            batch = order[start : start + self.spec.batch_size]
            arrays |= zip(batch, self.encode_batch([spans[index] for index in batch]), strict=True)
        return [arrays[index] for index in range(len(spans))]

    @torch.inference_mode()
    def encode_batch(self, spans: list[SequenceSpan]) -> Iterator[Arrays]:
        """Yield the arrays of each sequence of a batch, from one forward pass."""
        states = final_states(self.model, [self._tokens_and_labels(span) for span in spans])
        check_finite(states, spans)
        shifts = torch.cat([random_shifts(span.key, span.num_positions, self.spec.codec.seed) for span in spans])
        arrays = self.spec.codec.encode(states, self.head, shifts)
        yield from split_by_sequence(arrays, [span.num_positions for span in spans], self.spec.codec)

    def _tokens_and_labels(self, span: SequenceSpan) -> tuple[Tensor, Tensor]:
        row = self.spec.rows[span.row]
        part = slice(span.start, span.start + span.num_tokens)
        return torch.tensor(row["input_ids"][part]), torch.tensor(row["labels"][part])


def final_states(model: PreTrainedModel, sequences: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the states that predict the learned tokens, `(positions, hidden_size)`, sequence after sequence.

    Args:
        model: a causal LM; only its backbone is called.
        sequences: input ids and labels; padded on the right, where causal attention does not see the padding.
    """
    ids, labels = (torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in zip(*sequences, strict=True))
    lengths = torch.tensor([len(sequence_ids) for sequence_ids, _ in sequences])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    learned = (labels != MASKED) & mask
    output = model.base_model(
        input_ids=ids.to(model.device), attention_mask=mask.long().to(model.device), use_cache=False
    )
    states = output.last_hidden_state[:, :-1]
    return states[learned[:, 1:].to(states.device)].to(model.get_output_embeddings().weight.device)


def check_finite(states: Tensor, spans: list[SequenceSpan]) -> None:
    """Check that a teacher's states are finite.

    Raises:
        InputError: some are not; the message lists their rows.
    """
    if torch.isfinite(states).all():
        return
    by_sequence = states.split([span.num_positions for span in spans])
    rows = sorted({span.row for span, part in zip(spans, by_sequence, strict=True) if not torch.isfinite(part).all()})
    raise InputError(f"the teacher's states are not finite on prepared rows {', '.join(map(str, rows))}")


def split_by_sequence(arrays: Arrays, num_positions: list[int], codec: Codec) -> Iterator[Arrays]:
    """Split the arrays of a batch into those of each sequence.

    Args:
        arrays: as encoded, with one entry per position, or `lengths[position]` entries for ragged ones.
        num_positions: the learned positions of each sequence.
        codec: the codec that encoded them.
    """
    sizes = dict.fromkeys(arrays, num_positions)
    if codec.ragged:
        num_entries = [int(lengths.sum()) for lengths in arrays["lengths"].long().split(num_positions)]
        sizes |= dict.fromkeys(codec.ragged, num_entries)
    parts = {name: array.split(sizes[name]) for name, array in arrays.items()}
    for index in range(len(num_positions)):
        yield {name: part[index] for name, part in parts.items()}


@torch.inference_mode()
def check_head(model: PreTrainedModel, head: LMHead, tokens: Sequence[int]) -> None:
    """Check that the head applied to the model's final states gives the model's logits.

    Raises:
        InputError: the model computes its logits in another way, or they are not finite.
    """
    ids = torch.tensor([list(tokens)], device=model.device)
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    head_logits = head.logits(states.to(head.weight.device))
    model_logits = model(input_ids=ids, use_cache=False).logits.to(head_logits)
    if not torch.isfinite(model_logits).all():
        raise InputError(f"the teacher's logits are not finite on the first row ({model.config.model_type})")
    if (head_logits - model_logits).norm() > TOLERANCE * model_logits.norm():
        raise InputError(
            f"the logits of model type {model.config.model_type!r} are not its LM head applied to its final states, "
            "so its predictions cannot be cached"
        )
