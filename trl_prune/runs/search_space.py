"""The candidates of a recipe's search: which sizes fit, and which units each keeps."""

import json
from functools import lru_cache
from pathlib import Path

from trl_prune.runs.context import Run
from trl_prune.errors import InputError
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.sizes.grid import AUTOMATIC, Candidate, Grid, automatic_grid, candidates, first_units
from trl_prune.pruning.keep import Keep, check_axis
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.search import halving_schedule
from trl_prune.pruning.choosing.units import Ranking, choose_keep, kept_layers


def budget_of(run: Run, costs: Costs) -> Budget:
    """Return the recipe's budget."""
    section = run.recipe.search.budget
    if section.share is not None or section.parameters is not None:
        dense = costs.count(costs.sizes, range(costs.sizes[LAYERS]))
        return Budget.around(section.parameters or section.share * dense, section.tolerance)
    most = section.bytes or section.memory
    kind = "bytes" if section.bytes else "memory"
    return Budget(kind, most * (1 - section.tolerance), most, section.batch, section.context)


def grid_of(run: Run, costs: Costs) -> Grid:
    """Return the recipe's grid, `auto` written out."""
    section = run.recipe.search
    given = {axis: choices for axis, choices in section.grid.items() if choices != "auto"}
    wanted = [axis for axis in section.grid if axis not in given]
    for axis in wanted:
        check_axis(axis, costs.sizes, costs.config, costs.family)
    if not section.grid:
        wanted = AUTOMATIC
    return given | automatic_grid(costs, wanted, section.max_width, section.max_depth)


def fitting(run: Run) -> list[Candidate]:
    """Return the candidates, the largest first.

    Raises:
        InputError: nothing in the grid fits the budget.
    """
    costs = run.costs
    try:
        return candidates(grid_of(run, costs), costs, budget_of(run, costs), lambda depth: layers_of(run, depth))
    except InputError as error:
        raise InputError(f"search: {error}") from error


def halving_schedule_of(run: Run) -> list[int]:
    """Return how many candidates are trained to each rung."""
    section = run.recipe.search
    return halving_schedule(min(section.candidates, len(fitting(run))), len(section.rungs))


def models_at_once(run: Run) -> int:
    """Return how many models lie on the disk together at most."""
    if run.recipe.search is None:
        return 0
    return 1 + max(halving_schedule_of(run), default=0)  # those still in the successive_halving, and the one in hand


def scores_of(run: Run) -> Scores | None:
    """Return the scores of every unit, or None before the score stage."""
    if run.folder.result("score") is None:
        return None
    return _loaded(run.folder.output("score", "scores"), run.folder.result_hash("score"))


@lru_cache(maxsize=1)
def _loaded(path: Path, mark: str) -> Scores:  # noqa: ARG001
    # The mark is the result's hash: a file of the same name that was written anew is read anew.
    return Scores.load(path)


def ranking_of(run: Run) -> Ranking:
    """Return how the units of every candidate are ranked: as the prune section says, but for the blocks."""
    ranking = run.recipe.prune.ranking.model_dump()
    return Ranking(layers_by=run.recipe.search.depth, seed=run.recipe.seed, **ranking)


def layers_of(run: Run, depth: int) -> list[int]:
    """Return which dense blocks stay at a depth; before scoring, the first ones."""
    scores = scores_of(run)
    if scores is None or depth == run.config.num_hidden_layers:
        return list(range(depth))
    return kept_layers(scores.layers, depth, ranking_of(run))


def keep_of(run: Run, candidate: Candidate) -> Keep:
    """Return the units that a candidate keeps, by the scores."""
    return choose_keep(scores_of(run), candidate.sizes, run.config, run.costs.family, ranking_of(run))


def found_keep(run: Run) -> Keep:
    """Return the winner's plan; before the search, a plan of the largest candidate's size."""
    if run.folder.result("search") is None:
        return first_units(fitting(run)[0].sizes, run.costs)
    return json.loads(run.folder.output("search", "keep").read_text())
