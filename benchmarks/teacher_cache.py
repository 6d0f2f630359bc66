"""The teacher's cache: how small, how true, how fast written, and how fast learned from.

usage: python benchmarks/teacher_cache.py [fidelity|writing|step] ...

SmolLM2-135M teaches itself without 6 of its 30 blocks, on the quickstart's rows, float32. CPU seconds, each way in a
process of its own.
- `fidelity`: 1,024 learned tokens. The gradient of the student's LM head, `(u - q)^T h` with u the student's
  distribution, q the cached one and h the student's final states, against that of the full teacher: relative error,
  and that of the mean over 4 seeds: chance averages out, bias stays.
- `writing`: bytes a token, and tokens a second of the teacher's backbone alone, and of the backbone with each tier.
- `step`: one training step of SFTTrainer, of KDTrainer on each tier, and of KDTrainer on the teacher itself.
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
from trl_prune.data.teacher_cache.sequences import places_of, shifts_of
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.losses.lm_head import lm_head
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS
from trl_prune.smollm2 import smollm2


REMOVED, ROWS, POSITIONS, SEEDS, STEPS = range(20, 26), 32, 1024, 4, 4
BATCH = 4
ARGS = {"max_length": 512, "completion_only_loss": False, "use_cpu": True}


def student(folder):
    """Return the pruned student's folder."""
    target = Path(folder) / "student"
    if not target.is_dir():
        keep = {LAYERS: [index for index in range(30) if index not in REMOVED]}
        prune_checkpoint(smollm2(), target, keep, dense_root(smollm2(), str(smollm2())))
    return target


def prepared():
    """Return rows as the trainers see them."""
    from trl_prune.trainers.preparation import prepare_rows

    return prepare_rows(Dataset.from_list(starter_rows()[:ROWS]), ARGS, load_tokenizer(smollm2()))


def teacher(loaded=None):
    """Return the dense model as a cache's writer takes it."""
    return LazyTeacher(
        lambda: loaded or load_model(smollm2(), "float32"), load_tokenizer(smollm2()), "the dense model"
    )


def pairs_of(rows):
    """Return rows as tensors of ids and labels."""
    return [(torch.tensor(row["input_ids"]), torch.tensor(row["labels"])) for row in rows]


@torch.inference_mode()
def fidelity(folder):
    """Print the table of gradient errors."""
    rows = list(prepared())
    models = load_model(smollm2(), "float32"), load_model(student(folder), "float32")
    taught, told = ([final_states(model, [pair]) for pair in pairs_of(rows)] for model in models)
    states, hidden = torch.cat(taught)[:POSITIONS], torch.cat(told)[:POSITIONS]
    heads = [lm_head(model) for model in models]
    true, ours = heads[0].logits(states).softmax(-1), heads[1].logits(hidden).softmax(-1)
    whole = (ours - true).T @ hidden
    print("| tier | bytes a token | gradient error | of 4 seeds' mean | distinct ids |\n|---|---|---|---|---|")
    for codec in (Sampled(16), Sampled(), TopK(16), TopK(64), Hidden()):
        off = []
        for seed in range(SEEDS if codec.ragged else 1):
            target, size, ids = cached(codec, states, heads[0], seed, ours)
            off.append((target - true).T @ hidden)
        errors = [gradient.norm() / whole.norm() for gradient in off]
        mean = sum(off) / len(off)
        name = f"{codec.tier} {vars(codec).get('draws', vars(codec).get('k', ''))}"
        print(f"| {name} | {size:.0f} | {sum(errors) / len(errors):.4f} | {mean.norm() / whole.norm():.4f} | {ids} |")
    top = true.topk(50)
    renormalised = torch.zeros_like(true).scatter_(1, top.indices, top.values / top.values.sum(-1, keepdim=True))
    error = ((renormalised - true).T @ hidden).norm() / whole.norm()
    print(f"| (top 50 renormalised, no tail) | 200 | {error:.4f} | {error:.4f} | 50 |")


def cached(codec, states, head, seed, ours):
    """Return the distribution that a loss makes of a codec's words, its bytes a token, and its ids a token."""
    place = places_of([{"input_ids": list(range(POSITIONS + 1)), "labels": list(range(POSITIONS + 1))}])[0]
    arrays = codec.encode(states, head, shifts_of(place.key, POSITIONS, seed))
    size = sum(array.numel() * array.element_size() for array in arrays.values()) / POSITIONS
    target = codec.decode(arrays, head)
    if codec.tier == "hidden":
        return head.logits(target.hidden).softmax(-1), size, ""
    dense = torch.zeros_like(ours).scatter_add_(1, target.ids, target.probs)
    if target.tail is not None:  # the loss compares the tail as one bucket, so inside it the student is its own target
        rest = ours.scatter(1, target.ids, 0.0)
        dense += rest * (target.tail / rest.sum(-1))[:, None]
    return dense, size, f"{float((target.probs > 0).sum(-1).float().mean()):.1f}"


def writing(way, _):
    """Print tokens, CPU seconds and bytes of one way to read all rows."""
    rows, model = list(prepared()), load_model(smollm2(), "float32")
    tokens = sum(len(row["input_ids"]) for row in rows)
    order = sorted(pairs_of(rows), key=lambda pair: -len(pair[0]))
    with torch.inference_mode():
        final_states(model, order[:1])
        start = time.process_time()
        if way == "backbone":
            for place in range(0, len(order), BATCH):
                final_states(model, order[place : place + BATCH])
            print(tokens, time.process_time() - start, 0)
            return
    with tempfile.TemporaryDirectory() as folder:
        work = CacheSpec(rows, teacher(model), CODECS[way](), BATCH)
        facts = write_cache(Path(folder) / "cache", work).facts
        seconds = time.process_time() - start
        size = sum(path.stat().st_size for path in (Path(folder) / "cache").glob("shard-*"))
    print(tokens, seconds, size / facts.positions)


def step(way, folder):
    """Print the median CPU seconds of the training steps after the first."""
    from trl import SFTConfig, SFTTrainer

    from trl_prune import KDConfig, KDTrainer, cache_teacher

    rows = Dataset.from_list(starter_rows()[:ROWS])
    told = ARGS | {
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
    }
    if way == "SFTTrainer":
        trainer = SFTTrainer(str(student(folder)), SFTConfig(tempfile.mkdtemp(), **told), train_dataset=rows)
    else:
        tier = way.removeprefix("KDTrainer, ")
        cache = None if tier == "teacher" else Path(folder) / tier
        if cache is not None:
            cache_teacher(str(smollm2()), rows, cache, tier, args=ARGS)
        args = KDConfig(tempfile.mkdtemp(), teacher_cache=cache and str(cache), **told)
        trainer = KDTrainer(str(student(folder)), args, train_dataset=rows)
    marks, inner = [], trainer.training_step

    def timed(*given, **named):
        start = time.process_time()
        loss = inner(*given, **named)
        marks.append(time.process_time() - start)
        return loss

    trainer.training_step = timed
    trainer.train()
    print(sorted(marks[1:])[len(marks[1:]) // 2])


def asked(*words):
    """Return the last line that a process of its own prints."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def tables(wanted, folder):
    """Print the tables."""
    student(folder)
    if "fidelity" in wanted:
        fidelity(folder)
    if "writing" in wanted:
        print("\n| way | CPU seconds | tokens a CPU second | x | bytes a token |\n|---|---|---|---|---|")
        told = {way: [float(part) for part in asked("writing", way, folder).split()] for way in ("backbone", *CODECS)}
        for way, (tokens, seconds, size) in told.items():
            share = seconds / told["backbone"][1]
            print(f"| {way} | {seconds:.1f} | {tokens / seconds:.0f} | {share:.2f} | {size:.0f} |")
    if "step" in wanted:
        ways = ["SFTTrainer", *(f"KDTrainer, {tier}" for tier in CODECS), "KDTrainer, teacher"]
        print("\n| trainer | CPU seconds a step | x |\n|---|---|---|")
        seconds = {way: float(asked("step", way, folder)) for way in ways}
        for way, told in seconds.items():
            print(f"| {way} | {told:.2f} | {told / seconds['SFTTrainer']:.2f} |")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        {"writing": writing, "step": step}[sys.argv[1]](*sys.argv[2:])
    else:
        with tempfile.TemporaryDirectory() as shared:
            tables(sys.argv[1:] or ("fidelity", "writing", "step"), shared)
