"""Rows as an Arrow table that gives them back as they stood.

Arrow gives each key of a nested value one type, and every value all keys: tool arguments of two functions would come
out with each other's names and nulls. Where that happens, the column is JSON.
"""

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
from datasets import Dataset, Json, concatenate_datasets

from trl_prune.errors import InputError


# Characters of a value in an error.
QUOTED = 60


def dataset_from_rows(rows: Sequence[Mapping[str, object]]) -> Dataset:
    """Return a dataset with every key of any row as a column; a row without the key has None.

    Raises:
        InputError: a value fits neither Arrow nor JSON.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return Dataset.from_dict({name: arrow_column(name, [row.get(name) for row in rows]) for name in names})


def with_columns(dataset: Dataset, columns: Mapping[str, Sequence[object]], without: Sequence[str] = ()) -> Dataset:
    """Return a dataset with columns added or replaced, and others left out, the rest as it is stored.

    Args:
        dataset: the dataset.
        columns: values of all rows by name.
        without: names of columns to leave out.

    Raises:
        InputError: a value fits neither Arrow nor JSON.
    """
    rest = dataset.remove_columns([name for name in dataset.column_names if name in (*columns, *without)])
    added = Dataset.from_dict({name: arrow_column(name, list(values)) for name, values in columns.items()})
    return concatenate_datasets([rest, added], axis=1) if rest.column_names else added


def arrow_column(name: str, values: Sequence[object]) -> pa.Array:
    """Return values as Arrow stores them if it gives them back as they are, else as JSON.

    Args:
        name: the column's, for errors.
        values: those of all rows.

    Raises:
        InputError: a value fits neither.
    """
    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeError, TypeError):
        return _json_column(name, values)
    types = {type(value) for value in values if value is not None}
    # Of mixed numbers Arrow makes floats; of mappings, ones with the same keys in the same order.
    is_plain = len(types) <= 1 and types.isdisjoint({dict, list})
    return array if is_plain or _as_text(array.to_pylist()) == _as_text(values) else _json_column(name, values)


def _as_text(values: Sequence[object]) -> str:
    return json.dumps(values, default=str)


def _json_column(name: str, values: Sequence[object]) -> pa.Array:
    encoded = [None if value is None else json.dumps(value, default=str) for value in values]
    for index, text in enumerate(encoded):
        try:
            Json().decode_example(text)
        except ValueError as error:  # a number of more than 64 bits, NaN
            raise InputError(
                f"row {index}, column {name!r}, holds {text[:QUOTED]}, which cannot be stored: {error}"
            ) from error
    return pa.array(encoded, pa.json_())
