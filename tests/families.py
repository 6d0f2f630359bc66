"""Which model families a test runs on: by default one of each distinct row, in the slow suite all of them."""

from collections.abc import Collection, Iterable

import pytest

from trl_prune.pruning.families import FAMILIES, LAYERS


# The family that stands for a row where several share it; else the first by name.
PREFERRED = ("llama", "gemma2", "olmo2", "mixtral", "qwen3_moe")


def distinct_rows() -> list[str]:
    """Return one family for each distinct row of the table."""
    by_row: dict[int, str] = {}
    for family in (*PREFERRED, *sorted(FAMILIES)):
        by_row.setdefault(id(FAMILIES[family]), family)
    return sorted(by_row.values())


def family_params(families: Iterable[str] = FAMILIES, fast: Collection[str] = ()) -> list:
    """Return parameters for `pytest.mark.parametrize`; families whose row another one stands for are slow.

    Args:
        families: the families.
        fast: those that are not slow instead, where a few of different kinds stand for all.
    """
    are_fast = set(fast or distinct_rows())
    return [pytest.param(family, marks=() if family in are_fast else pytest.mark.slow) for family in sorted(families)]


def family_axis_params() -> list:
    """Return every family with each axis that it can be cut along, and with `all` of them.

    Fast are, for each distinct row, `all` and one axis, a different one from row to row: a covering array in which
    every row and every axis occurs. The other pairs are slow.
    """
    fast = distinct_rows()
    params = []
    for family, row in sorted(FAMILIES.items()):
        axes = sorted(row.axes - {LAYERS})
        covered = {"all", axes[fast.index(family) % len(axes)]} if family in fast else set()
        params += [
            pytest.param(family, axis, marks=() if axis in covered else pytest.mark.slow) for axis in (*axes, "all")
        ]
    return params
