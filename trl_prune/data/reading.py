"""Read a dataset from a local file or from the Hub."""

import json
from pathlib import Path

from datasets import Dataset, load_dataset

from trl_prune.data.formats import format_of
from trl_prune.errors import InputError, first_line


FILE_TYPES = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def read_dataset(path: str, name: str | None = None, split: str = "train", revision: str | None = None) -> Dataset:
    """Return a dataset from a local JSONL, JSON or parquet file, or from the Hub.

    Raises:
        InputError: no such file, no such dataset, no network, an unreadable or empty file, or no usable columns.
    """
    local = Path(path).expanduser()
    if local.is_file():
        dataset = _read_file(local)
    elif local.suffix in FILE_TYPES or local.is_dir() or path.count("/") > 1:
        raise InputError(f"dataset {path!r} is not a local file; allowed: {', '.join(FILE_TYPES)} or a hub id")
    else:
        dataset = _from_hub(path, name, split, revision)
    if len(dataset) == 0:
        raise InputError(f"dataset {path!r} is empty")
    format_of(dataset.column_names, path)
    return dataset


def _read_file(path: Path) -> Dataset:
    if path.suffix not in FILE_TYPES:
        raise InputError(f"dataset {str(path)!r} has the suffix {path.suffix!r}; allowed: {', '.join(FILE_TYPES)}")
    if path.stat().st_size == 0:
        raise InputError(f"dataset {str(path)!r} is empty")
    try:
        if path.suffix == ".parquet":
            return Dataset.from_parquet(str(path), keep_in_memory=True)
        return dataset_from_rows(_json_rows(path))
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"dataset {str(path)!r} cannot be read: {first_line(error)}") from error


def dataset_from_rows(rows: list[dict]) -> Dataset:
    """Return a dataset with every key of any row as a column; `Dataset.from_list` uses the first row's keys only."""
    columns = {key: None for row in rows for key in row}
    return Dataset.from_list([columns | row for row in rows])


def _json_rows(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        rows = json.loads(text)
    else:
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("every row must be a JSON object")
    return rows


def _from_hub(path: str, name: str | None, split: str, revision: str | None) -> Dataset:
    try:
        return load_dataset(path, name, split=split, revision=revision)
    except (ConnectionError, OSError) as error:
        raise InputError(
            f"dataset {path!r} is not a local file and cannot be loaded from the Hub ({type(error).__name__}): "
            "check the name, or the network"
        ) from error
    except ValueError as error:
        raise InputError(f"dataset {path!r} (name {name!r}, split {split!r}): {first_line(error)}") from error


def dataset_commit(path: str, revision: str | None = None) -> str | None:
    """Return the current commit of a hub dataset; None for a local one, or if the Hub cannot be reached."""
    if Path(path).expanduser().exists() or path.count("/") != 1:
        return None
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(path, revision=revision).sha
    # Without a network the client's error is its HTTP library's, which is no OSError. The dataset then comes from the
    # local cache, which does not record its commit, or reading it says what is wrong.
    except Exception:
        return None
