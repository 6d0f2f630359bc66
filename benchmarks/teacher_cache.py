"""The teacher cache: its size, the accuracy of its gradients, and the speed of writing it and of training from it.

usage: python benchmarks/teacher_cache.py [fidelity|writing|step] ...

SmolLM2-135M is the teacher of itself without 6 of its 30 blocks, on the quickstart's rows, in float32. Times are CPU
seconds, each measured in its own process.
- `fidelity`: on 1,024 learned tokens, the gradient of the student's LM head, `(u - q)^T h` with u the student's
  distribution, q the cached one and h the student's final states, compared with that of the full teacher: the relative
  error of one seed, and of the mean over 4 seeds, in which noise averages out and bias remains.
- `writing`: bytes per token, and tokens per second of the teacher's backbone alone and of writing each tier.
- `step`: one training step of SFTTrainer, of KDTrainer with each tier, and of KDTrainer with the teacher itself.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset

from trl_prune.checkpoints import dense_root, load_model, load_tokenizer
from trl_prune.data.starter import starter_rows
from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.codecs import CODECS, Hidden, Sampled, TopK
from trl_prune.data.teacher_cache.encoding import CacheSpec, final_states
from trl_prune.data.teacher_cache.sequences import distinct_sequences, random_shifts
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.losses.lm_head import lm_head
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS
from trl_prune.smollm2 import smollm2


REMOVED, ROWS, POSITIONS, SEEDS, STEPS = range(20, 26), 32, 1024, 4, 4
BATCH = 4
ARGS = {"max_length": 512, "completion_only_loss": False, "use_cpu": True}


def student_path(folder):
    """Return the folder of the pruned student, which is made at the first call."""
    target = Path(folder) / "student"
    if not target.is_dir():
        keep = {LAYERS: [index for index in range(30) if index not in REMOVED]}
        prune_checkpoint(smollm2(), target, keep, dense_root(smollm2(), str(smollm2())))
    return target


def prepared_rows():
    """Return the rows as the trainers prepare them."""
    from trl_prune.trainers.preparation import prepare_rows

    return prepare_rows(Dataset.from_list(starter_rows()[:ROWS]), ARGS, load_tokenizer(smollm2()))


def teacher(model):
    """Return a loaded dense model as a `LazyTeacher`."""
    return LazyTeacher(lambda: model, load_tokenizer(smollm2()), "the dense model")


def ids_and_labels(rows):
    """Return the input ids and labels of rows as tensors."""
    return [(torch.tensor(row["input_ids"]), torch.tensor(row["labels"])) for row in rows]


@torch.inference_mode()
def measure_fidelity(folder):
    """Print the table of gradient errors."""
    sequences = ids_and_labels(prepared_rows())
    models = load_model(smollm2(), "float32"), load_model(student_path(folder), "float32")
    teacher_states, student_states = (
        torch.cat([final_states(model, [sequence]) for sequence in sequences])[:POSITIONS] for model in models
    )
    teacher_head, student_head = (lm_head(model) for model in models)
    teacher_probs = teacher_head.logits(teacher_states).softmax(-1)
    student_probs = student_head.logits(student_states).softmax(-1)
    gradient_norm = ((student_probs - teacher_probs).T @ student_states).norm()
    print("| tier | bytes a token | gradient error | of 4 seeds' mean | distinct ids |\n|---|---|---|---|---|")
    for codec in (Sampled(16), Sampled(), TopK(16), TopK(64), Hidden()):
        differences = []
        for seed in range(SEEDS if codec.ragged else 1):
            probs, num_bytes, num_ids = cached_probs(codec, teacher_states, teacher_head, seed, student_probs)
            differences.append((probs - teacher_probs).T @ student_states)
        errors = [difference.norm() / gradient_norm for difference in differences]
        mean_error = (sum(differences) / len(differences)).norm() / gradient_norm
        name = f"{codec.tier} {vars(codec).get('draws', vars(codec).get('k', ''))}"
        print(f"| {name} | {num_bytes:.0f} | {sum(errors) / len(errors):.4f} | {mean_error:.4f} | {num_ids} |")
    top = teacher_probs.topk(50)
    top_probs = top.values / top.values.sum(-1, keepdim=True)
    renormalized = torch.zeros_like(teacher_probs).scatter_(1, top.indices, top_probs)
    error = ((renormalized - teacher_probs).T @ student_states).norm() / gradient_norm
    print(f"| (top 50 renormalised, no tail) | 200 | {error:.4f} | {error:.4f} | 50 |")


def cached_probs(codec, states, head, seed, student_probs):
    """Return the distribution that a loss reads from a codec's arrays, the bytes per token and the ids per token."""
    tokens = list(range(POSITIONS + 1))
    span = distinct_sequences([{"input_ids": tokens, "labels": tokens}])[0]
    arrays = codec.encode(states, head, random_shifts(span.key, POSITIONS, seed))
    num_bytes = sum(array.numel() * array.element_size() for array in arrays.values()) / POSITIONS
    target = codec.decode(arrays, head)
    if codec.tier == "hidden":
        return head.logits(target.hidden).softmax(-1), num_bytes, ""
    probs = torch.zeros_like(student_probs).scatter_add_(1, target.ids, target.probs)
    if target.tail is not None:  # the loss compares the tail's total mass only, so the student is the target inside it
        tail_probs = student_probs.scatter(1, target.ids, 0.0)
        probs += tail_probs * (target.tail / tail_probs.sum(-1))[:, None]
    return probs, num_bytes, f"{float((target.probs > 0).sum(-1).float().mean()):.1f}"


def measure_writing(variant, _):
    """Print tokens, CPU seconds and bytes per position of the backbone alone, or of writing a tier."""
    rows, model = list(prepared_rows()), load_model(smollm2(), "float32")
    tokens = sum(len(row["input_ids"]) for row in rows)
    sequences = sorted(ids_and_labels(rows), key=lambda sequence: -len(sequence[0]))
    with torch.inference_mode():
        final_states(model, sequences[:1])
        start_time = time.process_time()
        if variant == "backbone":
            for start in range(0, len(sequences), BATCH):
                final_states(model, sequences[start : start + BATCH])
            print(tokens, time.process_time() - start_time, 0)
            return
    with tempfile.TemporaryDirectory() as folder:
        spec = CacheSpec(rows, teacher(model), CODECS[variant](), BATCH)
        metadata = write_cache(Path(folder) / "cache", spec).metadata
        seconds = time.process_time() - start_time
        num_bytes = sum(path.stat().st_size for path in (Path(folder) / "cache").glob("shard-*"))
    print(tokens, seconds, num_bytes / metadata.positions)


def measure_step(variant, folder):
    """Print the median CPU seconds of the training steps after the first."""
    from trl import SFTConfig, SFTTrainer

    from trl_prune import KDConfig, KDTrainer, cache_teacher

    rows = Dataset.from_list(starter_rows()[:ROWS])
    kwargs = ARGS | {
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
    }
    student = str(student_path(folder))
    if variant == "SFTTrainer":
        trainer = SFTTrainer(student, SFTConfig(tempfile.mkdtemp(), **kwargs), train_dataset=rows)
    else:
        tier = variant.removeprefix("KDTrainer, ")
        cache = None if tier == "teacher" else Path(folder) / tier
        if cache is not None:
            cache_teacher(str(smollm2()), rows, cache, tier, args=ARGS)
        args = KDConfig(tempfile.mkdtemp(), teacher_cache=cache and str(cache), **kwargs)
        trainer = KDTrainer(student, args, train_dataset=rows)
    seconds, training_step = [], trainer.training_step

    def timed_step(*step_args, **step_kwargs):
        start_time = time.process_time()
        loss = training_step(*step_args, **step_kwargs)
        seconds.append(time.process_time() - start_time)
        return loss

    trainer.training_step = timed_step
    trainer.train()
    print(sorted(seconds[1:])[len(seconds[1:]) // 2])


def measured(*arguments):
    """Return the last line printed by this script run with arguments in its own process."""
    process = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return process.stdout.strip().splitlines()[-1]


def print_tables(names, folder):
    """Print the tables of the given names."""
    student_path(folder)
    if "fidelity" in names:
        measure_fidelity(folder)
    if "writing" in names:
        print("\n| method | CPU seconds | tokens a CPU second | x | bytes a token |\n|---|---|---|---|---|")
        variants = ("backbone", *CODECS)
        results = {name: [float(value) for value in measured("writing", name, folder).split()] for name in variants}
        for name, (tokens, seconds, num_bytes) in results.items():
            ratio = seconds / results["backbone"][1]
            print(f"| {name} | {seconds:.1f} | {tokens / seconds:.0f} | {ratio:.2f} | {num_bytes:.0f} |")
    if "step" in names:
        variants = ["SFTTrainer", *(f"KDTrainer, {tier}" for tier in CODECS), "KDTrainer, teacher"]
        print("\n| trainer | CPU seconds a step | x |\n|---|---|---|")
        results = {name: float(measured("step", name, folder)) for name in variants}
        for name, seconds in results.items():
            print(f"| {name} | {seconds:.2f} | {seconds / results['SFTTrainer']:.2f} |")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        {"writing": measure_writing, "step": measure_step}[sys.argv[1]](*sys.argv[2:])
    else:
        with tempfile.TemporaryDirectory() as shared:
            print_tables(sys.argv[1:] or ("fidelity", "writing", "step"), shared)
