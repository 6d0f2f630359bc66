import pytest
import torch

from tests.recipes import kd_recipe
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.sequences import row_keys
from trl_prune.errors import InputError
from trl_prune.pipeline import plan, run_recipe, stages_to_run
from trl_prune.runs.arms import training_args
from trl_prune.runs.context import Run
from trl_prune.runs.training_rows import training_rows
from trl_prune.stages import cache_teacher
from trl_prune.trainers.preparation import prepare_rows


@pytest.mark.parametrize(
    ("section", "width"), [({}, None), ({"tier": "topk", "top_k": 3}, 3), ({"tier": "hidden"}, 32)]
)
def test_every_row_an_arm_trains_on_is_in_the_cache(tmp_path, section, width):
    recipe = kd_recipe(tmp_path, **section)
    run = run_recipe(recipe, ["cache_teacher"])
    arm = recipe.recover["kd"]
    rows = prepare_rows(run.dataset, training_args(run, arm, run.dtype), run.tokenizer, answers_only=True)
    cache = TeacherCache.open(run.folder.output("cache_teacher", "cache"))
    keys = torch.cat([row_keys(row) for row in rows])
    cache.check_contains(keys)
    cache.check(tokenizer=run.tokenizer, teacher=run.dense_fingerprint)
    target = cache.targets(keys)
    got = target.hidden if cache.tier == "hidden" else target.probs
    assert width is None or got.shape[1] == width
    metrics = run.folder.require("cache_teacher").metrics
    assert metrics["positions"] == cache.metadata.positions
    assert metrics["tokens"] * run.size().flops_per_token == metrics["flops"]
    assert metrics["bytes_per_position"] > 0


def test_arms_prepared_alike_share_rows_and_others_add_theirs(tmp_path):
    same, text = {"args": {"learning_rate": 1.0}}, {"data": "text"}
    run = Run(kd_recipe(tmp_path, {"kd": {}, "same": same, "text": text}))
    assert [arm.data for arm in cache_teacher.preparations(run).values()] == ["references", "text"]


def test_arms_of_a_sweep_share_one_cache(tmp_path):
    """The rows of the smaller arm are among those of the larger, and equal rows are stored once."""
    values = {"sweep": {"rows": [4, 8]}}
    run = run_recipe(kd_recipe(tmp_path, {"kd": values}), ["recover"])
    assert list(run.recipe.recover) == ["kd-4", "kd-8"]
    assert [arm.rows for arm in cache_teacher.preparations(run).values()] == [4, 8]
    questions = [
        {row["prompt"][0]["content"] for row in training_rows(run, arm, {}).rows}
        for arm in run.recipe.recover.values()
    ]
    assert questions[0] < questions[1]
    assert run.folder.require("cache_teacher").metrics["sequences"] == len(questions[1])
    assert [run.folder.require("recover", name).metrics["rows"] for name in run.recipe.recover] == [4, 8]


def test_the_stage_runs_only_if_an_arm_reads_the_cache(tmp_path, capsys):
    assert "cache_teacher" in stages_to_run(kd_recipe(tmp_path), None)
    assert "cache_teacher" not in stages_to_run(kd_recipe(tmp_path, {"kd": {"teacher_cache": False}}), None)
    assert any("50 draws per token by the dense model, for kd" in line for line in plan(kd_recipe(tmp_path)))


@pytest.mark.parametrize(
    ("arms", "section", "message"),
    [
        ({"kd": {"teacher_cache": False}}, {}, "no arm reads the cache"),
        (
            {"kd": {"args": {"temperature": 2.0}}},
            {},
            "recover.kd.args.temperature is 2.0, and cache_teacher.tier sampled",
        ),
        ({"kd": {}}, {"tier": "topk", "temperature": 2.0}, "tier topk serves 2.0; set cache_teacher.temperature"),
        ({"kd": {"args": {"hidden_loss": ["block"]}}}, {}, "a teacher cache holds no such states"),
        ({"kd": {"args": {"divergence": "reverse_kl"}}}, {}, "divergence is 'reverse_kl', and a sampled cache"),
        (
            {"kd": {"args": {"divergence": "mse"}}},
            {"tier": "topk"},
            "recover.kd.args.divergence 'mse' compares the full vocabulary; .* teacher_cache to false",
        ),
        (
            {"kd": {"args": {"top_k": 5}}},
            {"tier": "topk", "top_k": 4},
            "recover.kd.args.top_k is 5, and the teacher",
        ),
        ({"kd": {"args": {"teacher_correction": "norms"}}}, {}, "recover.kd.args.teacher_correction is 'norms'"),
    ],
)
def test_what_the_cache_could_not_serve_is_refused_before_it_is_written(tmp_path, arms, section, message):
    with pytest.raises(InputError, match=message):
        run_recipe(kd_recipe(tmp_path, arms, **section), ["cache_teacher"])
    assert not (tmp_path / "run").exists()
