"""Numbers as text, and foreign text that a page shows but does not obey."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from trl_prune.evaluation.recovery import Estimate
from trl_prune.reporting.rendering import cell, percent, plain, render


MARKDOWN = MarkdownIt("commonmark").enable("table")
TEXT = st.text(st.sampled_from("ab <>&|`*[]()!\\\n#-_1.:/"), max_size=20) | st.text(max_size=20)


def test_figures_as_text():
    assert percent(Estimate(0.91234, 0.0123)) == "91.2 ± 1.2"
    assert plain(Estimate(0.5, 0.01)) == "0.500 ± 0.010"
    assert percent(None) == plain(None) == ""
    assert cell("a\n| b") == "a \\| b"


@settings(max_examples=50)
@given(TEXT)
def test_a_cell_shows_its_text_and_holds_no_tag_link_or_image(text):
    rendered = MARKDOWN.render(f"| name |\n|---|\n| x {cell(text)} y |\n")
    tags = set(re.findall(r"</?(\w+)", rendered))
    assert tags <= {"table", "thead", "tbody", "tr", "th", "td", "em", "strong"}
    assert rendered.count("<td>") == 1


def test_answers_with_markup_are_shown_as_they_are():
    answer = '<img src="http://x.example/a.png"> ![a](http://x.example/b.png) `code` | **bold**'
    assert MARKDOWN.render(cell(answer)).count("<") == 2  # the paragraph's own tags
    sentence = {"verdicts": [answer]}
    assert "<img" not in render("verdict.html", sentence)
    assert "<img" not in MARKDOWN.render(render("verdict.md", sentence))
