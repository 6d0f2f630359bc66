"""One page about several runs on the same dense model: verdicts, quality against cost, all models, what each cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure

from trl_prune.checkpoints import read_provenance, write_json, write_text
from trl_prune.errors import InputError
from trl_prune.evaluation.comparison import check_conditions
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.evaluation.result_files import read_results
from trl_prune.recipe import load_recipe
from trl_prune.reporting.card import dense_name
from trl_prune.reporting.comparison_page import without_nan
from trl_prune.reporting.comparisons import verdicts
from trl_prune.reporting.costs import arm_costs
from trl_prune.reporting.model_points import KINDS, ModelPoint, model_points
from trl_prune.reporting.page import PAGES, write_pictures
from trl_prune.reporting.plots.pareto import PARAMETERS, SPEED, cost, draw_pareto
from trl_prune.reporting.plots.style import ModelStyle, indexed_style, named_style
from trl_prune.reporting.rendering import render
from trl_prune.reporting.results import RunResults
from trl_prune.runs.artifacts import NOTES, RECIPE
from trl_prune.runs.context import Run


POINTS = "models.json"
DENSE = "dense"
CAPTIONS = {
    PARAMETERS: "Recovery against parameters, with standard errors; numbers are those of the table. The line joins "
    "the models that no other beats; models of one size are drawn beside each other.",
    SPEED: "Recovery against decoding speed, with standard errors and the interval of the speed; numbers are those of "
    "the table. Each run timed its model and the dense one in turn: shown is its gain times the first run's dense "
    "speed.",
}


@dataclass(frozen=True)
class RunsReport:
    """A report on several runs.

    Attributes:
        page: its HTML page.
        verdicts: a sentence on the last model of each run, by run.
    """

    page: Path
    verdicts: dict[str, str]


def report_runs(places: Sequence[str | Path], output: str | Path | None = None) -> RunsReport:
    """Write the report on finished runs.

    Args:
        places: the run folders, or recipe files, whose `output` is read.
        output: the folder of the report; by default `report` beside the first run.

    Raises:
        InputError: there is no run, a folder holds no evaluated one, or the runs have different dense models, tasks,
            items or prompts.
    """
    if not places:
        raise InputError("a report on runs was given none; wanted: run folders or recipe files")
    folders = [run_folder(place) for place in places]
    runs = {name: open_run(folder) for name, folder in zip(run_names(folders), folders, strict=True)}
    conditions = check_runs(runs)
    target = folders[0].resolve().parent / "report" if output is None else Path(output).expanduser()
    _make_folder(target)
    sentences = {name: found[0] for name, results in runs.items() if (found := verdicts(results))}
    points = all_points(runs)
    write_json(target / POINTS, without_nan({"models": [asdict(point) for point in points], "verdicts": sentences}))
    values = {
        "title": f"{len(runs)} run{'s' * (len(runs) > 1)} on {dense_model(next(iter(runs.values())))}",
        "sentences": sentences,
        "conditions": conditions,
        "pictures": write_pictures(_figures(points), target),
        "missing": _missing(points),
        "captions": {f"pareto_{by}": caption for by, caption in CAPTIONS.items()},
        "points": list(enumerate(points, 1)),
        "kinds": [kind for kind in KINDS if any(kind in point.recovery for point in points)],
        "costs": (costs := {name: arm_costs(results) for name, results in runs.items()}),
        "minutes": {name: sum(results.seconds.values()) / 60 for name, results in runs.items()},
        "trained": {name: {one.arm: one.trained for one in arms} for name, arms in costs.items()},
    }
    for page in PAGES:
        write_text(target / page, render(f"across_{page}", values))
    return RunsReport(target / PAGES[0], sentences)


def run_folder(place: str | Path) -> Path:
    """Return the run folder that a user names: itself, or the output of a recipe file.

    Raises:
        InputError: it is no folder, and cannot be read as a recipe.
    """
    path = Path(place).expanduser()
    return path if path.is_dir() else Path(load_recipe(path, []).output).expanduser()


def open_run(folder: Path) -> RunResults:
    """Return the results in a run folder, which is read without the recipe file that it was made with.

    Raises:
        InputError: it is no run folder, or its dense model is not evaluated.
    """
    if not (folder / NOTES).is_file() or not (folder / RECIPE).is_file():
        raise InputError(f"{folder} is no run folder of trl-prune: it has no {NOTES} and {RECIPE}")
    recipe = load_recipe(folder / RECIPE, [])
    results = RunResults(Run(recipe.model_copy(update={"output": str(folder)})))  # the folder may have been moved
    if DENSE not in results.scores:
        raise InputError(
            f"{folder} has no scores of its dense model: run `trl-prune evaluate {folder / RECIPE}` first"
        )
    return results


def run_names(folders: Sequence[Path]) -> list[str]:
    """Return a name for each run: as many of the last parts of its path as tell it from the others.

    Raises:
        InputError: a folder is named twice.
    """
    paths = [folder.resolve() for folder in folders]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise InputError(f"the run {twice} is named more than once")
    longest = max(len(path.parts) for path in paths)
    names = [["/".join(path.parts[-count:]) for path in paths] for count in range(1, longest + 1)]
    return next(found for found in names if len(set(found)) == len(paths))


def check_runs(runs: Mapping[str, RunResults]) -> list[str]:
    """Check that runs can be compared, and return a sentence for each condition that differs.

    Raises:
        InputError: they have different dense models, tasks, items, shots, task versions or prompts.
    """
    (first_name, first), *others = runs.items()
    for name, results in others:
        if _dense_hash(results) != _dense_hash(first):
            models = f"{dense_model(first)} and {dense_model(results)}"
            raise InputError(
                f"the runs {first_name} and {name} have different dense models ({models}); report runs on one dense "
                "model together"
            )
        _check_items(first_name, first, name, results)
    dense = [read_results(results.folder.stage_dir("evaluate", DENSE), name) for name, results in runs.items()]
    return check_conditions(dense)


def _check_items(first_name: str, first: RunResults, name: str, results: RunResults) -> None:
    one, two = first.scores[DENSE], results.scores[DENSE]
    different = sorted(set(one) ^ set(two))
    if different:
        raise InputError(
            f"the runs {first_name} and {name} were evaluated on different tasks, such as {different[0]}; give both "
            "the same `evaluate.tasks`"
        )
    for task in one:
        if _items(one[task]) != _items(two[task]):
            raise InputError(
                f"the runs {first_name} and {name} were evaluated on different items of {task}; give both the same "
                "`evaluate.limit` and `seed`"
            )


def _items(score: TaskScore) -> list:
    return sorted(score.doc_hashes) if score.doc_hashes else [len(score.items)]


def _dense_hash(results: RunResults) -> str:
    return results.folder.require("evaluate", DENSE).inputs["model"]


def dense_model(results: RunResults) -> str:
    """Return the hub id of a run's dense model, or the name of its folder."""
    if results.folder.result("prune") is None:
        return Path(results.folder.notes()["model"]).name
    return dense_name(read_provenance(results.folder.output("prune", "model")))


def all_points(runs: Mapping[str, RunResults]) -> list[ModelPoint]:
    """Return the models of all runs, the dense one once; speeds are gains times the first measured dense speed."""
    by_run = {name: model_points(results, name) for name, results in runs.items()}
    speeds = {name: point.speed.value for name, points in by_run.items() for point in points if _is_timed_dense(point)}
    base = next(iter(speeds.values()), None)
    first = next(iter(by_run))
    return [
        _rescaled(point, base / speeds[name] if name in speeds else 1.0)
        for name, points in by_run.items()
        for point in points
        if point.model != DENSE or name == first
    ]


def _is_timed_dense(point: ModelPoint) -> bool:
    return point.model == DENSE and point.speed is not None


def _rescaled(point: ModelPoint, factor: float) -> ModelPoint:
    if point.speed is None:
        return point
    ends = {name: factor * getattr(point.speed, name) for name in ("value", "low", "high")}
    return replace(point, speed=replace(point.speed, **ends))


def _figures(points: Sequence[ModelPoint]) -> list[tuple[str, Figure]]:
    numbers = {id(point): str(number) for number, point in enumerate(points, 1)}
    keyed = [(DENSE if point.model == DENSE else point.run, point) for point in points]
    styles = _styles(list(dict.fromkeys(key for key, _ in keyed)))
    return [
        (f"pareto_{by}", draw_pareto(keyed, styles, by, lambda point: numbers[id(point)]))
        for by in (PARAMETERS, SPEED)
        if _placed_models(points, by) > 1
    ]


def _placed_models(points: Sequence[ModelPoint], by: str) -> int:
    """Return how many models have both a place on the axis of a cost and a recovery."""
    return sum(cost(point, by) is not None and bool(point.recovery) for point in points)


def _missing(points: Sequence[ModelPoint]) -> list[str]:
    """Return a sentence that says why there is no figure, for the first that is missing."""
    if _placed_models(points, PARAMETERS) < 2:
        kinds = " or ".join(KINDS)
        return [f"No figure of quality against cost: no two models have tasks of {kinds} that say something."]
    if _placed_models(points, SPEED) < 2:
        return ["No figure of recovery against speed: no two models were timed (`evaluate.speed_seconds`)."]
    return []


def _styles(keys: Sequence[str]) -> dict[str, ModelStyle]:
    runs = [key for key in keys if key != DENSE]
    return {key: named_style(DENSE) if key == DENSE else indexed_style(runs.index(key)) for key in keys}


def _make_folder(target: Path) -> None:
    if (target / NOTES).is_file():
        raise InputError(f"{target} is a run folder; name another one with --output")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {target} of the report cannot be made: {error.strerror}") from error
