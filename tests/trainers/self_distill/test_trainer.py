"""Oracles: SFTTrainer where rewriting is off, and one process for the rewriting and training of two."""

import functools
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from tests.conftest import ROWS, save_tiny
from tests.trainers.configs import config as cpu_config
from trl_prune import SelfDistillSFTConfig, SelfDistillSFTTrainer, rewrite_dataset
from trl_prune.checkpoints import PROVENANCE, dense_root, read_provenance
from trl_prune.data.rewriting.acceptance import Verdict
from trl_prune.data.rewriting.provenance import RECORDS, read_records
from trl_prune.losses.positions import MASKED
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS
from trl_prune.trainers.teachers.source import TeacherSource


TEXT = [{"text": f"The number {number} comes before {number + 1}."} for number in range(12)]
MESSAGES = [{"messages": row["prompt"] + row["completion"]} for row in ROWS]
PLAIN = [{"prompt": f"What is {number}?", "completion": f" It is {number}."} for number in range(12)]


@pytest.fixture(scope="module")
def pruned(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned") / "model"
    prune_checkpoint(dense, folder, {LAYERS: [0, 3]}, dense_root(dense, str(dense)))
    return folder


def config(tmp_path, config_class=SelfDistillSFTConfig, **changes):
    length = {"rewrite_max_new_tokens": 6} if config_class is SelfDistillSFTConfig else {}
    return cpu_config(tmp_path, config_class, **(length | changes))


def learned_tokens(row):
    return [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != MASKED]


def losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("rows", [ROWS, MESSAGES, PLAIN, TEXT], ids=["prompt-completion", "messages", "plain", "text"])
def test_without_rewriting_it_trains_as_sft(rows, pruned, tmp_path):
    data = Dataset.from_list(rows)
    trainer = SelfDistillSFTTrainer(str(pruned), config(tmp_path, rewrite=False), train_dataset=data)
    sft_trainer = SFTTrainer(str(pruned), config(tmp_path, SFTConfig), train_dataset=data)
    # SFTTrainer's head also runs at the positions of prompts, and sums in another order.
    assert losses(trainer) == pytest.approx(losses(sft_trainer), rel=1e-5)


@pytest.mark.parametrize("rows", [ROWS, MESSAGES, PLAIN], ids=["prompt-completion", "messages", "plain"])
def test_the_dense_root_rewrites_and_the_student_is_trained(rows, pruned, tmp_path):
    trainer = SelfDistillSFTTrainer(str(pruned), config(tmp_path), train_dataset=Dataset.from_list(rows))
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    assert trainer.acceptance["by_type"]["all"]["answers"] == len(rows)
    losses(trainer)
    assert any(not torch.equal(before[name], weight) for name, weight in trainer.model.named_parameters())


def test_the_loss_is_on_the_answer_only(pruned, tmp_path):
    for rows in (ROWS, MESSAGES):
        trainer = SelfDistillSFTTrainer(str(pruned), config(tmp_path), train_dataset=Dataset.from_list(rows))
        text = trainer.processing_class.decode(learned_tokens(trainer.train_dataset[0]))
        assert text.strip() == ROWS[0]["completion"][0]["content"] + "<|im_end|>"
    on_all_tokens = config(tmp_path, completion_only_loss=False)
    trainer = SelfDistillSFTTrainer(str(pruned), on_all_tokens, train_dataset=Dataset.from_list(ROWS))
    assert MASKED not in trainer.train_dataset[0]["labels"]


def test_accepted_rewrites_are_trained_on(pruned, tmp_path, monkeypatch):
    accept = "trl_prune.data.rewriting.rewrite.judge"
    monkeypatch.setattr(accept, lambda request, text, *_: Verdict("accepted", text.strip()))
    trainer = SelfDistillSFTTrainer(str(pruned), config(tmp_path), train_dataset=Dataset.from_list(ROWS))
    assert trainer.acceptance["by_type"]["all"]["acceptance_rate"] == 1
    first = read_records(tmp_path / "out" / "rewrites" / RECORDS)[0]
    assert first.rewrite in trainer.processing_class.decode(learned_tokens(trainer.train_dataset[0]))


def test_positional_arguments_are_those_of_sft(pruned, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    trainer = SelfDistillSFTTrainer(str(pruned), config(tmp_path), None, data, data, teacher_model=str(dense))
    assert trainer.eval_dataset is not None
    assert len(trainer.eval_dataset) == len(ROWS)
    assert "eval_loss" in trainer.evaluate()


@pytest.mark.parametrize("config_class", [TrainingArguments, SFTConfig])
def test_other_config_classes_are_converted(config_class, pruned, tmp_path):
    args = config_class(str(tmp_path), report_to="none", use_cpu=True, bf16=False, max_steps=1, hub_token="secret")
    trainer = SelfDistillSFTTrainer(str(pruned), args, train_dataset=Dataset.from_list(TEXT))
    assert isinstance(trainer.args, SelfDistillSFTConfig)
    assert trainer.args.hub_token == "secret"
    assert trainer.args.max_steps == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (Dataset.from_list(TEXT), "columns are text"),
        (Dataset.from_list([{"input_ids": [1, 2, 3]}] * 4), "tokenised already"),
        (IterableDataset.from_generator(lambda: iter(ROWS)), "a stream cannot"),
    ],
    ids=["text", "tokenised", "stream"],
)
def test_data_that_cannot_be_rewritten_is_trained_on_as_it_is_or_refused(data, reason, pruned, tmp_path, caplog):
    trainer = SelfDistillSFTTrainer(str(pruned), config(tmp_path), train_dataset=data)
    warnings = [record for record in caplog.records if reason in record.getMessage()]
    assert len(warnings) == 1
    assert losses(trainer)
    with pytest.raises(ValueError, match=f"rewrite='require', but.*{reason}"):
        SelfDistillSFTTrainer(str(pruned), config(tmp_path, rewrite="require"), train_dataset=data)


@pytest.mark.parametrize("in_memory", [False, True], ids=["by name", "in memory"])
def test_a_student_of_no_other_model_is_its_own_teacher(in_memory, dense, tmp_path):
    data = Dataset.from_list(ROWS)
    model = AutoModelForCausalLM.from_pretrained(dense) if in_memory else str(dense)
    trainer = SelfDistillSFTTrainer(model, config(tmp_path), train_dataset=data)
    own = rewrite_dataset(str(dense), data, tmp_path / "own", max_new_tokens=6)
    records = read_records(tmp_path / "out" / "rewrites" / RECORDS)
    assert [record.rewrite for record in records] == [record.rewrite for record in own.records]
    assert losses(trainer)
    assert trainer.model.training


def test_a_teacher_given_by_name_is_freed_before_the_student_is_loaded(pruned, dense, tmp_path, monkeypatch):
    loaded, alive = [], []
    load = TeacherSource.load_model

    def load_teacher(*args):
        model = load(*args)
        loaded.append(weakref.ref(model))
        return model

    @functools.wraps(SFTTrainer.__init__)
    def sft_init(self, *args, **kwargs):
        alive.extend(reference() is not None for reference in loaded)
        return sft_trainer_init(self, *args, **kwargs)

    sft_trainer_init = SFTTrainer.__init__
    monkeypatch.setattr(TeacherSource, "load_model", load_teacher)
    monkeypatch.setattr(SFTTrainer, "__init__", sft_init)
    data = Dataset.from_list(ROWS)
    SelfDistillSFTTrainer(str(pruned), config(tmp_path), train_dataset=data, teacher_model=str(dense))
    assert alive == [False]


def test_rows_without_an_answer_are_trained_on_with_one_warning_or_refused(pruned, tmp_path, caplog):
    tool_call = {"role": "assistant", "content": "", "tool_calls": None}
    data = Dataset.from_list([*MESSAGES, {"messages": [MESSAGES[0]["messages"][0], tool_call]}])
    SelfDistillSFTTrainer(str(pruned), config(tmp_path), train_dataset=data)
    warnings = [record for record in caplog.records if "no_answer_to_rewrite 1" in record.getMessage()]
    assert len(warnings) == 1
    with pytest.raises(ValueError, match=f"rewriting is required, but 1 of {len(data)} rows"):
        SelfDistillSFTTrainer(str(pruned), config(tmp_path, rewrite="require"), train_dataset=data)


def test_a_teacher_with_another_tokenizer_writes_text(pruned, tmp_path):
    teacher = save_tiny(tmp_path / "teacher")
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(teacher)
    (teacher / "chat_template.jinja").unlink(missing_ok=True)
    trainer = SelfDistillSFTTrainer(
        str(pruned), config(tmp_path), train_dataset=Dataset.from_list(ROWS), teacher_model=str(teacher)
    )
    assert losses(trainer)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rewrite_engine": "vlm"}, "engine 'vlm' is unknown; allowed: transformers, vllm, server"),
        ({"rewrite_engine": "server"}, "url must be given"),
        ({"rewrite_engine_kwargs": {"continous": True}}, "did you mean 'continuous'"),
        ({"rewrite_thoughts": "drop"}, "`rewrite_thoughts` is 'drop'"),
        ({"rewrite_samples": 2}, "at `rewrite_temperature=0` all are the same"),
        ({"rewrite_samples": 0}, "`rewrite_samples` is 0; it must be at least 1"),
        ({"rewrite_temperature": -1.0}, "`rewrite_temperature` is -1.0; it must be at least 0"),
        ({"rewrite_answer_types": "types.yaml"}, "`rewrite_answer_types` is 'types.yaml'; it must be a dict"),
    ],
)
def test_invalid_arguments_are_refused_when_they_are_given(changes, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        config(tmp_path, **changes)


def test_text_is_rewritten_after_its_response_template(pruned, tmp_path):
    rows = [{"text": f"Question: {number}?\nAnswer: {number + 1}"} for number in range(4)]
    changes = {"rewrite_response_template": "Answer:", "rewrite": "require"}
    trainer = SelfDistillSFTTrainer(str(pruned), config(tmp_path, **changes), train_dataset=Dataset.from_list(rows))
    assert trainer.acceptance["by_type"]["all"]["answers"] == 4


def test_an_invalid_rewrite_value_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`rewrite` is 'maybe'; allowed"):
        config(tmp_path, rewrite="maybe")


def test_teacher_and_student_as_loaded_models(pruned, dense, tmp_path):
    teacher, student = (AutoModelForCausalLM.from_pretrained(folder) for folder in (dense, pruned))
    trainer = SelfDistillSFTTrainer(
        student, config(tmp_path), train_dataset=Dataset.from_list(ROWS), teacher_model=teacher
    )
    assert losses(trainer)


def test_lora_packing_and_several_eval_datasets(pruned, tmp_path):
    data = Dataset.from_list(ROWS)
    trainer = SelfDistillSFTTrainer(
        str(pruned),
        config(tmp_path, packing=True, packing_strategy="wrapped", max_length=64, eval_packing=False),
        train_dataset=data,
        eval_dataset={"prompts": data, "messages": Dataset.from_list(MESSAGES)},
        peft_config=LoraConfig(r=2, target_modules="all-linear"),
    )
    assert losses(trainer)
    assert "eval_messages_loss" in trainer.evaluate()


def test_saved_checkpoints_are_ordinary_and_have_the_provenance(pruned, tmp_path):
    trainer = SelfDistillSFTTrainer(
        str(pruned), config(tmp_path, save_strategy="steps", save_steps=2), train_dataset=Dataset.from_list(ROWS)
    )
    trainer.train()
    for folder in (tmp_path / "out" / "checkpoint-2", tmp_path / "saved"):
        if folder.name == "saved":
            trainer.save_model(str(folder))
        assert read_provenance(folder) == read_provenance(pruned)
        _, loading_info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not loading_info["missing_keys"]
        assert not loading_info["unexpected_keys"]
    assert (tmp_path / "saved" / PROVENANCE).is_file()


WORKER = """
import sys
from datasets import Dataset
from tests.conftest import ROWS
from trl_prune import SelfDistillSFTConfig, SelfDistillSFTTrainer
import json, torch

pruned, out, batch_size = sys.argv[1:4]
args = SelfDistillSFTConfig(
    out, per_device_train_batch_size=int(batch_size), max_steps=2, learning_rate=1e-3, report_to="none", use_cpu=True,
    bf16=False, logging_steps=1, save_strategy="no", gradient_checkpointing=False, disable_tqdm=True,
    rewrite_max_new_tokens=6, rewrite_batch_size=2, max_length=64,
)
trainer = SelfDistillSFTTrainer(pruned, args, train_dataset=Dataset.from_list(ROWS))
trainer.train()
if trainer.accelerator.is_main_process:
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    results = {"losses": losses, "grad_norms": norms, "acceptance": trainer.acceptance}
    open(out + ".json", "w").write(json.dumps(results))
"""


def train_in_processes(processes, pruned, out):
    worker = out.parent / "worker.py"
    worker.write_text(WORKER)
    batch_size = 4 // processes
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command += [str(worker), str(pruned), str(out), str(batch_size)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    completed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr[-3000:]
    return json.loads(Path(f"{out}.json").read_text())


@pytest.mark.slow(minutes=1)
def test_two_processes_rewrite_and_train_as_one(pruned, tmp_path):
    single, distributed = (train_in_processes(count, pruned, tmp_path / str(count)) for count in (1, 2))
    assert single["acceptance"] == distributed["acceptance"]
    assert single["losses"] == pytest.approx(distributed["losses"], abs=1e-5)
    assert single["grad_norms"] == pytest.approx(distributed["grad_norms"], rel=1e-4)


def test_a_dense_model_is_its_own_root(tmp_path):
    folder = save_tiny(tmp_path / "model")
    assert dense_root(folder, str(folder))["path"] == str(folder)
