"""Teachers of every kind, and those that are refused."""

import logging
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.conftest import ROWS, SIZES, save_tiny, tiny_tokenizer
from tests.trainers.configs import config
from tests.trainers.kd.training import logged, train
from trl_prune import KDTrainer
from trl_prune.checkpoints import PROVENANCE
from trl_prune.errors import InputError
from trl_prune.trainers.kd.checks import check_trainer
from trl_prune.trainers.teachers import student_origin


def test_a_teacher_with_an_adapter_predicts_with_it(pruned, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    base = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    with_adapter, merged, without_adapter = (
        KDTrainer(str(pruned), config(tmp_path), None, data, data, teacher_model=teacher).evaluate()["eval_kl"]
        for teacher in (adapted, adapted.merge_and_unload(), str(dense))
    )
    assert with_adapter == pytest.approx(merged, rel=1e-4)
    assert with_adapter != pytest.approx(without_adapter, rel=1e-2)


def test_the_teacher_is_not_changed(pruned, dense, tmp_path):
    teacher = AutoModelForCausalLM.from_pretrained(dense)
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    train(pruned, tmp_path, teacher=teacher)
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())


@pytest.mark.parametrize("with_correction", [False, True])
def test_a_start_asks_the_hub_once_for_the_students_provenance(with_correction, pruned, tmp_path, monkeypatch):
    requests = []

    def cached_file(name, filename, **_):
        requests.append((name, filename))
        return str(pruned / PROVENANCE)

    monkeypatch.setattr(student_origin, "cached_file", cached_file)
    student = AutoModelForCausalLM.from_pretrained(pruned)
    student.config._name_or_path = "someone/pruned"
    correction = {"teacher_correction": "norms", "teacher_correction_args": {"max_steps": 1}}
    args = config(tmp_path, hidden_loss=["block"], layer_map="origins", **(correction if with_correction else {}))
    data, tokenizer = Dataset.from_list(ROWS), tiny_tokenizer()
    trainer = KDTrainer(student, args, train_dataset=data, processing_class=tokenizer)
    trainer.save_model(str(tmp_path / "saved"))
    assert requests == [("someone/pruned", PROVENANCE)]
    assert (tmp_path / "saved" / PROVENANCE).read_bytes() == (pruned / PROVENANCE).read_bytes()


def test_a_larger_padded_vocabulary_is_reduced_to_the_shared_ids_with_a_warning(tmp_path, caplog):
    teacher = save_tiny(tmp_path / "padded", vocab_size=SIZES["vocab_size"] + 9)
    student = save_tiny(tmp_path / "student", seed=1)
    with caplog.at_level(logging.WARNING):
        trainer = train(student, tmp_path, teacher=str(teacher))
    assert any("over the 259 shared ids" in record.getMessage() for record in caplog.records)
    assert logged(trainer, "kd_loss")[0][0] > 0
    in_memory = AutoModelForCausalLM.from_pretrained(teacher)
    in_memory.config._name_or_path = ""
    with pytest.raises(InputError, match="the teacher in memory has no tokenizer to compare"):
        train(student, tmp_path, teacher=in_memory)


def test_another_tokenizer_is_refused(pruned, tmp_path, caplog):
    teacher = save_tiny(tmp_path / "other")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["answer"])
    tokenizer.save_pretrained(teacher)
    in_memory = AutoModelForCausalLM.from_pretrained(teacher)
    for other in (str(teacher), in_memory):
        with pytest.raises(InputError, match="the teacher's tokenizer differs from the student's: it encodes"):
            train(pruned, tmp_path, teacher=other)
    in_memory.config._name_or_path = "nobody/nothing"
    with caplog.at_level(logging.WARNING):
        train(pruned, tmp_path, teacher=in_memory, max_steps=1)
    assert any("The teacher in memory has no tokenizer" in record.message for record in caplog.records)


def test_no_teacher_and_no_provenance(dense, tmp_path):
    with pytest.raises(InputError, match="`teacher_model` is not given.*give `teacher_model`, or `teacher_cache`"):
        train(dense, tmp_path)


def test_a_teacher_that_does_not_exist(pruned, tmp_path):
    with pytest.raises(InputError, match="is neither a folder here nor a hub id"):
        train(pruned, tmp_path, teacher="nowhere")


def test_logits_that_are_not_finite_stop_the_run_and_name_the_rows(pruned, dense, tmp_path):
    teacher = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    token = tiny_tokenizer()("3", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        teacher.model.embed_tokens.weight[token] = torch.nan
    rows = [{"prompt": f"What is {number}?", "completion": f" It is {number}."} for number in range(4)]
    trainer = KDTrainer(str(pruned), config(tmp_path), train_dataset=Dataset.from_list(rows), teacher_model=teacher)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
    with pytest.raises(InputError, match=r"logits are not finite on rows 3 of the batch \(row 3 begins with ids \["):
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(9))


def test_ids_outside_the_teachers_vocabulary_are_refused(pruned, tmp_path):
    teacher = save_tiny(tmp_path / "small", vocab_size=250, pad_token_id=0, eos_token_id=1)
    with pytest.raises(InputError, match="has token id 258, and the teacher's vocabulary ends at 249"):
        train(pruned, tmp_path, [{"input_ids": [1, 2, 258, 4]}] * 4, teacher=str(teacher))


def test_fsdp_1_is_refused(pruned, dense, tmp_path):
    trainer = KDTrainer(str(pruned), config(tmp_path), None, Dataset.from_list(ROWS), teacher_model=str(dense))
    state = SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=1))
    accelerator = SimpleNamespace(state=state, parallelism_config=None)
    with pytest.raises(InputError, match="KDTrainer needs FSDP 2"):
        check_trainer(SimpleNamespace(accelerator=accelerator, train_dataset=trainer.train_dataset))
