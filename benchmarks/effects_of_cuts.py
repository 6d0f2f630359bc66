"""Which measured effect of a cut says what the repaired model can do: rank correlations over many cuts.

    python benchmarks/effects_of_cuts.py --output OUT [--cuts 40] [--items 60] [--texts 48] [--by kl]

Cuts of six of SmolLM2-135M's 30 blocks: runs of neighbours, and drawn ones of one to three runs. Of each, every effect
by which a search chooses blocks is measured before and behind the repair (`prune.as_repaired`), on the quickstart's
rows. What they are to predict is the score of the model with linear maps in the place of these blocks, on the probes
that generate and on those of multiple choice. An interrupted run goes on where it was.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from random import Random

from recovery_arms import GENERATED, evaluation
from scipy.stats import spearmanr

from trl_prune.pruning.choosing.effects import EFFECTS
from trl_prune.pruning.choosing.losses import MeasuredLosses
from trl_prune.pruning.choosing.removal import Choice
from trl_prune.recipe import parse_recipe
from trl_prune.runs.context import Run
from trl_prune.runs.effects import TaskEffect, measured_effect
from trl_prune.runs.ledger import Ledger
from trl_prune.runs.repairs import run_maps


NUM_BLOCKS, REMOVED, SEED = 30, 6, 7
CHOICE = ("facts", "commonsense", "grammar", "antonyms", "category", "sequences", "pronouns", "story_endings")
SCORES = {"generation": GENERATED, "multiple choice": tuple(f"probe_{name}" for name in CHOICE)}


def cuts(count: int) -> list[Choice]:
    """Return every second run of neighbours, and drawn cuts of one to three runs, none of them the first block."""
    generator = Random(SEED)
    found = [tuple(range(start, start + REMOVED)) for start in range(1, NUM_BLOCKS - REMOVED, 2)]
    while len(found) < count:
        bounds = [0, *sorted(generator.sample(range(1, REMOVED), generator.choice([0, 1, 2]))), REMOVED]
        removed: set[int] = set()
        for size in (stop - start for start, stop in pairwise(bounds)):
            start = generator.randrange(1, NUM_BLOCKS - 2 - size)
            removed |= set(range(start, start + size))
        if len(removed) == REMOVED and tuple(sorted(removed)) not in found:
            found.append(tuple(sorted(removed)))
    return found


def run_with(options: argparse.Namespace, **prune: object) -> Run:
    """Return a run that measures as a recipe with this `prune` section does."""
    return Run(
        parse_recipe(
            {
                "model": "quickstart",
                "dataset": {"path": "quickstart"},
                "output": str(options.output / "run"),
                "score": {"samples": 128},
                "prune": {"target": {"layers": NUM_BLOCKS - REMOVED}} | prune,
                "recover": {},
                "evaluate": evaluation(options.output, options.items) | {"held_out": None},
            },
            "this benchmark",
        )
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cuts", type=int, default=40)
    parser.add_argument("--items", type=int, default=60, help="items of each probe")
    parser.add_argument("--scores", nargs="+", choices=SCORES, default=list(SCORES))
    parser.add_argument("--by", nargs="+", choices=EFFECTS, default=list(EFFECTS))
    parser.add_argument("--texts", type=int, default=48, help="texts that effects are measured on")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    choices = cuts(options.cuts)
    model = (run := run_with(options)).load_for_scoring(run.dense_dir)
    in_place_of = run_maps(run, model).in_place_of
    effects = {
        name: TaskEffect(run, model, run.load_tasks(name, list(SCORES[name])), in_place_of) for name in options.scores
    }
    for by in options.by:
        for name, repaired in ((f"{by}, cut", False), (f"{by}, as repaired", True)):
            measured = run_with(options, by=by, as_repaired=repaired, texts=options.texts)
            effects[name] = measured_effect(measured, model)
    losses = {
        name: MeasuredLosses(effect, Ledger(options.output / f"{name}.json"))(choices)
        for name, effect in effects.items()
    }
    (options.output / "losses.json").write_text(json.dumps({"removed": choices} | losses, indent=1))
    print("| effect | " + " | ".join(options.scores) + " |\n|---|" + "---|" * len(options.scores))
    for name in (name for name in effects if name not in SCORES):
        cells = [f"{spearmanr(losses[name], losses[score]).statistic:.2f}" for score in options.scores]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
