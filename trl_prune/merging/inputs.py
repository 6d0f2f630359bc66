"""The models that are merged: where they are, their dtype, and full weights where one is an adapter."""

import json
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path

from trl_prune.checkpoints import (
    INDEX,
    SINGLE,
    atomic_folder,
    copy_companions,
    file_hash,
    fingerprint,
    load_config,
    locate,
    model_class,
    prove_source,
    read_header,
    read_provenance,
    tensor_files,
    write_provenance,
)
from trl_prune.errors import InputError, first_line


ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# The dtypes of safetensors that are merged, as torch and mergekit call them.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def find_model(name: str | Path) -> Path:
    """Return the absolute folder of a model or of a LoRA adapter, given as a path or a model's hub id.

    Raises:
        InputError: there is none, or mergekit would read other tensors of it than transformers.
    """
    folder = Path(name).expanduser()
    if is_adapter(folder):
        return folder.absolute()
    found = locate(str(name)).absolute()
    _check_same_tensors(found)
    return found


def _check_same_tensors(folder: Path) -> None:
    """Check that mergekit, which reads files and no model, finds the tensors that transformers loads."""
    if (folder / INDEX).is_file() and SINGLE in {path.name for path in tensor_files(folder).values()}:
        raise InputError(
            f"{folder} has {SINGLE} and {INDEX}: transformers loads the single file, mergekit what the index "
            "names; delete the index, or the file"
        )
    unused = sorted(prove_source(folder))
    if unused:
        raise InputError(
            f"{folder} has tensors that its model does not use ({', '.join(unused[:3])}), which mergekit would merge: "
            "load and save it once with transformers"
        )


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds a LoRA adapter without its model."""
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def adapted_model(adapter: Path) -> Path:
    """Return the absolute folder of the model that an adapter was trained on.

    Raises:
        InputError: the adapter does not name one, or it cannot be found.
    """
    try:
        name = json.loads((adapter / ADAPTER).read_text())["base_model_name_or_path"]
        return locate(str(name)).absolute()
    except (ValueError, KeyError) as error:
        raise InputError(f"{adapter / ADAPTER} names no model, which an adapter needs: {first_line(error)}") from error


def unadapted(folder: Path) -> Path:
    """Return a model's own folder, and for an adapter that of its model: where config and tokenizer are."""
    return adapted_model(folder) if is_adapter(folder) else folder


def input_hash(folder: Path) -> str:
    """Return a hash that changes when a model does, or an adapter or its model."""
    if not is_adapter(folder):
        return fingerprint(folder)
    parts = [file_hash(folder / ADAPTER)[:16], file_hash(folder / ADAPTER_WEIGHTS)[:16]]
    return "-".join([*parts, fingerprint(adapted_model(folder))])


def with_full_weights(folder: Path, scratch: Path) -> Path:
    """Return a model's own folder, or for an adapter that of a copy of its model with the adapter's weights added.

    Args:
        folder: the model or adapter.
        scratch: where the copy is written.

    Raises:
        InputError: peft cannot add the adapter.
    """
    if not is_adapter(folder):
        return folder
    from peft import PeftModel

    base = adapted_model(folder)
    model = model_class(load_config(base)).from_pretrained(base, dtype="float32")
    try:
        merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(f"the adapter {folder} cannot be merged into {base}: {first_line(error)}") from error
    with atomic_folder(scratch) as part:
        copy_companions(base, part)
        merged.to(load_config(base).dtype).save_pretrained(part)
        provenance = read_provenance(base)
        if provenance is not None:
            write_provenance(provenance, part)
    return scratch


def header_entries(folder: Path) -> Mapping[str, dict]:
    """Return the safetensors header's entry of each tensor of a checkpoint."""
    files = tensor_files(folder)
    headers = {path: read_header(path) for path in set(files.values())}
    return {name: headers[path][name] for name, path in files.items()}


def stored_dtype(folder: Path) -> str:
    """Return the dtype of most of a checkpoint's weights.

    Raises:
        InputError: they are quantised, or no numbers that can be averaged.
    """
    counts: Counter[str] = Counter()
    for entry in header_entries(folder).values():
        counts[entry["dtype"]] += prod(entry["shape"])
    quantisation = getattr(load_config(folder), "quantization_config", None)
    refused = next((dtype for dtype in counts if dtype not in DTYPES), None)
    if quantisation or refused:
        raise InputError(
            f"{folder} has weights of dtype {refused or 'int'}, which cannot be averaged; merge the models before "
            "they are quantised"
        )
    return DTYPES[counts.most_common(1)[0][0]]


def model_reference(path: Path) -> object:
    """Return a model or adapter as mergekit reads it: in a plain string, `@` is a revision and `+` an adapter."""
    if is_adapter(path):
        return {"model": {"path": str(adapted_model(path))}, "lora": {"path": str(path)}}
    return {"model": {"path": str(path)}} if set(str(path)) & set("@+") else str(path)
