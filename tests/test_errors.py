import errno

import pytest
from safetensors import SafetensorError

from trl_prune.errors import refusal, shown


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EACCES, "x", "/a/b"), "/a/b: Permission denied"),
        (SafetensorError("Error while serializing: I/O error: File too large (os error 27)"), "File too large"),
        (chained(ValueError("cannot save"), OSError(errno.EROFS, "x", "/a")), "/a: Read-only file system"),
        (
            RuntimeError("PytorchStreamWriter failed writing file data.pkl: file write failed"),
            "a file cannot be written",
        ),
    ],
)
def test_what_the_system_refuses_is_said_with_its_path_and_reason(error, sentence):
    assert refusal(error) == sentence


@pytest.mark.parametrize(
    "error", [ValueError("os error"), OSError("a library's own"), FileNotFoundError(2, "x", "/a")]
)
def test_other_errors_are_no_refusal(error):
    assert refusal(error) is None


def test_a_long_value_is_shown_by_its_start():
    assert shown(["a"] * 3) == "['a', 'a', 'a']"
    assert len(shown("a" * 10_000)) < 300
