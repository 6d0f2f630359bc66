"""The exception for errors in the user's input."""


class InputError(ValueError):
    """A mistake in what the user gave; its message is one sentence, the command line prints it and exits with 2."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type's name where there is none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
