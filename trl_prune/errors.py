"""The exception for errors in the user's input, and what its messages are made of."""

import difflib
from collections.abc import Iterable


# Similarity, of 1, below which a key or argument is no likely misspelling of another.
KEY_SIMILARITY = 0.75


class InputError(ValueError):
    """A mistake in what the user gave; its message is one sentence, the command line prints it and exits with 2."""


def closest(name: str, allowed: Iterable[str], similarity: float = 0.6) -> str | None:
    """Return the allowed name that is most similar to a name, or None if none is as similar (`difflib`'s ratio)."""
    return next(iter(difflib.get_close_matches(name, allowed, n=1, cutoff=similarity)), None)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type's name where there is none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
