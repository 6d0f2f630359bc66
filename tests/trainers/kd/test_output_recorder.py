"""The student's calls under torch.compile, and what TRL's loss gets of them."""

import pytest
import torch
from datasets import Dataset

from tests.conftest import ROWS
from tests.trainers.configs import config
from trl_prune import KDTrainer


LOGITS = {"hidden_loss": "none"}
STREAM = {"hidden_loss": ["embedding", "block"], "layer_map": "origins", "hidden_weight": 0.5}


def run_metrics(student, tmp_path, **changes):
    """Return the metrics of two steps and an evaluation."""
    data = Dataset.from_list(ROWS)
    trainer = KDTrainer(str(student), config(tmp_path, max_steps=2, **changes), None, data, data.select(range(4)))
    trainer.train()
    names = {"loss", "grad_norm", "kd_loss", "hidden_loss"}
    steps = [{name: entry[name] for name in names & entry.keys()} for entry in trainer.state.log_history[:2]]
    metrics = trainer.evaluate()
    return [*steps, {name: metrics[name] for name in ("eval_kl", "eval_ce_loss")}]


@pytest.mark.slow(minutes=4)
def test_compiled_trainers_with_different_states_in_one_process(pruned, tmp_path):
    """A graph that was compiled for one trainer's hooks is not reused for another's."""
    torch._dynamo.reset()
    for changes in (LOGITS, STREAM):
        compiled = run_metrics(pruned, tmp_path, torch_compile=True, torch_compile_backend="aot_eager", **changes)
        for values, expected in zip(compiled, run_metrics(pruned, tmp_path, **changes), strict=True):
            assert values == pytest.approx(expected, rel=1e-4, abs=1e-6)
    torch._dynamo.reset()
