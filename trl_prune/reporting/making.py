"""Sentences on how a model of a run was made, with the papers of the methods."""

from collections.abc import Mapping

from trl_prune.recipe import ArmSection, Recipe
from trl_prune.recipe.recover import RANDOM_UNITS, RANDOM_WEIGHTS
from trl_prune.reporting.published_recipe import published_text
from trl_prune.runs.context import Run
from trl_prune.runs.pruning_plan import chosen_by
from trl_prune.runs.selected_rows import selection_name, uses_selection


SELF_DISTILLATION, PASER, MINITRON, LOCAL = "2410.09982", "2502.12594", "2407.14679", "2411.19146"
# The paper that a way to choose blocks comes from.
BLOCKS_FROM = {"angular_distance": "2403.17887", "block_influence": "2403.03853"}
BASELINES = {
    RANDOM_UNITS: "A baseline: its units were drawn at random.",
    RANDOM_WEIGHTS: "A baseline: its weights were initialised anew.",
}


def how_made(run: Run, name: str, metrics: Mapping, pruned: Mapping) -> list[str]:
    """Return how a model was pruned, and then trained or merged, one sentence or more for each step.

    Args:
        run: the run.
        name: `pruned`, an arm or a merge.
        metrics: what the model's stage measured.
        pruned: what the prune stage measured.
    """
    chosen = chosen_by(run.recipe.prune, pruned["cut"], pruned.get("by_effect", {}).get("as_repaired", False))
    sentences = [f"Pruned: {chosen}{_paper(BLOCKS_FROM.get(run.recipe.prune.by))}."]
    if name in run.recipe.recover:
        return sentences + _trained(run, run.recipe.recover[name], metrics)
    return sentences + ([] if name == "pruned" else _merged(run.recipe, name))


def _trained(run: Run, arm: ArmSection, metrics: Mapping) -> list[str]:
    baseline = [BASELINES[arm.init]] if arm.init in BASELINES else []
    own = [_method(arm), *_selected(run, arm), _effort(arm, metrics), *baseline]
    if not arm.starts_from_arm:
        return own
    return _trained(run, run.recipe.recover[arm.init], run.folder.require("recover", arm.init).metrics) + own


def _selected(run: Run, arm: ArmSection) -> list[str]:
    if not any(uses_selection(run, source) for source in arm.sources):
        return []
    method = run.recipe.select.selection(selection_name(run, arm)).method
    return [f"Its rows were selected by {method}{_paper(PASER) if method == 'paser' else ''}."]


def _method(arm: ArmSection) -> str:
    what = f"on {published_text(arm.data_label)}" if arm.is_mix else _data(arm)
    if arm.method == "kd":
        return f"Recovered by distillation of the dense model's distributions{_paper(MINITRON)} {what}."
    if arm.method == "local_kd":
        return (
            f"Repaired next to the removed blocks by distillation of the dense model's states{_paper(LOCAL)} {what}."
        )
    name = f"self-data distillation{_paper(SELF_DISTILLATION)}" if arm.uses_rewritten else "supervised fine-tuning"
    return f"Recovered by {name} {what}."


def _data(arm: ArmSection) -> str:
    return {
        "references": "on the answers of the training rows",
        "rewritten": "on answers that the dense model wrote, and on the references where those were not accepted",
        "text": "on the training rows as text, with a loss on every token",
    }[arm.data]


def _effort(arm: ArmSection, metrics: Mapping) -> str:
    weights = "all weights" if arm.peft is None else f"LoRA of rank {arm.peft.get('r', 8)}, merged into the weights"
    counts = f"{metrics['rows']:,} rows, {metrics['tokens']:,} tokens, {metrics['steps']:,} steps"
    return f"Trained with TRL: {counts}; {weights}."


def _merged(recipe: Recipe, name: str) -> list[str]:
    merge = recipe.merges[name]
    models = ", ".join(f"`{published_text(model)}`" for model in merge.models)
    given = "".join(f", {parameter} {value}" for parameter, value in merge.given_parameters.items())
    return [f"Merged with mergekit by {published_text(merge.recipe)}{given} from {models}."]


def _paper(number: str | None) -> str:
    return f" ([{number}](https://huggingface.co/papers/{number}))" if number else ""
