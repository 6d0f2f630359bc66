"""Metrics of evaluation and prediction."""

import pytest
from datasets import Dataset

from tests.conftest import ROWS
from tests.trainers.configs import config
from tests.trainers.kd.training import EVERY_STATE
from trl_prune import KDTrainer


METRICS = ("kl", "kd_loss", "ce_loss", "top1_agreement")


def test_evaluation_reports_kl_and_agreement(pruned, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    kls = []
    for changes in ({}, {"divergence": "reverse_kl"}):
        trainer = KDTrainer(str(pruned), config(tmp_path, **changes), None, data, data, teacher_model=str(dense))
        metrics = trainer.evaluate()
        assert {"eval_loss", "eval_ce_loss", "eval_kd_loss", "eval_kl", "eval_top1_agreement"} <= metrics.keys()
        kls.append(metrics["eval_kl"])
    assert kls[0] == pytest.approx(kls[1], rel=1e-5)
    assert 0 <= metrics["eval_top1_agreement"] < 1
    same = KDTrainer(str(dense), config(tmp_path), None, data, data, teacher_model=str(dense)).evaluate()
    assert same["eval_top1_agreement"] == 1
    assert same["eval_kl"] < 1e-6


def test_prediction_and_evaluation_do_not_mix_their_metrics(pruned, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    first, second = data.select(range(6)), data.select(range(6, 12))
    trainer = KDTrainer(str(pruned), config(tmp_path), None, data, first, teacher_model=str(dense))
    of_first = trainer.evaluate()
    other = KDTrainer(str(pruned), config(tmp_path), None, data, second, teacher_model=str(dense))
    of_second = other.evaluate()
    predicted = trainer.predict(other.eval_dataset).metrics
    for name in METRICS:
        assert predicted[f"test_{name}"] == pytest.approx(of_second[f"eval_{name}"], rel=1e-5)
        assert trainer.evaluate()[f"eval_{name}"] == of_first[f"eval_{name}"]


def test_the_best_checkpoint_has_the_lowest_kl(pruned, tmp_path):
    data = Dataset.from_list(ROWS)
    every_step = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    best = {"metric_for_best_model": "eval_kl", "load_best_model_at_end": True, "learning_rate": 3e-3}
    trainer = KDTrainer(str(pruned), config(tmp_path, **every_step, **best), None, data, data)
    trainer.train()
    kls = [entry["eval_kl"] for entry in trainer.state.log_history if "eval_kl" in entry]
    assert trainer.state.best_metric == min(kls)
    assert trainer.evaluate()["eval_kl"] == pytest.approx(min(kls), rel=1e-4)


def test_each_evaluation_dataset_has_its_own_metrics(pruned, dense, tmp_path):
    datasets = {"first": Dataset.from_list(ROWS[:4]), "second": Dataset.from_list(ROWS[4:])}
    data = Dataset.from_list(ROWS)
    trainer = KDTrainer(str(pruned), config(tmp_path), None, data, datasets, teacher_model=str(dense))
    metrics = trainer.evaluate()
    for dataset, rows in datasets.items():
        alone = KDTrainer(str(pruned), config(tmp_path), None, data, rows, teacher_model=str(dense)).evaluate()
        for name in METRICS:
            assert metrics[f"eval_{dataset}_{name}"] == pytest.approx(alone[f"eval_{name}"], rel=1e-5)


def test_the_evaluation_loss_has_no_hidden_loss(pruned, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    args = config(tmp_path, hidden_loss=EVERY_STATE, layer_map="origins", hidden_weight=3.0, ce_weight=0.5)
    metrics = KDTrainer(str(pruned), args, None, data, data, teacher_model=str(dense)).evaluate()
    assert metrics["eval_hidden_loss"] > 0
    loss = metrics["eval_kd_loss"] + 0.5 * metrics["eval_ce_loss"]
    assert metrics["eval_loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("changes", [{"padding_free": True, "max_length": None}, {"packing": True, "max_length": 128}])
def test_flattened_evaluation_is_that_of_padded_rows(changes, pruned, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    padded, flattened = (
        KDTrainer(str(pruned), config(tmp_path, **args), None, data, data, teacher_model=str(dense)).evaluate()
        for args in ({}, changes)
    )
    for name in METRICS:
        assert flattened[f"eval_{name}"] == pytest.approx(padded[f"eval_{name}"], rel=1e-4)
