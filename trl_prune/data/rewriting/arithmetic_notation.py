"""How arithmetic is written in texts: the tokens of a line, and the exact values of the expressions they form.

Numbers are fractions; one that was rounded is the interval of what it may stand for. Whatever is not surely
arithmetic, such as variables, dates, times, ratios and functions, becomes an `opaque` token, which is part of no
expression.
"""

import re
from collections.abc import Callable, Sequence, Set
from fractions import Fraction
from itertools import pairwise, product
from operator import add, mul, sub, truediv
from typing import NamedTuple


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# Units that may follow a number without a space, and of which two of one group in one equation may mean a conversion.
MEASURES = {
    "time": "sec secs second seconds min mins minute minutes hr hrs hour hours day days week weeks month months "
    "year years decade decades century centuries",
    "length": "mm cm km inch inches ft foot feet yd yard yards mi mile miles meter meters metre metres kilometer "
    "kilometers kilometre kilometres centimeter centimeters centimetre centimetres millimeter millimeters",
    "weight": "mg kg gram grams kilogram kilograms kilo kilos oz ounce ounces lb lbs pound pounds ton tons "
    "tonne tonnes",
    "volume": "ml liter liters litre litres milliliter milliliters cup cups pint pints quart quarts gallon gallons "
    "tablespoon tablespoons teaspoon teaspoons",
    "money": "¢ cent cents dollar dollars penny pennies nickel nickels dime dimes quarter quarters",
    "data": "kb mb gb tb byte bytes bit bits",
}


UNIT_GROUPS = {unit: group for group, units in MEASURES.items() for unit in units.split()}


# Words that end a quantity: what follows them is not its unit.
FUNCTION_WORDS = words_of(
    "the a an this that these those his her their its my our your he she they it we you i who which what and "
    "or but so then thus hence therefore because since if when while as is are was were be been has have had "
    "does do did will would can could should may might must not pi tau"
)


DETERMINERS = words_of("the this that these those his her their its all")


MAX_UNIT_WORDS = 4


# Larger powers are not computed.
MAX_EXPONENT, MAX_BITS = 64, 4096


# Longer numbers are not read.
MAX_DIGITS = 40


# An amount of money or a number may follow a word or letter that stands for an operator.
_OPERAND_FOLLOWS = r"(?=\s*\\?[$€£]?\s*(?:\.?\d|\())"


_TOKEN = re.compile(
    rf"""
    (?P<skip> \s+ | [$€£¥&] | \\(?:left|right|quad|qquad|displaystyle)(?![a-zA-Z]) | \\[()\[\],;:!$\ ]
        | (?<!\d)\*\* | \*\*(?!\s?[\d(-]) )                            # the marks of bold text
  | (?P<opaque> \d+\ ?:\d[\d:]* | \d+\ :\ \d+                          # times and ratios
        | \d+/\d+/\d{{2,4}}(?![\d/]) | \d{{4}}-\d\d-\d\d | \d+(?:\.\d+){{2,}}     # dates and versions
        | \d+(?:st|nd|rd|th)\b | \d[\d.,]{{0,40}}-[^\W\d_][\w-]*              # 3rd, 5-year-old
        | \d[\d.,]{{0,40}}(?:\.\.|…) | 0\d+(?![\d.])                   # 3.33..., 0130
        | \d{{4,}},\d+ | \d+,(?!\d{{3}}(?!\d))\d+                      # 16,0000
        | \d[\d.,]{{0,40}}(?:['"°]|!(?=\s*[-+*/=)])|[eE][-+]?\d+)          # feet, degrees, factorials, 1e5
        | \\\\?(?!times|cdot|ast|div|approx|simeq|%|\\)[a-zA-Z]+ )     # other commands of LaTeX
  | (?P<mixed> \d+\ \d+/\d+(?![\d/.]) )
  | (?P<number> \d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?(?!\d) | \d+(?:\.\d+)? | (?<![\w.])\.\d+ )
  | (?P<multiply> \\(?:times|cdot|ast)(?![a-zA-Z]) | (?:(?<=[\s\d%)])|^)[xX]{_OPERAND_FOLLOWS}
        | (?:times|multiplied\ by)\b{_OPERAND_FOLLOWS} )
  | (?P<divide> \\div(?![a-zA-Z]) | divided\ by\b{_OPERAND_FOLLOWS} )
  | (?P<plus> plus\b{_OPERAND_FOLLOWS} )
  | (?P<minus> minus\b{_OPERAND_FOLLOWS} )
  | (?P<approx> ≈ | \\(?:approx|simeq)(?![a-zA-Z]) | =\s*~ | ~= )
  | (?P<other> [<>!≠]=+ | =+> | -+> | [→⇒<>≤≥≠|;?,"“”`] | \\\\ )
  | (?P<equal> ==? | equals\b | is\ equal\ to\b )
  | (?P<percent> \\?% | percent\b )
  | (?P<operator> \*\* | [-+*/^] ) | (?P<open> [(\[{{] ) | (?P<close> [)\]}}] )
  | (?P<word> [^\W\d_]+(?:['-][^\W\d_]+)* | ¢ )
  | (?P<end> [.:!] ) | (?P<unknown> . )
    """,
    re.VERBOSE,
)


# Signs of one meaning.
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\N{MULTIPLICATION SIGN}\N{MIDDLE DOT}\N{DOT OPERATOR}\N{ASTERISK OPERATOR}", "*"),
        **dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}", "-"),
        **dict.fromkeys("\N{RIGHT SINGLE QUOTATION MARK}\N{PRIME}\N{DOUBLE PRIME}", "'"),
        "\N{DIVISION SIGN}": "/",
        "\N{APPROXIMATELY EQUAL TO}": "≈",
    }
)


OPERATORS = {"multiply": "*", "divide": "/", "plus": "+", "minus": "-"}


class UnsureError(Exception):
    """A text is not surely arithmetic."""


class Token(NamedTuple):
    """A token of a line: its kind, its text (an operator's is one of `+-*/^`) and its place in the line."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def is_quantity(self) -> bool:
        """Whether this is a number, plain or mixed as in 2 1/2."""
        return self.kind in ("number", "mixed")

    def is_operator(self, symbols: str) -> bool:
        """Return whether this is an operator, one of some."""
        return self.kind == "operator" and self.text in symbols


class Value(NamedTuple):
    """The interval of what an expression may stand for, and whether the expression is one percentage."""

    low: Fraction
    high: Fraction
    is_percent: bool = False


class Reading(NamedTuple):
    """What was read of an expression: its value, and the position of the token that follows."""

    value: Value
    stop: int


def plain_notation(line: str) -> str:
    """Return a line with signs, LaTeX's fractions, boxes, texts and separators, and raised digits written plainly."""
    line = line.translate(_SIGNS)
    line = re.sub(r"\{,\}|(?<=\d)\\[,!](?=\d{3})", ",", line)
    line = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r" \1 ", line)
    previous = None
    while previous != line:
        previous = line
        line = re.sub(r"(?<=\d)\s*\\[dtc]?frac\{(\d+)\}\{(\d+)\}", r" \1/\2", line)
        line = re.sub(r"\\[dtc]?frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", line)
        line = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", line)
    line = re.sub(r"(?<=[\d)])([²³])", lambda digit: "^2" if digit[1] == "²" else "^3", line)
    return re.sub(r"(?<=[a-zA-Z]{2})(?:\^\{?[23]\}?|[²³])", "", line)  # square and cubic units


def tokens_of(line: str) -> list[Token]:
    """Return the tokens of a line in plain notation, without spaces, currency signs and marks of bold text."""
    tokens = [
        _token(str(match.lastgroup), match.group(), match.start(), match.end())
        for match in _TOKEN.finditer(line)
        if match.lastgroup != "skip"
    ]
    glued = {first.start for first, second in pairwise(tokens) if _is_glued(first, second)}
    return [token._replace(kind="opaque") if token.start in glued else token for token in tokens]


def shown_unit(token: Token) -> Fraction:
    """Return the value of the last digit that a number shows: 1/100 for 3.14, 1 for 3."""
    decimals = token.text.partition(".")[2]
    return Fraction(1, 10 ** len(decimals))


def number_value(text: str) -> Fraction:
    """Return the value of a number such as `1,234.5`, `.5` or `2 1/2`.

    Raises:
        UnsureError: its denominator is zero, or it is very long.
    """
    if len(text) > MAX_DIGITS:
        raise UnsureError
    whole, _, fraction = text.replace(",", "").rpartition(" ")
    try:
        return Fraction(whole or 0) + Fraction(fraction)
    except ZeroDivisionError as error:
        raise UnsureError from error


def singular(word: str) -> str:
    """Return a word without a plural's `s`, feet as foot and inches as inch."""
    irregular = {"feet": "foot", "inches": "inch", "centuries": "century", "pennies": "penny"}
    return irregular.get(word) or (word[:-1] if word.endswith("s") and len(word) > 3 else word)


class Expressions:
    """Reads expressions from tokens, by recursive descent over sums, products, powers and numbers."""

    def __init__(self, tokens: Sequence[Token], percent: Fraction, rounded: Set[str] = frozenset()):
        self.tokens = tokens
        self.percent = percent
        self.rounded = rounded

    def read(self, position: int) -> Reading | None:
        """Return the longest expression from a position on, with the units of its quantities, or None.

        Raises:
            UnsureError: it cannot be computed, or a percentage is added to something else.
        """
        return self._chain(position, self._product, lambda at: ("+-", at))

    def _product(self, position: int) -> Reading | None:
        return self._chain(position, self._signed, self._multiplication)

    def _chain(
        self, position: int, operand: Callable[[int], Reading | None], expected: Callable[[int], tuple[str, int]]
    ) -> Reading | None:
        reading = operand(position)
        while reading is not None:
            symbols, at = expected(reading.stop)
            symbol = symbols if len(symbols) == 1 else self._operator(at, symbols)
            following = operand(at + (len(symbols) > 1)) if symbol else None
            if following is None:
                break
            reading = Reading(combined(symbol, reading.value, following.value), following.stop)
        return reading

    def _operator(self, position: int, symbols: str) -> str:
        token = self._at(position)
        return token.text if token is not None and token.is_operator(symbols) else ""

    def _multiplication(self, position: int) -> tuple[str, int]:
        """Return the operators that may stand at a position; of one without a sign, where the second factor starts."""
        token, previous = self._at(position), self.tokens[position - 1]
        if token is not None and token.text == "of" and self._is_share(position):
            following = self._at(position + 1)
            return "*", position + (2 if following is not None and following.text in DETERMINERS else 1)
        if token is not None and token.kind == "open" and token.start == previous.end and previous.kind != "word":
            return "*", position
        return "*/", position

    def _is_share(self, position: int) -> bool:
        """Return whether a percentage or a fraction ends before a position."""
        before = self.tokens[max(position - 2, 0) : position]
        return before[-1].kind in ("percent", "close") or (len(before) == 2 and before[0].is_operator("/"))

    def _signed(self, position: int) -> Reading | None:
        sign = self._operator(position, "+-")
        reading = self._power(position + len(sign))
        if sign != "-" or reading is None:
            return reading
        if any(token.is_operator("^") for token in self.tokens[position : reading.stop]):
            raise UnsureError  # -2^2 is 4 to some
        return Reading(Value(-reading.value.high, -reading.value.low, reading.value.is_percent), reading.stop)

    def _power(self, position: int) -> Reading | None:
        base = self._quantity(position)
        if base is None or not self._operator(base.stop, "^"):
            return base
        exponent = self._signed(base.stop + 1)
        if exponent is None:
            raise UnsureError
        return Reading(power(base.value, exponent.value), exponent.stop)

    def _quantity(self, position: int) -> Reading | None:
        token = self._at(position)
        if token is not None and token.is_quantity:
            return self._with_unit(self._number(token), position + 1)
        if token is None or token.kind != "open":
            return None
        inner = self.read(position + 1)
        closing = self._at(inner.stop) if inner is not None else None
        if inner is None or closing is None or closing.kind != "close":
            return None
        return self._with_unit(inner.value, inner.stop + 1)

    def _number(self, token: Token) -> Value:
        value = number_value(token.text)
        error = shown_unit(token) if token.text in self.rounded else Fraction(0)
        return Value(value - error, value + error)

    def _with_unit(self, value: Value, position: int) -> Reading:
        token = self._at(position)
        if token is not None and token.kind == "percent":
            value = Value(value.low * self.percent, value.high * self.percent, is_percent=True)
            position += 1
        return Reading(value, self._skip_unit(position))

    def _skip_unit(self, position: int) -> int:
        start = position
        while position - start < MAX_UNIT_WORDS and self._is_unit(position, start):
            position += 1 if self.tokens[position].kind == "word" else 2
        return position

    def _is_unit(self, position: int, start: int) -> bool:
        token, following = self._at(position), self._at(position + 1)
        if token is not None and token.is_operator("/"):  # miles/hour, $5/day
            return following is not None and following.kind == "word"
        if token is None or token.kind != "word" or token.text.lower() in FUNCTION_WORDS:
            return False
        return position > start or token.text != "of"

    def _at(self, position: int) -> Token | None:
        return self.tokens[position] if position < len(self.tokens) else None


def combined(symbol: str, left: Value, right: Value) -> Value:
    """Return the value of two values with an operator between them.

    Raises:
        UnsureError: the divisor may be zero, or a percentage is added to something else.
    """
    if symbol in "+-" and left.is_percent != right.is_percent:
        raise UnsureError
    if symbol == "/" and right.low <= 0 <= right.high:
        raise UnsureError
    operation = {"+": add, "-": sub, "*": mul, "/": truediv}[symbol]
    ends = [operation(one, other) for one, other in product(left[:2], right[:2])]
    return Value(min(ends), max(ends), is_percent=symbol in "+-" and left.is_percent)


def power(base: Value, exponent: Value) -> Value:
    """Return a value raised to a whole number.

    Raises:
        UnsureError: the exponent is not a whole number, the result would be too long, or zero is divided by.
    """
    number = exponent.low
    digits = max(abs(base.low).numerator.bit_length(), base.low.denominator.bit_length())
    if exponent.low != exponent.high or number.denominator != 1 or base.low != base.high:
        raise UnsureError
    if abs(number) > MAX_EXPONENT or digits * abs(number) > MAX_BITS or (base.low == 0 and number <= 0):
        raise UnsureError
    result = base.low ** int(number)
    return Value(result, result)


def _token(kind: str, text: str, start: int, end: int) -> Token:
    if kind == "operator" or kind in OPERATORS:
        return Token("operator", OPERATORS.get(kind, "^" if text == "**" else text), start, end)
    is_letter = kind == "word" and len(text) == 1 and text not in "aAI¢"
    return Token("opaque" if is_letter or kind == "unknown" else kind, text, start, end)


def _is_glued(first: Token, second: Token) -> bool:
    """Return whether a number is followed at once by letters that are no unit (2xy), or letters by a number (x2)."""
    if first.end != second.start:
        return False
    if first.kind == "word":
        return second.is_quantity
    is_unit = second.text.lower() in UNIT_GROUPS or len(second.text) > 3
    return first.is_quantity and second.kind in ("word", "opaque") and not is_unit
