"""merge: recovered models become one, with mergekit."""

import logging
import time
from pathlib import Path

from trl_prune.merging.merge import merge_models
from trl_prune.merging.recipes import MergeRecipe
from trl_prune.recipe import Recipe
from trl_prune.recipe.speculate import is_model_name
from trl_prune.reporting.card import write_card
from trl_prune.reporting.merging import merge_sentences, show_merges
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.merging import check_merges, merge_plan, merged_models, model_hashes, weight_search
from trl_prune.runs.stage import Stage


MODEL, LOSSES = "model", "search.json"
logger = logging.getLogger("trl_prune")


def execute(run: Run, part: str, folder: Path) -> StageOutput:
    """Merge models, with what an interrupted search has measured, into a checkpoint that is proven whole."""
    start = time.perf_counter()
    section, search = run.recipe.merges[part], weight_search(run, part, folder / LOSSES)
    metrics = merge_models(merge_plan(run, part), folder / MODEL, search, section.prove_ends)
    for sentence in merge_sentences(f"merge {part}", metrics):
        logger.info(sentence)
    write_card(run, part, folder / MODEL, metrics)
    outputs = {"model": MODEL} | ({} if search is None else {"search": LOSSES})
    return StageOutput(outputs, metrics, {"seconds": time.perf_counter() - start})


def parts(recipe: Recipe) -> list[str]:
    """Return the names of the merges."""
    return list(recipe.merges)


def needs(recipe: Recipe) -> list[str]:
    """Return the stages that make the models that are merged, and their base."""
    names = [model for section in recipe.merges.values() for model in merged_models(section) if is_model_name(model)]
    return list(dict.fromkeys(["prune", *(recipe.stage_of(name) for name in names)]))


def inputs(run: Run, part: str) -> dict[str, str]:
    """Return the fingerprints of the models, the base and the dev texts."""
    dev = run.recipe.merges[part].dev
    return model_hashes(run, part) | ({} if dev is None else {"dev": run.fingerprint(dev)})


def settings(run: Run, part: str) -> dict:
    """Return the settings that determine the merged model, the content of the merge recipe among them."""
    section = run.recipe.merges[part]
    values = {"merge": section.model_dump(mode="json"), "seed": run.recipe.seed}
    return values | {"recipe": MergeRecipe.load(section.recipe).content, "dtype": run.dtype if section.dev else None}


def describe(run: Run, part: str) -> str:
    """Return what will be merged, how."""
    section = run.recipe.merges[part]
    given = [f"{name} {value}" for name, value in section.given_parameters.items()]
    searched = [] if section.searched is None else [f"searched on {section.dev.path}"]
    return ", ".join([f"{section.recipe} of {' and '.join(section.models)}", *given, *searched])


def is_configured(recipe: Recipe) -> bool:
    """Return whether the recipe names merges."""
    return bool(recipe.merges)


STAGE = Stage(
    "merge", inputs, settings, execute, describe, parts, needs, is_configured, check=check_merges, show=show_merges
)
