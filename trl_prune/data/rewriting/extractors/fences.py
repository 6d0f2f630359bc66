"""Fenced blocks of Markdown."""

import re


FENCED = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


def fenced_blocks(text: str, tags: tuple[str, ...] | None = None) -> list[str]:
    """Return the contents of a text's closed fences, of those with one of the tags (lower case) if tags are given."""
    return [content for tag, content in FENCED.findall(text) if tags is None or tag.lower() in tags]
