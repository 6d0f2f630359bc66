"""Whether a generated answer ends in a loop."""

# An answer loops if its end, this long or longer, is one unit of at most so many characters (about 32 words), three
# times or more; a rule of dashes is no loop.
LOOP_CHARACTERS, UNIT_CHARACTERS, LOOP_REPEATS = 24, 200, 3


def ends_in_loop(text: str) -> bool:
    """Return whether a text's end repeats one unit of characters; the last repetition may be cut off.

    That is what a model does which repeats itself until the limit of new tokens. A list whose items begin alike is no
    loop.
    """
    end = text.rstrip()
    longest = min(UNIT_CHARACTERS, len(end) // LOOP_REPEATS)
    return any(_repeats(end[-max(LOOP_CHARACTERS, LOOP_REPEATS * unit) :], unit) for unit in range(1, longest + 1))


def _repeats(end: str, unit: int) -> bool:
    is_long_enough = len(end) >= LOOP_CHARACTERS
    return is_long_enough and end[unit:] == end[:-unit] and any(character.isalnum() for character in end[-unit:])
