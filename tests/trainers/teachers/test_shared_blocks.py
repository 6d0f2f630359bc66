"""Reference: training without frozen blocks, and training with them where both models run every block."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM

import trl_prune
from tests.conftest import ROWS, save_tiny
from tests.trainers.configs import config
from tests.trainers.kd.training import logged, run_processes, train, weights
from trl_prune import KDTrainer, SelfDistillSFTConfig, SelfDistillSFTTrainer
from trl_prune.checkpoints import dense_root
from trl_prune.errors import InputError
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.trainers.teachers.shared_blocks import freeze_shared_blocks


NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
OTHERS = {
    "tied": {"tie_word_embeddings": True},
    "gpt2": {"family": "gpt2"} | NO_DROPOUT,
    "mixtral": {"family": "mixtral"},
    "balanced mixtral": {"family": "mixtral", "output_router_logits": True, "router_aux_loss_coef": 0.1},
}
WITH_HIDDEN_STATES = {"hidden_loss": ["embedding", "block"], "layer_map": {2: 4}}
LAYOUTS = {
    "padded": {},
    "packed": {"max_length": 160, "packing": True},
    "checkpointing": {"gradient_checkpointing": True},
}


@pytest.fixture(scope="module", params=["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def folders(request, tmp_path_factory):
    """Return the folders of a dense model of six blocks, and of its student without blocks 2 and 4."""
    folder = tmp_path_factory.mktemp(request.param)
    dense = save_tiny(folder / "dense", num_hidden_layers=6, **OTHERS.get(request.param, {}))
    prune_checkpoint(dense, folder / "pruned", {LAYERS: [0, 1, 3, 5]}, dense_root(dense, str(dense)))
    return dense, folder / "pruned"


def lora():
    return LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", init_lora_weights="gaussian")


def runs_every_block(student, tmp_path, peft_config=None, **changes):
    """Train with frozen blocks that both models run."""
    args = config(tmp_path, **changes)
    args.teacher_model_init_kwargs = {"dtype": "float32"}
    trainer = KDTrainer(str(student), args, train_dataset=Dataset.from_list(ROWS), peft_config=peft_config)
    assert freeze_shared_blocks(trainer.model, trainer.teacher.model) == 2
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    "layout", ["hidden states", *(pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS)]
)
@pytest.mark.parametrize("adapter", [lambda: None, lora], ids=["full", "lora"])
def test_computing_shared_states_once_changes_nothing(folders, layout, adapter, tmp_path):
    changes = {"hidden_loss": "none"} | LAYOUTS.get(layout, WITH_HIDDEN_STATES)
    expected = runs_every_block(folders[1], tmp_path / "expected", adapter(), **changes)
    trainer = train(folders[1], tmp_path / "once", peft_config=adapter(), freeze_shared_blocks=True, **changes)
    assert trainer._shared_blocks == (0 if trainer.aux_loss_enabled else 2)
    names = ("loss", "grad_norm", "kd_loss")
    for values, references in zip(logged(trainer, *names), logged(expected, *names), strict=True):
        assert values == pytest.approx(references, rel=1e-4, abs=1e-6)
    for name, weight in weights(expected).items():
        torch.testing.assert_close(weights(trainer)[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def test_what_is_trained_gets_the_gradients_of_ordinary_training(folders, tmp_path):
    changes = {"hidden_loss": "none", "max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 1e9}
    before = AutoModelForCausalLM.from_pretrained(folders[1], dtype=torch.float32)
    trained = train(folders[1], tmp_path / "frozen", freeze_shared_blocks=True, **changes)
    ordinary = train(folders[1], tmp_path / "ordinary", **changes)
    assert logged(trained, "loss")[0] == pytest.approx(logged(ordinary, "loss")[0], rel=1e-5)
    references = weights(ordinary)
    dense_states = before.state_dict()
    moved = 0
    for name, weight in trained.model.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(weight.detach(), references[name], rtol=1e-4, atol=1e-6)
            moved += not torch.equal(weight, dense_states[name])
        else:
            assert torch.equal(weight, dense_states[name])
    assert moved


def test_shared_blocks_run_in_the_teacher_alone(folders, tmp_path):
    trainer = KDTrainer(
        str(folders[1]),
        config(tmp_path, hidden_loss="none", freeze_shared_blocks=True, router_aux_loss_coef=0.0),
        train_dataset=Dataset.from_list(ROWS),
    )
    ran = []
    for index, block in enumerate(decoder_blocks(trainer.model)):
        mixer = next(block.children())
        mixer.register_forward_hook(lambda *_, index=index: ran.append(index))
    trainer.train()
    assert set(ran) == {2, 3}


def test_states_inside_shared_blocks_are_still_compared(folders, tmp_path):
    changes = {"hidden_loss": ["block"], "layer_map": "origins"}
    trainer = train(folders[1], tmp_path / "frozen", freeze_shared_blocks=True, **changes)
    expected = runs_every_block(folders[1], tmp_path / "expected", **changes)
    assert trainer._shared_blocks == 0
    for values, references in zip(*(logged(one, "loss", "hidden_loss") for one in (trainer, expected)), strict=True):
        assert values == pytest.approx(references, rel=1e-4)


def test_a_cached_teacher_and_sft_leave_the_blocks_as_they_were(folders, tmp_path):
    dense, pruned = folders
    before = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32).state_dict()
    rows = Dataset.from_list(ROWS)
    args = config(tmp_path, hidden_loss="none", freeze_shared_blocks=True)
    args.teacher_cache = str(
        trl_prune.cache_teacher(str(dense), rows, tmp_path / "cache", tier="topk", args=args).folder
    )
    sft = config(tmp_path / "sft", SelfDistillSFTConfig, rewrite=False, freeze_shared_blocks=True)
    for trainer in (
        KDTrainer(str(pruned), args, train_dataset=rows),
        SelfDistillSFTTrainer(str(pruned), sft, train_dataset=rows),
    ):
        trainer.train()
        same = {name for name, weight in trainer.model.named_parameters() if torch.equal(weight, before[name])}
        frozen = {name for name, weight in trainer.model.named_parameters() if not weight.requires_grad}
        assert frozen
        assert frozen == same & frozen
        assert any(".2." in name for name in before.keys() - same)


def test_the_teacher_attends_as_the_student_does_unless_it_is_told_otherwise(folders, tmp_path):
    rows, eager = Dataset.from_list(ROWS), {"attn_implementation": "eager"}
    args = config(tmp_path, hidden_loss="none", freeze_shared_blocks=True, model_init_kwargs=eager)
    trainer = KDTrainer(str(folders[1]), args, train_dataset=rows)
    frozen = [not any(w.requires_grad for w in block.parameters()) for block in decoder_blocks(trainer.model)]
    assert frozen == [True, True, False, False]
    assert trainer.teacher.model.config._attn_implementation == "eager"
    sft = {"rewrite": False, "freeze_shared_blocks": True, "model_init_kwargs": eager}
    SelfDistillSFTTrainer(str(folders[1]), config(tmp_path / "sft", SelfDistillSFTConfig, **sft), train_dataset=rows)
    args.teacher_model_init_kwargs = {"attn_implementation": "sdpa"}
    with pytest.raises(InputError, match=r"attention implementations \(eager, sdpa\) differ"):
        KDTrainer(str(folders[1]), args, train_dataset=rows)


@pytest.mark.parametrize(
    ("keep", "message"),
    [([1, 2, 3], "first block and embeddings are not the teacher's"), ([0, 1, 2], "it was cut at the end")],
)
def test_a_student_without_shared_blocks_or_others_is_refused(keep, message, tmp_path):
    dense = save_tiny(tmp_path / "dense")
    prune_checkpoint(dense, tmp_path / "pruned", {LAYERS: keep}, dense_root(dense, str(dense)))
    with pytest.raises(InputError, match=message):
        train(tmp_path / "pruned", tmp_path, freeze_shared_blocks=True)


def test_provenance_is_not_trusted_for_changed_weights(folders, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folders[1], dtype=torch.float32)
    with torch.no_grad():
        next(decoder_blocks(model)[0].parameters()).add_(0.01)
    args = config(tmp_path, freeze_shared_blocks=True)
    with pytest.raises(InputError, match="weights were changed"):
        KDTrainer(model, args, train_dataset=Dataset.from_list(ROWS), teacher_model=str(folders[0]))


TRAINING = """
import json, sys
from datasets import Dataset
from tests.conftest import ROWS
from tests.trainers.kd.training import logged
from trl_prune import KDConfig, KDTrainer

output, student, batch_size = sys.argv[1:4]
args = KDConfig(
    output + "-run", per_device_train_batch_size=int(batch_size), max_steps=3, learning_rate=1e-3, report_to="none",
    use_cpu=True, bf16=False, logging_steps=1, save_strategy="no", gradient_checkpointing=False, disable_tqdm=True,
    hidden_loss="none", freeze_shared_blocks=True,
)
trainer = KDTrainer(student, args, train_dataset=Dataset.from_list(ROWS))
trainer.train()
if trainer.accelerator.is_main_process:
    open(output, "w").write(json.dumps(logged(trainer, "loss", "grad_norm", "kd_loss")))
"""


@pytest.mark.slow(minutes=1)
def test_two_processes_train_as_one(tmp_path):
    dense = save_tiny(tmp_path / "dense", num_hidden_layers=6)
    prune_checkpoint(dense, tmp_path / "pruned", {LAYERS: [0, 1, 3, 5]}, dense_root(dense, str(dense)))
    arguments = [(n, tmp_path, str(tmp_path / "pruned"), str(4 // n)) for n in (1, 2)]
    one, two = (run_processes(TRAINING, *values) for values in arguments)
    for one_process, two_processes in zip(one, two, strict=True):
        assert two_processes == pytest.approx(one_process, rel=2e-4, abs=1e-6)
