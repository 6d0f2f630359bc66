"""`cache.json`: what a teacher cache contains, and from what it was computed."""

import json
from dataclasses import dataclass
from pathlib import Path

from trl_prune.errors import InputError, first_line


METADATA_FILE = "cache.json"
FORMAT = 1


@dataclass(frozen=True)
class CacheMetadata:
    """The content of `cache.json`.

    Attributes:
        settings: the codec's settings, as JSON.
        plan: a hash of sequences, codec, teacher and tokenizer; every shard contains it.
        teacher: two fingerprints of the teacher: its checkpoint's and its loaded weights'.
        tokenizer: the tokenizer's fingerprint.
        vocab_size: rows of the teacher's LM head.
        num_hidden_layers: the teacher's number of blocks.
        sequences: number of sequences.
        tokens: number of tokens that the teacher processed.
        positions: number of learned positions, which are those stored.
        shards: number of shards.
        format: version of the file format.
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


def read_metadata(folder: Path) -> CacheMetadata:
    """Return the metadata of the cache in a folder.

    Raises:
        InputError: the folder is not a teacher cache, or one of another format.
    """
    path = folder / METADATA_FILE
    if not path.is_file():
        raise InputError(f"{folder} is not a teacher cache: it has no {METADATA_FILE}")
    try:
        metadata = CacheMetadata(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a {METADATA_FILE} of this version: {first_line(error)}") from error
    if metadata.format != FORMAT:
        raise InputError(f"{path} has format {metadata.format}; this version reads {FORMAT}")
    return metadata
