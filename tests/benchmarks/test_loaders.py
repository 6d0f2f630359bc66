"""The page about other libraries: what its cells mean, and that some of them can be measured again."""

import json
import sys
from pathlib import Path

import pytest


PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
AGAIN = ("transformers", "PEFT", "mergekit", "lm-eval")


def parsed(text):
    """Return the cells of a page by family, cut and library."""
    names, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {(family, cut): dict(zip(names[2:], cells, strict=True)) for family, cut, *cells in rows}


@pytest.mark.parametrize(
    ("found", "cell"),
    [
        ({"tokens": [[1, 2, 3]]}, "equal"),
        ({"tokens": [[1, 2]]}, "other tokens"),
        ({"tokens": [[1, 2, 3, 9]]}, "equal"),  # some libraries go on after the end, others leave it out
        ({"tokens": [[1, 4, 3]]}, "other tokens"),
        ({"loglikelihood": -2.0001}, "equal"),
        ({"loglikelihood": -2.1}, "-2.1000 in place of -2.0000"),
        ({"loads": "tensors"}, "loads"),
        ({"error": "ValueError: no"}, "ValueError: no"),
    ],
)
def test_a_cell_says_whether_tokens_are_equal(found, cell):
    from loaders import verdict

    assert verdict(found, {"tokens": [[1, 2, 3, 9, 5]], "loglikelihood": -2.0}, end=9) == cell


def test_a_page_says_what_was_measured_and_a_library_in_its_own_words():
    from loaders import merged, page

    first = {"table": {"llama": {"depth": {"PEFT": "equal", "GGUF": "loads"}}}, "versions": {"peft": "1"}}
    again = {"table": {"llama": {"depth": {"GGUF": "ValueError: a | b"}}, "qwen2": {"depth": {"GGUF": "loads"}}}}
    measured = merged(first | {"repairs": {}}, again | {"versions": {}, "repairs": {"llama": ["linear_map"]}})
    text = page(measured)
    assert parsed(text) == {
        ("llama", "depth"): {"PEFT": "equal", "GGUF": "no (1)"},
        ("qwen2", "depth"): {"PEFT": "not tried", "GGUF": "loads"},
    }
    assert "1. GGUF: ValueError: a / b" in text
    assert "peft 1" in text


def test_the_shipped_page_has_every_family_and_cut_once_measured():
    from loader_calls import LOADERS
    from loader_models import FAMILIES, ROWS

    cells = parsed(PAGE.read_text())
    assert set(cells) == {(family, row) for family in FAMILIES for row in ROWS}
    for row in cells.values():
        assert set(row) == set(LOADERS)
        assert {row[name] for name in AGAIN} == {"equal"}
        assert {row[name] for name in ("CTranslate2", "GGUF", "ONNX Runtime")} <= {
            "equal",
            "loads",
            "no (1)",
            "no (2)",
            "no (3)",
        }


def test_the_plans_sentence_is_about_what_the_page_measured():
    """A library that takes a family is named exactly where it refuses the cuts of `head_dim` and takes the others."""
    from loader_models import DENSE, FAMILIES

    from trl_prune.pruning.sizes.head_sizes import LOADERS_WITHOUT_HEAD_DIM

    cells = parsed(PAGE.read_text())
    for loader, families in LOADERS_WITHOUT_HEAD_DIM.items():
        for family in [family for family in FAMILIES if cells[family, DENSE][loader] == "equal"]:
            refused = {cut for (of, cut), row in cells.items() if of == family and row[loader] != "equal"}
            assert refused == ({"heads", "hidden"} if family in families else set())


def test_a_missing_library_is_a_column_and_one_that_dies_is_named(tmp_path, monkeypatch):
    import loaders

    task = {"folders": ["one", "two", "three"], "prompts": [], "new_tokens": 1, "text": ["a", "b"]}
    calls = iter(
        [
            ([{"versions": {"peft": "1"}}, {"tokens": []}], -11),
            ([{"versions": {"peft": "1"}}], 3),
            ([{"versions": {"peft": None}}], 0),
        ]
    )

    def start(loader, python, file, log):
        lines, code = next(calls)
        Path(json.loads(file.read_text())["results"]).write_text("\n".join(map(json.dumps, lines)))
        print("bad\nworse", file=log)
        return code

    monkeypatch.setattr(loaders, "_start", start)
    _, found = loaders.ask("PEFT", "python", task, tmp_path)
    ended = [f"the process ended with {how}: worse" for how in ("SIGSEGV", "code 3")]
    assert found == [{"tokens": []}, *({"error": sentence} for sentence in ended)]
    installed, found = loaders.ask("PEFT", "python", task, tmp_path)
    assert installed == {"peft": None}
    assert found == [{"error": "not installed"}] * 3


@pytest.mark.slow(minutes=2)
@pytest.mark.timeout(600)
def test_cells_of_a_family_are_measured_again(tmp_path):
    import loaders

    cuts = ("hidden",)
    *_, measured = loaders.measure(["qwen2"], dict.fromkeys(AGAIN, sys.executable), tmp_path, cuts)
    shipped = parsed(PAGE.read_text())
    again = measured["table"]["qwen2"]
    assert again == {cut: {name: shipped["qwen2", cut][name] for name in AGAIN} for cut in cuts}
    assert measured["versions"].keys() == {"transformers", "peft", "mergekit", "lm_eval"}
