"""Run the teacher over prepared sequences and encode its predictions."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.checkpoints import atomic_file, weights_fingerprint, write_json
from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.cache import HEAD, MARKER, CacheFacts
from trl_prune.data.teacher_cache.codecs import Arrays, Codec, Hidden, settings_of
from trl_prune.data.teacher_cache.sequences import PreparedRow, SequencePlace, shifts_of, tokenizer_fingerprint
from trl_prune.errors import InputError
from trl_prune.losses.lm_head import LMHead, lm_head
from trl_prune.losses.positions import MASKED


# Tokens of a shard: what a kill loses at most, for each process.
SHARD_TOKENS = 1 << 16


# Tokens on which the head is held against the model's own logits.
PROBE_TOKENS = 16


# How far what is computed anew may be off: rounding of other arithmetic stays far below, another teacher or a shift by
# one far above.
TOLERANCE = 0.1


@dataclass(frozen=True)
class CacheSpec:
    """What is to be written.

    Attributes:
        rows: prepared rows: `input_ids`, `labels` and, where packed, `seq_lengths`.
        teacher: the model, loaded only if a shard is missing.
        codec: how its words are written down.
        batch_size: sequences a forward pass; decides speed, not content.
        vocab_size: ids of the student, where the teacher's head has more (padding); its mass on others is left out.
        shard_tokens: tokens of a shard.
    """

    rows: Sequence[PreparedRow]
    teacher: LazyTeacher
    codec: Codec
    batch_size: int = 16
    vocab_size: int | None = None
    shard_tokens: int = SHARD_TOKENS


class TeacherEncoder:
    """A loaded teacher that answers for sequences."""

    def __init__(self, work: CacheSpec):
        self.work = work
        self.model = work.teacher.load().eval()
        whole = lm_head(self.model)
        check_head(self.model, whole, work.rows[0]["input_ids"][:PROBE_TOKENS])
        self.head = whole.first(work.vocab_size)

    def write_index(self, folder: Path, shards: list[list[SequencePlace]], plan: str) -> None:
        """Write `cache.json`, and the head where the tier needs it."""
        if isinstance(self.work.codec, Hidden):
            write_head(folder / HEAD, self.head)
        places = [place for shard in shards for place in shard]
        facts = CacheFacts(
            settings=settings_of(self.work.codec),
            plan=plan,
            teacher=[self.work.teacher.fingerprint, weights_fingerprint(self.model)],
            tokenizer=tokenizer_fingerprint(self.work.teacher.tokenizer),
            vocab_size=len(self.head.weight),
            num_hidden_layers=self.model.config.get_text_config().num_hidden_layers,
            sequences=len(places),
            tokens=sum(place.tokens for place in places),
            positions=sum(place.positions for place in places),
            shards=len(shards),
        )
        write_json(folder / MARKER, asdict(facts))

    def encode_shard(self, places: list[SequencePlace]) -> tuple[list[SequencePlace], list[Arrays]]:
        """Return the arrays of each sequence, sequences of like length having been read together."""
        order = sorted(range(len(places)), key=lambda index: (-places[index].tokens, index))
        arrays: dict[int, Arrays] = {}
        for start in range(0, len(order), self.work.batch_size):
            batch = order[start : start + self.work.batch_size]
            arrays |= zip(batch, self.encode([places[index] for index in batch]), strict=True)
        return places, [arrays[index] for index in range(len(places))]

    @torch.inference_mode()
    def encode(self, places: list[SequencePlace]) -> Iterator[Arrays]:
        """Yield the arrays of sequences that are read together."""
        rows = [self._tokens(place) for place in places]
        states = final_states(self.model, rows)
        check_finite(states, places)
        shifts = torch.cat([shifts_of(place.key, place.positions, self.work.codec.seed) for place in places])
        arrays = self.work.codec.encode(states, self.head, shifts)
        yield from split_by_sequence(arrays, [place.positions for place in places], self.work.codec)

    def _tokens(self, place: SequencePlace) -> tuple[Tensor, Tensor]:
        row = self.work.rows[place.row]
        part = slice(place.start, place.start + place.tokens)
        return torch.tensor(row["input_ids"][part]), torch.tensor(row["labels"][part])


def final_states(model: PreTrainedModel, rows: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the states from which the learned tokens are predicted, `(positions, hidden_size)`, row after row.

    Args:
        model: a causal LM; its backbone alone is called.
        rows: input ids and labels of sequences, padded here on the right, where no token sees it.
    """
    ids, labels = (torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in zip(*rows, strict=True))
    lengths = torch.tensor([len(row) for row, _ in rows])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    learned = (labels != MASKED) & mask
    out = model.base_model(
        input_ids=ids.to(model.device), attention_mask=mask.long().to(model.device), use_cache=False
    )
    states = out.last_hidden_state[:, :-1]
    return states[learned[:, 1:].to(states.device)].to(model.get_output_embeddings().weight.device)


def check_finite(states: Tensor, places: list[SequencePlace]) -> None:
    """Check that a teacher's states are numbers.

    Raises:
        InputError: some are not; the rows are named.
    """
    if torch.isfinite(states).all():
        return
    parts = states.split([place.positions for place in places])
    rows = sorted({place.row for place, part in zip(places, parts, strict=True) if not torch.isfinite(part).all()})
    raise InputError(f"the teacher's states are not finite on prepared rows {', '.join(map(str, rows))}")


def split_by_sequence(arrays: Arrays, positions: list[int], codec: Codec) -> Iterator[Arrays]:
    """Yield each sequence's part of arrays that were encoded together."""
    sizes = dict.fromkeys(arrays, positions)
    if codec.ragged:
        entries = [int(part.sum()) for part in arrays["lengths"].long().split(positions)]
        sizes |= dict.fromkeys(codec.ragged, entries)
    parts = {name: array.split(sizes[name]) for name, array in arrays.items()}
    for index in range(len(positions)):
        yield {name: part[index] for name, part in parts.items()}


def save_tensors(tensors: dict[str, Tensor], path: Path, plan: str) -> None:
    with atomic_file(path) as part:
        save_file(tensors, part, metadata={"plan": plan})
        part.chmod(0o644)  # safetensors writes files that only their owner can read
        with part.open("rb") as stream:
            os.fsync(stream.fileno())


def write_head(path: Path, head: LMHead) -> None:
    """Write an LM head."""
    told = {"weight": head.weight, "bias": head.bias, "scale": torch.tensor(head.scale, dtype=torch.float64)}
    told["softcap"] = None if head.softcap is None else torch.tensor(head.softcap, dtype=torch.float64)
    save_tensors(
        {name: value.detach().cpu().contiguous() for name, value in told.items() if value is not None}, path, ""
    )


@torch.inference_mode()
def check_head(model: PreTrainedModel, head: LMHead, tokens: Sequence[int]) -> None:
    """Check that the head's logits are the model's.

    Raises:
        InputError: the model makes its logits in another way.
    """
    ids = torch.tensor([list(tokens)], device=model.device)
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    mine = head.logits(states.to(head.weight.device))
    own = model(input_ids=ids, use_cache=False).logits.to(mine)
    if not torch.isfinite(own).all():
        raise InputError(f"the teacher's logits are not finite on the first row ({model.config.model_type})")
    if (mine - own).norm() > TOLERANCE * own.norm():
        raise InputError(
            f"the logits of model type {model.config.model_type!r} are not its LM head's on its final states, so its "
            "words cannot be cached"
        )
