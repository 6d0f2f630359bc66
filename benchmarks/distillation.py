"""Distillation's loss and step against their limits and against TRL's own, in CPU seconds and peak memory.

usage: python benchmarks/distillation.py [loss|memory|step] ...

Every way is measured in a process of its own; all are given the same tensors, or the same rows.
- `loss`: forward KL of 512 positions, forward and backward, heads included. The limit: the four products with heads.
- `memory`: what the loss needs beyond the gradient of the student's head, which must exist.
- `step`: SmolLM2-135M teaches itself without 6 of its 30 blocks, 2 rows of 256 tokens, float32, all weights trained.
  The limit: teacher's forward, student's forward and backward, and the four products.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset


REPEATS = 4
SHAPES = {"SmolLM2-135M's head": (49152, 576), "128k vocabulary": (128256, 2048)}
BATCH, TOKENS, REMOVED = 2, 256, range(20, 26)


def tensors(count, vocab, width):
    """Return what a loss starts from: final states and heads of student and teacher."""
    torch.manual_seed(0)
    hidden = torch.randn(count, width, requires_grad=True)
    weight = (torch.randn(vocab, width) / width**0.5).requires_grad_()
    teacher = torch.randn(count, width), torch.randn(vocab, width) / width**0.5
    return hidden, weight, *teacher, torch.randint(0, vocab, (count,))


def floor(hidden, weight, teacher_hidden, teacher_weight, _):
    """Do the four products and nothing else."""
    with torch.no_grad():
        logits, _ = hidden @ weight.T, teacher_hidden @ teacher_weight.T
        return logits @ weight, logits.T @ hidden, torch.tensor(float("nan"))


def ours(hidden, weight, teacher_hidden, teacher_weight, labels):
    """Our head, which tells cross-entropy, entropy and accuracy as well."""
    from trl_prune.losses.distill_head import distill
    from trl_prune.losses.head_block import Objective
    from trl_prune.losses.lm_head import LMHead
    from trl_prune.losses.targets import HeadTarget

    told = distill(hidden, LMHead(weight), labels, HeadTarget(teacher_hidden, LMHead(teacher_weight)), Objective())
    return *torch.autograd.grad(told.loss, (hidden, weight)), told.loss


def trl_gkd(hidden, weight, teacher_hidden, teacher_weight, labels):
    """TRL's GKD loss, on whole logits."""
    from trl.experimental.gkd import GKDTrainer

    with torch.no_grad():
        theirs = teacher_hidden @ teacher_weight.T
    loss = GKDTrainer.generalized_jsd_loss(hidden @ weight.T, theirs, labels, beta=0) * len(labels)
    return *torch.autograd.grad(loss, (hidden, weight)), loss


def trl_chunked(hidden, weight, teacher_hidden, teacher_weight, _):
    """TRL's chunked divergence, which its DistillationTrainer uses."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    told, _ = ChunkedDivergenceFunction.apply(hidden, weight, None, teacher_hidden, teacher_weight, None, 0.0)
    return *torch.autograd.grad(told.sum(), (hidden, weight)), told.sum()


LOSSES = {"four products": floor, "trl-prune": ours, "TRL GKD": trl_gkd, "TRL chunked divergence": trl_chunked}


def resident(field):
    """Return this process's resident memory in MB: `VmRSS` now, or its peak `VmHWM`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(work):
    """Return the least CPU seconds of the repeats after a first, the peak in MB, and what the work added to it."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, seconds = resident("VmRSS"), []
    for _ in range(REPEATS):
        start = time.process_time()
        told = work()
        seconds.append(time.process_time() - start)
    peak = resident("VmHWM")
    return {"seconds": min(seconds[1:]), "MB": peak - before, "peak": peak, "loss": float(told)}


def loss_row(name, count, vocab, width):
    """Measure one way to compute the loss."""
    given = tensors(int(count), int(vocab), int(width))
    LOSSES[name](*(part[:1] if len(part) == int(count) else part for part in given))  # imports, and first touch
    return measure(lambda: LOSSES[name](*given)[2].item())


def models():
    """Return teacher and student folders: SmolLM2-135M-Instruct, and what is left of it."""
    from trl_prune.checkpoints import dense_root
    from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
    from trl_prune.pruning.surgery.cut import LAYERS
    from trl_prune.smollm2 import smollm2

    dense = smollm2()
    student = Path(tempfile.gettempdir()) / "trl-prune-benchmark-student"
    if not student.exists():
        keep = {LAYERS: [block for block in range(30) if block not in REMOVED]}
        prune_checkpoint(dense, student, keep, dense_root(dense, str(dense)))
    return str(dense), str(student)


def texts():
    """Return rows of token ids of real text, all of them learned."""
    from trl_prune.checkpoints import load_tokenizer
    from trl_prune.data.starter import starter_rows
    from trl_prune.smollm2 import smollm2

    joined = " ".join(str(row["prompt"]) + str(row["completion"]) for row in starter_rows())
    ids = load_tokenizer(smollm2())(joined)["input_ids"]
    return [ids[start : start + TOKENS] for start in range(0, BATCH * TOKENS, TOKENS)]


def arguments(kind, **more):
    """Return training arguments, the same for every trainer."""
    told = {"per_device_train_batch_size": BATCH, "use_cpu": True, "bf16": False, "report_to": "none"}
    return kind(tempfile.mkdtemp(), gradient_checkpointing=False, save_strategy="no", **told, **more)


def ideal_step():
    """Both backbones and the four products, without a loss."""
    from transformers import AutoModelForCausalLM

    teacher, student = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in models())
    inputs = {"input_ids": torch.tensor(texts()), "use_cache": False}

    def work():
        student.zero_grad()
        states = student.base_model(**inputs).last_hidden_state[:, :-1].flatten(0, 1)
        with torch.no_grad():
            theirs = teacher.base_model(**inputs).last_hidden_state[:, :-1].flatten(0, 1)
            weight = student.lm_head.weight
            logits, _ = states @ weight.T, theirs @ teacher.lm_head.weight.T
            slope, of_weight = logits @ weight, logits.T @ states
        states.backward(slope / slope.norm())
        weight.grad += of_weight
        return float("nan")

    return work


def trainer_step(trainer, inputs, count):
    """Return a step of a trainer: forward, loss and backward, as its training loop takes it."""
    trainer.create_optimizer()
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1

    def work():
        trainer.model.zero_grad()
        return trainer.training_step(trainer.model, dict(inputs), torch.tensor(count))

    return work


def batch():
    """Return a padded batch of the rows, and how many tokens it teaches."""
    ids = torch.tensor(texts())
    inputs = {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}
    return inputs, BATCH * (TOKENS - 1)


def sft_step():
    """TRL's SFTTrainer, which has no teacher."""
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list([{"input_ids": row} for row in texts()])
    return trainer_step(SFTTrainer(models()[1], arguments(SFTConfig), train_dataset=data), *batch())


def kd_step(**more):
    """Our trainer."""
    from trl_prune import KDConfig, KDTrainer

    data = Dataset.from_list([{"input_ids": row} for row in texts()])
    args = arguments(KDConfig, teacher_model_init_kwargs={"dtype": "float32"}, **more)
    return trainer_step(KDTrainer(models()[1], args, train_dataset=data, teacher_model=models()[0]), *batch())


def gkd_step():
    """TRL's GKDTrainer, on the data's own answers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    dense, pruned = models()
    teacher, student = (AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32) for name in (dense, pruned))
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 2
    tokenizer = AutoTokenizer.from_pretrained(dense)
    args = arguments(GKDConfig, lmbda=0.0, beta=0.0)
    trainer = GKDTrainer(student, teacher, args, processing_class=tokenizer, train_dataset=Dataset.from_list(rows))
    inputs, count = batch()
    inputs |= {"prompts": inputs["input_ids"][:, :1], "prompt_attention_mask": inputs["attention_mask"][:, :1]}
    return trainer_step(trainer, inputs, count)


def distillation_step():
    """TRL's DistillationTrainer, given answers in the place of those it would generate."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DistillationConfig, DistillationTrainer

    dense, pruned = models()
    teacher, student = (AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32) for name in (dense, pruned))
    args = arguments(DistillationConfig, beta=0.0)
    rows = Dataset.from_list([{"prompt": "a"}] * BATCH)
    trainer = DistillationTrainer(
        student, teacher, args, train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(dense)
    )
    inputs, count = batch()
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    split = {"prompt_ids": ids[:, :1], "completion_ids": ids[:, 1:]}
    split |= {"prompt_mask": mask[:, :1], "completion_mask": mask[:, 1:]}
    trainer.model.train()

    def work():
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, split, torch.tensor(count))
        loss = loss[0] if isinstance(loss, tuple) else loss
        loss.backward()
        return loss.detach()

    return work


STEPS = {
    "ideal": ideal_step,
    "SFTTrainer (no teacher)": sft_step,
    "KDTrainer": lambda: kd_step(hidden_loss="none"),
    "KDTrainer, embedding and block states": lambda: kd_step(hidden_loss=["embedding", "block"], hidden_weight=1.0),
    "TRL GKDTrainer": gkd_step,
    "TRL DistillationTrainer": distillation_step,
}


def step_row(name):
    """Measure a step; the peak counts from both models in memory."""
    return measure(STEPS[name]())


def apart(*words):
    """Measure a row in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    told = subprocess.run([sys.executable, __file__, "row", *words], capture_output=True, text=True, env=environment)
    if told.returncode:
        raise SystemExit(f"{' '.join(words)} fails:\n{told.stderr[-2000:]}")
    return json.loads(told.stdout.splitlines()[-1])


def print_table(title, rows, least):
    """Print measurements against one of them."""
    print(f"\n{title}\n\n| way | CPU seconds | x | MB more | peak MB | loss |\n|---|---|---|---|---|---|")
    for name, row in rows.items():
        told = f"{row['seconds']:.2f} | {row['seconds'] / rows[least]['seconds']:.2f} | {row['MB']:.0f}"
        print(f"| {name} | {told} | {row['peak']:.0f} | {row['loss']:.4f} |", flush=True)


def print_losses():
    """Print the loss's time at each shape."""
    for title, (vocab, width) in SHAPES.items():
        rows = {name: apart("loss", name, "512", str(vocab), str(width)) for name in LOSSES}
        print_table(f"512 positions, {title}: {vocab:,} x {width}", rows, "four products")


def print_memory():
    """Print the loss's memory at each count."""
    vocab, width = SHAPES["SmolLM2-135M's head"]
    print(
        f"\nMB beyond the head's own gradient, {vocab:,} x {width}\n\n| way | 2,048 positions | 4,096 |\n|---|---|---|"
    )
    for name in list(LOSSES)[1:]:
        rows = [apart("loss", name, str(count), str(vocab), str(width)) for count in (2048, 4096)]
        beyond = [f"{row['MB'] - vocab * width * 4 / 2**20:.0f}" for row in rows]
        print(f"| {name} | {beyond[0]} | {beyond[1]} |", flush=True)


def print_steps():
    """Print the step's time and memory."""
    rows = {name: apart("step", name) for name in STEPS}
    print_table("A training step, 2 x 256 tokens", rows, "ideal")


if __name__ == "__main__":
    parts = {"loss": print_losses, "memory": print_memory, "step": print_steps}
    if sys.argv[1:2] == ["row"]:
        measured = {"loss": loss_row, "step": step_row}[sys.argv[2]](*sys.argv[3:])
        print(json.dumps(measured))
    else:
        for part in sys.argv[1:] or parts:
            parts[part]()
