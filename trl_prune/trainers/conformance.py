"""Does a distillation trainer take the step it says? Checks of the gradient from outside, for any Trainer.

A trainer is built by a function of yours from a `Case`, takes one step of plain gradient descent with learning rate 1,
and what its weights moved by is its gradient. Each check holds that against dense torch or against another dealing-out
of the same rows, and says in one sentence what is wrong. See docs/kd_conformance.md.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer


MASKED = -100
VOCABULARY = 64
PADDED = 80
TEMPERATURE = 2.0
# Rows of four lengths with four shares of learned tokens: what a mean of means gets wrong.
ROWS = ((9, 7), (14, 3), (20, 11), (26, 1))
# How far two float32 gradients of the same loss may be apart, as a share of their length.
TOLERANCE = 1e-3


class ConformanceError(AssertionError):
    """What a check found, in one sentence."""


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
Check = Callable[[Builder, Path], None]


def make_case(folder: Path, teacher_vocabulary: int = VOCABULARY) -> Case:
    """Write a random student and teacher into a folder and return the case of them."""
    case = _case_in(folder, teacher_vocabulary)
    _write(case.student, VOCABULARY, seed=0)
    _write(case.teacher, teacher_vocabulary, seed=1)
    return case


def _case_in(folder: Path, teacher_vocabulary: int) -> Case:
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


@dataclass(frozen=True)
class Misreading:
    """A way to read a case wrongly, to name what a trainer did.

    Attributes:
        shift: how far a label's prediction lies before it.
        masks: whether masked labels are left out.
        temperature: whether the logits are divided by it.
        renormalises: whether the teacher's mass is that of the shared ids alone.
    """

    shift: int = 1
    masks: bool = True
    temperature: bool = True
    renormalises: bool = True


RIGHT = Misreading()


def reference(case: Case, reading: Misreading = RIGHT) -> Step:
    """Return the step that dense torch takes: the mean of KL(teacher || student) over all learned positions."""
    student, teacher = (AutoModelForCausalLM.from_pretrained(folder) for folder in (case.student, case.teacher))
    student, teacher = student.float(), teacher.float()
    values = torch.cat([_divergence(student, teacher, row, case, reading) for row in case.rows])
    loss = values.mean()
    names, weights = zip(*student.named_parameters(), strict=True)
    return Step(dict(zip(names, torch.autograd.grad(loss, weights), strict=True)), loss.item())


def _divergence(student: object, teacher: object, row: dict, case: Case, reading: Misreading) -> Tensor:
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
    wanted = (labels != MASKED) if reading.masks else torch.ones_like(labels, dtype=torch.bool)
    wanted = wanted[reading.shift :].nonzero()[:, 0]
    temperature = case.temperature if reading.temperature else 1.0
    ours = student(ids).logits[0, wanted].double() / temperature
    with torch.no_grad():
        theirs = teacher(ids).logits[0, wanted].double() / temperature
    shared = min(ours.shape[-1], theirs.shape[-1])
    if reading.renormalises:
        theirs = theirs[:, :shared]
    log_q = theirs.log_softmax(-1)[:, :shared]
    return (log_q.exp() * (log_q - ours[:, :shared].log_softmax(-1))).sum(-1)


def _flat(step: Step) -> Tensor:
    return torch.cat([step.gradient[name].flatten().double() for name in sorted(step.gradient)])


def apart(one: Step, other: Step) -> float:
    """Return how far two gradients are apart, as a share of the second's length."""
    return ((_flat(one) - _flat(other)).norm() / _flat(other).norm()).item()


def scale_of(one: Step, other: Step) -> tuple[float, float]:
    """Return the factor between two gradients' lengths, and how far their directions are apart."""
    a, b = _flat(one), _flat(other)
    return (a.norm() / b.norm()).item(), (a / a.norm() - b / b.norm()).norm().item()


def _same_direction(step: Step, wanted: Step) -> bool:
    return scale_of(step, wanted)[1] < TOLERANCE


def check_gradient(build: Builder, folder: Path) -> None:
    """The divergence has a gradient, and it is finite."""
    flat = _flat(take_step(build, make_case(folder)))
    if not torch.isfinite(flat).all():
        raise ConformanceError("the gradient is not finite")
    if not flat.norm() > 1e-6:
        raise ConformanceError("the gradient is zero: the divergence was computed where autograd does not see it")


def check_shift(build: Builder, folder: Path) -> None:
    """A label is predicted from the token before it."""
    case = make_case(folder)
    step = take_step(build, case)
    if not _same_direction(step, reference(case)) and _same_direction(step, reference(case, Misreading(shift=0))):
        raise ConformanceError(
            "labels are not shifted: the divergence is taken at each label, not one token before it"
        )


def check_mask(build: Builder, folder: Path) -> None:
    """Positions whose label is masked teach nothing, padding among them; all others teach alike."""
    case = make_case(folder)
    step, wanted = take_step(build, case), reference(case)
    if _same_direction(step, reference(case, Misreading(masks=False))):
        raise ConformanceError("masked labels are learned: the divergence is taken at every position")
    if apart(step, wanted) > TOLERANCE:
        scale, turned = scale_of(step, wanted)
        raise ConformanceError(
            f"the gradient is not that of the mean divergence over learned positions: {scale:.4f} times as long, and "
            f"turned by {turned:.4f}"
        )


def check_accumulation(build: Builder, folder: Path) -> None:
    """Four rows make the same step as one batch, as two batches of two and as four of one."""
    case = make_case(folder)
    whole = take_step(build, case)
    for batch_size, accumulation in ((2, 2), (1, 4)):
        parts = take_step(build, case.dealt(batch_size, accumulation))
        if apart(parts, whole) > TOLERANCE:
            raise ConformanceError(
                f"{accumulation} batches of {batch_size} rows make another gradient than one of {len(ROWS)}: "
                f"{scale_of(parts, whole)[0]:.4f} times as long; the loss wants dividing by num_items_in_batch"
            )
        if abs(parts.loss - whole.loss) > TOLERANCE * abs(whole.loss):
            raise ConformanceError(
                f"{accumulation} batches of {batch_size} rows log a loss of {parts.loss:.5f}, one batch of all "
                f"{whole.loss:.5f}"
            )


def check_temperature(build: Builder, folder: Path) -> None:
    """The temperature divides both models' logits, and loss and gradient take the same factor."""
    case = replace(make_case(folder), temperature=TEMPERATURE)
    step, wanted = take_step(build, case), reference(case)
    if not _same_direction(step, wanted):
        if _same_direction(step, reference(case, Misreading(temperature=False))):
            raise ConformanceError(
                f"the gradient at temperature {TEMPERATURE} is that at 1: it does not reach the loss"
            )
        raise ConformanceError(f"the gradient at temperature {TEMPERATURE} is not that of the divergence there")
    of_gradient, of_loss = scale_of(step, wanted)[0], step.loss / wanted.loss
    if abs(of_gradient - of_loss) > TOLERANCE * of_loss:
        raise ConformanceError(
            f"at temperature {TEMPERATURE} the logged loss is {of_loss:.3f} times the divergence, its gradient "
            f"{of_gradient:.3f} times: only one of them has the temperature's square"
        )


def check_vocabulary(build: Builder, folder: Path) -> None:
    """A teacher with rows of padding in its head teaches the shared ids, its mass on them renormalised."""
    case = make_case(folder, PADDED)
    step, wanted = take_step(build, case), reference(case)
    if apart(step, wanted) > TOLERANCE:
        told = "the gradient with a padded teacher is not that over the shared ids"
        if _same_direction(step, reference(case, Misreading(renormalises=False))):
            told = "the padding's mass is missing: the teacher's distribution over the shared ids does not sum to 1"
        raise ConformanceError(told)


def check_processes(name: str, folder: Path) -> None:
    """Two processes make the step that one makes.

    Args:
        name: the builder as `module:function`, importable by a fresh process.
        folder: for the case and what the processes write.
    """
    make_case(folder)
    one, two = (_launched(name, folder, count) for count in (1, 2))
    if (_flat(two[0]) - _flat(two[1])).abs().max() > 0:
        raise ConformanceError("two processes end with different weights: their gradients were not averaged")
    if apart(two[0], one[0]) > TOLERANCE:
        raise ConformanceError(
            f"two processes make another gradient than one: {scale_of(two[0], one[0])[0]:.4f} times as long; DDP "
            "averages over processes what num_items_in_batch counted over all of them"
        )


def _launched(name: str, folder: Path, processes: int) -> list[Step]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    worker = ["-m", "trl_prune.trainers.conformance", name, str(folder)]
    told = subprocess.run([*command, *worker], env=environment, capture_output=True, text=True)
    if told.returncode:
        raise ConformanceError(f"{processes} processes fail: {told.stderr.strip()[-1500:]}")
    return [Step(load_file(folder / f"{processes}-{rank}.safetensors"), 0.0) for rank in range(processes)]


def work(name: str, folder: str) -> None:
    """Take a step as one of the processes that torchrun started, and write down what it did."""
    module, _, function = name.partition(":")
    build: Builder = getattr(importlib.import_module(module), function)
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    case = _case_in(Path(folder), VOCABULARY).dealt(len(ROWS) // processes, 1)
    gradient = {key: part.contiguous() for key, part in take_step(build, case).gradient.items()}
    save_file(gradient, Path(folder) / f"{processes}-{rank}.safetensors")


CHECKS: dict[str, Check] = {
    "gradient": check_gradient,
    "shift": check_shift,
    "mask": check_mask,
    "accumulation": check_accumulation,
    "temperature": check_temperature,
    "vocabulary": check_vocabulary,
}

if __name__ == "__main__":
    work(*sys.argv[1:])
