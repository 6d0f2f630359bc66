"""Function calls in a text, as JSON or as Python."""

import ast
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from trl_prune.data.rewriting.extractors.fences import fenced_blocks
from trl_prune.data.rewriting.extractors.json_value import equal_json, json_values, parsed_json
from trl_prune.data.rewriting.extractors.python_code import parsed_python


TOOL_CALL = re.compile(r"<(tool_call|function_?call)>\s*(.*?)\s*(?:</\1>|$)", re.DOTALL)


NAMED_CALL = re.compile(r"(?<![\w.])[A-Za-z_][\w.]*\(")


# JSON's constants in calls that are otherwise Python.
CONSTANTS = {"true": True, "false": False, "null": None}


# Calls in prose that are tried.
MAX_ATTEMPTS = 50


class FunctionCall(NamedTuple):
    """A call: the function's name, its positional and its named arguments."""

    name: str
    positional: list
    named: dict

    def equals(self, other: "FunctionCall") -> bool:
        """Return whether both calls have one meaning: 1 is 1.0, the order of named arguments has none."""
        return (
            self.name == other.name
            and equal_json(self.positional, other.positional)
            and equal_json(self.named, other.named)
        )


def function_calls(text: str) -> list[FunctionCall] | None:
    """Return the calls of a text, or None.

    They are in `<tool_call>` tags, in JSON (`{"name": ..., "arguments": {...}}`, a list of these, `parameters` for
    `arguments`, arguments as a string of JSON), or in Python, `name(a=1, b="x")`, in a fence, as the whole text or in
    prose.
    """
    tagged = [call for _, content in TOOL_CALL.findall(text) for call in _calls_of(content)]
    if tagged:
        return tagged
    return _calls_of(text) or None


def same_calls(rewrite: str, reference: str) -> bool:
    """Return whether both texts make the same calls in the same order."""
    found, expected = function_calls(rewrite), function_calls(reference)
    if found is None or expected is None or len(found) != len(expected):
        return False
    return all(one.equals(other) for one, other in zip(found, expected, strict=True))


def _calls_of(text: str) -> list[FunctionCall]:
    for (value,) in json_values(text):
        calls = list(_json_calls(value))
        if calls:
            return calls
    for source in (*fenced_blocks(text), text):
        calls = _python_calls(source)
        if calls:
            return calls
    return _prose_calls(text)


def _json_calls(value: object) -> Iterator[FunctionCall]:
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, dict):
            call = _json_call(entry.get("function") if isinstance(entry.get("function"), dict) else entry)
            if call is not None:
                yield call


def _json_call(entry: dict) -> FunctionCall | None:
    name, arguments = entry.get("name"), entry.get("arguments", entry.get("parameters"))
    if isinstance(arguments, str):
        parsed = parsed_json(arguments)
        arguments = parsed[0] if parsed else None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return FunctionCall(name.strip(), [], _normalized(arguments))


def _python_calls(source: str) -> list[FunctionCall]:
    """Return the calls of a text that is nothing else: calls in lines, or a list of calls."""
    tree = parsed_python(source.strip())
    statements = tree.body if tree is not None else []
    values = [statement.value for statement in statements if isinstance(statement, ast.Expr | ast.Assign)]
    if len(values) != len(statements):
        return []
    nodes = [node for value in values for node in (value.elts if isinstance(value, ast.List | ast.Tuple) else [value])]
    calls = [_python_call(node) for node in nodes]
    return [] if None in calls else calls


def _prose_calls(text: str) -> list[FunctionCall]:
    """Return the different calls in a text whose arguments are all constants."""
    calls: list[FunctionCall] = []
    for start in list(NAMED_CALL.finditer(text))[:MAX_ATTEMPTS]:
        source = _balanced_call(text, start.start())
        for call in _python_calls(source) if source else []:
            is_constant = not any(isinstance(value, _Source) for value in [*call.positional, *call.named.values()])
            if is_constant and not any(call.equals(known) for known in calls):
                calls.append(call)
    return calls


def _balanced_call(text: str, start: int) -> str | None:
    depth = 0
    for piece in re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[()]", re.DOTALL).finditer(text, start):
        depth += {"(": 1, ")": -1}.get(piece.group(), 0)
        if depth == 0 and piece.group() == ")":
            return text[start : piece.end()]
    return None


def _python_call(node: ast.AST) -> FunctionCall | None:
    if not isinstance(node, ast.Call) or any(keyword.arg is None for keyword in node.keywords):
        return None
    positional = [_argument(argument) for argument in node.args]
    named = {str(keyword.arg): _argument(keyword.value) for keyword in node.keywords}
    return FunctionCall(ast.unparse(node.func), positional, named)


class _Source(str):
    """The source of an argument that is no constant."""


def _argument(node: ast.AST) -> object:
    constants = ast.copy_location(_Constants().visit(node), node)
    try:
        return _normalized(ast.literal_eval(constants))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return _Source(ast.unparse(node))


class _Constants(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(CONSTANTS[node.id]) if node.id in CONSTANTS else node


def _normalized(value: object) -> object:
    """Return a value with single spaces in its texts, lists for tuples, and decimals for floats."""
    if isinstance(value, dict):
        return {key: _normalized(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normalized(item) for item in value]
    if isinstance(value, float):
        return Decimal(repr(value))  # as in JSON
    return " ".join(value.split()) if isinstance(value, str) else value
