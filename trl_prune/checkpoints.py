"""Checkpoint folders: where they are, whether they are whole, what they descend from."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from trl_prune.errors import InputError, first_line


if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

PROVENANCE = "trl_prune.json"
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
WEIGHTS = (".safetensors", ".gguf", ".h5", ".msgpack", ".onnx", *PICKLED)
# Everything a checkpoint needs; the weights themselves only as safetensors.
HUB_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "LICENSE*", "NOTICE*", "README.md"]
# A second copy of the weights in some repositories.
HUB_IGNORED = ["consolidated*", "original/*"]
HEADER_LENGTH_BYTES = 8
SAMPLE_BYTES = 1 << 16
SAMPLES_PER_FILE = 32


@dataclass(frozen=True)
class Provenance:
    """What a checkpoint descends from, kept beside its config.json.

    Attributes:
        dense: the root of the chain: path or hub id, hub commit, config hash and layers of the unpruned model.
        parent: the checkpoint this one was made from.
        keep: for each pruned axis the kept indices, always counted in the dense model.
        edits: closed-form changes to kept weights, in order.
        versions: the versions of the libraries that wrote it.
    """

    dense: dict[str, str | int | None]
    parent: str
    keep: dict[str, list] = field(default_factory=dict)
    edits: list[dict] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=lambda: library_versions())


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide what a checkpoint holds."""
    return {name: version(name) for name in ("trl-prune", "trl", "transformers", "peft", "torch")}


def read_provenance(folder: str | Path) -> Provenance | None:
    """Return the provenance beside a checkpoint, or None where there is none (a dense model)."""
    path = Path(folder) / PROVENANCE
    if not path.is_file():
        return None
    try:
        return Provenance(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a provenance file of trl-prune: {first_line(error)}") from error


def write_provenance(provenance: Provenance, folder: str | Path) -> None:
    """Write the provenance beside a checkpoint."""
    write_json(Path(folder) / PROVENANCE, asdict(provenance))


def dense_root(folder: Path, name: str) -> dict[str, str | int | None]:
    """Return the root of a checkpoint's chain: its own provenance's, or itself under the name the user gave."""
    provenance = read_provenance(folder)
    if provenance is not None:
        return provenance.dense
    path = str(folder.resolve()) if Path(name).exists() else name
    return {
        "path": path,
        "commit": hub_commit(folder),
        "config_hash": file_hash(folder / "config.json"),
        "num_hidden_layers": load_config(folder).num_hidden_layers,
    }


def hub_commit(folder: Path) -> str | None:
    """Return the commit of a folder in the hub's cache, or None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def locate(model: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint given as a local path or a hub id, checked to be whole.

    Raises:
        InputError: it is neither, the hub cannot be reached, or a shard is missing or corrupt.
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
    """Check that every tensor of a checkpoint lies whole in its file, reading headers only.

    Raises:
        InputError: a shard is missing, truncated, or lacks a tensor that the index places in it.
    """
    files = tensor_files(folder)
    headers = {path: read_header(path) for path in sorted(set(files.values()))}
    for name, path in files.items():
        if name not in headers[path]:
            raise InputError(f"{folder / INDEX} places {name} in {path.name}, which does not hold it")


def fingerprint(folder: Path) -> str:
    """Return a hash that changes when a checkpoint does: its small files, and per weight file its size and samples.

    Reading whole weights would cost minutes on a large model at every start, so blocks spread over each file stand
    for it; training or merging changes every tensor and so some block.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in companions(folder):
        digest.update(path.name.encode() + path.read_bytes())
    for path in sorted(set(tensor_files(folder).values())):
        digest.update(f"{path.name} {os.path.getsize(path)}".encode())
        digest.update(_sampled(path))
    return digest.hexdigest()[:16]


def _sampled(path: Path) -> bytes:
    size = os.path.getsize(path)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in range(SAMPLES_PER_FILE):
            stream.seek(block * max(size - SAMPLE_BYTES, 0) // (SAMPLES_PER_FILE - 1))
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.digest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def copy_companions(source: Path, target: Path) -> None:
    """Copy what lies beside the weights: tokenizer, chat template, generation config, licence."""
    for path in companions(source):
        shutil.copyfile(path, target / path.name)


def companions(folder: Path) -> list[Path]:
    """Return the files of a checkpoint that are not weights, config, card or provenance."""
    skipped = {"config.json", "README.md", "importance.png", PROVENANCE, "training_args.bin"}
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.suffix not in WEIGHTS
        and path.name not in skipped
        and not path.name.startswith(".")
        and not path.name.endswith(".index.json")
    ]


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically: the file is either the old one or the whole new one."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


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
    """Yield a path beside the target for a writer; what it wrote takes the target's name when the block ends."""
    part = target.with_name(f".{target.name}.part")
    yield part
    part.replace(target)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target that takes its name only when the block ends without an error."""
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


def load_model(folder: Path, dtype: str, device: str | None = None, spread: bool = False) -> "PreTrainedModel":
    """Return a checkpoint's causal LM in eval mode, on the accelerator where there is one.

    Args:
        folder: the checkpoint.
        dtype: of its weights in memory, or `auto` for what is stored.
        device: where it goes.
        spread: put what does not fit the accelerators into CPU memory, and the rest on disk (accelerate's `auto`).
    """
    from transformers import AutoModelForCausalLM

    if spread:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map="auto").eval()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.to(device or best_device()).eval()


def best_device() -> str:
    """Return where models run."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def weights_fingerprint(model: "PreTrainedModel") -> str:
    """Return a hash of values spread over every weight of a model in memory."""
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for weight in model.parameters():
        values = weight.detach().flatten()
        spread = values[:: max(1, len(values) // 64)].float().cpu()
        digest.update(spread.numpy().tobytes())
    return digest.hexdigest()[:16]


def load_tokenizer(folder: Path | str) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a checkpoint's folder or hub id, with a padding token.

    Raises:
        InputError: the checkpoint has none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder} has no tokenizer that can be read: {first_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(folder: Path) -> "PreTrainedConfig":
    """Return a checkpoint's config.

    Raises:
        InputError: config.json cannot be read, or names a model type transformers does not know.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder)
    except Exception as error:  # each family's config class checks in its own way
        raise InputError(f"{folder / 'config.json'} cannot be used: {first_line(error)}") from error
