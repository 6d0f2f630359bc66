"""Each evaluated model of a run beside the dense one, and one sentence on each."""

from trl_prune.evaluation.comparison import Comparison, verdict
from trl_prune.reporting.results import RunResults


def comparisons(results: RunResults) -> dict[str, Comparison]:
    """Return the comparison of each evaluated model, but the dense one, with the dense one; by model."""
    return results.compared.comparisons if results.compared else {}


def verdicts(results: RunResults) -> list[str]:
    """Return one sentence on each evaluated model, the recipe's last model first: none is chosen by its scores."""
    speed = None if results.speed is None else results.speed.decode
    sizes = {name: size.parameters for name, size in results.sizes.items()}
    share = sizes["pruned"] / sizes["dense"] if sizes else None
    return [verdict(comparison, share, speed) for comparison in reversed(comparisons(results).values())]
