"""What each way of pruning costs before any recovery, at equal parameters: perplexity and KL to the dense model.

usage: python benchmarks/pruning_quality.py --calibration TEXT --evaluation TEXT --output FOLDER [--model MODEL]

TEXT is plain text (WikiText-2: calibrate on its training split, evaluate on its test split). Every row is kept in
FOLDER/rows.json as soon as it is measured, and a run that was broken off goes on from there. At the end it prints one
markdown table and draws FOLDER/pruning_quality.png.
"""

import argparse
import json
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from trl_prune.checkpoints import load_config, load_model, load_tokenizer, locate, write_json
from trl_prune.pruning.choosing.blocks import REMOVALS, SELECTIONS, cached_loss
from trl_prune.pruning.choosing.effects import kl, perplexity
from trl_prune.pruning.choosing.units import Ranking, choose_keep
from trl_prune.pruning.families import GROUPS, HEADS, HIDDEN, LAYERS, NEURONS, family_of
from trl_prune.pruning.importance.scores import Scores, score
from trl_prune.pruning.keep import axis_sizes
from trl_prune.pruning.repairs import repairs_for
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.repairs.moments import Moments
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut, meta_model
from trl_prune.smollm2 import smollm2


LENGTH, ROWS_A_BATCH = 512, 4
DEPTHS, SHARES = (6, 3, 9), (0.8, 0.9, 0.7)  # the middle first: a table broken off says most
# Metrics that try cuts: on fewer texts.
EFFECTS, TRIAL_BATCHES = {"perplexity": perplexity, "kl": kl}, 1
# Perplexities above it are ruins, in the table and off the plot.
WORST_DRAWN = 1000
RESCALED = {"norm_rescale": {}}
MEASURED = {"norm_rescale": {"energy": "measured"}}
FITTED = {"least_squares": {}}


class Remembered(Calibration):
    """Keeps the moments of every input on disk: a table cuts one model many times."""

    def input_moments(self, sizes):
        """Yield moments, measured once for each input."""
        missing = {name: size for name, size in sizes.items() if not self._file(name).is_file()}
        for name, moments in super().input_moments(missing):
            counted = torch.tensor(moments.count)
            save_file({"gram": moments.gram, "total": moments.total, "count": counted}, self._file(name))
        for name in sizes:
            told = load_file(self._file(name))
            yield name, Moments(told["gram"], told["total"], int(told["count"]))

    def norm_energies(self, names):
        """Return energies, measured once for all norms that any cut spans."""
        path = self.scratch / "energies"
        if not path.is_file():
            self.scratch.mkdir(exist_ok=True)
            save_file(super().norm_energies(names), path)
        return load_file(path)

    def _file(self, name):
        self.scratch.mkdir(exist_ok=True)
        return self.scratch / f"{name}.moments"


@dataclass
class Setting:
    """The dense model, its texts and what is known of it."""

    args: argparse.Namespace
    source: Path = field(init=False)

    def __post_init__(self):
        self.source = locate(self.args.model) if self.args.model else smollm2()
        self.output = Path(self.args.output)
        self.output.mkdir(parents=True, exist_ok=True)
        self.config = load_config(self.source)
        self.family = family_of(self.config.model_type)
        self.sizes = axis_sizes(self.config, self.family)
        tokenizer = load_tokenizer(self.source)
        self.texts = windows(tokenizer, self.args.calibration, self.args.calibration_tokens)
        self.held_out = windows(tokenizer, self.args.evaluation, self.args.evaluation_tokens)
        self.dense = load_model(self.source, self.args.dtype)
        self.scores = self._scores()
        self.calibration = Remembered(
            lambda: self.dense, self.texts, self.output / "fits", head_scores=self.scores.heads()
        )
        self.states = [self.dense.get_decoder()(**batch, use_cache=False)[0] for batch in self.held_out]

    def _scores(self):
        path = self.output / "scores.safetensors"
        if not path.is_file():
            score(self.dense, tqdm(self.texts, desc="score")).save(path)
        return Scores.load(path)

    def count(self, sizes):
        """Return the parameters of a model of given sizes."""
        keep = {axis: first_units(axis, size, self.sizes) for axis, size in sizes.items()}
        return sum(weight.numel() for weight in meta_model(self.config, keep).parameters())

    def effect(self, name):
        """Return what removing blocks costs on a few texts, cached_loss."""
        return cached_loss(EFFECTS[name](self.dense, self.texts[:TRIAL_BATCHES]), self.output / f"{name}.json")


def windows(tokenizer, path, tokens):
    """Return the first tokens of a text as batches of whole windows."""
    ids = torch.tensor(tokenizer(Path(path).read_text(), truncation=True, max_length=tokens)["input_ids"])
    ids = ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH)
    return [{"input_ids": rows, "attention_mask": torch.ones_like(rows)} for rows in ids.split(ROWS_A_BATCH)]


def first_units(axis, size, sizes):
    """Return one axis of a plan of a given size, heads evenly over the groups: for counting."""
    kept = list(range(size))
    if axis == HEADS:
        each, left = sizes[HEADS] // sizes[GROUPS], size // sizes[GROUPS]
        kept = [group * each + place for group in range(sizes[GROUPS]) for place in range(left)]
    return kept if axis in (LAYERS, HIDDEN) else [kept] * sizes[LAYERS]


def depth_cut(setting, metric, count):
    """Return which blocks a metric keeps."""
    removed = None
    if metric in TRIED:
        effect, way = metric.split(", ")
        removed = REMOVALS[way](setting.effect(effect), setting.sizes[LAYERS], count)
    by = Ranking(layers_by=metric) if removed is None else Ranking(removed=removed)
    sizes = {LAYERS: setting.sizes[LAYERS] - count}
    return choose_keep(setting.scores, sizes, setting.config, setting.family, by)


# The axes of each width option, and how hidden channels are ranked.
WIDTHS = {
    "neurons": ((NEURONS,), "norm"),
    "hidden by norms' outputs": ((HIDDEN,), "norm"),
    "hidden by energy": ((HIDDEN,), "energy"),
    "neurons + heads": ((NEURONS, HEADS), "norm"),
    "neurons + hidden by energy": ((NEURONS, HIDDEN), "energy"),
}


def width_cut(setting, option, share):
    """Return the plan of a width option at a share of the parameters: every axis of it shrinks alike."""
    axes, ranking = WIDTHS[option]
    sizes = sizes_at(setting, axes, share)
    return choose_keep(setting.scores, sizes, setting.config, setting.family, Ranking(hidden_by=ranking))


def sizes_at(setting, axes, share):
    """Return sizes at a share of the parameters, by bisection; heads lose one of each group, the rest is exact."""
    fixed = {HEADS: setting.sizes[HEADS] - setting.sizes[GROUPS]} if HEADS in axes else {}
    free = [axis for axis in axes if axis != HEADS]
    target = share * setting.count({})
    low, high = 0.05, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        # Llama's config wants hidden_size to be a multiple of the heads, whatever head_dim is.
        units = {axis: setting.sizes[HEADS] if axis == HIDDEN else 1 for axis in free}
        sizes = fixed | {axis: round(middle * setting.sizes[axis] / unit) * unit for axis, unit in units.items()}
        low, high = (middle, high) if setting.count(sizes) < target else (low, middle)
    return sizes


@torch.inference_mode()
def measure(setting, folder):
    """Return perplexity on the held-out text and mean KL(dense || pruned), in nats a token."""
    pruned, head = load_model(folder, setting.args.dtype), setting.dense.get_output_embeddings()
    loss, divergence, count = 0.0, 0.0, 0
    for batch, states in zip(setting.held_out, setting.states, strict=True):
        for row in range(len(states)):
            told = pruned(input_ids=batch["input_ids"][row : row + 1], use_cache=False).logits[0, :-1].float()
            told = told.log_softmax(dim=-1)
            wanted = head(states[row, :-1]).float().log_softmax(dim=-1)
            divergence += torch.nn.functional.kl_div(told, wanted, log_target=True, reduction="sum").item()
            loss -= told.gather(1, batch["input_ids"][row, 1:, None]).sum().item()
            count += len(told)
    return {"perplexity": math.exp(loss / count), "kl": divergence / count}


def rows():
    """Yield what to measure: kind, option, how much, and the repairs by the word that the table has for them."""
    for count, share in zip(DEPTHS, SHARES, strict=True):
        yield from depth_rows(SELECTIONS, count)
        yield from width_rows(share)
    yield from head_rows()
    for count in DEPTHS:
        yield from depth_rows(TRIED, count)


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
    """Yield the rows of heads and whole groups, whose sizes go in steps."""
    yield "heads", "heads", 6, HEAD_REPAIRS
    yield "heads", "heads", 3, {"none": {}, "least squares": FITTED}
    yield "heads", "groups", 2, {"none": {}, "least squares": FITTED}


# Depth metrics that try cuts: what is measured, and how blocks are removed.
TRIED = ("perplexity, single", "perplexity, contiguous", "kl, contiguous", "perplexity, greedy")
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


def plan_of(setting, kind, option, amount):
    """Return the plan of a row."""
    if kind == "depth":
        return depth_cut(setting, option, amount)
    if kind == "width":
        return width_cut(setting, option, amount)
    sizes = {HEADS if option == "heads" else GROUPS: amount}
    return choose_keep(setting.scores, sizes, setting.config, setting.family)


def row_of(setting, keep, repairs):
    """Cut, repair, measure, and forget the checkpoint."""
    start, cut, folder = time.process_time(), Cut.of(setting.config, keep), setting.output / "model"
    fitted = repairs_for(repairs, setting.source, cut, setting.calibration)
    prune_checkpoint(setting.source, folder, keep, {}, fitted)
    parameters = sum(weight.numel() for weight in meta_model(setting.config, keep).parameters())
    told = {"parameters": parameters} | measure(setting, folder)
    shutil.rmtree(folder)
    removed = sorted(set(range(setting.sizes[LAYERS])) - set(cut.keep[LAYERS]))
    return (
        told
        | {"removed": removed, "edits": [repair.record for repair in fitted]}
        | {"seconds": time.process_time() - start}
    )


def run(setting):
    """Measure every row that is not there yet."""
    path = setting.output / "rows.json"
    done = json.loads(path.read_text()) if path.is_file() else {}
    if "dense" not in done:
        parameters = sum(weight.numel() for weight in meta_model(setting.config).parameters())
        done["dense"] = {"kind": "dense", "option": "dense", "amount": "", "repairs": ""}
        done["dense"] |= {"parameters": parameters, "removed": []} | measure(setting, setting.source)
    todo = [(*cut, word, repairs) for *cut, choices in rows() for word, repairs in choices.items()]
    todo = [row for row in todo if not setting.args.only or (row[0] == "depth") == (setting.args.only == "depth")]
    for kind, option, amount, word, repairs in tqdm(todo, desc="rows"):
        key = f"{kind} | {option} | {amount} | {word}"
        if key not in done:
            named = {"kind": kind, "option": option, "amount": amount, "repairs": word}
            done[key] = named | row_of(setting, plan_of(setting, kind, option, amount), repairs)
            write_json(path, done)
    return list(done.values())


def table(told):
    """Return the rows as markdown."""
    dense = next(row for row in told if row["kind"] == "dense")
    lines = ["| cut | how much | repairs | parameters | perplexity | KL to dense |", "|---|---|---|---|---|---|"]
    for row in sorted(told, key=lambda row: (row["kind"] != "dense", row["kind"], str(row["amount"]))):
        share = row["parameters"] / dense["parameters"]
        lines.append(
            f"| {row['option']} | {row['amount']} | {row['repairs']} | {share:.1%} | {row['perplexity']:.1f} "
            f"| {row['kl']:.3f} |"
        )
    return "\n".join(lines)


def draw(told, path):
    """Draw perplexity against the share of parameters, the best repair of each option in full colour."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    dense = next(row for row in told if row["kind"] == "dense")
    figure, panels = plt.subplots(1, 2, figsize=(12, 5.5), sharey=True, layout="constrained")
    for axes, kind in zip(panels, ("depth", "width"), strict=True):
        options = sorted({row["option"] for row in told if row["kind"] == kind})
        for number, option in enumerate(options):
            line(axes, [row for row in told if row["option"] == option], dense, f"C{number}")
        axes.axhline(dense["perplexity"], color="grey", linestyle=":", label="dense")
        axes.set(yscale="log", ylim=(0.85 * dense["perplexity"], WORST_DRAWN), xlabel="share of the dense parameters")
        axes.yaxis.set_major_formatter("{x:.0f}")
        axes.yaxis.set_minor_formatter("{x:.0f}")
        axes.set_title(f"{kind}: as cut (dashed), with the best repair (full)")
        axes.legend(fontsize=8)
    panels[0].set_ylabel("perplexity (held out)")
    figure.savefig(path, dpi=130)


def line(axes, told, dense, colour):
    """Draw one option: dashed as cut, in full with its best repair."""
    shares = sorted({row["parameters"] for row in told})
    for plain, style in ((True, "--"), (False, "-")):
        points = [
            min(
                (row for row in told if row["parameters"] == share and (row["repairs"] == "none") == plain),
                key=lambda row: row["perplexity"],
                default=None,
            )
            for share in shares
        ]
        points = [(row["parameters"] / dense["parameters"], row["perplexity"]) for row in points if row]
        if points:
            label = None if plain else told[0]["option"]
            axes.plot(*zip(*points, strict=True), style, marker="o", markersize=4, color=colour, label=label)


def main():
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--model", default="", help="default: the quickstart's")
    parser.add_argument("--calibration_tokens", type=int, default=16_384)
    parser.add_argument("--evaluation_tokens", type=int, default=16_384)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--only", choices=("depth", "width"), help="half of the table")
    with torch.inference_mode():
        setting = Setting(parser.parse_args())
        told = run(setting)
    print(table(told))
    draw(told, setting.output / "pruning_quality.png")


if __name__ == "__main__":
    main()
