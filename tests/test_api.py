import shutil

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

import trl_prune
from tests.conftest import ROWS
from tests.evaluation.harness.conftest import write_tasks
from tests.recipes import recipe_values
from trl_prune.checkpoints import read_provenance
from trl_prune.data.rewriting.provenance import read_records
from trl_prune.data.teacher_cache.codecs import TopK
from trl_prune.errors import InputError
from trl_prune.pruning.keep import kept_sizes


def test_score_then_prune(dense, tmp_path):
    scores = trl_prune.score(str(dense), Dataset.from_list(ROWS), samples=6)
    same = trl_prune.score(AutoModelForCausalLM.from_pretrained(dense), Dataset.from_list(ROWS), samples=6)
    assert scores.layers.num_positions == same.layers.num_positions
    sizes = {"num_hidden_layers": 2, "intermediate_size": 20, "num_attention_heads": 2}
    folder = trl_prune.prune(dense, tmp_path / "pruned", sizes=sizes, scores=scores)
    assert kept_sizes(read_provenance(folder).keep) == sizes | {"num_key_value_heads": 2}
    by_hand = trl_prune.prune(dense, tmp_path / "by-hand", {"num_hidden_layers": [0, 3]})
    assert read_provenance(by_hand).keep == {"num_hidden_layers": [0, 3]}


def test_paths_may_start_at_home(dense, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dense, tmp_path / "dense")
    folder = trl_prune.prune("~/dense", "~/pruned", {"num_hidden_layers": [0, 3]})
    assert folder == tmp_path / "pruned"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense", "pruned"]
    assert read_provenance(folder).dense["path"] == str(tmp_path / "dense")


def test_prune_overwrites_nothing(dense, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for output in (tmp_path / "mine", dense):
        with pytest.raises(InputError, match="is there already and is not overwritten"):
            trl_prune.prune(dense, output, {"num_hidden_layers": [0]})
    assert (tmp_path / "mine" / "thesis.tex").is_file()
    assert (dense / "config.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": {"num_hidden_layers": 2}}, "requires `keep`, or `sizes` and the `scores`"),
        ({"keep": {"num_hidden_layers": [9]}}, "num_hidden_layers is .9.; wanted: increasing indices"),
        ({"keep": {"num_layers": [0]}}, "keep: 'num_layers' is not an axis of llama; allowed: num_hidden_layers"),
    ],
)
def test_invalid_arguments_of_prune_are_refused(dense, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        trl_prune.prune(dense, tmp_path / "pruned", **arguments)


def test_rewrite_dataset(dense, tmp_path):
    dataset = Dataset.from_list(ROWS)
    result = trl_prune.rewrite_dataset(str(dense), dataset, tmp_path, max_new_tokens=4, answer_type="general")
    assert result.rows.features == dataset.features
    assert read_records(tmp_path / "provenance.jsonl") == result.records
    with pytest.raises(InputError, match="arguments: unknown key 'rewrite.max_tokens'; did you mean"):
        trl_prune.rewrite_dataset(str(dense), dataset, tmp_path, max_tokens=4)
    with pytest.raises(InputError, match="plain text"):
        trl_prune.rewrite_dataset(str(dense), Dataset.from_list([{"text": "a b c"}]), tmp_path)


def test_a_model_changed_in_memory_writes_anew(dense, tmp_path):
    rows, model = Dataset.from_list(ROWS), AutoModelForCausalLM.from_pretrained(dense)
    trl_prune.rewrite_dataset(model, rows, tmp_path, max_new_tokens=4)
    model.model.norm.weight.data.mul_(-1)
    trl_prune.rewrite_dataset(model, rows, tmp_path, max_new_tokens=4)
    answers = [line for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines() if '"key"' in line]
    assert len(answers) == 2 * len(ROWS)


def test_cache_teacher(dense, tmp_path):
    rows, args = Dataset.from_list(ROWS), {"max_length": 40, "use_cpu": True}
    one = trl_prune.cache_teacher(str(dense), rows, tmp_path / "one", args=args, batch_size=5)
    assert (one.tier, one.metadata.settings["draws"], len(one)) == ("sampled", 50, len(ROWS))
    model = AutoModelForCausalLM.from_pretrained(dense)
    config = trl_prune.SelfDistillSFTConfig("unused", max_length=40, use_cpu=True, bf16=False)
    other = trl_prune.cache_teacher(model, rows, tmp_path / "other", TopK(k=4), args=config)
    assert (other.tier, other.codec.k) == ("topk", 4)
    assert other.metadata.positions == one.metadata.positions
    assert set(one.metadata.teacher) & set(other.metadata.teacher), "a model is recognised by its weights"
    with pytest.raises(InputError, match="tier is 'zip'"):
        trl_prune.cache_teacher(str(dense), rows, tmp_path / "zip", "zip")


@pytest.fixture(scope="session")
def tasks_dir(tmp_path_factory):
    """A folder with the harness's small tasks."""
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def test_evaluate(dense):
    scores = trl_prune.evaluate(str(dense), "probe_plurals", limit=4)
    assert len(scores["probe_plurals"].items) == 4


def test_evaluate_takes_the_keys_of_the_section_that_its_errors_name(dense, tasks_dir, monkeypatch):
    given = []
    monkeypatch.setattr(trl_prune.api, "evaluate_tasks", lambda *args: given.append(args[2:]) or {})
    folders = {"include_path": [tasks_dir]}
    trl_prune.evaluate(dense, ["tiny_unsafe"], confirm_run_unsafe_code=True, batch_size=3, seed=7, **folders)
    ((tasks, settings),) = given
    assert list(tasks.names) == ["tiny_unsafe"]
    assert (settings.confirm_run_unsafe_code, settings.batch_size, settings.seed) == (True, 3, 7)
    assert settings.apply_chat_template, "the tokenizer has a template"
    trl_prune.evaluate(dense, "tiny_choice", apply_chat_template=False, **folders)
    assert not given[1][1].apply_chat_template
    with pytest.raises(InputError, match="evaluate's arguments: unknown key 'evaluate.batch'"):
        trl_prune.evaluate(dense, "tiny_choice", batch=3)
    with pytest.raises(InputError, match="`questions` is for a recipe; evaluate asks one model the tasks alone"):
        trl_prune.evaluate(dense, "tiny_choice", questions=[])


def test_run(tmp_path):
    folder = trl_prune.run(recipe_values(tmp_path), recover={}, rewrite=None, evaluate={"tasks": [], "questions": []})
    assert (folder / "report" / "report.html").is_file()


@pytest.mark.slow
def test_search(dense, tmp_path):
    args = {"per_device_train_batch_size": 2, "gradient_checkpointing": False, "max_length": 128}
    settings = {
        "grid": {"num_hidden_layers": [2, 3]},
        "rungs": [200],
        "samples": 4,
        "train": {"args": args},
        "calibration": {"samples": 4},
    }
    rows, budget = Dataset.from_list(ROWS), {"share": 0.75, "tolerance": 0.25}
    keep, found = trl_prune.search(dense, rows, tmp_path / "race", budget, **settings)
    assert [len(one["scores"]) for one in found] == [2, 2]
    assert len(keep["num_hidden_layers"]) == found[0]["sizes"]["num_hidden_layers"]
    assert trl_prune.search(dense, rows, tmp_path / "race", budget, **settings) == (keep, found)
    with pytest.raises(InputError, match="exactly one of `parameters`, `share`"):
        trl_prune.search(dense, rows, tmp_path / "race", {})


def test_select_recovery_data(dense, tmp_path):
    pruned = trl_prune.prune(dense, tmp_path / "pruned", keep={"num_hidden_layers": [0, 1, 3]})
    dataset = Dataset.from_list([{"prompt": f"Say {index}.", "completion": f"{index}!"} for index in range(24)])
    settings = {"embedder": "hidden_states", "clusters": 2, "near_duplicates": None, "cache_dir": tmp_path / "cache"}
    chosen = trl_prune.select_recovery_data(str(dense), str(pruned), dataset, 6, **settings)
    assert len(chosen) == 6
    assert chosen.features == dataset.features
    loaded = [AutoModelForCausalLM.from_pretrained(path) for path in (dense, pruned)]
    assert trl_prune.select_recovery_data(*loaded, dataset, 0.25, **settings).to_list() == chosen.to_list()
    with pytest.raises(InputError, match="arguments: select.budget is 0; wanted: a share"):
        trl_prune.select_recovery_data(str(dense), str(pruned), dataset, 0)
    with pytest.raises(InputError, match="`selections` are for a recipe"):
        trl_prune.select_recovery_data(str(dense), str(pruned), dataset, 6, selections={"other": {}})
    with pytest.raises(InputError, match="the dataset has the columns question; wanted: prompt"):
        trl_prune.select_recovery_data(str(dense), str(pruned), Dataset.from_dict({"question": ["x"]}), 1)


def test_models_of_two_vocabularies_are_not_compared(dense, tmp_path):
    pruned = trl_prune.prune(dense, tmp_path / "pruned", keep={"num_hidden_layers": [0, 1, 3]})
    tokenizer = AutoTokenizer.from_pretrained(pruned)
    tokenizer.add_tokens(["The teacher's"])
    tokenizer.save_pretrained(pruned)
    with pytest.raises(InputError, match="the dense model's tokenizer differs from the pruned model's"):
        trl_prune.select_recovery_data(str(dense), str(pruned), Dataset.from_list(ROWS), 1, embedder="hidden_states")


def test_measure_speculative(dense, tmp_path):
    draft = trl_prune.prune(dense, tmp_path / "draft", {"num_hidden_layers": [0, 1, 2]})
    settings = {"draft_lengths": [2], "batch_sizes": [1], "prompts": 2, "timed_prompts": 2, "max_new_tokens": 4}
    found = trl_prune.measure_speculative(dense, draft, ["Why?", "How?"], sampled=False, **settings)
    assert found["acceptance"]["compared"] == 2
    assert found["acceptance"]["expected"].keys() == {"greedy"}
    assert found["speed"]["measured"]["greedy"].keys() == {"2"}
    with pytest.raises(InputError, match="arguments: unknown key 'speculate.gamma'; did you mean 'speculate.draft_le"):
        trl_prune.measure_speculative(dense, draft, ["Why?"], gamma=3)
    with pytest.raises(InputError, match="`dataset` has no row with a prompt of at most"):
        trl_prune.measure_speculative(dense, draft, ["Why?" * 300], **settings)
    with pytest.raises(InputError, match="`drafts` are for a recipe"):
        trl_prune.measure_speculative(dense, draft, ["Why?"], drafts=["pruned"])
