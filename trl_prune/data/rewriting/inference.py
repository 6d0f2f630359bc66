"""Choose the answer type of a row that names none: by its dataset's name, else by its reference answer."""

import re
from collections.abc import Mapping

from trl_prune.data.rewriting.answer_types import AnswerType
from trl_prune.data.rewriting.extractors.registry import EXTRACTORS


# Options of a multiple-choice question, each on a line of its own: "A. ...", "(B) ...".
OPTION = re.compile(r"^\s*\(?([A-J])[).:]\s", re.MULTILINE)
NUMBER_ALONE = re.compile(r"[-\u2212+$€£]?\s*\d[\d,.]*\s*%?\.?")
FINAL_NUMBER = re.compile(r"####\s*[-\u2212$]?\d|\\boxed\{")
CODE_FENCE = "```"
DEFINITION = re.compile(r"^\s*(?:async def|def|class|import|from) \w", re.MULTILINE)
PHRASE_WORDS = 4


def type_of_dataset(name: str | None, types: Mapping[str, AnswerType | None]) -> str | None:
    """Return the answer type of a dataset that one of the types names, or None.

    Args:
        name: a hub id or path, as in `tatsu-lab/alpaca`.
        types: the answer types by name.
    """
    words = set(re.split(r"[^a-z0-9]+", (name or "").lower()))
    joined = re.sub(r"[^a-z0-9]+", "", (name or "").lower())
    for type_name, answer_type in types.items():
        for dataset in answer_type.datasets if answer_type else ():
            if dataset in words or (len(dataset) > PHRASE_WORDS and dataset in joined):
                return type_name
    return None


def type_of_answer(instruction: str, answer: str) -> str:
    """Return the answer type that a reference answer looks like; `open` if none."""
    checks = {
        "math": bool(FINAL_NUMBER.search(answer) or NUMBER_ALONE.fullmatch(answer.strip())),
        "choice": _is_choice(instruction, answer),
        "function_call": EXTRACTORS["function_call"].extract(answer) is not None and _is_only(answer),
        "json": EXTRACTORS["json"].extract(answer) is not None and _is_only(answer),
        "code": _is_code(answer),
        "phrase": _is_phrase(answer),
    }
    return next((name for name, holds in checks.items() if holds), "open")


def _is_choice(instruction: str, answer: str) -> bool:
    options = set(OPTION.findall(instruction))
    return len(options) > 1 and EXTRACTORS["choice"].extract(answer) in options


def _is_only(answer: str) -> bool:
    """Return whether a text is nothing but JSON or a call, rather than text that mentions one."""
    text = answer.strip()
    return text.startswith(("{", "[", "<tool_call>", CODE_FENCE)) or bool(re.fullmatch(r"[\w.]+\(.*\);?", text, re.S))


def _is_code(answer: str) -> bool:
    fenced = re.findall(r"```(?:python|py)\b", answer, re.IGNORECASE)
    return bool(fenced) or (bool(DEFINITION.search(answer)) and EXTRACTORS["code"].extract(answer) is not None)


def _is_phrase(answer: str) -> bool:
    return len(answer.split()) <= PHRASE_WORDS and "\n" not in answer.strip()
