"""Tests of models on the same items, and the smallest loss that they would find.

Two models agree on most items, and only those on which they differ say anything: a test that ignores the pairs misses
losses that this one finds.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, norm, permutation_test


# Probability below which a number of differing items is left out of the power.
RARE = 1e-9
# The level of all tests, and the power for which detectable losses are stated.
LEVEL, POWER = 0.05, 0.8
# Resamples of a test of scores that are not right or wrong, and how many numbers it draws at once.
RESAMPLES, BATCH_NUMBERS = 9999, 2_000_000


def mcnemar(lost: int, gained: int) -> float:
    """Return the exact one-sided p-value that a model is no worse than another (McNemar).

    If the models are equally good, an item on which they differ is as likely a loss as a gain.

    Args:
        lost: items that the other model has right and this one wrong.
        gained: items that only this one has right.
    """
    return float(binomtest(lost, lost + gained, alternative="greater").pvalue) if lost + gained else 1.0


def sign_flips(losses: Sequence[float], seed: int = 0) -> float:
    """Return the one-sided p-value that the mean of paired losses is not above 0 (a permutation test).

    For scores that are not right or wrong. If the models are equally good, each loss is as likely its opposite.
    """
    values = np.asarray(losses, dtype=float)
    if not values.any():
        return 1.0
    result = permutation_test(
        (values,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_NUMBERS // len(values)),
        alternative="greater",
        random_state=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing several tasks (Holm's step-down method)."""
    from statsmodels.stats.multitest import multipletests

    return [float(value) for value in multipletests(p_values, LEVEL, method="holm")[1]] if p_values else []


def first_level(tests: int) -> float:
    """Return the level of one of several tests, 5 % / tests: what Holm's method asks of the smallest p-value.

    A loss that is found at this level is found whatever the other tasks show.
    """
    return LEVEL / max(tests, 1)


def detectable_loss(items: int, discordant: int, level: float = LEVEL) -> float:
    """Return the smallest loss, as a share of items, that `mcnemar` would find at a level in 80 % of evaluations.

    The power is exact: sum over m of Bin(m; n, w) P(Bin(m, (w + d) / 2w) >= c(m)), where w is the share of items on
    which the models differ, d the loss, and c(m) the fewest losses among m items with p <= level. w is what was
    observed, or d where every such item would have to be a loss.

    Args:
        items: the number of items, n.
        discordant: those on which the models differ.
        level: of the test; of one of several tasks `first_level`.

    Returns:
        NaN if not even losing every item would be found.
    """
    observed = discordant / items
    if observed and _power(observed, items, observed, level) >= POWER:
        return float(brentq(lambda loss: _power(loss, items, observed, level) - POWER, 0.0, observed, xtol=1e-4))
    if _power(1.0, items, 1.0, level) < POWER:
        return float("nan")
    return float(brentq(lambda loss: _power(loss, items, loss, level) - POWER, max(observed, 1e-9), 1.0, xtol=1e-4))


def _power(loss: float, items: int, discordance: float, level: float) -> float:
    # The numbers of differing items that are likely enough to matter.
    counts = np.arange(binom.ppf(RARE, items, discordance), binom.isf(RARE, items, discordance) + 1)
    # binom.isf(level) is the fewest losses k with P(more than k) <= level.
    fewest = binom.isf(level, counts, 0.5) + 1
    found = binom.sf(fewest - 1, counts, min(1.0, (discordance + loss) / (2 * discordance)))
    return float(binom.pmf(counts, items, discordance) @ found)


def detectable_mean_loss(stderr: float, level: float = LEVEL) -> float:
    """Return the smallest mean loss found one-sided in 80 % of evaluations: at 5 %, 2.49 standard errors."""
    return float((norm.isf(level) + norm.ppf(POWER)) * stderr)
