r"""Equality of mathematical expressions in LaTeX, by math-verify.

math-verify's own timeout works in the main thread only and cannot interrupt a power such as `9^{9^{9^9}}`, which is
one step of the interpreter. So an expression is compared only if it is short and its powers and factorials are small.
"""

import re
import threading
from math import prod


MAX_CHARACTERS, MAX_DIGITS, MAX_EXPONENT, MAX_FACTORIAL = 200, 30, 1000, 100
TIMEOUT_SECONDS = 5


# What is evaluated over many terms, and powers whose exponent is not one letter, number or group without powers.
LONG_OPERATIONS = re.compile(r"\\(?:sum|prod|i*int|oint|lim|binom|dbinom|tbinom|Gamma)(?![a-zA-Z])|\*\*|[)}\]!]\s*!")
POWER = re.compile(r"\^\s*(\{[^{}^]*\}|\\[a-zA-Z]+|-?[^\s{}\\^])(?!\s*\^)")


def same_expression(expression: str, expected: str) -> bool:
    """Return whether two expressions in LaTeX are equal; False if one is too long to be sure of a quick comparison."""
    if not (is_quick(expression) and is_quick(expected)):
        return False
    from math_verify import LatexExtractionConfig, parse, verify  # imports sympy, which is slow

    is_main = threading.current_thread() is threading.main_thread()
    timeout = TIMEOUT_SECONDS if is_main else None
    target, gold = (
        parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=timeout)
        for text in (expression, expected)
    )
    return bool(target and gold) and verify(gold, target, timeout_seconds=timeout)


def is_quick(expression: str) -> bool:
    """Return whether an expression's size and shape let it be computed in moments."""
    if len(expression) > MAX_CHARACTERS or "$" in expression or LONG_OPERATIONS.search(expression):
        return False
    powers = POWER.findall(expression)
    if len(powers) != expression.count("^") or re.search(rf"\d{{{MAX_DIGITS + 1}}}", expression):
        return False
    exponents = prod(max(int(number), 1) for power in powers for number in re.findall(r"\d+", power))
    factorials = [int(number) for number in re.findall(r"(\d+)\s*!", expression)]
    return exponents <= MAX_EXPONENT and all(number <= MAX_FACTORIAL for number in factorials)
