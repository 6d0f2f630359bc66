"""The tiny student, teacher and rows that a distillation trainer is checked on, and one training step on them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer

from trl_prune.losses.positions import MASKED


VOCAB_SIZE = 64
# The vocabulary of a teacher whose head has padding rows.
PADDED_VOCAB_SIZE = 80
# Tokens and learned tokens of each row: unequal, so that a mean of each row's mean differs from the mean over tokens.
ROWS = ((9, 7), (14, 3), (20, 11), (26, 1))


@dataclass(frozen=True)
class Case:
    """The inputs that a trainer is built from.

    Attributes:
        student: folder of the student's checkpoint, with a tokenizer.
        teacher: folder of the teacher's.
        rows: `input_ids` and `labels`, labels not shifted, -100 where nothing is learned.
        arguments: TrainingArguments for one step of plain gradient descent, with batch size and accumulation.
        temperature: of the divergence, KL(teacher || student) over the shared vocabulary.
    """

    student: Path
    teacher: Path
    rows: tuple[dict[str, list[int]], ...]
    arguments: dict[str, object]
    temperature: float = 1.0

    def with_batches(self, batch_size: int, accumulation_steps: int) -> "Case":
        """Return the case with another batch size and number of accumulation steps."""
        sizes = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation_steps}
        return replace(self, arguments=self.arguments | sizes)


@dataclass(frozen=True)
class Step:
    """The result of a training step: the gradient of each weight by name, and the logged loss."""

    gradient: dict[str, Tensor]
    loss: float


Builder = Callable[[Case], Trainer]


def write_case(folder: Path, teacher_vocab_size: int = VOCAB_SIZE) -> Case:
    """Write a random student and teacher into a folder and return the case of them."""
    case = case_of_folder(folder, teacher_vocab_size)
    _write_checkpoint(case.student, VOCAB_SIZE, seed=0)
    _write_checkpoint(case.teacher, teacher_vocab_size, seed=1)
    return case


def case_of_folder(folder: Path, teacher_vocab_size: int) -> Case:
    """Return the case whose checkpoints `write_case` writes into a folder."""
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
    student, teacher = folder / "student", folder / f"teacher-{teacher_vocab_size}"
    return Case(student, teacher, _make_rows(), arguments).with_batches(len(ROWS), 1)


def _write_checkpoint(folder: Path, vocab_size: int, seed: int) -> None:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, tie_word_embeddings=False, **sizes))
    with torch.no_grad():  # larger weights, so that the models disagree, and differently at each token
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(5)
    model.save_pretrained(folder)
    backend = Tokenizer(models.WordLevel({f"t{index}": index for index in range(VOCAB_SIZE)}, unk_token="t0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="t1", pad_token="t2").save_pretrained(folder)


def _make_rows() -> tuple[dict[str, list[int]], ...]:
    generator = torch.Generator().manual_seed(2)
    rows = []
    for length, num_learned in ROWS:
        ids = torch.randint(3, VOCAB_SIZE, (length,), generator=generator).tolist()
        # Learned tokens end before the row does, so that a mask shifted by one shows at both ends.
        end = length - 1
        labels = [MASKED] * (end - num_learned) + ids[end - num_learned : end] + [MASKED] * (length - end)
        rows.append({"input_ids": ids, "labels": labels})
    return tuple(rows)


def take_step(build: Builder, case: Case) -> Step:
    """Build a trainer and return the result of its one training step."""
    trainer = build(case)
    trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model)
    after = {name: weight.detach().cpu() for name, weight in model.named_parameters()}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Step(_gradient(case, after), losses[0] if losses else float("nan"))


def _gradient(case: Case, after: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the decrease of each weight, which at learning rate 1 is its gradient."""
    before = AutoModelForCausalLM.from_pretrained(case.student, dtype=torch.float32).named_parameters()
    return {name: (weight - after[name]).detach() for name, weight in before}
