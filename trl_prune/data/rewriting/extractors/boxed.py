r"""The last `\boxed{}` of a text."""

import re

from trl_prune.data.rewriting.extractors.math_answer import boxed_content, same_value


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed{...}` with balanced braces, without whitespace, or None."""
    content = boxed_content(text)
    return None if content is None else re.sub(r"\s", "", content)


def same_boxed(rewrite: str, reference: str) -> bool:
    r"""Return whether a text's boxed answer is the reference's, which may be boxed or bare."""
    answer, expected = boxed_content(rewrite), boxed_content(reference)
    return answer is not None and same_value(answer, reference if expected is None else expected)
