"""Steps against the states of whole models, and which blocks run and learn."""

import json
import shutil

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from tests.conftest import ROWS, save_tiny
from tests.trainers.configs import config
from tests.trainers.kd.training import logged, run_processes
from trl_prune import LocalKDConfig, LocalKDTrainer
from trl_prune.checkpoints import dense_root
from trl_prune.errors import InputError
from trl_prune.pruning.families import LAYERS, NEURONS
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint


NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
FAMILIES = {"llama": {}, "gemma2": {"family": "gemma2"}, "gpt2": {"family": "gpt2"} | NO_DROPOUT}
CUT = [0, 1, 4, 5, 6]  # of 7 blocks
STEP = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}


def prune(folder, keep, **options):
    dense = save_tiny(folder / "dense", num_hidden_layers=7, **options)
    prune_checkpoint(dense, folder / "pruned", keep, dense_root(dense, str(dense)))
    return dense, folder / "pruned"


@pytest.fixture(
    scope="module",
    params=["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "llama")],
)
def folders(request, tmp_path_factory):
    """A dense model of seven blocks, and its student without two in the middle."""
    return prune(tmp_path_factory.mktemp(request.param), {LAYERS: CUT}, **FAMILIES[request.param])


def train(student, tmp_path, rows=ROWS, peft_config=None, teacher=None, **changes):
    args = config(tmp_path, LocalKDConfig, **changes)
    dataset = Dataset.from_list(rows)
    trainer = LocalKDTrainer(str(student), args, train_dataset=dataset, peft_config=peft_config, teacher_model=teacher)
    trainer.train()
    return trainer


def input_norm(block):
    return getattr(block, "input_layernorm", None) or block.ln_1


def relative_error(student, dense, batch):
    """Return the loss of CUT from both models' hidden states: below the cut they are equal, so whole models do."""
    inputs = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
    learned = batch["labels"][:, 1:] != -100
    given = student(**inputs, output_hidden_states=True).hidden_states
    with torch.no_grad():
        wanted = dense(**inputs, output_hidden_states=True).hidden_states
    errors = []
    for block, target in ((1, 3), (2, 4), (3, 5)):
        norm = input_norm(decoder_blocks(dense)[target + 1])
        state, reference = norm(given[block + 1][:, :-1][learned]), norm(wanted[target + 1][:, :-1][learned])
        errors.append(((state - reference) ** 2).sum(-1) / (reference**2).sum(-1))
    return torch.stack(errors).mean()


def test_a_step_is_that_of_the_states_of_whole_models(folders, tmp_path):
    """Their last compared state is the dense model's block 5, of 7, which the final norm does not touch."""
    dense_folder, pruned = folders
    models = [
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in (pruned, dense_folder)
    ]
    args = config(tmp_path, LocalKDConfig, per_device_train_batch_size=12, **STEP)
    trainer = LocalKDTrainer(str(pruned), args, train_dataset=Dataset.from_list(ROWS))
    batch = next(iter(trainer.get_train_dataloader()))
    loss = relative_error(*models, batch)
    loss.backward()
    trainer.train()
    assert logged(trainer, "loss") == [(pytest.approx(loss.item(), rel=1e-4),)]
    after, blocks = dict(trainer.model.named_parameters()), decoder_blocks(models[0])
    trained = {id(weight) for block in (1, 2, 3) for weight in blocks[block].parameters()}
    for name, weight in models[0].named_parameters():
        if id(weight) in trained:
            torch.testing.assert_close(weight - after[name], weight.grad, atol=1e-5, rtol=2e-3, msg=name)
        else:
            assert torch.equal(weight, after[name]), name


def test_nothing_else_runs(folders, tmp_path):
    args = config(tmp_path, LocalKDConfig, max_steps=1)
    trainer = LocalKDTrainer(str(folders[1]), args, train_dataset=Dataset.from_list(ROWS))
    ran = {"student": set(), "teacher": set(), "heads": set()}
    for name, model in (("student", trainer.model), ("teacher", trainer.teacher)):
        for index, block in enumerate(decoder_blocks(model)):
            mixer = next(block.children())
            mixer.register_forward_hook(lambda *_, name=name, index=index: ran[name].add(index))
        model.get_output_embeddings().register_forward_hook(lambda *_, name=name: ran["heads"].add(name))
    trainer.train()
    assert ran == {"student": {1, 2, 3}, "teacher": set(range(6)), "heads": set()}


def test_cuts_are_repaired_apart(tmp_path):
    """Each cut gets the dense model's state, so that a cut elsewhere does not change what it learns."""
    dense, both = prune(tmp_path, {LAYERS: [0, 2, 3, 4, 6]})
    one = tmp_path / "one"
    prune_checkpoint(dense, one, {LAYERS: [0, 2, 3, 4, 5, 6]}, dense_root(dense, str(dense)))
    before = decoder_blocks(AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32))[0].state_dict()
    trained = [train(folder, tmp_path / folder.name, blocks_after_cut=0, **STEP) for folder in (both, one)]
    assert [list(segment.blocks) for segment in trained[0].segments] == [[0], [3]]
    first, second = (decoder_blocks(trainer.model)[0].state_dict() for trainer in trained)
    for name, weight in before.items():  # the mean is over one block there, over two here
        torch.testing.assert_close(first[name] - weight, (second[name] - weight) / 2, rtol=1e-3, atol=1e-6)


def test_training_brings_the_student_nearer_to_the_dense_model(folders, tmp_path):
    trainer = train(folders[1], tmp_path, max_steps=30, learning_rate=3e-3)
    losses = [loss for (loss,) in logged(trainer, "loss")]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_steps_do_not_depend_on_how_rows_are_batched(folders, tmp_path):
    values = []
    for batch_size, accumulation_steps in ((4, 1), (2, 2)):
        sizes = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation_steps}
        values.append(logged(train(folders[1], tmp_path, **sizes), "loss", "grad_norm"))
    for one_batch, several in zip(*values, strict=True):
        assert several == pytest.approx(one_batch, rel=2e-4)


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"padding_free": True, "max_length": None}])
def test_checkpointing_and_packing_change_nothing(folders, tmp_path, changes):
    plain = logged(train(folders[1], tmp_path, max_length=None), "loss", "grad_norm")
    changed = logged(train(folders[1], tmp_path, **({"max_length": None} | changes)), "loss", "grad_norm")
    for value, other in zip(plain, changed, strict=True):
        assert other == pytest.approx(value, rel=1e-3)


def test_tokens_are_counted_as_sft_counts_them(folders, tmp_path):
    sft = SFTTrainer(str(folders[1]), config(tmp_path, SFTConfig), train_dataset=Dataset.from_list(ROWS))
    sft.train()
    flattened = train(folders[1], tmp_path, padding_free=True, max_length=None)
    for trainer in (train(folders[1], tmp_path), flattened):
        assert logged(trainer, "num_tokens") == logged(sft, "num_tokens")


def test_adapters_elsewhere_stay_at_zero(folders, tmp_path):
    before = AutoModelForCausalLM.from_pretrained(folders[1], dtype=torch.float32)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = train(folders[1], tmp_path, peft_config=lora, learning_rate=1e-2)
    merged = trainer.model.merge_and_unload()
    changed = [
        any(not torch.equal(weight, old) for weight, old in zip(block.parameters(), other.parameters(), strict=True))
        for block, other in zip(decoder_blocks(merged), decoder_blocks(before), strict=True)
    ]
    assert changed == [False, True, True, True, False]


def test_saved_models_keep_their_provenance(folders, tmp_path):
    trainer = train(folders[1], tmp_path)
    trainer.save_model(str(tmp_path / "saved"))
    assert json.loads((tmp_path / "saved" / "trl_prune.json").read_text())["keep"][LAYERS] == CUT


def test_evaluation_measures_the_same_distance(folders, tmp_path):
    rows = Dataset.from_list(ROWS[:4])
    args = config(tmp_path, LocalKDConfig, max_steps=1, learning_rate=0.0, per_device_eval_batch_size=4)
    trainer = LocalKDTrainer(str(folders[1]), args, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(logged(trainer, "loss")[0][0], rel=1e-4)


WORKER = """
import json, sys
from datasets import Dataset
from tests.conftest import ROWS
from tests.trainers.configs import config
from pathlib import Path
from trl_prune import LocalKDConfig, LocalKDTrainer

output, student, batch_size = sys.argv[1:]
args = config(Path(output).parent, LocalKDConfig, per_device_train_batch_size=int(batch_size), max_steps=2)
trainer = LocalKDTrainer(student, args, train_dataset=Dataset.from_list(ROWS))
trainer.train()
if trainer.is_world_process_zero():
    entries = [[entry["loss"], entry["grad_norm"]] for entry in trainer.state.log_history if "loss" in entry]
    Path(output).write_text(json.dumps(entries))
"""


@pytest.mark.slow
def test_two_processes_are_one(folders, tmp_path):
    one = run_processes(WORKER, 1, tmp_path, str(folders[1]), "4")
    two = run_processes(WORKER, 2, tmp_path, str(folders[1]), "2")
    for value, other in zip(one, two, strict=True):
        assert other == pytest.approx(value, rel=1e-3)


def test_a_student_that_lost_other_units_is_refused(tmp_path):
    _, pruned = prune(tmp_path, {LAYERS: CUT, NEURONS: [list(range(8))] * 7})
    with pytest.raises(InputError, match="also lost units of intermediate_size; use KDTrainer"):
        train(pruned, tmp_path)


def test_a_student_without_provenance_is_refused(folders, tmp_path):
    dense, pruned = folders
    shutil.copytree(pruned, tmp_path / "plain", ignore=shutil.ignore_patterns("trl_prune.json"))
    with pytest.raises(InputError, match="has no trl_prune.json that says which of this teacher's blocks it kept"):
        train(tmp_path / "plain", tmp_path, teacher=str(dense))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks_after_cut": -1}, "`blocks_after_cut` is -1"),
        ({"blocks_after_cut": 1.5}, "`blocks_after_cut` is 1.5; wanted: a whole number"),
        ({"hidden_distance": "l1"}, "`hidden_distance` is 'l1'"),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}, "use_reentrant"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, LocalKDConfig, **change)
