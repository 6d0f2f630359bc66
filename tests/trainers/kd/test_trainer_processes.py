"""Two processes train and evaluate as one does."""

import json

import pytest
from datasets import Dataset

import trl_prune
from tests.conftest import ROWS
from tests.trainers.kd.training import run_processes


TRAINING = """
import json, sys
from datasets import Dataset
from tests.conftest import ROWS
from tests.trainers.kd.training import logged
from trl_prune import KDConfig, KDTrainer

output, student, batch_size = sys.argv[1:4]
args = KDConfig(
    output + "-run", per_device_train_batch_size=int(batch_size), per_device_eval_batch_size=1, max_steps=3,
    learning_rate=1e-3, report_to="none", use_cpu=True, bf16=False, logging_steps=1, save_strategy="no",
    gradient_checkpointing=False, disable_tqdm=True, hidden_loss=["embedding", "block"], layer_map="origins",
    ce_weight=0.5,
)
rows = Dataset.from_list(ROWS)
trainer = KDTrainer(student, args, train_dataset=rows, eval_dataset=rows.select(range(5)))
trainer.train()
metrics = trainer.evaluate()
if trainer.accelerator.is_main_process:
    values = logged(trainer, "loss", "grad_norm", "ce_loss", "kd_loss", "hidden_loss", "hidden_weight")
    names = ("loss", "kl", "kd_loss", "ce_loss", "hidden_loss", "entropy")
    values.append([metrics[f"eval_{name}"] for name in names])
    open(output, "w").write(json.dumps(values))
"""


@pytest.mark.slow
def test_two_processes_log_what_one_logs(pruned, tmp_path):
    """Every mean is over both processes, and so is the hidden weight, the ratio of two of them."""
    one, two = (run_processes(TRAINING, processes, tmp_path, str(pruned), str(4 // processes)) for processes in (1, 2))
    for one_process, two_processes in zip(one, two, strict=True):
        assert two_processes == pytest.approx(one_process, rel=2e-4, abs=1e-6)


EVALUATION = """
import json, sys
from datasets import Dataset
from tests.conftest import ROWS
from trl_prune import KDConfig, KDTrainer

output, student, settings = sys.argv[1:4]
metrics = []
for changes in json.loads(settings):
    rows = Dataset.from_list(ROWS)
    examples = rows.select(range(changes.pop("examples")))
    args = KDConfig(
        output + "-run", per_device_eval_batch_size=2, report_to="none", use_cpu=True, bf16=False,
        gradient_checkpointing=False, disable_tqdm=True, hidden_loss="none", **changes
    )
    trainer = KDTrainer(student, args, train_dataset=rows, eval_dataset=examples)
    metrics.append(trainer.evaluate() | {"examples": len(trainer.eval_dataset)})
if trainer.accelerator.is_main_process:
    open(output, "w").write(json.dumps(metrics))
"""


@pytest.mark.slow(minutes=1)
@pytest.mark.parametrize("tier", [None, "hidden", "topk"])
def test_two_processes_evaluate_each_example_once(tier, dense, pruned, tmp_path):
    """The last batches are filled with repeated examples: on the second process some, or nothing but them."""
    layouts = [
        {"max_length": 96, "examples": 5},
        {"max_length": None, "padding_free": True, "examples": 5},
        {"max_length": None, "padding_free": True, "examples": 7},
        {"max_length": 160, "packing": True, "examples": 11},
    ]
    if tier is not None:
        for index, layout in enumerate(layouts):
            arguments = {name: value for name, value in layout.items() if name != "examples"}
            folder = tmp_path / f"cache-{index}"
            trl_prune.cache_teacher(str(dense), Dataset.from_list(ROWS), folder, tier, args=arguments)
            layout["teacher_cache"] = str(folder)
    one, two = (
        run_processes(EVALUATION, processes, tmp_path, str(pruned), json.dumps(layouts)) for processes in (1, 2)
    )
    for layout, one_process, two_processes in zip(layouts, one, two, strict=True):
        assert one_process["examples"] % 4, f"{layout} repeats no example"
        for name in ("kl", "ce_loss", "kd_loss", "top1_agreement", "entropy"):
            expected = pytest.approx(one_process[f"eval_{name}"], rel=1e-4)
            assert two_processes[f"eval_{name}"] == expected, (layout, name)
