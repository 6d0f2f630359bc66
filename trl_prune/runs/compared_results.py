"""Which results a user means: files of lm-eval, folders of them, or all models of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from trl_prune.errors import InputError
from trl_prune.evaluation.comparison import ComparedModels
from trl_prune.evaluation.result_files import RESULTS, ModelResults, read_results
from trl_prune.recipe import load_recipe
from trl_prune.runs.artifacts import RECIPE


RECIPES = (".yaml", ".yml")


def compared_results(
    paths: Sequence[str | Path],
    dense: str | Path | None = None,
    pruned: str | Path | None = None,
    metrics: Mapping[str, str] | None = None,
    allow_differences: bool = False,
) -> ComparedModels:
    """Return models' results beside the dense one's.

    Args:
        paths: results files of lm-eval, folders that hold one, run folders or recipes of runs, whose evaluated models
            are all compared; `NAME=PATH` names a model.
        dense: the path or name of the dense model's results; by default the first.
        pruned: the path or name of the unrecovered model's; by default those of a run's pruned model.
        metrics: the metric that counts, by task, where it is not the task's own.
        allow_differences: whether other shots, task versions or prompts are warned of instead of refused.

    Raises:
        InputError: something cannot be read or compared.
    """
    if not paths:
        raise InputError("a comparison was given no results; wanted: results of lm-eval, run folders or recipes")
    found = [one for path in paths for one in _read(path, metrics or {})]
    names = {}
    for role, path in (("dense", dense), ("pruned", pruned)):
        if path is not None:
            found, names[role] = _named(found, path, metrics or {})
    found = _with_different_names(found)
    chosen = {role: found[position].name for role, position in names.items()}
    is_run = any(one.name == "pruned" and one.path.name == RESULTS for one in found)
    return ComparedModels(
        found, chosen.get("dense"), chosen.get("pruned") or ("pruned" if is_run else None), allow_differences
    )


def _read(path: str | Path, metrics: Mapping[str, str]) -> list[ModelResults]:
    """Return the results that a path stands for."""
    name, folder = _split_name(path)
    if folder.suffix in RECIPES:
        folder = Path(load_recipe(folder, []).output).expanduser()
    models = _models_of_run(folder)
    if not models:
        return [read_results(folder, name, metrics)]
    if name is not None:
        raise InputError(f"{path} names one model, and {folder} is a run of {len(models)}; leave out the name")
    return [read_results(folder / "evaluate" / model, model, metrics) for model in models]


def _split_name(path: str | Path) -> tuple[str | None, Path]:
    name, separator, rest = str(path).partition("=")
    is_named = separator and "/" not in name and not Path(path).exists()
    return (name, Path(rest).expanduser()) if is_named else (None, Path(path).expanduser())


def _models_of_run(folder: Path) -> list[str]:
    """Return the evaluated models of a run folder, in the order of its recipe; others are left from older recipes."""
    if not (folder / RECIPE).is_file():
        return []
    names = sorted(load_recipe(folder / RECIPE, []).evaluated, key=lambda name: name != "dense")  # dense first
    return [name for name in names if (folder / "evaluate" / name / RESULTS).is_file()]


def _named(found: list[ModelResults], path: str | Path, metrics: Mapping[str, str]) -> tuple[list[ModelResults], int]:
    """Return results with those that a path or a name stands for, and their position."""
    known = [position for position, one in enumerate(found) if str(path) == one.name]
    if known:
        return found, known[0]
    wanted = _read(path, metrics)
    if len(wanted) > 1:
        raise InputError(f"{path} is a run of {len(wanted)} models; name one of them: {_names(wanted)}")
    same = [position for position, one in enumerate(found) if one.path.resolve() == wanted[0].path.resolve()]
    return (found, same[0]) if same else ([*found, wanted[0]], len(found))


def _names(results: Sequence[ModelResults]) -> str:
    return ", ".join(one.name for one in results)


def _with_different_names(results: Sequence[ModelResults]) -> list[ModelResults]:
    """Return results of which two with one name are named by their files."""
    names = [one.name for one in results]
    return [replace(one, name=str(one.path)) if names.count(one.name) > 1 else one for one in results]
