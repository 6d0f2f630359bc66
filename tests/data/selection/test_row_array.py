"""Reference: the same values in memory."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.selection.row_array import RowArray
from trl_prune.errors import InputError


SHAPE = (11, 3)
VALUES = np.arange(33, dtype=np.float32).reshape(SHAPE)


def row_array(folder, **changes):
    return RowArray(**({"path": folder / "sub" / "x.npy", "shape": SHAPE, "key": "a", "chunk_rows": 4} | changes))


def write(array, chunks):
    for chunk in chunks:
        array.write(chunk, VALUES[array.rows_of(chunk)])


@given(st.integers(0, 40), st.integers(1, 9))
def test_chunks_cover_every_row_once(rows, chunk_rows):
    array = RowArray("x.npy", (rows, 1), "a", chunk_rows=chunk_rows)
    covered = [row for chunk in range(array.num_chunks) for row in range(rows)[array.rows_of(chunk)]]
    assert covered == list(range(rows))


@pytest.mark.parametrize("interrupted_at", range(4))
def test_an_interrupted_array_resumes_with_the_missing_chunks(tmp_path, interrupted_at):
    array = row_array(tmp_path)
    array.create()
    write(array, range(interrupted_at))
    resumed = row_array(tmp_path)
    resumed.create()
    assert resumed.missing() == list(range(interrupted_at, 3))
    assert resumed.is_complete == (interrupted_at == 3)
    write(resumed, resumed.missing())
    np.testing.assert_array_equal(resumed.read(), VALUES)


def test_an_incomplete_array_is_not_read(tmp_path):
    array = row_array(tmp_path)
    with pytest.raises(InputError, match="is absent or holds the numbers of other rows or models"):
        array.read()
    array.create()
    write(array, [1])
    with pytest.raises(InputError, match="is incomplete: 2 of 3 chunks are missing"):
        array.read()


def test_it_is_mapped_and_read_only(tmp_path):
    array = row_array(tmp_path, dtype="float16")
    array.create()
    write(array, range(3))
    values = array.read()
    assert isinstance(values, np.memmap)
    assert values.dtype == np.float16
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0] = 1


@pytest.mark.parametrize(
    "change", [{"key": "b"}, {"shape": (10, 3)}, {"shape": (11, 2)}, {"dtype": "float64"}, {"chunk_rows": 5}]
)
def test_another_key_shape_or_dtype_starts_anew(tmp_path, change):
    old = row_array(tmp_path)
    old.create()
    write(old, range(3))
    values = old.read()
    new = row_array(tmp_path, **change)
    assert not new.is_complete
    new.create()
    assert new.missing() == list(range(new.num_chunks))
    assert not old.is_complete
    np.testing.assert_array_equal(values, VALUES)  # who reads the old array goes on reading it


def test_a_kill_while_it_is_created_leaves_nothing_that_counts(tmp_path, monkeypatch):
    old = row_array(tmp_path)
    old.create()
    write(old, range(3))
    new = row_array(tmp_path, key="b")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("trl_prune.data.selection.row_array.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        new.create()
    assert not old.is_complete
    assert not new.is_complete
    monkeypatch.undo()
    new.create()
    assert new.missing() == [0, 1, 2]


def test_a_chunk_of_the_wrong_shape_is_refused(tmp_path):
    array = row_array(tmp_path)
    array.create()
    with pytest.raises(ValueError, match="chunk 2 has shape"):
        array.write(2, VALUES[:4])


def test_no_rows_are_a_complete_array(tmp_path):
    array = row_array(tmp_path, shape=(0, 3))
    array.create()
    assert array.is_complete
    assert array.read().shape == (0, 3)


WRITER = """
import sys
from pathlib import Path
from tests.data.selection.test_row_array import row_array, write
array = row_array(Path(sys.argv[1]))
array.create()
for chunk in map(int, sys.argv[2].split(",")):
    write(array, [chunk])
    print(chunk, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_two_processes_write_their_chunks_and_a_killed_one_keeps_them(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), chunks],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for chunks in ("0,2", "1")
    ]
    for process, chunks in zip(processes, (2, 1), strict=True):
        for _ in range(chunks):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
    np.testing.assert_array_equal(row_array(tmp_path).read(), VALUES)
