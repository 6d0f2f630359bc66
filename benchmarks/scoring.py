"""Scoring all runs of blocks in one pass, against one plain forward pass and against `output_hidden_states`.

usage: python benchmarks/scoring.py [MODEL] (default: the quickstart's)
"""

import resource
import subprocess
import sys
import time

import torch

from trl_prune.checkpoints import load_model, load_tokenizer, locate
from trl_prune.data.formatting import calibration_batches
from trl_prune.data.starter import starter_rows
from trl_prune.pruning.importance import score_layers
from trl_prune.smollm2 import smollm2


WAYS = ("backbone", "score_layers", "whole model", "output_hidden_states")
TEXTS, BATCH, REPEATS = 32, 8, 3


def states_kept(model, batches):
    """Score as scripts do that ask transformers for every hidden state: all of them at once, and the head's logits."""
    total, count = 0, 0
    for batch in batches:
        states = torch.stack(model(**batch, output_hidden_states=True, use_cache=False).hidden_states)
        unit = torch.nn.functional.normalize(states.float(), dim=-1)
        cosine = torch.einsum("lbtd,mbtd->btlm", unit, unit).clamp(-1, 1)[batch["attention_mask"].bool()]
        total, count = total + (cosine.arccos() / torch.pi).sum(0), count + len(cosine)
    return total / count


def run(way, model, batches):
    """Do one way's work over the batches."""
    if way == "backbone":
        for batch in batches:
            model.get_decoder()(**batch, use_cache=False)
    elif way == "whole model":
        for batch in batches:
            model(**batch, use_cache=False)
    elif way == "score_layers":
        score_layers(model, batches)
    else:
        states_kept(model, batches)


@torch.inference_mode()
def measure(way, name):
    """Print CPU seconds (median) and the peak memory added, in a process of its own."""
    folder = locate(name) if name else smollm2()
    model, tokenizer = load_model(folder, "float32"), load_tokenizer(folder)
    from datasets import Dataset

    batches = calibration_batches(Dataset.from_list(starter_rows()[:TEXTS]), tokenizer, BATCH, 512)
    run(way, model, batches[:1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        run(way, model, batches)
        seconds.append(time.process_time() - start)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{sorted(seconds)[REPEATS // 2]:.2f} {added:.0f}")


def main(name=""):
    """Measure every way and print the table."""
    rows = {}
    for way in WAYS:
        told = subprocess.run([sys.executable, __file__, name, way], capture_output=True, text=True, check=True)
        rows[way] = [float(word) for word in told.stdout.split()[-2:]]
    floor = rows["backbone"][0]
    print("| way | CPU seconds | x backbone | peak memory added, MB |\n|---|---|---|---|")
    for way, (seconds, added) in rows.items():
        print(f"| {way} | {seconds:.2f} | {seconds / floor:.2f} | {added:.0f} |")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[2], sys.argv[1])
    else:
        main(*sys.argv[1:])
