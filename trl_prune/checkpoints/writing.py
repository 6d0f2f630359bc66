"""Atomic writes of files and folders."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically: readers see the old file or the complete new one.

    NaN and infinity, which JSON does not have, become null.
    """
    write_text(path, json.dumps(_as_json(value), indent=2, sort_keys=True, allow_nan=False) + "\n")


def _as_json(value: object) -> object:
    if isinstance(value, dict):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically and flushed to disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside the target; it is renamed to the target when the block ends without an error."""
    part = target.with_name(f".{target.name}.part")
    yield part
    part.replace(target)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target; it is renamed to the target when the block ends without an error."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    for path in part.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner can read
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
