"""Find a checkpoint folder, locally or on the hub, and read the headers of its safetensors files."""

import hashlib
import json
import os
import re
from pathlib import Path

from trl_prune.errors import InputError, first_line


SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, ADAPTER = "config.json", "adapter_config.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Weights of any library, which belong to one model.
WEIGHTS = (
    ".safetensors", ".gguf", ".h5", ".mlmodel", ".msgpack", ".npz", ".onnx", ".onnx_data", ".ot", ".pb", ".tflite",
    *PICKLED,
)  # fmt: skip
# What is downloaded from the hub: weights only as safetensors.
HUB_PATTERNS = [
    "*.json", "*.safetensors", "*.model", "*.jinja", "*.spm", "*.tiktoken", "*.txt", "LICENSE*", "NOTICE*",
    "README.md",
]  # fmt: skip
# Second copies of the weights in some repositories.
HUB_IGNORED = ["consolidated*", "original/*"]
HEADER_LENGTH_BYTES = 8


def hub_commit(folder: Path) -> str | None:
    """Return the commit of a folder in the hub's cache, or None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def locate(model: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint given as a local path or a hub id, after checking that its files are complete.

    Raises:
        InputError: no such folder or hub id, the hub cannot be reached, it is a file or an adapter, or a shard is
            missing or corrupt.
    """
    folder = Path(model).expanduser()
    if folder.is_file():
        raise InputError(_no_folder(folder))
    if not folder.is_dir():
        folder = _from_hub(model, revision)
    if (folder / ADAPTER).is_file():
        raise InputError(_with_adapter(folder))
    if not (folder / CONFIG).is_file():
        raise InputError(f"{model} is not a checkpoint folder: it has no {CONFIG}")
    check_weights(folder)
    return folder


def _no_folder(file: Path) -> str:
    if file.suffix == ".gguf":
        return (
            f"{file} is a GGUF file, whose weights are packed for inference; give the folder or hub id of the "
            "safetensors checkpoint that it was made from"
        )
    return f"{file} is a file; wanted: the folder that holds a model's {CONFIG}, weights and tokenizer"


def _with_adapter(folder: Path) -> str:
    """Return why a folder with an adapter is refused: transformers adds it to the model when it loads the folder."""
    how = "`PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(...)`"
    if (folder / CONFIG).is_file():
        return (
            f"{folder} holds a model and an adapter ({ADAPTER}), which transformers adds to the model: merge it first "
            f"({how}), or move the adapter's files to a folder of their own"
        )
    return f"{folder} is an adapter{_adapted(folder)}, not a model: merge it first ({how}) and give the merged model"


def _adapted(folder: Path) -> str:
    base = _read_mapping(folder / ADAPTER).get("base_model_name_or_path")
    return f" of {base}" if base else ""


def _read_mapping(path: Path) -> dict:
    """Return the object in a JSON file.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}; wanted: a JSON object")
    return values


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

    Where a folder holds several sets of weights, those count that transformers loads: the file that config.json names
    as `transformers_weights`, else `model.safetensors`, else the index, which may be a leftover beside a single file.

    Raises:
        InputError: no safetensors weights, a shard is missing or corrupt, or an index names files outside the folder.
    """
    weights = next((file for file in _weight_files(folder) if file.is_file()), None)
    if weights is None:
        raise InputError(_no_weights(folder))
    if weights.suffix == ".json":
        weight_map = _read_index(weights)
        paths = {shard: _inside(folder, shard, weights) for shard in set(weight_map.values())}
        files = {name: paths[shard] for name, shard in weight_map.items()}
        # transformers reads whatever is in the shards, also what the index does not name.
        return {name: path for path in sorted(paths.values()) for name in read_header(path)} | files
    return dict.fromkeys(read_header(weights), weights)


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers looks for, in its order."""
    config = folder / CONFIG
    named = _read_mapping(config).get("transformers_weights") if config.is_file() else None
    return [_inside(folder, str(named), config)] if named else [folder / SINGLE, folder / INDEX]


def _read_index(index: Path) -> dict[str, str]:
    try:
        values = json.loads(index.read_bytes())
        weight_map = {str(name): str(shard) for name, shard in values["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{index} is corrupt: {type(error).__name__} {first_line(error)}") from error
    if "metadata" not in values:
        raise InputError(
            f"{index} has no 'metadata', without which transformers does not read it; add an empty object"
        )
    return weight_map


def _inside(folder: Path, shard: str, named_by: Path) -> Path:
    if Path(shard).name != str(Path(shard)) or shard == "..":  # `./` before a name is no other folder
        raise InputError(f"{named_by} names {shard!r}: shards must lie in the checkpoint's own folder")
    return folder / shard


def _no_weights(folder: Path) -> str:
    """Return why a folder without the files that transformers looks for is refused, by what it holds instead."""
    names = sorted(path.name for path in folder.iterdir())
    broken = next((folder / name for name in (SINGLE, INDEX) if (folder / name).is_symlink()), None)
    if broken:
        return f"{broken} is a link to {os.readlink(broken)}, which is missing"
    shards = [name for name in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)]
    if shards:
        return f"{folder} has shards ({shards[0]}) and no {INDEX}, without which transformers does not read them"
    other = next((name for name in names if name.endswith(".safetensors")), None)
    if other:
        return f"{folder} has weights in {other}, which transformers does not look for; rename it to {SINGLE}"
    pickled = next((name for name in names if name.endswith(PICKLED)), None)
    if pickled:
        return (
            f"{folder} holds pickled weights ({pickled}), which are not read because they can run code; convert "
            "them with `AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)`"
        )
    return f"{folder} holds no safetensors weights ({SINGLE} or {INDEX})"


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
