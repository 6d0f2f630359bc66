"""The model card of a checkpoint of a run: what it is, how good it is beside the dense model, and how to make it."""

from collections.abc import Mapping
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load

from trl_prune.checkpoints import Provenance, read_provenance, write_text
from trl_prune.data.reading import FILE_TYPES
from trl_prune.evaluation.recovery import Scores, TaskScore
from trl_prune.pruning.keep import kept_sizes
from trl_prune.recipe import ArmSection, Recipe
from trl_prune.reporting.making import how_made
from trl_prune.reporting.published_recipe import is_hub_id, published_recipe, published_text
from trl_prune.reporting.rendering import render
from trl_prune.reporting.results import RunResults
from trl_prune.runs.artifacts import Result
from trl_prune.runs.context import QUICKSTART, Run


CARD, PICTURE = "README.md", "importance.png"
TEMPLATE = "card.md"
# What a model is called, by the stage that made it.
TITLES = {"prune": "pruned", "recover": "pruned and recovered: {}", "merge": "pruned, recovered and merged: {}"}
# Files of the dense model's licence.
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")
SIZE_LABELS = {"parameters": "parameters", "flops_per_token": "FLOP a token"}
LIBRARIES = {
    "trl-prune": "trl-prune",
    "trl": "TRL",
    "transformers": "Transformers",
    "peft": "PEFT",
    "torch": "PyTorch",
}


def write_card(
    run: Run, name: str, folder: Path, metrics: Mapping, scores: Mapping[str, Scores] | None = None
) -> None:
    """Write the model card of a checkpoint, which replaces any other.

    Args:
        run: the run.
        name: the model: `pruned`, an arm or a merge.
        folder: its checkpoint, with `trl_prune.json`.
        metrics: what its stage measured.
        scores: the scores of the run's evaluated models, by model; the card has no scores where this model's or the
            dense one's are missing.
    """
    scores = scores or {}
    shown = {key: scores[key] for key in dict.fromkeys(("dense", "pruned", name)) if key in scores}
    write_text(folder / CARD, _card(run, name, folder, metrics, shown if {"dense", name} <= set(shown) else {}))


def write_cards(results: RunResults) -> None:
    """Write the model cards of a run's evaluated models again, with their scores."""
    run = results.run
    for name in results.scores:
        if name != "dense":
            write_card(run, name, run.model_dir(name), _result(run, name).metrics, results.scores)


def _result(run: Run, name: str) -> Result:
    """Return the result of the stage that made a model."""
    return run.folder.require("prune") if name == "pruned" else run.folder.require(_stage(run.recipe, name), name)


def _stage(recipe: Recipe, name: str) -> str:
    return "prune" if name == "pruned" else "recover" if name in recipe.recover else "merge"


def _card(run: Run, name: str, folder: Path, metrics: Mapping, scores: Mapping[str, Scores]) -> str:
    provenance = read_provenance(folder)
    sizes = metrics if name == "pruned" else run.folder.require("prune").metrics
    values = {
        "name": name,
        "title": TITLES[_stage(run.recipe, name)].format(name),
        "dense": dense_name(provenance),
        "dense_on_hub": _dense_hub_id(provenance) is not None,
        "sizes": {label: (sizes["dense"][key], sizes["pruned"][key]) for key, label in SIZE_LABELS.items()},
        "kept": kept_sizes(provenance.keep),
        "repairs": [edit["repair"] for edit in provenance.edits if "repair" in edit],
        "made": how_made(run, name, metrics, sizes),
        "picture": PICTURE if (folder / PICTURE).is_file() else None,
        "scores": scores,
        "shares": {task: _share(scores[name][task], score) for task, score in scores.get("dense", {}).items()},
        "licence": next((path.name for pattern in LICENCES for path in sorted(folder.glob(pattern))), None),
        "commands": _commands(run.recipe, name, evaluated=bool(scores)),
        "recipe": published_recipe(run.recipe).rstrip(),
        "versions": {LIBRARIES.get(key, key): version for key, version in provenance.versions.items()},
    }
    data = _metadata(run, name, provenance, scores.get(name, {}))
    return str(ModelCard(render(TEMPLATE, values | {"metadata": data})))


def _share(score: TaskScore, dense: TaskScore) -> str:
    """Return a score as a share of the dense model's; of a perplexity, the inverse."""
    if dense.mean == 0:
        return ""
    share = score.mean / dense.mean if score.higher_is_better else dense.mean / score.mean
    return f"{100 * share:.0f} %"


def dense_name(provenance: Provenance) -> str:
    """Return the hub id of the dense model, or the name of its folder: a local path is not published."""
    return _dense_hub_id(provenance) or Path(str(provenance.dense["path"])).name


def _dense_hub_id(provenance: Provenance) -> str | None:
    path = str(provenance.dense["path"])
    return path if is_hub_id(path) else None


def _metadata(run: Run, name: str, provenance: Provenance, scores: Scores) -> ModelCardData:
    merges = getattr(run.recipe, "merges", {})
    datasets = [] if name == "pruned" else _hub_datasets(run.recipe)
    return ModelCardData(
        **_base_model(provenance, is_merge=name in merges),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=_tags(run.recipe, name),
        datasets=datasets or None,
        model_name=f"{dense_name(provenance).split('/')[-1]} {name}",
        eval_results=[_eval_result(task, score) for task, score in scores.items()] or None,
        ignore_metadata_errors=True,
        **licence_of(run.dense_dir),
    )


def _base_model(provenance: Provenance, is_merge: bool) -> dict[str, str]:
    hub_id = _dense_hub_id(provenance)
    return {"base_model": hub_id, "base_model_relation": "merge" if is_merge else "finetune"} if hub_id else {}


def _tags(recipe: Recipe, name: str) -> list[str]:
    arm: ArmSection | None = recipe.recover.get(name)
    if arm is not None:
        return ["trl-prune", "pruned", arm.method] + ["self-distillation"] * arm.uses_rewritten
    return ["trl-prune", "pruned"] + ["merge", "mergekit"] * (name != "pruned")


def _hub_datasets(recipe: Recipe) -> list[str]:
    """Return the hub ids of the datasets that arms train on."""
    paths = [section.path for section in recipe.training_datasets if section.path != QUICKSTART]
    return [path for path in paths if is_hub_id(path) and Path(path).suffix not in FILE_TYPES]


def licence_of(source: Path) -> dict[str, str]:
    """Return the licence in the metadata of a model card, which anyone may have written."""
    card = source / CARD
    try:
        metadata = (metadata_load(card) or {}) if card.is_file() else {}
    except (ValueError, yaml.YAMLError, RecursionError):  # a licence file travels in any case
        return {}
    values = {key: metadata.get(key) for key in ("license", "license_name", "license_link")}
    return {key: published_text(value) for key, value in values.items() if isinstance(value, str)}


def _eval_result(task: str, score: TaskScore) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type=task,
        dataset_name=task,
        metric_type=score.metric,
        metric_name=score.metric,
        metric_value=round(score.mean, 4),
    )


def _commands(recipe: Recipe, name: str, evaluated: bool) -> list[str]:
    return [f"trl-prune {_stage(recipe, name)} recipe.yaml"] + ["trl-prune evaluate recipe.yaml"] * evaluated
