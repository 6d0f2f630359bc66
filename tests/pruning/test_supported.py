"""The list of model types, and the table of it in the docs."""

from pathlib import Path

from trl_prune.pruning.families import AXES, FAMILIES, HEADS, LAYERS, derived
from trl_prune.pruning.supported import as_figures, as_lines, as_table, figures, supported_types


PAGE = Path(__file__).parents[2] / "docs" / "pruning.md"


def test_the_page_has_the_table_of_the_code():
    assert as_table(supported_types()) in PAGE.read_text()


def test_every_type_with_a_row_can_be_cut_in_depth():
    types = supported_types()
    assert all(support.axes[0] == LAYERS for support in types if support.source != "refused")
    assert all(support.note for support in types if support.source == "refused")
    assert {support.model_type for support in types if support.source == "table"} == set(FAMILIES)


def test_a_line_has_the_axes_of_a_type():
    line = next(line for line in as_lines(supported_types()) if line.startswith("qwen3_moe "))
    assert [axis for axis in AXES if axis in line] == [axis for axis in AXES if axis in FAMILIES["qwen3_moe"].axes]


def test_the_page_has_the_figures_of_the_code():
    assert as_figures() in PAGE.read_text()


def test_figures_count_the_decoders_that_have_an_axis():
    counts = figures()
    assert counts[LAYERS][1] == len(derived()["decoders"])
    named = set(derived()["decoders"])
    with_heads = [support for support in supported_types() if support.model_type in named and HEADS in support.axes]
    assert counts[HEADS][0] == len(with_heads)
