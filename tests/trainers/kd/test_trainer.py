"""Oracles: dense float64 torch for a step, SFTTrainer where nothing is distilled, an unbroken run for a resume."""

import copy
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, TrainingArguments
from trl import SFTConfig, SFTTrainer

from tests.conftest import ROWS, SIZES, save_tiny, tiny_model, tiny_tokenizer
from trl_prune import KDConfig, KDTrainer
from trl_prune.checkpoints import dense_root, read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS
from trl_prune.trainers.kd.checks import check_arguments
from trl_prune.trainers.kd.hidden_term import PROJECTION
from trl_prune.trainers.kd.state import STATE


TEXT = [{"text": f"The number {number} comes before {number + 1}."} for number in range(12)]
MESSAGES = [{"messages": row["prompt"] + row["completion"]} for row in ROWS]
PLAIN = [{"prompt": f"What is {number}?", "completion": f" It is {number}."} for number in range(12)]
EVERY_STATE = ["embedding", "block", "mlp", "attention"]
STEP = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}


@pytest.fixture(scope="module")
def pruned(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned") / "model"
    prune_checkpoint(dense, folder, {LAYERS: [0, 1, 3]}, dense_root(dense, str(dense)))
    return folder


def config(tmp_path, cls=KDConfig, **more):
    told = {
        "per_device_train_batch_size": 4,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }
    return cls(str(tmp_path / "out"), **(told | more))


def trained(pruned, tmp_path, rows=ROWS, peft=None, teacher=None, **more):
    trainer = KDTrainer(
        str(pruned),
        config(tmp_path, **more),
        train_dataset=Dataset.from_list(rows),
        peft_config=peft,
        teacher_model=teacher,
    )
    trainer.train()
    return trainer


def logged(trainer, *names):
    return [tuple(entry[name] for name in names) for entry in trainer.state.log_history if "loss" in entry]


def weights(trainer):
    return {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()}


DATA = {"prompt-completion": ROWS, "messages": MESSAGES, "plain": PLAIN, "text": TEXT}


@pytest.mark.parametrize("rows", DATA.values(), ids=DATA)
def test_every_format_trains_and_learns_from_the_dense_root(rows, pruned, tmp_path):
    trainer = trained(pruned, tmp_path, rows, max_steps=9, learning_rate=3e-3)
    losses = [loss for (loss,) in logged(trainer, "kd_loss")]
    assert losses[-1] < 0.7 * losses[0]
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    wanted = {"loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens", "ce_loss", "kd_loss", "kd_weight"}
    assert wanted <= entry.keys()


def test_without_distillation_it_is_sft(pruned, tmp_path):
    data = Dataset.from_list(ROWS)
    ours = trained(pruned, tmp_path, kd_weight=0.0, ce_weight=1.0, hidden_loss="none")
    theirs = SFTTrainer(str(pruned), config(tmp_path, SFTConfig), train_dataset=data)
    theirs.train()
    names = ("loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens")
    for one, other in zip(logged(ours, *names), logged(theirs, *names), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_a_teacher_has_nothing_to_teach_itself(dense, tmp_path):
    trainer = trained(dense, tmp_path, teacher=str(dense))
    losses, norms = zip(*logged(trainer, "kd_loss", "grad_norm"), strict=True)
    assert max(losses) < 1e-6
    assert max(norms) < 1e-3


def dense_step(student, teacher, batch, divergence=None, ce_weight=0.0):
    """The gradient of the mean over learned positions in float64, from whole logits."""
    student = copy.deepcopy(student).double()
    teacher = copy.deepcopy(teacher).double()
    labels = batch["labels"][:, 1:]
    learned = labels != -100
    inputs = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
    z = student(**inputs).logits[:, :-1][learned]
    with torch.no_grad():
        t = teacher(**inputs).logits[:, :-1][learned]
    log_p, log_q = z.log_softmax(-1), t.log_softmax(-1)
    loss = (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    loss = loss + ce_weight * torch.nn.functional.nll_loss(log_p, labels[learned])
    loss.backward()
    return loss.item(), {name: weight.grad.float() for name, weight in student.named_parameters()}


CHANGES = {
    "gemma2": {"final_logit_softcapping": 4.0},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 2.0},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "opt": {"dropout": 0.0},
}


@pytest.mark.parametrize("ce_weight", [0.0, 0.5])
@pytest.mark.parametrize("family", ["llama", "gemma2", "granite", "cohere", "gpt2", "opt"])
def test_a_step_is_that_of_dense_float64(family, ce_weight, tmp_path):
    changes = CHANGES.get(family, {})
    student, teacher = tiny_model(family, seed=1, **changes), tiny_model(family, seed=2, **changes)
    before = copy.deepcopy(student)
    args = config(tmp_path, per_device_train_batch_size=12, ce_weight=ce_weight, hidden_loss="none", **STEP)
    trainer = KDTrainer(
        student, args, train_dataset=Dataset.from_list(ROWS), teacher_model=teacher, processing_class=tiny_tokenizer()
    )
    batch = next(iter(trainer.get_train_dataloader()))
    wanted, slopes = dense_step(before, teacher, batch, ce_weight=ce_weight)
    trainer.train()
    assert logged(trainer, "loss") == [(pytest.approx(wanted, rel=1e-4),)]
    after = dict(trainer.model.named_parameters())
    for name, weight in before.named_parameters():
        torch.testing.assert_close(weight - after[name], slopes[name], atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize(
    "more",
    [{}, {"hidden_loss": EVERY_STATE, "layer_map": "origins"}, {"hidden_loss": ["block"], "ce_weight": 0.3}],
    ids=["logits", "states", "mixed"],
)
def test_steps_are_the_same_however_rows_are_dealt_out(more, pruned, tmp_path):
    told = []
    for batch, steps in ((4, 1), (2, 2), (1, 4)):
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
        names = ("loss", "grad_norm", "ce_loss", "kd_loss") + (("hidden_loss", "hidden_weight") if more else ())
        told.append(logged(trained(pruned, tmp_path, **sizes, **more), *names))
    for other in told[1:]:
        for one, two in zip(told[0], other, strict=True):
            assert two == pytest.approx(one, rel=2e-4, abs=1e-6)


def test_packing_and_padding_free_are_the_padded_rows(pruned, tmp_path):
    """Flattened rows that do not see each other learn what padded ones learn."""
    told = {"hidden_loss": EVERY_STATE, "hidden_weight": 0.5, "max_length": None}
    padded = trained(pruned, tmp_path, **told)
    flat = trained(pruned, tmp_path, padding_free=True, **told)
    names = ("loss", "kd_loss", "hidden_loss", "grad_norm")
    for one, other in zip(logged(padded, *names), logged(flat, *names), strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-6)
    packed = trained(pruned, tmp_path, packing=True, max_length=64)
    assert logged(packed, "kd_loss")[0][0] > 0


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_nothing(reentrant, pruned, tmp_path):
    states = ["embedding", "block"] if reentrant else EVERY_STATE
    told = {"hidden_loss": states, "layer_map": "origins"}
    plain = trained(pruned, tmp_path, **told)
    kept = trained(
        pruned,
        tmp_path,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": reentrant},
        **told,
    )
    for name, weight in weights(plain).items():
        torch.testing.assert_close(weights(kept)[name], weight, atol=1e-5, rtol=1e-4)


def test_states_inside_blocks_are_refused_where_checkpointing_hides_them(pruned, tmp_path):
    told = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(InputError, match="hidden_loss names 'mlp', whose gradient re-entrant"):
        trained(pruned, tmp_path, hidden_loss=["mlp"], **told)


def test_bf16_autocast_trains(pruned, tmp_path):
    exact = logged(trained(pruned, tmp_path), "kd_loss")
    lower = logged(trained(pruned, tmp_path, bf16=True), "kd_loss")
    assert lower[0] == pytest.approx(exact[0], rel=0.05)


def test_lora_trains_the_adapter_only(pruned, tmp_path):
    trainer = trained(pruned, tmp_path, peft=LoraConfig(r=2, target_modules="all-linear"), learning_rate=1e-2)
    losses = [loss for (loss,) in logged(trainer, "kd_loss")]
    assert losses[-1] < losses[0]
    base = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32).state_dict()
    now = trainer.model.get_base_model().state_dict()
    assert torch.equal(now["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    assert torch.equal(now["lm_head.weight"], base["lm_head.weight"])


def test_an_adapter_on_the_head_is_refused(pruned, tmp_path):
    with pytest.raises(ValueError, match="adapter to `lm_head` is not supported"):
        trained(pruned, tmp_path, peft=LoraConfig(r=2, target_modules=["lm_head"]))


def test_dft_and_label_smoothing_are_trls_with_the_divergence_beside(pruned, tmp_path):
    """The cross-entropy's part of the loss is what SFTTrainer makes of it."""
    data = Dataset.from_list(ROWS)
    kd = logged(trained(pruned, tmp_path, max_steps=1, hidden_loss="none"), "kd_loss")[0][0]
    for more in ({"loss_type": "dft"}, {"label_smoothing_factor": 0.1}):
        ours = trained(pruned, tmp_path, max_steps=1, hidden_loss="none", ce_weight=0.5, **more)
        theirs = SFTTrainer(str(pruned), config(tmp_path, SFTConfig, max_steps=1, **more), train_dataset=data)
        theirs.train()
        wanted = 0.5 * logged(theirs, "loss")[0][0] + kd
        assert logged(ours, "loss")[0][0] == pytest.approx(wanted, rel=1e-4)


def test_evaluation_reports_kl_and_agreement(pruned, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    kls = []
    for more in ({}, {"divergence": "reverse_kl"}):
        trainer = KDTrainer(str(pruned), config(tmp_path, **more), None, data, data, teacher_model=str(dense))
        told = trainer.evaluate()
        assert {"eval_loss", "eval_ce_loss", "eval_kd_loss", "eval_kl", "eval_top1_agreement"} <= told.keys()
        kls.append(told["eval_kl"])
    assert kls[0] == pytest.approx(kls[1], rel=1e-5)
    assert 0 <= told["eval_top1_agreement"] < 1
    same = KDTrainer(str(dense), config(tmp_path), None, data, data, teacher_model=str(dense)).evaluate()
    assert same["eval_top1_agreement"] == 1
    assert same["eval_kl"] < 1e-6


def test_predicting_tells_its_own_numbers_and_leaves_none_behind(pruned, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    trainer = KDTrainer(str(pruned), config(tmp_path), None, data, data.select(range(6)), teacher_model=str(dense))
    before = trainer.evaluate()
    rest = KDTrainer(str(pruned), config(tmp_path), None, data, data.select(range(6, 12)), teacher_model=str(dense))
    wanted = rest.evaluate()
    told = trainer.predict(rest.eval_dataset).metrics
    for number in ("kl", "kd_loss", "ce_loss", "top1_agreement"):
        assert told[f"test_{number}"] == pytest.approx(wanted[f"eval_{number}"], rel=1e-5)
        assert trainer.evaluate()[f"eval_{number}"] == before[f"eval_{number}"]


def test_the_best_checkpoint_is_the_one_nearest_to_the_teacher(pruned, tmp_path):
    data = Dataset.from_list(ROWS)
    told = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    best = {"metric_for_best_model": "eval_kl", "load_best_model_at_end": True, "learning_rate": 3e-3}
    trainer = KDTrainer(str(pruned), config(tmp_path, **told, **best), None, data, data)
    trainer.train()
    kls = [entry["eval_kl"] for entry in trainer.state.log_history if "eval_kl" in entry]
    assert trainer.state.best_metric == min(kls)
    assert trainer.evaluate()["eval_kl"] == pytest.approx(min(kls), rel=1e-4)


def test_ways_to_a_cross_entropy_without_weight_are_told(pruned, tmp_path, caplog):
    def never(*_, **__):
        raise AssertionError

    data, plain = Dataset.from_list(ROWS), trained(pruned, tmp_path)
    with caplog.at_level(logging.WARNING):
        trainer = KDTrainer(str(pruned), config(tmp_path), train_dataset=data, compute_loss_func=never)
    assert any("compute_loss_func decides the cross-entropy, which has no" in told.message for told in caplog.records)
    trainer.train()
    assert logged(trainer, "loss") == logged(plain, "loss")


def test_each_of_several_evaluation_sets_has_its_own_numbers(pruned, dense, tmp_path):
    sets = {"first": Dataset.from_list(ROWS[:4]), "second": Dataset.from_list(ROWS[4:])}
    data = Dataset.from_list(ROWS)
    trainer = KDTrainer(str(pruned), config(tmp_path), None, data, sets, teacher_model=str(dense))
    told = trainer.evaluate()
    for name, rows in sets.items():
        alone = KDTrainer(str(pruned), config(tmp_path), None, data, rows, teacher_model=str(dense)).evaluate()
        for number in ("kl", "kd_loss", "ce_loss", "top1_agreement"):
            assert told[f"eval_{name}_{number}"] == pytest.approx(alone[f"eval_{number}"], rel=1e-5)


def test_evaluations_loss_is_without_the_hidden_term(pruned, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    told = {"hidden_loss": EVERY_STATE, "layer_map": "origins", "hidden_weight": 3.0, "ce_weight": 0.5}
    found = KDTrainer(str(pruned), config(tmp_path, **told), None, data, data, teacher_model=str(dense)).evaluate()
    assert found["eval_hidden_loss"] > 0
    assert found["eval_loss"] == pytest.approx(found["eval_kd_loss"] + 0.5 * found["eval_ce_loss"], rel=1e-4)


def test_a_teacher_with_an_adapter_teaches_with_it(pruned, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    base = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    told = [
        KDTrainer(str(pruned), config(tmp_path), None, data, data, teacher_model=teacher).evaluate()["eval_kl"]
        for teacher in (adapted, adapted.merge_and_unload(), str(dense))
    ]
    assert told[0] == pytest.approx(told[1], rel=1e-4)
    assert told[0] != pytest.approx(told[2], rel=1e-2)


def test_fsdp_1_is_refused(pruned, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    trainer = KDTrainer(str(pruned), config(tmp_path), None, data, teacher_model=str(dense))
    state = SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=1))
    accelerator = SimpleNamespace(state=state, parallelism_config=None)
    with pytest.raises(InputError, match="KDTrainer wants FSDP 2"):
        check_arguments(SimpleNamespace(accelerator=accelerator, train_dataset=trainer.train_dataset))


def test_a_wider_teacher_teaches_states_through_a_projection_that_is_not_saved(tmp_path):
    teacher = save_tiny(tmp_path / "wide", hidden_size=48, seed=3)
    student = save_tiny(tmp_path / "narrow")
    told = {"save_strategy": "steps", "save_steps": 2, "hidden_loss": ["embedding", "block"]}
    trainer = trained(student, tmp_path, teacher=str(teacher), **told)
    before, projection = tmp_path / "out" / "checkpoint-2", getattr(trainer.model, PROJECTION)
    assert projection.weight.shape == (48, SIZES["hidden_size"])
    assert (before / STATE).is_file()
    trainer.save_model(str(tmp_path / "saved"))
    trainer.model.save_pretrained(tmp_path / "by-hand")
    for folder in (before, tmp_path / "saved", tmp_path / "by-hand"):
        _, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not told["missing_keys"]
        assert not told["unexpected_keys"]
        assert not (tmp_path / "saved" / STATE).exists()


@pytest.mark.parametrize(
    "peft", [None, LoraConfig(r=2, lora_dropout=0.1, target_modules="all-linear")], ids=["full", "lora"]
)
def test_a_resumed_run_is_an_unbroken_one(peft, tmp_path):
    teacher = save_tiny(tmp_path / "wide", hidden_size=48, seed=3)
    student = save_tiny(tmp_path / "narrow")
    told = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "hidden_loss": ["embedding", "block"]}
    unbroken = trained(student, tmp_path, peft=peft, teacher=str(teacher), **told)
    resumed = KDTrainer(
        str(student),
        config(tmp_path, **told),
        train_dataset=Dataset.from_list(ROWS),
        teacher_model=str(teacher),
        peft_config=peft,
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    names = ("loss", "grad_norm", "kd_loss", "hidden_loss", "hidden_weight")
    assert logged(resumed, *names) == logged(unbroken, *names)
    wanted = weights(unbroken)
    assert any(PROJECTION in name for name in wanted)
    assert all(torch.equal(weight, wanted[name]) for name, weight in weights(resumed).items())


def test_a_run_that_saves_its_model_only_goes_on(tmp_path):
    student, teacher = save_tiny(tmp_path / "narrow"), save_tiny(tmp_path / "wide", hidden_size=48, seed=3)
    told = {"save_strategy": "steps", "save_steps": 2, "save_only_model": True, "hidden_loss": ["block"]}
    trainer = trained(student, tmp_path, teacher=str(teacher), **told)
    checkpoint = tmp_path / "out" / "checkpoint-2"
    assert {STATE} == {path.name for path in checkpoint.iterdir()} & {STATE, "optimizer.pt"}
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 3


def test_an_optimizer_that_does_not_know_the_projection_is_refused(tmp_path):
    student, teacher = save_tiny(tmp_path / "narrow"), save_tiny(tmp_path / "wide", hidden_size=48, seed=3)
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    optimizers = (torch.optim.AdamW(model.parameters()), None)
    data, teacher = Dataset.from_list(ROWS), str(teacher)
    for hidden_loss in ("none", ["block"]):
        args = config(tmp_path, hidden_loss=hidden_loss)
        if hidden_loss == "none":
            KDTrainer(model, args, train_dataset=data, teacher_model=teacher, optimizers=optimizers).train()
        else:
            with pytest.raises(InputError, match="an optimizer that does not know the projection"):
                KDTrainer(model, args, train_dataset=data, teacher_model=teacher, optimizers=optimizers)


def test_saving_where_the_student_came_from(pruned, tmp_path):
    student = shutil.copytree(pruned, tmp_path / "student")
    trainer = trained(student, tmp_path, max_steps=1)
    trainer.save_model(str(student))
    assert read_provenance(student) == read_provenance(pruned)


def test_a_cut_does_not_say_which_blocks_of_another_teacher_to_compare(pruned, tmp_path):
    other = save_tiny(tmp_path / "other", num_hidden_layers=8, seed=4)
    trainer = trained(pruned, tmp_path, teacher=str(other), hidden_loss=["block"], max_steps=1)
    assert [point.block for point in trainer.hidden_term.pairs.teacher] == [5]
    with pytest.raises(InputError, match="layer_map is 'origins', but the student has no provenance"):
        trained(pruned, tmp_path, teacher=str(other), hidden_loss=["block"], layer_map="origins")
    shallow = save_tiny(tmp_path / "shallow", num_hidden_layers=2, seed=4)
    peft = LoraConfig(r=2, target_modules="all-linear")
    assert logged(trained(pruned, tmp_path, teacher=str(shallow), peft=peft, max_steps=1), "kd_loss")


def test_states_start_as_large_as_the_divergence(pruned, tmp_path):
    """Also where the first blocks are the teacher's own, so that their states agree."""
    for layer_map in ("auto", {0: 0}, {1: 1}):
        told = {"hidden_loss": ["embedding", "block"], "layer_map": layer_map, "learning_rate": 1e-3}
        trainer = trained(pruned, tmp_path, max_steps=6, **told)
        for loss, divergence in logged(trainer, "loss", "kd_loss"):
            assert loss < 4 * divergence


def test_a_checkpoint_without_the_state_is_refused(tmp_path):
    student = save_tiny(tmp_path / "narrow")
    told = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    trained(student, tmp_path, teacher=str(student), hidden_loss="none", **told)
    trainer = KDTrainer(
        str(student),
        config(tmp_path, hidden_loss=["block"]),
        train_dataset=Dataset.from_list(ROWS),
        teacher_model=str(student),
    )
    with pytest.raises(InputError, match=f"has no {STATE}"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))


def test_saves_are_plain_and_carry_the_provenance(pruned, tmp_path):
    trainer = trained(pruned, tmp_path)
    trainer.save_model(str(tmp_path / "saved"))
    assert read_provenance(tmp_path / "saved") == read_provenance(pruned)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert plain.state_dict().keys() == AutoModelForCausalLM.from_pretrained(pruned).state_dict().keys()


def test_the_teacher_is_left_as_it_is(pruned, dense, tmp_path):
    teacher = AutoModelForCausalLM.from_pretrained(dense)
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    trained(pruned, tmp_path, teacher=teacher)
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())


@pytest.mark.parametrize("cls", [TrainingArguments, SFTConfig])
def test_arguments_of_every_kind(cls, pruned, dense, tmp_path):
    args = cls(str(tmp_path), report_to="none", use_cpu=True, bf16=False, max_steps=1, hub_token="secret")
    data = Dataset.from_list(TEXT)
    trainer = KDTrainer(str(pruned), args, None, data, data, teacher_model=str(dense))
    assert isinstance(trainer.args, KDConfig)
    assert trainer.args.hub_token == "secret"


def test_streams_train(pruned, tmp_path):
    data = IterableDataset.from_generator(lambda: iter(ROWS))
    trainer = KDTrainer(str(pruned), config(tmp_path), train_dataset=data)
    trainer.train()
    assert logged(trainer, "kd_loss")[0][0] > 0


def test_a_larger_padded_vocabulary_is_said_and_shared(tmp_path, caplog):
    teacher = save_tiny(tmp_path / "padded", vocab_size=SIZES["vocab_size"] + 9)
    student = save_tiny(tmp_path / "student", seed=1)
    with caplog.at_level(logging.WARNING):
        trainer = trained(student, tmp_path, teacher=str(teacher))
    assert any("over the 259 shared ids" in record.getMessage() for record in caplog.records)
    assert logged(trainer, "kd_loss")[0][0] > 0
    in_memory = AutoModelForCausalLM.from_pretrained(teacher)
    in_memory.config._name_or_path = ""
    with pytest.raises(InputError, match="the teacher in memory has no tokenizer to compare"):
        trained(student, tmp_path, teacher=in_memory)


def test_another_tokenizer_is_refused(pruned, tmp_path, caplog):
    teacher = save_tiny(tmp_path / "other")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["answer"])
    tokenizer.save_pretrained(teacher)
    in_memory = AutoModelForCausalLM.from_pretrained(teacher)
    for given in (str(teacher), in_memory):
        with pytest.raises(InputError, match="the teacher's tokenizer is another than the student's: it encodes"):
            trained(pruned, tmp_path, teacher=given)
    in_memory.config._name_or_path = "nobody/nothing"
    with caplog.at_level(logging.WARNING):
        trained(pruned, tmp_path, teacher=in_memory, max_steps=1)
    assert any("leads to no tokenizer" in told.message for told in caplog.records)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"layer_map": {0: 9}, "hidden_loss": ["block"]}, "names block 9 of the teacher, which has blocks 0 to 3"),
        ({"layer_map": {3: 1}, "hidden_loss": ["block"]}, "names block 3 of the student, which has blocks 0 to 2"),
        ({"layer_map": {"a": 1}, "hidden_loss": ["block"]}, "wanted: student's block -> teacher's block, two numbers"),
        ({"layer_map": {}, "hidden_loss": ["block"]}, "layer_map is empty"),
    ],
)
def test_maps_that_do_not_fit(more, message, pruned, tmp_path):
    with pytest.raises(InputError, match=message):
        trained(pruned, tmp_path, **more)


def test_no_teacher_and_no_provenance(dense, tmp_path):
    with pytest.raises(InputError, match="`teacher_model` was left out.*give `teacher_model`, or `teacher_cache`"):
        trained(dense, tmp_path)


def test_a_teacher_that_is_nowhere(pruned, tmp_path):
    with pytest.raises(InputError, match="is neither a folder here nor a hub id"):
        trained(pruned, tmp_path, teacher="nowhere")


def test_rows_with_nothing_to_learn_are_refused(pruned, tmp_path):
    rows = [{"input_ids": [1, 2, 3], "labels": [-100, -100, -100]}] * 4
    with pytest.raises(InputError, match="no row of the training dataset has a token to learn"):
        trained(pruned, tmp_path, rows)


def test_a_batch_with_nothing_to_learn_is_a_zero(pruned, tmp_path):
    trainer = trained(pruned, tmp_path)
    ids = torch.arange(6)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.full_like(ids, -100)}
    loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=torch.tensor(5))
    loss.backward()
    assert loss == 0


def test_teachers_that_are_no_numbers_stop_the_run_and_name_the_rows(pruned, dense, tmp_path):
    teacher = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    marked = tiny_tokenizer()("3", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        teacher.model.embed_tokens.weight[marked] = torch.nan
    trainer = KDTrainer(
        str(pruned), config(tmp_path), train_dataset=Dataset.from_list(PLAIN[:4]), teacher_model=teacher
    )
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
    with pytest.raises(InputError, match=r"logits are not finite on rows 3 of the batch \(row 3 begins with ids \["):
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(9))


def test_ids_the_teacher_does_not_know(pruned, tmp_path):
    teacher = save_tiny(tmp_path / "small", vocab_size=250, pad_token_id=0, eos_token_id=1)
    with pytest.raises(InputError, match="has token id 258, and the teacher's vocabulary ends at 249"):
        trained(pruned, tmp_path, [{"input_ids": [1, 2, 258, 4]}] * 4, teacher=str(teacher))


WORKER = """
import json, sys
from datasets import Dataset
from tests.conftest import ROWS
from trl_prune import KDConfig, KDTrainer

pruned, out, batch = sys.argv[1:4]
args = KDConfig(
    out, per_device_train_batch_size=int(batch), per_device_eval_batch_size=1, max_steps=3, learning_rate=1e-3,
    report_to="none", use_cpu=True, bf16=False, logging_steps=1, save_strategy="no", gradient_checkpointing=False,
    disable_tqdm=True,
    hidden_loss=["embedding", "block"], layer_map="origins", ce_weight=0.5,
)
rows = Dataset.from_list(ROWS)
trainer = KDTrainer(pruned, args, train_dataset=rows, eval_dataset=rows.select(range(5)))
trainer.train()
found = trainer.evaluate()
if trainer.accelerator.is_main_process:
    names = ("loss", "grad_norm", "ce_loss", "kd_loss", "hidden_loss", "hidden_weight")
    told = [[entry[name] for name in names] for entry in trainer.state.log_history if "loss" in entry]
    told.append([found[f"eval_{name}"] for name in ("loss", "kl", "kd_loss", "ce_loss", "hidden_loss", "entropy")])
    open(out + ".json", "w").write(json.dumps(told))
"""


@pytest.mark.slow
def test_two_processes_log_what_one_logs(pruned, tmp_path):
    """Every mean is over both processes, and so is the weight that is made of two of them."""
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    told = []
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
        words = [str(worker), str(pruned), str(tmp_path / str(processes)), str(4 // processes)]
        done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        told.append(json.loads((tmp_path / f"{processes}.json").read_text()))
    for one, two in zip(*told, strict=True):
        assert two == pytest.approx(one, rel=2e-4, abs=1e-6)
