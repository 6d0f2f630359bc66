"""The extractors by name, as answer types name them."""

from collections.abc import Callable
from dataclasses import dataclass

from trl_prune.data.rewriting.extractors.boxed import last_boxed, same_boxed
from trl_prune.data.rewriting.extractors.choice import choice_letter, same_choice
from trl_prune.data.rewriting.extractors.function_call import function_calls, same_calls
from trl_prune.data.rewriting.extractors.json_value import json_value, same_json
from trl_prune.data.rewriting.extractors.math_answer import math_answer, same_math
from trl_prune.data.rewriting.extractors.number import last_number, same_number
from trl_prune.data.rewriting.extractors.phrase import normalized_phrase, states_phrase
from trl_prune.data.rewriting.extractors.python_code import python_code, same_definitions


@dataclass(frozen=True)
class AnswerExtractor:
    """How the final answer of a text is found and compared (Extract of 2410.09982's conditional selection).

    Attributes:
        extract: returns the final answer that a text gives; None if it gives none.
        agree: returns whether a rewritten text has the final answer of an expected answer or a reference text.
    """

    extract: Callable[[str], object | None]
    agree: Callable[[str, str], bool]


EXTRACTORS: dict[str, AnswerExtractor] = {
    "number": AnswerExtractor(last_number, same_number),
    "math": AnswerExtractor(math_answer, same_math),
    "boxed": AnswerExtractor(last_boxed, same_boxed),
    "choice": AnswerExtractor(choice_letter, same_choice),
    "code": AnswerExtractor(python_code, same_definitions),
    "json": AnswerExtractor(json_value, same_json),
    "function_call": AnswerExtractor(function_calls, same_calls),
    "phrase": AnswerExtractor(normalized_phrase, states_phrase),
}
