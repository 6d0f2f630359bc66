"""Quality after pruning, before any recovery, at equal parameters: perplexity and KL divergence from the dense model.

usage: python benchmarks/pruning_quality.py --calibration TEXT --evaluation TEXT --output FOLDER [--model MODEL]

TEXT is plain text (WikiText-2: calibrate on its training split, evaluate on its test split). Every row is written to
FOLDER/rows.json as soon as it is measured, and an interrupted run resumes from there. At the end the script prints one
markdown table and draws FOLDER/pruning_quality.png.
"""

import argparse
import json
import math
import shutil
import time

import torch
from pruning_quality_report import draw, table
from pruning_quality_setup import Setup
from tqdm.auto import tqdm

from trl_prune.checkpoints import load_model, write_json
from trl_prune.pruning.choosing.blocks import SELECTIONS
from trl_prune.pruning.choosing.removal import REMOVAL_STRATEGIES, SearchOptions
from trl_prune.pruning.choosing.units import Ranking, choose_keep
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.repairs import build_repairs
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut, meta_model


DEPTHS, SHARES = (6, 3, 9), (0.8, 0.9, 0.7)  # the middle first, the most informative if interrupted
RESCALED = {"norm_rescale": {}}
MEASURED = {"norm_rescale": {"energy": "measured"}}
FITTED = {"least_squares": {}}


def depth_cut(setup, metric, count):
    """Return the plan of a depth metric."""
    removed = None
    if metric in MEASURED_METRICS:
        effect, strategy = metric.split(", ")
        removed = REMOVAL_STRATEGIES[strategy](setup.effect(effect), setup.sizes[LAYERS], count, SearchOptions())
    by = Ranking(layers_by=metric) if removed is None else Ranking(removed=removed)
    sizes = {LAYERS: setup.sizes[LAYERS] - count}
    return choose_keep(setup.scores, sizes, setup.config, setup.family, by)


# The axes of each width option, and how hidden channels are ranked.
WIDTHS = {
    "neurons": ((NEURONS,), "norm"),
    "hidden by norms' outputs": ((HIDDEN,), "norm"),
    "hidden by energy": ((HIDDEN,), "energy"),
    "neurons + heads": ((NEURONS, HEADS), "norm"),
    "neurons + hidden by energy": ((NEURONS, HIDDEN), "energy"),
}


def width_cut(setup, option, share):
    """Return the plan of a width option at a share of the parameters; its axes shrink by the same factor."""
    axes, ranking = WIDTHS[option]
    sizes = sizes_at(setup, axes, share)
    return choose_keep(setup.scores, sizes, setup.config, setup.family, Ranking(hidden_by=ranking))


def sizes_at(setup, axes, share):
    """Return sizes at a share of the parameters, by bisection; one head per KV head is removed if heads are cut."""
    fixed = {HEADS: setup.sizes[HEADS] - setup.sizes[KV_HEADS]} if HEADS in axes else {}
    free = [axis for axis in axes if axis != HEADS]
    target = share * setup.count({})
    low, high = 0.05, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        # Llama's config requires hidden_size to be a multiple of the heads, whatever head_dim is.
        units = {axis: setup.sizes[HEADS] if axis == HIDDEN else 1 for axis in free}
        sizes = fixed | {axis: round(middle * setup.sizes[axis] / unit) * unit for axis, unit in units.items()}
        low, high = (middle, high) if setup.count(sizes) < target else (low, middle)
    return sizes


@torch.inference_mode()
def measure(setup, folder):
    """Return perplexity on the held-out text and mean KL(dense || pruned), in nats per token."""
    pruned, head = load_model(folder, setup.args.dtype), setup.dense.get_output_embeddings()
    loss, divergence, count = 0.0, 0.0, 0
    for batch, states in zip(setup.held_out, setup.states, strict=True):
        for row in range(len(states)):
            logits = pruned(input_ids=batch["input_ids"][row : row + 1], use_cache=False).logits[0, :-1].float()
            log_probs = logits.log_softmax(dim=-1)
            dense_log_probs = head(states[row, :-1]).float().log_softmax(dim=-1)
            kl_div = torch.nn.functional.kl_div(log_probs, dense_log_probs, log_target=True, reduction="sum")
            divergence += kl_div.item()
            loss -= log_probs.gather(1, batch["input_ids"][row, 1:, None]).sum().item()
            count += len(log_probs)
    return {"perplexity": math.exp(loss / count), "kl": divergence / count}


def rows():
    """Yield the rows to measure: kind, option, amount, and the repairs by their label in the table."""
    for count, share in zip(DEPTHS, SHARES, strict=True):
        yield from depth_rows(SELECTIONS, count)
        yield from width_rows(share)
    yield from head_rows()
    for count in DEPTHS:
        yield from depth_rows(MEASURED_METRICS, count)


def depth_rows(metrics, count):
    """Yield the rows of depth metrics."""
    for metric in metrics:
        yield "depth", metric, count, {"none": {}, "linear map": {"linear_map": {}}}


def width_rows(share):
    """Yield the rows of every width option."""
    both = {"none": {}, "least squares, rescale measured": FITTED | MEASURED}
    yield "width", "hidden by energy", share, HIDDEN_REPAIRS
    yield "width", "neurons", share, {"none": {}, "least squares": FITTED}
    yield "width", "hidden by norms' outputs", share, {"none": {}, "rescale": RESCALED}
    yield "width", "neurons + heads", share, {"none": {}, "least squares": FITTED}
    yield "width", "neurons + hidden by energy", share, both


def head_rows():
    """Yield the rows of heads and KV heads, which come in few sizes."""
    yield "heads", "heads", 6, HEAD_REPAIRS
    yield "heads", "heads", 3, {"none": {}, "least squares": FITTED}
    yield "heads", "groups", 2, {"none": {}, "least squares": FITTED}


# Depth metrics that try cuts: the measured effect, and how blocks are removed.
MEASURED_METRICS = (
    "perplexity, single",
    "perplexity, contiguous",
    "kl, contiguous",
    "perplexity, greedy",
    "kl, greedy",
    "kl, swap",
    "kl, beam",
    "kl, evolutionary",
    "agreement, greedy",
)
HIDDEN_REPAIRS = {
    "none": {},
    "rescale": RESCALED,
    "rescale measured": MEASURED,
    "least squares": FITTED,
    "least squares, rescale": FITTED | RESCALED,
    "least squares, rescale measured": FITTED | MEASURED,
}
HEAD_REPAIRS = {
    "none": {},
    "least squares": FITTED,
    "merge +1": {"head_merge": {"scale": 1.0}},
    "merge -0.5": {"head_merge": {"scale": -0.5}},
}


def plan_of(setup, kind, option, amount):
    """Return the plan of a row."""
    if kind == "depth":
        return depth_cut(setup, option, amount)
    if kind == "width":
        return width_cut(setup, option, amount)
    sizes = {HEADS if option == "heads" else KV_HEADS: amount}
    return choose_keep(setup.scores, sizes, setup.config, setup.family)


def row_of(setup, keep, repairs):
    """Cut, repair and measure, and delete the checkpoint."""
    start, cut, folder = time.process_time(), Cut.of(setup.config, keep), setup.output / "model"
    fitted = build_repairs(repairs, setup.source, cut, setup.calibration)
    prune_checkpoint(setup.source, folder, keep, {}, fitted)
    parameters = sum(weight.numel() for weight in meta_model(setup.config, keep).parameters())
    results = {"parameters": parameters} | measure(setup, folder)
    shutil.rmtree(folder)
    removed = sorted(set(range(setup.sizes[LAYERS])) - set(cut.keep[LAYERS]))
    return (
        results
        | {"removed": removed, "edits": [repair.record for repair in fitted]}
        | {"seconds": time.process_time() - start}
    )


def run(setup):
    """Measure every row that is not in rows.json yet."""
    path = setup.output / "rows.json"
    done = json.loads(path.read_text()) if path.is_file() else {}
    if "dense" not in done:
        parameters = sum(weight.numel() for weight in meta_model(setup.config).parameters())
        done["dense"] = {"kind": "dense", "option": "dense", "amount": "", "repairs": ""}
        done["dense"] |= {"parameters": parameters, "removed": []} | measure(setup, setup.source)
    todo = [(*cut, label, repairs) for *cut, options in rows() for label, repairs in options.items()]
    todo = [row for row in todo if not setup.args.only or (row[0] == "depth") == (setup.args.only == "depth")]
    for kind, option, amount, label, repairs in tqdm(todo, desc="rows"):
        key = f"{kind} | {option} | {amount} | {label}"
        if key not in done:
            row = {"kind": kind, "option": option, "amount": amount, "repairs": label}
            done[key] = row | row_of(setup, plan_of(setup, kind, option, amount), repairs)
            write_json(path, done)
    return list(done.values())


def main():
    """Measure, print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--model", default="", help="default: the quickstart's")
    parser.add_argument("--calibration_tokens", type=int, default=16_384)
    parser.add_argument("--evaluation_tokens", type=int, default=16_384)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--only", choices=("depth", "width"), help="only these rows of the table")
    with torch.inference_mode():
        setup = Setup(parser.parse_args())
        results = run(setup)
    print(table(results))
    draw(results, setup.output / "pruning_quality.png")


if __name__ == "__main__":
    main()
