"""Finds the equations of a line of text: where each side's expression starts and ends.

A side is taken only if the words around it cannot change its value: in "twice 3 + 4 = 14" and in "the total * 3 = 12"
there is no left side.
"""

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from trl_prune.data.rewriting.arithmetic_notation import (
    DETERMINERS,
    UNIT_GROUPS,
    Expressions,
    Token,
    UnsureError,
    Value,
    plain_notation,
    singular,
    tokens_of,
    words_of,
)


# Words right before an expression that take it as their operand, as in "twice 3 + 4" or "5 less than 3 * 4".
OPERATION_WORDS = words_of(
    "twice double triple thrice half third thirds quarter quarters fourth fourths fifth fifths sixth sixths "
    "eighth tenth tenths than from by off less minus plus times over per average mean median difference "
    "product ratio root square cube squared sqrt log ln sin cos tan mod modulo choose percent factorial "
    "negative every each another"
)


# Words after which "of 5 + 3" means just that sum.
TOTALS = words_of(
    "total sum amount cost costs price profit number value balance area volume distance speed rate sale sales "
    "time age weight length savings spending income payment discount tip tax"
)


# A single one of these between a number and an expression does not join them.
SEPARATORS = words_of(
    "so then because since is are was which as if when hence thus therefore means leaves makes gives gets "
    "spent earned needs has had have"
)


# Words between an equals sign and its right side.
LEADING_WORDS = words_of("a total of only just exactly about approximately around roughly nearly almost")


# Words that add to the number before them, as in "5 and a half".
HALVES = frozenset(("half", "quarter", "third"))


BULLET = re.compile(r"^\s*(?:(?:[-*•+>]|#+|\d+[.)])\s+)*")


RELATIONS = ("equal", "approx")


# Longer clauses are no steps of a worked answer; the readings recurse into brackets.
MAX_TOKENS, MAX_BRACKETS = 300, 40


@dataclass(frozen=True)
class Side:
    """One side of an equation.

    Attributes:
        tokens: the tokens between the relations around it.
        start: the position of the expression's first token.
        stop: the position after its last, with units.
    """

    tokens: Sequence[Token]
    start: int
    stop: int

    @property
    def used(self) -> Sequence[Token]:
        """The tokens of the expression, with units."""
        return self.tokens[self.start : self.stop]

    @property
    def has_percent(self) -> bool:
        """Whether it contains a percentage."""
        return any(token.kind == "percent" for token in self.used)

    @property
    def number(self) -> Token | None:
        """The number, if the side is nothing else than one with its sign and unit."""
        numbers = [token for token in self.used if token.is_quantity]
        return numbers[0] if len(numbers) == 1 else None

    @property
    def words(self) -> set[str]:
        """The words of the expression, in lower case and those of units in the singular."""
        return {singular(token.text.lower()) for token in self.used if token.kind == "word"}

    @property
    def units(self) -> set[str]:
        """The units of measure."""
        return self.words & UNIT_GROUPS.keys()

    @property
    def pattern(self) -> str:
        """The expression with each number as 0, without words."""
        return "".join("0" if token.is_quantity else token.text for token in self.used if token.kind != "word")

    def value(self, percent: Fraction, rounded: Set[str]) -> Value:
        """Return the value.

        Args:
            percent: what one percent is.
            rounded: numbers that stand for any value that rounds to them.

        Raises:
            UnsureError: it cannot be computed.
        """
        reading = Expressions(self.used, percent, rounded).read(0)
        if reading is None:
            raise UnsureError
        return reading.value

    def beginning(self) -> "Side":
        """Return the side's first number alone."""
        first = next(index for index, token in enumerate(self.used) if token.is_quantity)
        return Side(self.used, 0, first + 1)


@dataclass(frozen=True)
class Equation:
    """Two sides with an equals sign, or `≈`, between them.

    Attributes:
        left: the left side.
        relation: the sign.
        right: the right side.
        line: the line in plain notation.
        clause: the tokens between the punctuation marks around.
        is_first: whether no other side is left of it, as in a chain.
        is_last: whether no other side is right of it.
    """

    left: Side
    relation: Token
    right: Side
    line: str
    clause: Sequence[Token]
    is_first: bool
    is_last: bool

    def __str__(self) -> str:
        return self.line[self.left.used[0].start : self.right.used[-1].end].strip()

    def source(self, side: Side) -> str:
        """Return the text of a side, with the currency sign before it."""
        return self.line[max(side.used[0].start - 2, 0) : side.used[-1].end]


def equations_of(line: str) -> Iterator[Equation]:
    """Yield the equations of a line that contain arithmetic, and those that continue one in a chain."""
    line = BULLET.sub("", plain_notation(line))
    for clause in _clauses(tokens_of(line)):
        brackets = sum(token.kind == "open" for token in clause)
        if len(clause) <= MAX_TOKENS and brackets <= MAX_BRACKETS:
            yield from _chain(line, clause)


def _clauses(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Yield the tokens between punctuation marks; an operator without operand, as before dots, leads the next."""
    clause: list[Token] = []
    for token in tokens:
        if token.kind in ("end", "other"):
            yield clause
            clause = clause[-1:] if clause and clause[-1].kind == "operator" else []
        else:
            clause.append(token)
    yield clause


def _chain(line: str, clause: Sequence[Token]) -> Iterator[Equation]:
    relations = [index for index, token in enumerate(clause) if token.kind in RELATIONS]
    parts = [clause[start + 1 : stop] for start, stop in pairwise([-1, *relations, len(clause)])]
    is_arithmetic = False
    for index, (before, after) in enumerate(pairwise(parts)):
        left, right = _left_side(before), _right_side(after)
        if left is None or right is None:
            is_arithmetic = False
            continue
        is_arithmetic = is_arithmetic or left.number is None or right.number is None
        if is_arithmetic:
            relation = clause[relations[index]]
            yield Equation(left, relation, right, line, clause, index == 0, index == len(parts) - 2)


def _left_side(tokens: Sequence[Token]) -> Side | None:
    """Return the longest expression that ends where the tokens end."""
    for start, token in enumerate(tokens):
        if not (token.is_quantity or token.kind == "open" or (start == 0 and token.is_operator("-"))):
            continue
        if _may_start(tokens, start) and _stop(tokens, start) == len(tokens):
            return Side(tokens, start, len(tokens))
    return None


def _right_side(tokens: Sequence[Token]) -> Side | None:
    """Return the longest expression that starts where the tokens start, if nothing continues it."""
    start = 0
    while start < len(tokens) and tokens[start].text in LEADING_WORDS:
        start += 1
    stop = _stop(tokens, start)
    return Side(tokens, start, stop) if stop is not None and _may_stop(tokens, stop) else None


def _stop(tokens: Sequence[Token], start: int) -> int | None:
    """Return the position after the expression that starts at a position; None if there is none or it is unsure."""
    try:
        reading = Expressions(tokens, Fraction(1, 100)).read(start)
    except UnsureError:
        return None
    return None if reading is None else reading.stop


def _may_stop(tokens: Sequence[Token], stop: int) -> bool:
    """Return whether an expression surely stops here, judged by what follows."""
    after = stop
    while after < len(tokens) and tokens[after].kind == "word":
        after += 1
    words = [token.text for token in tokens[stop:after]]
    if HALVES & set(words):
        return False
    if after == len(tokens):
        return True
    follower = tokens[after]
    if follower.kind == "operator":  # a dash or a stray mark, unless it has an operand
        return after + 1 == len(tokens) or (follower.text == "-" and tokens[after + 1].kind == "word")
    if words == ["and"]:  # 8 and 1/2
        return False
    return bool(words) or follower.kind in ("open", "close")


def _may_start(tokens: Sequence[Token], start: int) -> bool:
    """Return whether an expression surely starts here, judged by what is before."""
    if start == 0:
        return True
    previous = tokens[start - 1]
    if previous.kind == "open":
        return start == 1 or tokens[start - 2].kind == "word"
    is_call = tokens[start].kind == "open" and previous.end == tokens[start].start
    return previous.kind == "word" and not is_call and _is_apart(tokens, start)


def _is_apart(tokens: Sequence[Token], start: int) -> bool:
    """Return whether the words before a position do not join what follows to what is before them."""
    first = start
    while first > 0 and tokens[first - 1].kind == "word":
        first -= 1
    words = [token.text.lower() for token in tokens[first:start]]
    before = tokens[first - 1].kind if first else "open"
    if before == "operator" or _takes_operand(words):
        return False
    return before == "open" or (words[-1] != "to" and (len(words) > 1 or words[0] in SEPARATORS))


def _takes_operand(words: Sequence[str]) -> bool:
    """Return whether the last of some words make what follows an operand, as in "half of the"."""
    rest = list(words)
    while rest and rest[-1] in DETERMINERS:
        rest.pop()
    if rest and rest[-1] == "of":
        return len(rest) < 2 or rest[-2] not in TOTALS
    return bool(rest) and rest[-1] in OPERATION_WORDS
