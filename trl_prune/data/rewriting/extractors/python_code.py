"""Python code of an answer."""

import ast
import re
import textwrap
import warnings


FENCED = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


PYTHON_TAGS = ("", "python", "py", "python3")


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


STATEMENTS = (*DEFINITIONS, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.AugAssign)


def python_code(text: str) -> str | None:
    """Return the Python code of a text, or None.

    It is the last fenced block, of those that define a function or class if any does (a usage example may follow);
    without fences, the whole text if it parses and contains a definition, import or assignment.
    """
    blocks = [textwrap.dedent(code) for tag, code in FENCED.findall(text) if tag.lower() in PYTHON_TAGS]
    if blocks:
        defining = [code for code in blocks if defined_names(code)]
        return (defining or blocks)[-1].strip("\n")
    tree = parsed_python(text)
    is_code = tree is not None and any(isinstance(node, STATEMENTS) for node in ast.walk(tree))
    return text.strip("\n") if is_code else None


def same_definitions(rewrite: str, reference: str) -> bool:
    """Return whether a text's code parses and defines each function and class that the reference's defines."""
    code, expected = python_code(rewrite), python_code(reference)
    if code is None or expected is None:
        return False
    names, needed = defined_names(code), defined_names(expected)
    return names is not None and needed is not None and needed <= names


def defined_names(code: str) -> set[str] | None:
    """Return the names of the functions and classes that code defines at its top level; None if it does not parse."""
    tree = parsed_python(code)
    return None if tree is None else {node.name for node in tree.body if isinstance(node, DEFINITIONS)}


def parsed_python(code: str) -> ast.Module | None:
    """Return the syntax tree of code, or None if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in strings
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
