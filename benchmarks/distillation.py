"""CPU seconds and peak memory of the distillation loss and step, compared with their limits and with TRL's own.

usage: python benchmarks/distillation.py [loss|memory|step] ...

Each method is measured in a process of its own, all on the same tensors or rows.
- `loss`: forward KL of 512 positions, forward and backward, heads included. Limit: the four products with the heads.
- `memory`: memory of the loss beyond the gradient of the student's head, which must exist.
- `step`: SmolLM2-135M as the teacher of itself without 6 of its 30 blocks, 2 rows of 256 tokens, float32, all weights
  trained. Limit: the teacher's forward, the student's forward and backward, and the four products.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from distillation_steps import STEPS


REPEATS = 4
SHAPES = {"SmolLM2-135M's head": (49152, 576), "128k vocabulary": (128256, 2048)}


def loss_inputs(count, vocab_size, hidden_size):
    """Return final states and head weights of student and teacher, and labels."""
    torch.manual_seed(0)
    hidden = torch.randn(count, hidden_size, requires_grad=True)
    weight = (torch.randn(vocab_size, hidden_size) / hidden_size**0.5).requires_grad_()
    teacher = torch.randn(count, hidden_size), torch.randn(vocab_size, hidden_size) / hidden_size**0.5
    return hidden, weight, *teacher, torch.randint(0, vocab_size, (count,))


def four_products(hidden, weight, teacher_hidden, teacher_weight, _):
    """Compute the four products only."""
    with torch.no_grad():
        logits, _ = hidden @ weight.T, teacher_hidden @ teacher_weight.T
        return logits @ weight, logits.T @ hidden, torch.tensor(float("nan"))


def distill_head(hidden, weight, teacher_hidden, teacher_weight, labels):
    """Compute our head, with cross-entropy, entropy and accuracy."""
    from trl_prune.losses.distill_head import distill
    from trl_prune.losses.head_block import Objective
    from trl_prune.losses.lm_head import LMHead
    from trl_prune.losses.targets import HeadTarget

    target = HeadTarget(teacher_hidden, LMHead(teacher_weight))
    loss = distill(hidden, LMHead(weight), labels, target, Objective()).loss
    return *torch.autograd.grad(loss, (hidden, weight)), loss


def trl_gkd(hidden, weight, teacher_hidden, teacher_weight, labels):
    """Compute TRL's GKD loss, on full logits."""
    from trl.experimental.gkd import GKDTrainer

    with torch.no_grad():
        teacher_logits = teacher_hidden @ teacher_weight.T
    loss = GKDTrainer.generalized_jsd_loss(hidden @ weight.T, teacher_logits, labels, beta=0) * len(labels)
    return *torch.autograd.grad(loss, (hidden, weight)), loss


def trl_chunked(hidden, weight, teacher_hidden, teacher_weight, _):
    """Compute TRL's chunked divergence, which its DistillationTrainer uses."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    divergences, _ = ChunkedDivergenceFunction.apply(hidden, weight, None, teacher_hidden, teacher_weight, None, 0.0)
    loss = divergences.sum()
    return *torch.autograd.grad(loss, (hidden, weight)), loss


LOSSES = {
    "four products": four_products,
    "trl-prune": distill_head,
    "TRL GKD": trl_gkd,
    "TRL chunked divergence": trl_chunked,
}


def resident_mb(field):
    """Return this process's resident memory in MB: the current `VmRSS`, or the peak `VmHWM`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(function):
    """Return the least CPU seconds of all repeats but the first, the peak in MB, and its rise since the start."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, seconds = resident_mb("VmRSS"), []
    for _ in range(REPEATS):
        start = time.process_time()
        loss = function()
        seconds.append(time.process_time() - start)
    peak = resident_mb("VmHWM")
    return {"seconds": min(seconds[1:]), "MB": peak - before, "peak": peak, "loss": float(loss)}


def measure_loss(name, count, vocab_size, hidden_size):
    """Measure one implementation of the loss."""
    inputs = loss_inputs(int(count), int(vocab_size), int(hidden_size))
    # Once on one position, for imports and first memory accesses.
    LOSSES[name](*(tensor[:1] if len(tensor) == int(count) else tensor for tensor in inputs))
    return measure(lambda: LOSSES[name](*inputs)[2].item())


def run_measurement(*arguments):
    """Return a measurement made in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    command = [sys.executable, __file__, "measure", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise SystemExit(f"{' '.join(arguments)} fails:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def print_table(title, measurements, limit):
    """Print measurements, with times relative to the limit's."""
    print(f"\n{title}\n\n| method | CPU seconds | x | MB more | peak MB | loss |\n|---|---|---|---|---|---|")
    limit_seconds = measurements[limit]["seconds"]
    for name, row in measurements.items():
        times = f"{row['seconds']:.2f} | {row['seconds'] / limit_seconds:.2f}"
        print(f"| {name} | {times} | {row['MB']:.0f} | {row['peak']:.0f} | {row['loss']:.4f} |", flush=True)


def print_losses():
    """Print the time of the loss at each shape."""
    for title, (vocab_size, hidden_size) in SHAPES.items():
        rows = {name: run_measurement("loss", name, "512", str(vocab_size), str(hidden_size)) for name in LOSSES}
        print_table(f"512 positions, {title}: {vocab_size:,} x {hidden_size}", rows, "four products")


def print_memory():
    """Print the memory of the loss at each number of positions."""
    vocab_size, hidden_size = SHAPES["SmolLM2-135M's head"]
    print(f"\nMB beyond the head's own gradient, {vocab_size:,} x {hidden_size}")
    print("\n| method | 2,048 positions | 4,096 |\n|---|---|---|")
    gradient_mb = vocab_size * hidden_size * 4 / 2**20
    for name in list(LOSSES)[1:]:
        rows = [run_measurement("loss", name, count, str(vocab_size), str(hidden_size)) for count in ("2048", "4096")]
        print(f"| {name} | {' | '.join(format(row['MB'] - gradient_mb, '.0f') for row in rows)} |", flush=True)


def print_steps():
    """Print time and memory of a step."""
    rows = {name: run_measurement("step", name) for name in STEPS}
    print_table("A training step, 2 x 256 tokens", rows, "ideal")


if __name__ == "__main__":
    tables = {"loss": print_losses, "memory": print_memory, "step": print_steps}
    if sys.argv[1:2] == ["measure"]:
        functions = {"loss": measure_loss, "step": lambda name: measure(STEPS[name]())}
        print(json.dumps(functions[sys.argv[2]](*sys.argv[3:])))
    else:
        for table in sys.argv[1:] or tables:
            tables[table]()
