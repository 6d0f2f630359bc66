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
    """Write a text file atomically and flushed to disk.

    Raises:
        OSError: the system refuses it; the error names the path.
    """
    with _renamed(path.with_name(f".{path.name}.{os.getpid()}.part"), path) as part:
        try:
            with part.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside the target; it is renamed to the target when the block ends without an error."""
    with _renamed(target.with_name(f".{target.name}.part"), target) as part:
        yield part


@contextmanager
def _renamed(part: Path, target: Path) -> Iterator[Path]:
    try:
        yield part
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


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
