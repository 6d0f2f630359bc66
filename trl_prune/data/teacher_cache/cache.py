"""A folder of what a teacher says about prepared rows, read at random while a student trains; no teacher is needed.

`cache.json` says what was written; `shard-*.safetensors` hold runs of sequences; `head.safetensors` the teacher's LM
head, where the tier reads it. Every sequence carries a checksum that is checked whenever it is read.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trl_prune.checkpoints import read_header
from trl_prune.data.teacher_cache.codecs import Arrays, Codec, Hidden, codec_of
from trl_prune.data.teacher_cache.sequences import tokenizer_fingerprint
from trl_prune.errors import InputError, first_line
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import SparseTarget, TeacherTarget


MARKER, HEAD = "cache.json", "head.safetensors"
FORMAT = 1
# What a shard holds beside its codec's arrays, one entry a sequence; the starts have one more.
KEYS, POSITION_STARTS, ENTRY_STARTS, CHECKSUMS = "keys", "position_starts", "entry_starts", "checksums"


@dataclass(frozen=True)
class CacheFacts:
    """What `cache.json` holds.

    Attributes:
        settings: the codec, as JSON.
        plan: a hash of sequences, codec, teacher and tokenizer; every shard carries it.
        teacher: the marks by which the teacher is known: its checkpoint's fingerprint and its loaded weights'.
        tokenizer: the tokenizer's fingerprint.
        vocab_size: rows of the teacher's head.
        num_hidden_layers: the teacher's blocks.
        sequences: how many.
        tokens: how many the teacher read.
        positions: how many are learned, and so stored.
        shards: how many.
        format: of the folder.
    """

    settings: dict
    plan: str
    teacher: list[str]
    tokenizer: str
    vocab_size: int
    num_hidden_layers: int
    sequences: int
    tokens: int
    positions: int
    shards: int
    format: int = FORMAT


def shard_path(folder: Path, number: int) -> Path:
    """Return where a shard lies."""
    return folder / f"shard-{number:06d}.safetensors"


def read_facts(folder: Path) -> CacheFacts:
    """Return what a cache says of itself.

    Raises:
        InputError: it is no cache, or of another format.
    """
    path = folder / MARKER
    if not path.is_file():
        raise InputError(f"{folder} is no teacher cache: it has no {MARKER}")
    try:
        facts = CacheFacts(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no {MARKER} of this version: {first_line(error)}") from error
    if facts.format != FORMAT:
        raise InputError(f"{path} is of format {facts.format}; this version reads {FORMAT}")
    return facts


def checksum(arrays: Arrays) -> int:
    """Return the CRC-32 of a sequence's arrays, in the order of their names."""
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(arrays[name].contiguous().view(torch.uint8).numpy(), value)
    return value


class TeacherCache:
    """A finished cache, opened for reading.

    Attributes:
        folder: where it lies.
        facts: what it says of itself.
        codec: how it was written.
    """

    def __init__(self, folder: Path, facts: CacheFacts):
        self.folder, self.facts = folder, facts
        self.codec: Codec = codec_of(facts.settings)
        self._shards = [Shard(shard_path(folder, number), self.codec) for number in range(facts.shards)]
        self._heads: dict[str, LMHead] = {}
        self._index()

    @classmethod
    def open(cls, folder: str | Path) -> "TeacherCache":
        """Open a cache.

        Raises:
            InputError: it is no cache, not finished, or a shard is truncated or of another cache.
        """
        folder = Path(folder).expanduser()
        facts = read_facts(folder)
        missing = missing_shards(folder, facts)
        if missing:
            raise InputError(
                f"the teacher cache {folder} is not finished: {len(missing)} of {facts.shards} shards are missing; "
                "write it again with the same words, which goes on where it stopped"
            )
        return cls(folder, facts)

    def _index(self) -> None:
        keys = [shard.open(self.facts.plan) for shard in self._shards]
        counts = torch.tensor([len(part) for part in keys])
        joined = torch.cat(keys) if keys else torch.empty((0, 2), dtype=torch.int64)
        self._first, order = joined[:, 0].sort(stable=True)
        self._second = joined[order, 1]
        shards = torch.repeat_interleave(torch.arange(len(keys)), counts)
        rows = torch.cat([torch.arange(len(part)) for part in keys]) if keys else order
        self._places = torch.stack([shards, rows], 1)[order]

    def __len__(self) -> int:
        return len(self._first)

    @property
    def tier(self) -> str:
        """How it was written: `sampled`, `topk` or `hidden`."""
        return self.codec.tier

    @property
    def head(self) -> LMHead | None:
        """The teacher's LM head, where the tier has it."""
        return self._head("cpu")

    def _head(self, device: str | torch.device) -> LMHead | None:
        if not isinstance(self.codec, Hidden):
            return None
        name = str(device)
        if name not in self._heads:
            self._heads[name] = read_head(self.folder, device)
        return self._heads[name]

    def check(
        self,
        temperature: float = 1.0,
        tokenizer: PreTrainedTokenizerBase | None = None,
        teacher: str | None = None,
    ) -> None:
        """Check that the cache says what a trainer wants to hear.

        Args:
            temperature: of the teacher's distribution.
            tokenizer: the student's.
            teacher: a mark of the teacher that is wanted, where one is.

        Raises:
            InputError: the tier was not written for the temperature, or tokenizer or teacher are others.
        """
        written = self.codec.temperature
        if written is not None and temperature != written:
            raise InputError(
                f"temperature is {temperature}, and the {self.tier} cache {self.folder} serves {written} only; "
                "write a `topk` cache at that temperature, or a `hidden` one, which serves any"
            )
        if tokenizer is not None and tokenizer_fingerprint(tokenizer) != self.facts.tokenizer:
            raise InputError(
                f"the teacher cache {self.folder} was written with another tokenizer than the student's; write it anew"
            )
        if teacher is not None and teacher not in self.facts.teacher:
            raise InputError(f"the teacher cache {self.folder} was written by another teacher; write it anew")

    def find(self, keys: Tensor) -> Tensor:
        """Return the index of each key, `(sequences,)`, -1 where the cache lacks it."""
        found = torch.searchsorted(self._first, keys[:, 0].contiguous()).clamp(max=max(len(self) - 1, 0))
        if not len(self):
            return torch.full_like(found, -1)
        hit = (self._first[found] == keys[:, 0]) & (self._second[found] == keys[:, 1])
        return torch.where(hit, found, -1)

    def check_rows(self, keys: Tensor) -> None:
        """Check that the cache holds every sequence of a dataset.

        Args:
            keys: `(sequences, 2)`, as `row_keys` gives them.

        Raises:
            InputError: some are missing.
        """
        missing = int((self.find(keys) < 0).sum())
        if missing:
            raise InputError(
                f"{missing} of {len(keys)} sequences are not in the teacher cache {self.folder}: dataset, chat "
                "template, tokenizer, max_length, packing or the loss's mask changed since it was written; write it "
                "anew with these"
            )

    def targets(self, keys: Tensor, device: str | torch.device = "cpu") -> TeacherTarget:
        """Return what the teacher says about the learned positions of sequences, one after the other.

        Args:
            keys: `(sequences, 2)` int64.
            device: where the tensors go.

        Raises:
            InputError: a sequence is missing or its bytes do not fit their checksum.
        """
        keys = keys.cpu()
        self.check_rows(keys)
        parts = [self._shards[shard].read(row) for shard, row in self._places[self.find(keys)].tolist()]
        arrays = {name: torch.cat([part[name] for part in parts]).to(device) for name in self._shards[0].names}
        target = self.codec.decode(arrays, self._head(device))
        return replace(target, vocabulary=self.facts.vocab_size) if isinstance(target, SparseTarget) else target


class Shard:
    """A run of sequences in one safetensors file, read by slices of its memory map."""

    def __init__(self, path: Path, codec: Codec):
        self.path, self.codec = path, codec

    def open(self, plan: str) -> Tensor:
        """Map the file, check whose it is, and return the keys of its sequences, `(sequences, 2)`."""
        read_header(self.path)
        self._file = safe_open(self.path, framework="pt")
        if (self._file.metadata() or {}).get("plan") != plan:
            raise InputError(f"the shard {self.path} is of another cache; write the cache anew")
        self.names = sorted(set(self._file.keys()) - {KEYS, POSITION_STARTS, ENTRY_STARTS, CHECKSUMS})
        self._starts = {
            name: self._file.get_tensor(ENTRY_STARTS if name in self.codec.ragged else POSITION_STARTS)
            for name in self.names
        }
        self._checksums = self._file.get_tensor(CHECKSUMS)
        return self._file.get_tensor(KEYS)

    def read(self, row: int) -> Arrays:
        """Return the arrays of one sequence.

        Raises:
            InputError: they do not fit their checksum.
        """
        arrays = {}
        for name in self.names:
            start, end = self._starts[name][row : row + 2].tolist()
            arrays[name] = self._file.get_slice(name)[start:end]
        if checksum(arrays) != int(self._checksums[row]):
            raise InputError(f"the shard {self.path} is corrupt: sequence {row} does not fit its checksum")
        return arrays


def missing_shards(folder: Path, facts: CacheFacts) -> Sequence[int]:
    """Return the numbers of the shards that are not there."""
    return [number for number in range(facts.shards) if not shard_path(folder, number).is_file()]


def read_head(folder: Path, device: str | torch.device) -> LMHead:
    """Return the LM head that a cache keeps."""
    told = load_file(folder / HEAD, device=str(device))
    softcap = told.get("softcap")
    return LMHead(told["weight"], told.get("bias"), float(told["scale"]), None if softcap is None else float(softcap))
