"""Oracles: statsmodels' McNemar test, statisticians' worked examples, and simulated evaluations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.evaluation.comparison.paired_tests import (
    LEVEL,
    POWER,
    detectable_loss,
    detectable_mean_loss,
    first_level,
    holm,
    mcnemar,
    sign_flips,
)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_statsmodels_two_sided_test_in_one_direction(lost, gained):
    from statsmodels.stats.contingency_tables import mcnemar as two_sided

    oracle = two_sided([[100, lost], [gained, 50]], exact=True).pvalue
    if lost > gained:
        assert mcnemar(lost, gained) == pytest.approx(oracle / 2)
    else:
        assert mcnemar(lost, gained) >= 0.5


def test_mcnemar_by_hand():
    assert mcnemar(5, 0) == pytest.approx(1 / 32)
    assert mcnemar(4, 1) == pytest.approx(6 / 32)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 7) == 1.0


def test_a_loss_that_a_test_of_two_independent_samples_misses_is_found():
    """Of 200 items both models have 92 right and 78 wrong; 22 are lost and 8 gained."""
    from statsmodels.stats.proportion import proportions_ztest

    _, unpaired = proportions_ztest([92 + 22, 92 + 8], [200, 200], alternative="larger")
    assert unpaired > 0.05
    assert mcnemar(22, 8) < 0.01


def test_holm_by_hand():
    # The smallest is multiplied by 4, the next by 3, and none is below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_sign_flips_of_few_items_are_all_counted():
    # Of 2 ** 5 signs only the observed ones have so high a mean.
    assert sign_flips([0.1, 0.2, 0.05, 0.3, 0.15]) == pytest.approx(1 / 32)
    assert sign_flips([0.0, 0.0]) == 1.0


def test_sign_flips_agree_with_the_t_test_of_many_items():
    from scipy.stats import ttest_1samp

    losses = np.random.default_rng(0).normal(0.05, 0.4, 300)
    oracle = ttest_1samp(losses, 0, alternative="greater").pvalue
    assert sign_flips(losses) == pytest.approx(oracle, abs=0.01)
    assert sign_flips(losses) == sign_flips(losses)


def test_a_loss_that_could_be_seen_gets_smaller_with_more_items_and_fewer_changes():
    assert detectable_loss(1000, 200) < detectable_loss(100, 20) < detectable_loss(100, 40)
    assert detectable_loss(60, 0) == pytest.approx(0.109, abs=0.002)
    assert np.isnan(detectable_loss(4, 0))


def test_few_items_must_all_be_lost():
    # Five losses of five items have p = 1/32; at a loss d of every item, all five are lost with the chance d ** 5.
    assert detectable_loss(5, 0) == pytest.approx(POWER ** (1 / 5), abs=1e-3)


def test_the_loss_of_a_mean_is_the_textbooks():
    assert detectable_mean_loss(0.01, level=0.005) == pytest.approx(0.01 * (2.5758 + 0.8416), rel=1e-4)
    assert detectable_mean_loss(0.01) == pytest.approx(0.01 * (1.6449 + 0.8416), rel=1e-4)


def test_a_loss_among_several_tasks_must_be_larger_to_be_seen():
    assert (first_level(0), first_level(1), first_level(10)) == (LEVEL, LEVEL, LEVEL / 10)
    # Of five items not even the loss of all has p <= 0.5 %.
    assert np.isnan(detectable_loss(5, 0, first_level(10)))
    assert detectable_loss(8, 0, first_level(10)) == pytest.approx(POWER ** (1 / 8), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("tests", [1, 10])
@pytest.mark.parametrize(("items", "discordant"), [(60, 12), (60, 1), (500, 60), (2000, 300)])
def test_the_detectable_loss_is_found_in_four_of_five_simulated_evaluations(items, discordant, tests):
    generator = np.random.default_rng(1)
    level = first_level(tests)
    loss = detectable_loss(items, discordant, level)
    discordance = max(discordant / items, loss)
    losing = (discordance + loss) / 2
    shares = [losing, discordance - losing, 1 - discordance]
    found = [mcnemar(lost, gained) <= level for lost, gained, _ in generator.multinomial(items, shares, 2000)]
    assert np.mean(found) == pytest.approx(POWER, abs=0.03)
