"""Choose the answer type of a row that names none: by its dataset's name, else by its reference answer."""

import re
from collections.abc import Mapping
from pathlib import PurePath

from trl_prune.data.rewriting.answer_types import AnswerType
from trl_prune.data.rewriting.extractors.registry import EXTRACTORS


# Options of a multiple-choice question, each on a line of its own: "A. ...", "(B) ...".
OPTION = re.compile(r"^\s*\(?([A-J])[).:]\s", re.MULTILINE)
NUMBER_ALONE = re.compile(r"[-\u2212+$€£]?\s*\d[\d,.]*\s*%?\.?")
FINAL_NUMBER = re.compile(r"####\s*[-\u2212$]?\d[\d.,/]*%?\s*$|\\boxed\{")
DEFINITION = re.compile(r"^\s*(?:async def|def|class|import|from) \w", re.MULTILINE)
PHRASE_WORDS = 4
# A dataset's name at least this long is also found inside a longer word, as `gsm8k` in `gsm8ktrain`.
LONG_NAME = 5


def type_of_dataset(name: str | None, types: Mapping[str, AnswerType | None]) -> str | None:
    """Return the answer type of a dataset that one of the types names, or None.

    Args:
        name: a hub id or path, as in `tatsu-lab/alpaca`.
        types: the answer types by name.
    """
    # The last part of a path or hub id: folders and organisations have names of their own.
    last = PurePath(name or "").name.lower()
    words = set(re.split(r"[^a-z0-9]+", last))
    joined = re.sub(r"[^a-z0-9]+", "", last)
    for type_name, answer_type in types.items():
        for dataset in answer_type.datasets if answer_type else ():
            if dataset in words or (len(dataset) >= LONG_NAME and dataset in joined):
                return type_name
    return None


def type_of_answer(instruction: str, answer: str) -> str:
    """Return the answer type that a reference answer looks like; `open` if none."""
    checks = {
        "math": bool(FINAL_NUMBER.search(answer) or NUMBER_ALONE.fullmatch(answer.strip())),
        "choice": _is_choice(instruction, answer),
        "code": _is_code(answer),
        "function_call": _is_only(answer) and EXTRACTORS["function_call"].extract(answer) is not None,
        "json": _is_only(answer) and EXTRACTORS["json"].extract(answer) is not None,
        "phrase": _is_phrase(answer),
    }
    return next((name for name, holds in checks.items() if holds), "open")


def _is_choice(instruction: str, answer: str) -> bool:
    options = set(OPTION.findall(instruction))
    return len(options) > 1 and EXTRACTORS["choice"].extract(answer) in options


def _is_only(answer: str) -> bool:
    """Return whether a text is nothing but JSON or a call, rather than text that mentions one."""
    text = answer.strip()
    fenced = re.fullmatch(r"```(?:json)?\n(.*)```", text, re.DOTALL)
    text = fenced.group(1).strip() if fenced else text
    ends = {"{": "}", "[": "]", "<": "</tool_call>"}
    is_json = text[:1] in ends and text.endswith(ends[text[0]])
    return is_json or bool(re.fullmatch(r"[\w.]+\([^\n]*\);?", text))


def _is_code(answer: str) -> bool:
    fenced = re.findall(r"```(?:python|py)\b", answer, re.IGNORECASE)
    return bool(fenced) or (bool(DEFINITION.search(answer)) and EXTRACTORS["code"].extract(answer) is not None)


def _is_phrase(answer: str) -> bool:
    return len(answer.split()) <= PHRASE_WORDS and "\n" not in answer.strip()
