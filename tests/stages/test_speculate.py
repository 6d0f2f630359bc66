"""The speculate stage: its parts, what is done again after a change, what it prints and reports."""

import pytest
from transformers import AutoConfig, T5Config

from tests.conftest import save_tiny
from tests.recipes import recipe_values
from trl_prune.errors import InputError
from trl_prune.pipeline import STAGES, plan, run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.reporting.page import available_panels, write_report
from trl_prune.reporting.results import RunResults
from trl_prune.reporting.speculation import caution, read_speculation
from trl_prune.stages import speculate


KEEP = {"num_hidden_layers": [0, 1, 2]}


def parse(folder, **section):
    """Return a recipe that prunes, and judges the pruned model and a draft in a folder."""
    if not (folder / "other").exists():
        save_tiny(folder / "other", num_hidden_layers=1)
    values = recipe_values(folder) | {"rewrite": None, "recover": {}, "prune": {"keep": KEEP}}
    defaults = {"draft_lengths": [1, 10], "batch_sizes": [2], "prompts": 3, "timed_prompts": 2}
    defaults |= {"max_new_tokens": 6, "drafts": ["pruned", str(folder / "other")]}
    return parse_recipe(values | {"speculate": defaults | section}, "test")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_recipe(parse(tmp_path_factory.mktemp("run")), ["speculate"])


def test_every_draft_has_a_result_and_greedy_text_is_the_targets(run):
    for name in ("pruned", "other"):
        metrics = run.folder.require("speculate", name).metrics
        assert metrics["compared"] == 3
        assert metrics["differences"] == []
        assert metrics["expected"].keys() == {"greedy", "sampled", "reference"}
        assert metrics["expected"]["greedy"]["by_length"].keys() == {"1", "10"}
    assert run.folder.require("speculate", "dense").metrics["texts"] == {"greedy": 3, "sampled": 3, "reference": 3}


def test_only_what_changed_is_done_again(run, monkeypatch):
    done = []
    original = speculate.execute
    for name in list(STAGES):
        if name == "speculate":
            stage = STAGES[name]
            execute = lambda run, part, folder: done.append(part) or original(run, part, folder)  # noqa: E731
            monkeypatch.setitem(STAGES, name, type(stage)(**{**vars(stage), "execute": execute}))
    folder = run.folder.path.parent
    run_recipe(parse(folder), ["speculate"])
    assert done == []
    run_recipe(parse(folder, drafts=["pruned"]), ["speculate"])
    assert done == []
    changed = parse(folder, draft_lengths=[1, 2])
    assert [line.split()[:3] for line in plan(changed, ["speculate"])][-2:] == [
        ["run", "speculate", "pruned"],
        ["run", "speculate", "other"],
    ]


def test_the_terminal_shows_the_drafts_and_how_the_best_is_used(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    speculate.STAGE.show(run)
    shown = capsys.readouterr().out
    assert "Drafts of the dense model" in shown
    assert "assistant_model=draft" in shown
    assert "vllm serve" in shown
    assert "num_speculative_tokens" in shown


@pytest.mark.parametrize(
    ("pays", "said"),
    [
        ({"greedy": True, "sampled": True}, ""),
        ({"greedy": False, "sampled": False}, "it does not make greedy and sampled decoding faster."),
        (
            {"greedy": False, "sampled": None},
            "it does not make greedy decoding faster, and whether it makes sampled decoding faster was timed too",
        ),
    ],
)
def test_a_draft_that_does_not_pay_is_said_to_above_its_use(run, pays, said):
    found = read_speculation(run)
    for one in found.values():
        one["speed"]["pays"] = pays
    sentence = caution(found)
    assert said in sentence
    assert bool(sentence) == bool(said)


def test_a_gain_without_an_interval_is_shown_and_is_no_nan_in_the_file(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    speculate.STAGE.show(run)
    shown = capsys.readouterr().out
    assert "decoding gains is unknown: the best draft length, " in shown
    assert "(timed 2 times only)" in shown
    timing = (run.folder.stage_dir("speculate", "pruned") / "timing.json").read_text()
    assert "NaN" not in timing


def test_brackets_of_intervals_are_printed(run, capsys, monkeypatch):
    found = read_speculation(run)
    for one in found.values():
        one["speed"]["warnings"] = ["measured at 0.90x [0.80, 0.99] and [a, b]."]
    monkeypatch.setattr("trl_prune.reporting.speculation.read_speculation", lambda _: found)
    speculate.STAGE.show(run)
    assert "pruned: measured at 0.90x [0.80, 0.99] and [a, b]." in capsys.readouterr().out


def test_the_report_has_tables_and_figures(run, tmp_path):
    results = RunResults(run)
    names = [panel.name for panel in available_panels(results, [speculate.STAGE])]
    assert names[:3] == ["speculation_table", "speed_up_by_draft_length", "acceptance_by_position"]
    pages = write_report(results, [speculate.STAGE], tmp_path)
    for page in pages.values():
        assert "Drafts of the dense model" in page
        assert "odd sums" in page
        assert "--speculative-config" in page
    assert pages["report.md"].count("| pruned |") >= 2
    assert (tmp_path / "speed_up_by_draft_length.png").is_file()


def test_figures_are_drawn_in_the_order_of_lengths(run):
    from trl_prune.reporting.plots.speculative import acceptance_by_position, speed_up_by_length

    figure = speed_up_by_length(RunResults(run))
    for axes in figure.axes:
        for line in axes.lines[:3]:
            assert list(line.get_xdata()) == [1, 10]
    left, right = acceptance_by_position(RunResults(run)).axes
    assert [len(line.get_xdata()) for line in left.lines] == [10] * 4
    assert len(right.lines) == 2


def test_the_stages_that_make_the_drafts_run_first(tmp_path):
    values = recipe_values(tmp_path) | {"merge": {"both": {"recipe": "linear", "models": ["sft", "selfd"]}}}
    needs = {
        draft: speculate.needs(parse_recipe(values | {"speculate": {"drafts": [draft]}}, "test"))
        for draft in ("pruned", "sft", "both", "owner/name")
    }
    assert needs == {"pruned": ["prune"], "sft": ["recover"], "both": ["merge"], "owner/name": []}


def test_a_draft_that_cannot_be_is_refused_before_anything_runs(tmp_path):
    folder = save_tiny(tmp_path / "words")
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"a":', '"zz":', 1))
    with pytest.raises(InputError, match="draft 'words' "):
        run_recipe(parse(tmp_path, drafts=[str(folder)]), ["speculate"])
    with pytest.raises(InputError, match="is neither a folder here nor a hub id"):
        run_recipe(parse(tmp_path, drafts=["./nowhere"]), ["speculate"])
    encoder_decoder = save_tiny(tmp_path / "t5")
    T5Config(vocab_size=259, d_model=32).save_pretrained(encoder_decoder)
    assert AutoConfig.from_pretrained(encoder_decoder).is_encoder_decoder
    with pytest.raises(InputError, match="draft 't5' is an encoder-decoder model"):
        run_recipe(parse(tmp_path, drafts=[str(encoder_decoder)]), ["speculate"])
    short = save_tiny(tmp_path / "short", max_position_embeddings=24)
    with pytest.raises(InputError, match="has room for prompts of 8 tokens beside an answer"):
        run_recipe(parse(tmp_path, drafts=[str(short)]), ["speculate"])
    assert not (tmp_path / "run").exists()
