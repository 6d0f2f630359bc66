"""Python code of an answer."""

import ast
import textwrap
import warnings

from trl_prune.data.rewriting.extractors.fences import fenced_blocks


PYTHON_TAGS = ("", "python", "py", "python3")


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


STATEMENTS = (*DEFINITIONS, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.AugAssign)


def python_code(text: str) -> str | None:
    """Return the Python code of a text, or None.

    It is the last fenced block, of those that define a function or class if any does (a usage example may follow);
    without fences, the whole text if it parses and contains a definition, import or assignment.
    """
    blocks = [textwrap.dedent(code) for code in fenced_blocks(text, PYTHON_TAGS)]
    if blocks:
        defining = [code for code in blocks if defined_names(code)]
        return (defining or blocks)[-1].strip("\n")
    tree = parsed_python(text)
    is_code = tree is not None and any(isinstance(node, STATEMENTS) for node in ast.walk(tree))
    return text.strip("\n") if is_code else None


def same_definitions(rewrite: str, reference: str) -> bool:
    """Return whether a text's code parses and defines each function and class that the reference's defines.

    Functions have as many parameters as the reference's, and bodies that do something if the reference's do. If the
    reference defines nothing, the code calls and assigns all that it calls and assigns.
    """
    trees = [parsed_python(code) if code is not None else None for code in map(python_code, (rewrite, reference))]
    if trees[0] is None or trees[1] is None:
        return False
    found, needed = _definitions(trees[0]), _definitions(trees[1])
    if needed:
        return all(name in found and _is_like(found[name], node) for name, node in needed.items())
    used = _used_names(trees[1])
    return used <= _used_names(trees[0]) if used else ast.dump(trees[0]) == ast.dump(trees[1])


def defined_names(code: str) -> set[str] | None:
    """Return the names of the functions and classes that code defines at its top level; None if it does not parse."""
    tree = parsed_python(code)
    return None if tree is None else set(_definitions(tree))


def parsed_python(code: str) -> ast.Module | None:
    """Return the syntax tree of code, or None if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in strings
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _definitions(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    return {node.name: node for node in tree.body if isinstance(node, DEFINITIONS)}


def _is_like(node: ast.AST, expected: ast.AST) -> bool:
    return _parameter_count(node) == _parameter_count(expected) and (not _is_stub(node) or _is_stub(expected))


def _parameter_count(node: ast.AST) -> int | None:
    """Return the number of a function's parameters, None for a class."""
    if isinstance(node, ast.ClassDef):
        return None
    parameters = node.args
    named = [*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs]
    return len(named) + sum(rest is not None for rest in (parameters.vararg, parameters.kwarg))


def _is_stub(node: ast.AST) -> bool:
    """Return whether a body has nothing but `pass`, `...`, a docstring or an error."""
    return all(
        isinstance(part, ast.Pass | ast.Raise) or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        for part in node.body
    )


def _used_names(tree: ast.Module) -> set[str]:
    """Return what code calls, as it is written with brackets, and the names that it assigns."""
    calls = {f"{ast.unparse(node.func)}()" for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return calls | {name.id for name in names}
