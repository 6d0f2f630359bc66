"""The exception for errors in the user's input, and what its messages are made of."""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator


# Similarity, of 1, below which a key or argument is no likely misspelling of another.
KEY_SIMILARITY = 0.75
# Characters of a value in a message, before the rest is left out.
SHOWN = 200
# What an operating system says of a disk, a quota or a file that takes no more, or that may not or cannot be used.
REFUSALS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR,
)  # fmt: skip
# torch's writer of files forgets the reason.
UNSAID = "PytorchStreamWriter failed"


class InputError(ValueError):
    """A mistake in what the user gave; its message is one sentence, the command line prints it and exits with 2."""


def closest(name: str, allowed: Iterable[str], similarity: float = 0.6) -> str | None:
    """Return the allowed name that is most similar to a name, or None if none is as similar (`difflib`'s ratio)."""
    return next(iter(difflib.get_close_matches(name, allowed, n=1, cutoff=similarity)), None)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type's name where there is none.

    A line that announces the next one, as in "Validation error for field 'x':", comes with it.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def shown(value: object) -> str:
    """Return a value as a message quotes it: its `repr`, or the start of a long one."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def refusal(error: BaseException) -> str | None:
    """Return what the operating system refused, as `PATH: REASON`; None for an error of any other kind.

    The path is left out where the error does not know it. Rust's libraries, such as safetensors, raise errors of their
    own that have the system's number in their message.
    """
    for one in _causes(error):
        said = re.search(r"os error (\d+)", str(one))
        number = int(said[1]) if said else getattr(one, "errno", None)
        if number in REFUSALS:
            path = getattr(one, "filename", None)
            return f"{path}: {os.strerror(number)}" if path else os.strerror(number)
        if UNSAID in str(one):
            return "a file cannot be written"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
