"""What each recovered model cost: tokens trained and generated, and minutes."""

from dataclasses import dataclass

from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel


SECONDS_PER_MINUTE = 60


@dataclass(frozen=True)
class ArmCost:
    """What an arm cost.

    Attributes:
        arm: its name.
        trained: tokens without padding that it was trained on, with all epochs.
        generated: tokens that the dense model wrote for all arms on rewritten answers; 0 for other arms.
        read: tokens that the dense model read once for all arms that use its cached predictions; 0 for other arms.
        training_minutes: minutes of its training.
        shared_minutes: minutes of the stages that it shares with other arms: selecting, rewriting, caching.
    """

    arm: str
    trained: int
    generated: int
    read: int
    training_minutes: float
    shared_minutes: float


def arm_costs(results: RunResults) -> list[ArmCost]:
    """Return the cost of each trained arm."""
    return [_cost(results, name) for name in results.arms]


def _cost(results: RunResults, name: str) -> ArmCost:
    recipe, seconds = results.run.recipe, results.seconds
    # An arm that goes on from another one costs what both do.
    names = [one for one in recipe.lineage(name) if one in results.arms]
    arms = [recipe.recover[one] for one in names]
    own_rows = any(source.dataset is None for arm in arms for source in arm.sources)
    shared = {
        "select": recipe.select is not None and own_rows,
        "rewrite": any(arm.uses_rewritten for arm in arms),
        "cache_teacher": any(one in recipe.cached_arms for one in names),
    }
    return ArmCost(
        name,
        sum(results.arms[one].metrics["tokens"] for one in names),
        _metric(results, "rewrite", "generated_tokens") if shared["rewrite"] else 0,
        _metric(results, "cache_teacher", "tokens") if shared["cache_teacher"] else 0,
        sum(seconds.get(f"recover {one}", 0.0) for one in names) / SECONDS_PER_MINUTE,
        sum(seconds.get(stage, 0.0) for stage, is_used in shared.items() if is_used) / SECONDS_PER_MINUTE,
    )


def _metric(results: RunResults, stage: str, name: str) -> int:
    result = results.folder.result(stage)
    return result.metrics.get(name, 0) if result else 0


COST_TABLE = Panel("cost_table", lambda results: results.seconds)
