"""Find a checkpoint folder, locally or on the hub, and read the headers of its safetensors files."""

import hashlib
import json
import os
from pathlib import Path

from trl_prune.errors import InputError, first_line


INDEX = "model.safetensors.index.json"


PICKLED = (".bin", ".pt", ".pth", ".ckpt")


WEIGHTS = (".safetensors", ".gguf", ".h5", ".msgpack", ".onnx", *PICKLED)


# What is downloaded from the hub: weights only as safetensors.
HUB_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "LICENSE*", "NOTICE*", "README.md"]


# Second copies of the weights in some repositories.
HUB_IGNORED = ["consolidated*", "original/*"]


HEADER_LENGTH_BYTES = 8


def hub_commit(folder: Path) -> str | None:
    """Return the commit of a folder in the hub's cache, or None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def locate(model: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint given as a local path or a hub id, after checking that its files are complete.

    Raises:
        InputError: no such folder or hub id, the hub cannot be reached, or a shard is missing or corrupt.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _from_hub(model, revision)
    if not (folder / "config.json").is_file():
        raise InputError(f"{model} is not a checkpoint folder: it has no config.json")
    check_weights(folder)
    return folder


def _from_hub(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    looks_local = model.startswith((".", "/", "~")) or model.count("/") != 1
    if looks_local:
        raise InputError(f"model {model!r} is neither a folder here nor a hub id (`owner/name`)")
    try:
        return Path(
            snapshot_download(model, revision=revision, allow_patterns=HUB_PATTERNS, ignore_patterns=HUB_IGNORED)
        )
    except GatedRepoError as error:
        raise InputError(
            f"model {model!r} is gated: accept its licence on the hub and log in (`hf auth login`)"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise InputError(f"model {model!r} is not on the hub (revision {revision or 'main'})") from error
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"model {model!r} is no folder here and the hub cannot be reached ({type(error).__name__}): "
            "download it first, or check the network"
        ) from error


def tensor_files(folder: Path) -> dict[str, Path]:
    """Return, for each tensor of a checkpoint, the safetensors file that holds it.

    Raises:
        InputError: no safetensors weights, or an index that names files outside the folder.
    """
    index = folder / INDEX
    if index.is_file():
        weight_map = _read_index(index)
        return {name: _inside(folder, shard) for name, shard in weight_map.items()}
    single = folder / "model.safetensors"
    if not single.is_file():
        raise InputError(_no_weights(folder))
    return dict.fromkeys(read_header(single), single)


def _read_index(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        return {str(name): str(shard) for name, shard in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is corrupt: {type(error).__name__} {first_line(error)}") from error


def _inside(folder: Path, shard: str) -> Path:
    if Path(shard).name != shard:
        raise InputError(f"{folder / INDEX} names {shard!r}: shards must lie in the checkpoint's own folder")
    return folder / shard


def _no_weights(folder: Path) -> str:
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if pickled:
        return (
            f"{folder} holds pickled weights ({pickled[0]}), which are not read because they can run code; convert "
            "them with `AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)`"
        )
    return f"{folder} holds no safetensors weights (model.safetensors or {INDEX})"


def read_header(path: Path) -> dict[str, dict]:
    """Return a safetensors file's tensor entries, checked against the file's length.

    Raises:
        InputError: the file is missing, truncated or not safetensors.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(HEADER_LENGTH_BYTES), "little")
            header = json.loads(stream.read(min(length, os.path.getsize(path))))
        header.pop("__metadata__", None)
        data_bytes = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except FileNotFoundError as error:
        raise InputError(f"the shard {path} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"the shard {path} is corrupt: it has no safetensors header") from error
    expected = HEADER_LENGTH_BYTES + length + data_bytes
    if os.path.getsize(path) != expected:
        raise InputError(
            f"the shard {path} is corrupt: {os.path.getsize(path):,} bytes where its header says {expected:,}"
        )
    return header


def check_weights(folder: Path) -> None:
    """Check that every tensor of a checkpoint is complete in its file, reading headers only.

    Raises:
        InputError: a shard is missing, truncated, or lacks a tensor that the index places in it.
    """
    files = tensor_files(folder)
    headers = {path: read_header(path) for path in sorted(set(files.values()))}
    for name, path in files.items():
        if name not in headers[path]:
            raise InputError(f"{folder / INDEX} places {name} in {path.name}, which does not hold it")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
