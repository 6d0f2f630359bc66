"""Read rows from local files, from a folder or from the Hub: the one door through which every verb gets its rows.

JSON is parsed here, everything else by `load_dataset`: of JSON whose values have several types that makes the number
42 of the text "42", dates of texts that look like one, and tool arguments with the names of all tools; and it counts
no lines.
"""

import glob
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Literal

import fsspec
from datasets import Dataset, DatasetDict, Features, Value, load_dataset, load_dataset_builder, load_from_disk
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from datasets.utils import logging as datasets_logging

from trl_prune.data.columns import dataset_from_rows, with_columns
from trl_prune.data.formats import FORMAT_COLUMNS, format_of
from trl_prune.data.normal_rows import CONVERSATIONS, RowFault, normal_row
from trl_prune.data.rendering import RENDERED_WITH
from trl_prune.errors import InputError, first_line


JSON_TYPES = (".json", ".jsonl", ".ndjson", ".jsonlines")
TABLE_TYPES = (".parquet", ".csv", ".tsv", ".arrow", ".txt")
COMPRESSED_TYPES = (".gz", ".bz2", ".xz", ".zst", ".zip")
FILE_TYPES = frozenset((*JSON_TYPES, *TABLE_TYPES, *COMPRESSED_TYPES))
# What `save_to_disk` writes into the folder of a dataset, and of a dictionary of splits.
SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Every cell of a CSV file as the text that stands there: an answer may be "007" or "None". Empty ones are null.
CSV_AS_TEXT = {"keep_default_na": False, "na_values": [""]}
# What a trainer would take for tokens or images, where a recipe's rows are texts.
TRAINERS_COLUMNS = (
    "input_ids", "labels", "attention_mask", "position_ids", "seq_lengths", "completion_mask", "assistant_masks",
    "image", "images",
)  # fmt: skip
# Rows per batch of a table.
BATCH = 1000
STOP = "stop"
OnError = Literal["stop", "skip"]
# Where a row stands, and the row or what is wrong with it.
Placed = tuple[str, object]
# Returns a normal row as it is used, or raises RowFault.
Accept = Callable[[dict], dict]
logger = logging.getLogger(__name__)


class RowError(InputError):
    """A row that cannot be used; its message names file, line or row, and column."""


def read_dataset(  # noqa: PLR0913
    path: str,
    name: str | None = None,
    split: str = "train",
    revision: str | None = None,
    on_error: OnError = STOP,
    accept: Accept | None = None,
) -> Dataset:
    """Return rows in TRL's formats (`normal_row`): of files, of a folder or of the Hub.

    Args:
        path: a file of any type that `load_dataset` reads, a pattern of such, a folder of them or of `save_to_disk`; a
            hub id.
        name: configuration of a folder or hub dataset.
        split: split of a folder or hub dataset.
        revision: revision of a hub dataset.
        on_error: whether a row that cannot be used stops with an error, or is skipped; how many are is logged.
        accept: returns a normal row as the caller can use it, or raises `RowFault`.

    Raises:
        RowError: a row cannot be used; with `skip`, none can.
        InputError: no such file, no such dataset, no network, an unreadable or empty file, or no usable columns.
    """
    source = f"dataset {path!r}"
    files = _files(path)
    if files is None:
        found = _from_hub(path, name, split, revision)
    elif len(files) == 1 and Path(files[0]).is_dir():
        found = _from_folder(Path(files[0]), name, split, source)
    else:
        found = _from_files(files, source)
    if isinstance(found, Dataset):
        return _texts_alone(_normal_dataset(found, source, on_error, accept), source)
    rows, faults = _sorted_out(found, accept)
    _check_faults(len(rows), faults, source, on_error)
    try:
        return _texts_alone(dataset_from_rows(rows), source)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def _texts_alone(rows: Dataset, source: str) -> Dataset:
    """Leave out columns beside a row's text that a trainer would take for its tokens or images."""
    names = [name for name in TRAINERS_COLUMNS if name in rows.column_names]
    if names:
        logger.warning("%s: %s left out; only the texts of rows are used", source, ", ".join(names))
    return rows.remove_columns(names)


def normal_dataset(dataset: Dataset, source: str = "the dataset") -> Dataset:
    """Return rows in TRL's formats; a dataset that has them already is left as it is stored.

    Raises:
        RowError: a row cannot be used.
        InputError: it is empty or has no usable columns.
    """
    return _normal_dataset(dataset, source, STOP, None)


def _normal_dataset(dataset: Dataset, source: str, on_error: OnError, accept: Accept | None) -> Dataset:
    if len(dataset) == 0:
        raise InputError(f"{source} is empty")
    names = dataset.column_names
    _check_columns(names, source)
    read = [name for name in (*chain(*FORMAT_COLUMNS), CONVERSATIONS) if name in names]
    also = [name for name in RENDERED_WITH if name in names and accept is not None]
    changes, kept, faults = _Changes(), [], []
    for index, row in enumerate(_rows_of(dataset.select_columns([*read, *also]))):
        try:
            normal = normal_row(row)
            changes.note(len(kept), row, normal if accept is None else accept(normal))
            kept.append(index)
        except RowFault as fault:
            faults.append(f"{source} row {index}: {fault}")
    _check_faults(len(kept), faults, source, on_error)
    return changes.applied(dataset.select(kept) if faults else dataset, read)


def _rows_of(dataset: Dataset) -> Iterator[dict]:
    for batch in dataset.with_format(None).iter(BATCH):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


class _Changes:
    """What normal rows have in the columns of TRL's formats that the stored ones have not."""

    def __init__(self) -> None:
        self._values: dict[str, dict[int, object]] = {}
        self._found: set[str] = set()

    def note(self, index: int, row: dict, normal: dict) -> None:
        """Note a row's changes."""
        for name in chain(*FORMAT_COLUMNS):
            if normal.get(name) != row.get(name):
                self._values.setdefault(name, {})[index] = normal.get(name)
        self._found.update(normal)

    def applied(self, dataset: Dataset, read: list[str]) -> Dataset:
        """Return a dataset with the changes, without those of the columns `read` that no row needs."""
        found = [name for name in chain(*FORMAT_COLUMNS) if name in self._found]
        columns = {}
        for name in found:
            if name in self._values:
                values = list(dataset[name]) if name in read else [None] * len(dataset)
                columns[name] = [self._values[name].get(index, value) for index, value in enumerate(values)]
        without = [name for name in read if name not in found]
        return with_columns(dataset, columns, without) if columns or without else dataset


def _check_columns(names: Iterable[str], source: str) -> None:
    format_of(["messages" if name == CONVERSATIONS else name for name in names], source)


def _sorted_out(placed: Iterable[Placed], accept: Accept | None) -> tuple[list[dict], list[str]]:
    """Return the rows that can be used, and a sentence for each of the others."""
    rows, faults = [], []
    for place, row in placed:
        try:
            if isinstance(row, RowFault):
                raise row
            normal = normal_row(row)
            rows.append(normal if accept is None else accept(normal))
        except RowFault as fault:
            faults.append(f"{place}: {fault}")
    return rows, faults


def _check_faults(usable: int, faults: list[str], source: str, on_error: OnError) -> None:
    total = usable + len(faults)
    if total == 0:
        raise InputError(f"{source} is empty")
    if faults and on_error == STOP:
        others = f" ({len(faults) - 1:,} more of {total:,} rows cannot be used)" if len(faults) > 1 else ""
        raise RowError(f"{faults[0]}{others}")
    if not usable:
        raise RowError(f"{source} has no row that can be used: {faults[0]}")
    if faults:
        logger.warning("%d of %d rows are skipped, the first of them %s", len(faults), total, faults[0])


def _files(path: str) -> list[str] | None:
    """Return the local files, or the folder, that a path or a pattern stands for; None for a hub id."""
    local = Path(path).expanduser()
    if local.exists():
        return [str(local)]
    if glob.has_magic(path):
        files = sorted(name for name in glob.glob(str(local), recursive=True) if Path(name).is_file())
        if not files:
            raise InputError(f"dataset {path!r} is a pattern that no local file has")
        return files
    if local.is_absolute() or path.startswith(".") or local.suffix in FILE_TYPES or path.count("/") > 1:
        raise InputError(f"dataset {path!r} is not a local file; wanted: a file, a pattern, a folder or a hub id")
    return None


def _from_files(files: list[str], source: str) -> Dataset | Iterator[Placed]:
    if all(_is_json(file) for file in files):
        return _whole_json(files[0]) or _json_rows(files, source) if len(files) == 1 else _json_rows(files, source)
    paths = [Path(file).absolute() for file in files]
    return _load(source, "train", path=str(paths[0].parent), data_files=[glob.escape(str(path)) for path in paths])


def _from_folder(folder: Path, name: str | None, split: str, source: str) -> Dataset | Iterator[Placed]:
    if (folder / SAVED).is_file() or (folder / SAVED_SPLITS).is_file():
        return _from_disk(folder, split, source)
    return _load(source, split, path=str(folder), name=name)


def _from_disk(folder: Path, split: str, source: str) -> Dataset:
    try:
        found = load_from_disk(str(folder))
    except Exception as error:  # of Arrow, of JSON and of files
        raise InputError(f"{source} cannot be read: {first_line(error)}") from error
    if not isinstance(found, DatasetDict):
        return found
    if split not in found:
        raise InputError(f"{source} has no split {split!r}; allowed: {', '.join(found)}")
    return found[split]


def _load(source: str, split: str, **arguments: object) -> Dataset | Iterator[Placed]:
    """Return the rows of local files that `load_dataset` finds."""
    try:
        with _quiet():
            builder = load_dataset_builder(**arguments)
            splits = builder.config.data_files or {split: None}
            if split.isidentifier() and split not in splits:
                raise InputError(f"{source} has no split {split!r}; allowed: {', '.join(map(str, splits))}")
            files = splits.get(split)
            if builder.name == "json" and files:
                return _json_rows([str(file) for file in files], source)
            options = {}
            if builder.name == "csv":
                columns = load_dataset(**arguments, split=split).column_names
                options = CSV_AS_TEXT | {"features": Features({column: Value("string") for column in columns})}
            return load_dataset(**arguments, **options, split=split)
    except InputError:
        raise
    except Exception as error:  # each loader raises errors of its own
        raise InputError(f"{source} cannot be read: {first_line(error.__cause__ or error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the loader's progress bars and notes off the terminal; what went wrong is in its error."""
    shown, level = not are_progress_bars_disabled(), datasets_logging.get_verbosity()
    disable_progress_bars()
    datasets_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        datasets_logging.set_verbosity(level)
        if shown:
            enable_progress_bars()


def _is_json(file: str) -> bool:
    """Return whether a file holds JSON: by its name, or where that tells nothing, by its first line."""
    suffixes = [suffix for suffix in Path(file).suffixes if suffix not in COMPRESSED_TYPES]
    if suffixes[-1:] and suffixes[-1] in JSON_TYPES:
        return True
    if suffixes[-1:] and suffixes[-1] in TABLE_TYPES and suffixes[-1] != ".txt":
        return False
    try:
        first = next((line for line in _lines(file) if line.strip()), b"")
        return isinstance(json.loads(first), dict | list)
    except (ValueError, RecursionError):
        return False


def _lines(file: str) -> Iterator[bytes]:
    """Yield the lines of a file, which may be compressed, without a byte order mark.

    Raises:
        InputError: it cannot be read, or is not compressed as its name says.
    """
    if file.endswith(".zst") and "zstd" not in fsspec.available_compressions():
        raise InputError(f"dataset {file!r} is compressed by Zstandard, which needs a package: pip install zstandard")
    try:
        with fsspec.open(file, "rb", compression="infer") as stream:
            for number, line in enumerate(stream):
                yield line.removeprefix(BYTE_ORDER_MARK) if number == 0 else line
    except Exception as error:  # each compression raises errors of its own
        raise InputError(f"dataset {file!r} cannot be read: {first_line(error)}") from error


def _json_rows(files: list[str], source: str) -> Iterator[Placed]:
    for file in files:
        name = source if len(files) == 1 else f"{source}, file {Path(file).name!r},"
        yield from _json_file(file, name)


def _whole_json(file: str) -> Dataset | None:
    """Return the rows of JSON that is neither lines nor a list, such as one column after the other, or else None."""
    first = next((line for line in _lines(file) if line.strip()), b"[")
    if first.lstrip().startswith(b"[") or not isinstance(_parsed(first), RowFault):
        return None
    try:
        with _quiet():
            found = load_dataset("json", data_files=glob.escape(file), split="train")
            list(_rows_of(found))  # raises where a text is no UTF-8
            return found
    except Exception:  # which the lines explain better
        return None


def _json_file(file: str, name: str) -> Iterator[Placed]:
    lines = ((number, line) for number, line in enumerate(_lines(file), 1) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    if first[1].lstrip().startswith(b"["):
        yield from _json_array(b"".join(_lines(file)), name)
        return
    for number, line in chain([first], lines):
        yield f"{name} line {number}", _parsed(line)


def _json_array(content: bytes, name: str) -> Iterator[Placed]:
    rows = _parsed(content)
    if isinstance(rows, RowFault):
        raise InputError(f"{name} cannot be read: {rows}")
    for index, row in enumerate(rows):
        yield f"{name} row {index}", {"text": row} if isinstance(row, str) else row


def _parsed(content: bytes) -> object:
    """Return what JSON holds, or what is wrong with it."""
    try:
        return json.loads(content.decode())
    except UnicodeDecodeError as error:
        return RowFault("", f"is no UTF-8 (byte {error.start})", "UTF-8")
    except json.JSONDecodeError as error:
        return RowFault("", f"is no JSON ({error.msg} at character {error.pos + 1})", "JSON")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        return RowFault("", f"is no JSON ({first_line(error)})", "JSON")


def _from_hub(path: str, name: str | None, split: str, revision: str | None) -> Dataset:
    try:
        return load_dataset(path, name, split=split, revision=revision)
    except (ConnectionError, OSError) as error:
        raise InputError(
            f"dataset {path!r} is not a local file and cannot be loaded from the Hub ({type(error).__name__}): "
            "check the name, or the network"
        ) from error
    except Exception as error:  # each loader raises errors of its own
        reason = first_line(error.__cause__ or error)
        raise InputError(f"dataset {path!r} (name {name!r}, split {split!r}): {reason}") from error


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
