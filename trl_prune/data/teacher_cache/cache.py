"""A folder with a teacher's predictions for prepared rows, read at random while a student trains without the teacher.

`cache.json` holds the metadata, `shard-*.safetensors` the encoded predictions of consecutive sequences, and
`head.safetensors` the teacher's LM head, for the tier that uses it. Every sequence has a checksum, which is verified
at each read.
"""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trl_prune.data.teacher_cache.codecs import Codec, Hidden, codec_from_settings
from trl_prune.data.teacher_cache.metadata import CacheMetadata, read_metadata
from trl_prune.data.teacher_cache.sequences import tokenizer_fingerprint
from trl_prune.data.teacher_cache.shards import Shard, missing_shards, shard_path
from trl_prune.errors import InputError
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import SparseTarget, TeacherTarget


HEAD_FILE = "head.safetensors"


class TeacherCache:
    """A complete cache, opened for reading; `len` is its number of sequences.

    Attributes:
        folder: the cache's folder.
        metadata: the content of `cache.json`.
        codec: the codec that it was written with.
    """

    def __init__(self, folder: Path, metadata: CacheMetadata):
        self.folder, self.metadata = folder, metadata
        self.codec: Codec = codec_from_settings(metadata.settings)
        self._shards = [Shard(shard_path(folder, index), self.codec) for index in range(metadata.shards)]
        self._heads: dict[str, LMHead] = {}
        self._build_index()

    @classmethod
    def open(cls, folder: str | Path) -> "TeacherCache":
        """Open a cache.

        Raises:
            InputError: the folder is not a cache, the cache is incomplete, or a shard is truncated or belongs to
                another cache.
        """
        folder = Path(folder).expanduser()
        metadata = read_metadata(folder)
        missing = missing_shards(folder, metadata.shards)
        if missing:
            raise InputError(
                f"the teacher cache {folder} is incomplete: {len(missing)} of {metadata.shards} shards are missing; "
                "write it again with the same arguments, which resumes where it stopped"
            )
        return cls(folder, metadata)

    def _build_index(self) -> None:
        """Sort the keys of all shards by their first half, with the shard and row of each."""
        keys_by_shard = [shard.open(self.metadata.plan) for shard in self._shards]
        counts = torch.tensor([len(keys) for keys in keys_by_shard])
        keys = torch.cat(keys_by_shard) if keys_by_shard else torch.empty((0, 2), dtype=torch.int64)
        self._first_halves, order = keys[:, 0].sort(stable=True)
        self._second_halves = keys[order, 1]
        shards = torch.repeat_interleave(torch.arange(len(keys_by_shard)), counts)
        rows = torch.cat([torch.arange(len(keys)) for keys in keys_by_shard]) if keys_by_shard else order
        self._locations = torch.stack([shards, rows], 1)[order]

    def __len__(self) -> int:
        return len(self._first_halves)

    @property
    def tier(self) -> str:
        """The codec's tier: `sampled`, `topk` or `hidden`."""
        return self.codec.tier

    @property
    def head(self) -> LMHead | None:
        """The teacher's LM head on the CPU; None if the tier does not use it."""
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
        """Check that the cache serves a trainer's settings.

        Args:
            temperature: the temperature of the teacher's distribution.
            tokenizer: the student's.
            teacher: a fingerprint of the required teacher; None for any teacher.

        Raises:
            InputError: the tier does not serve the temperature, or the cache has another tokenizer or teacher.
        """
        served = self.codec.temperature
        if served is not None and temperature != served:
            raise InputError(
                f"temperature is {temperature}, and the {self.tier} cache {self.folder} serves {served} only; "
                "write a `topk` cache at that temperature, or a `hidden` one, which serves any"
            )
        if tokenizer is not None and tokenizer_fingerprint(tokenizer) != self.metadata.tokenizer:
            raise InputError(
                f"the teacher cache {self.folder} was written with another tokenizer than the student's; write it "
                "again"
            )
        if teacher is not None and teacher not in self.metadata.teacher:
            raise InputError(f"the teacher cache {self.folder} was written by another teacher; write it again")

    def find(self, keys: Tensor) -> Tensor:
        """Return the index of each key, `(sequences,)`, -1 for a key that the cache does not contain."""
        indices = torch.searchsorted(self._first_halves, keys[:, 0].contiguous()).clamp(max=max(len(self) - 1, 0))
        if not len(self):
            return torch.full_like(indices, -1)
        matches = (self._first_halves[indices] == keys[:, 0]) & (self._second_halves[indices] == keys[:, 1])
        return torch.where(matches, indices, -1)

    def check_contains(self, keys: Tensor) -> None:
        """Check that the cache contains every sequence of a dataset.

        Args:
            keys: `(sequences, 2)`, as returned by `row_keys`.

        Raises:
            InputError: some are missing.
        """
        missing = int((self.find(keys) < 0).sum())
        if missing:
            raise InputError(
                f"{missing} of {len(keys)} sequences are not in the teacher cache {self.folder}: dataset, chat "
                "template, tokenizer, max_length, packing or loss mask changed since it was written; write it again "
                "with the current ones"
            )

    def targets(self, keys: Tensor, device: str | torch.device = "cpu") -> TeacherTarget:
        """Return the teacher's predictions at the learned positions of sequences, concatenated in the order of `keys`.

        Args:
            keys: `(sequences, 2)` int64.
            device: the device of the returned tensors.

        Raises:
            InputError: a sequence is missing or its bytes do not match their checksum.
        """
        keys = keys.cpu()
        self.check_contains(keys)
        sequences = [self._shards[shard].read(row) for shard, row in self._locations[self.find(keys)].tolist()]
        names = self._shards[0].names
        arrays = {name: torch.cat([sequence[name] for sequence in sequences]).to(device) for name in names}
        target = self.codec.decode(arrays, self._head(device))
        return replace(target, vocab_size=self.metadata.vocab_size) if isinstance(target, SparseTarget) else target


def read_head(folder: Path, device: str | torch.device) -> LMHead:
    """Return the LM head stored in a cache."""
    tensors = load_file(folder / HEAD_FILE, device=str(device))
    softcap = tensors.get("softcap")
    return LMHead(
        tensors["weight"],
        tensors.get("bias"),
        float(tensors["scale"]),
        None if softcap is None else float(softcap),
    )
