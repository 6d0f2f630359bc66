"""The tiny student, teacher and rows that a distillation trainer is checked on, and one training step on them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer


MASKED = -100


VOCABULARY = 64


PADDED = 80


# Rows of four lengths with four shares of learned tokens: what a mean of means gets wrong.
ROWS = ((9, 7), (14, 3), (20, 11), (26, 1))


@dataclass(frozen=True)
class Case:
    """What a trainer is to be built of.

    Attributes:
        student: folder of the student's checkpoint, tokenizer included.
        teacher: folder of the teacher's.
        rows: `input_ids` and `labels`, labels not yet shifted, -100 where nothing is learned.
        arguments: for the TrainingArguments: one step of plain gradient descent, batch size, accumulation.
        temperature: of the divergence, which is KL(teacher || student) over the shared vocabulary.
    """

    student: Path
    teacher: Path
    rows: tuple[dict[str, list[int]], ...]
    arguments: dict[str, object]
    temperature: float = 1.0

    def dealt(self, batch_size: int, accumulation: int) -> "Case":
        """Return the case with its rows dealt out in other batches."""
        sizes = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation}
        return replace(self, arguments=self.arguments | sizes)


@dataclass(frozen=True)
class Step:
    """What a step did: each weight's gradient, and the loss that was logged."""

    gradient: dict[str, Tensor]
    loss: float


Builder = Callable[[Case], Trainer]


def make_case(folder: Path, teacher_vocabulary: int = VOCABULARY) -> Case:
    """Write a random student and teacher into a folder and return the case of them."""
    case = case_in(folder, teacher_vocabulary)
    _write(case.student, VOCABULARY, seed=0)
    _write(case.teacher, teacher_vocabulary, seed=1)
    return case


def case_in(folder: Path, teacher_vocabulary: int) -> Case:
    arguments = {
        "output_dir": str(folder / "out"),
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }
    student, teacher = folder / "student", folder / f"teacher-{teacher_vocabulary}"
    return Case(student, teacher, _rows(), arguments).dealt(len(ROWS), 1)


def _write(folder: Path, vocabulary: int, seed: int) -> None:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=False, **sizes))
    with torch.no_grad():  # so that the models disagree, and on each token differently
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(5)
    model.save_pretrained(folder)
    backend = Tokenizer(models.WordLevel({f"t{index}": index for index in range(VOCABULARY)}, unk_token="t0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="t1", pad_token="t2").save_pretrained(folder)


def _rows() -> tuple[dict[str, list[int]], ...]:
    generator = torch.Generator().manual_seed(2)
    told = []
    for length, learned in ROWS:
        ids = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
        # Learned tokens end before the row does, so that a mask off by one is seen at both ends.
        end = length - 1
        labels = [MASKED] * (end - learned) + ids[end - learned : end] + [MASKED] * (length - end)
        told.append({"input_ids": ids, "labels": labels})
    return tuple(told)


def take_step(build: Builder, case: Case) -> Step:
    """Return what one step of a trainer does."""
    trainer = build(case)
    trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model)
    after = {name: weight.detach().cpu() for name, weight in model.named_parameters()}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Step(_moved(case, after), losses[0] if losses else float("nan"))


def _moved(case: Case, after: dict[str, Tensor]) -> dict[str, Tensor]:
    before = dict(AutoModelForCausalLM.from_pretrained(case.student, dtype=torch.float32).named_parameters())
    return {name: (weight - after[name]).detach() for name, weight in before.items()}
