"""The candidates of a recipe's search, the units that each keeps, and the plan that was found."""

import json
from functools import lru_cache
from pathlib import Path

from trl_prune.errors import InputError
from trl_prune.pruning.choosing.units import Ranking, choose_keep, kept_layers
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.keep import Keep
from trl_prune.pruning.search import halving_schedule
from trl_prune.pruning.sizes.budget import Budget
from trl_prune.pruning.sizes.grid import Candidate, SearchRequest, find_candidates
from trl_prune.pruning.sizes.shapes import first_units
from trl_prune.runs.context import Run


def search_candidates(run: Run) -> list[Candidate]:
    """Return the candidates, the largest first.

    Raises:
        InputError: nothing in the grid fits the budget, or the model does not have an axis or a size of the grid.
    """
    request = search_request(run)
    try:
        return find_candidates(request, run.costs)
    except InputError as error:
        raise InputError(f"search: {error}") from error


def search_request(run: Run) -> SearchRequest:
    """Return the recipe's search section as a request; before the score stage, candidates keep the first blocks."""
    section, budget, ranking, scores = run.recipe.search, search_budget(run), candidate_ranking(run), load_scores(run)
    depths = range(1, run.costs.sizes[LAYERS]) if scores is not None else ()
    kept = {depth: kept_layers(scores.layers, depth, ranking) for depth in depths}
    return SearchRequest(budget, section.grid, section.max_width, section.max_depth, kept)


def search_budget(run: Run) -> Budget:
    """Return the budget of the recipe's search section."""
    return Budget(**run.recipe.search.budget.model_dump())


def survivors_per_rung(run: Run) -> list[int]:
    """Return how many candidates are trained to each rung."""
    section, candidates = run.recipe.search, search_candidates(run)
    return halving_schedule(min(section.candidates, len(candidates)), len(section.rungs))


def max_models_on_disk(run: Run) -> int:
    """Return how many of the search's checkpoints exist at the same time at most."""
    if run.recipe.search is None:
        return 0
    survivors = survivors_per_rung(run)
    return 1 + max(survivors, default=0)  # the candidates still compared, and the one being written


def load_scores(run: Run) -> Scores | None:
    """Return the scores of every unit, or None before the score stage."""
    if run.folder.result("score") is None:
        return None
    return _load(run.folder.output("score", "scores"), run.folder.result_hash("score"))


@lru_cache(maxsize=1)
def _load(path: Path, result_hash: str) -> Scores:  # noqa: ARG001
    # The hash makes the cache read a file again that was rewritten.
    return Scores.load(path)


def candidate_ranking(run: Run) -> Ranking:
    """Return how the units of every candidate are ranked: blocks as set by `search`, other units as set by `prune`."""
    ranking = run.recipe.prune.ranking.model_dump()
    return Ranking(layers_by=run.recipe.search.layers_by, seed=run.recipe.seed, **ranking)


def candidate_keep(run: Run, candidate: Candidate) -> Keep:
    """Return the units that a candidate keeps, by the scores."""
    ranking, scores = candidate_ranking(run), load_scores(run)
    return choose_keep(scores, candidate.sizes, run.config, run.family, ranking)


def searched_keep(run: Run) -> Keep:
    """Return the winner's plan; before the search, a plan of the largest candidate's sizes."""
    if run.folder.result("search") is None:
        largest, *_ = search_candidates(run)
        return first_units(largest.sizes, run.costs)
    return json.loads(run.folder.output("search", "keep").read_text())
