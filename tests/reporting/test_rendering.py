"""Numbers as text, and foreign text that a page shows but does not obey."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from trl_prune.evaluation.recovery import Estimate
from trl_prune.evaluation.timing import Interval
from trl_prune.reporting.rendering import cell, percent, plain, rate, render


NAN = float("nan")
MARKDOWN = MarkdownIt("commonmark").enable("table")
TEXT = st.text(st.sampled_from("ab <>&|`*[]()!\\\n#-_1.:/"), max_size=20) | st.text(max_size=20)


def test_figures_as_text():
    assert percent(Estimate(0.91234, 0.0123)) == "91.2 ± 1.2"
    assert plain(Estimate(0.5, 0.01)) == "0.500 ± 0.010"
    assert percent(None) == plain(None) == rate(None) == ""
    assert rate(Interval(29.51, 28.0, 30.26)) == "29.5 [28.0, 30.3]"
    assert rate(Interval(29.51, NAN, NAN, 2)) == "29.5"
    assert cell("a\n| b") == "a \\| b"


def test_figures_that_say_nothing_are_not_shown():
    assert percent(Estimate(NAN, 0.0)) == plain(Estimate(NAN, NAN)) == ""
    assert percent(Estimate(1.0, 2.361)) == "", "a share of what may as well be nothing"


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
