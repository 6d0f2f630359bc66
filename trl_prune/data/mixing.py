"""Which rows the sources of a mix contribute: shares of rows, drawn without replacement.

The rows of a mix are a prefix of one sequence that the seed determines. A smaller mix is therefore a subset of a
larger one, and sources that share a pool never contribute the same row.
"""

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from trl_prune.errors import InputError


# Added to a quotient of rows and share, so that 7 / 0.7 is 10 whatever its rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class MixSource:
    """A source of a mix.

    Attributes:
        name: what errors call it.
        share: its share of the mix's rows.
        pool: which dataset it draws from; sources with an equal pool have the same rows and draw disjoint ones.
        pool_rows: the number of rows in the pool.
    """

    name: str
    share: float
    pool: Hashable
    pool_rows: int


def draw_mix(sources: Sequence[MixSource], rows: int | None, seed: int) -> list[list[int]]:
    """Return the indices of each source's rows in its pool, in the order of the draw.

    Args:
        sources: the sources.
        rows: the number of rows of the mix; as many as the scarcest pool allows where None.
        seed: of the draw.

    Raises:
        InputError: a pool has fewer rows than asked for, a source would get no row, or two sources have different
            parts of one pool.
    """
    _check_pools(sources)
    allowed, scarcest = _largest_mix(sources)
    if rows is not None and rows > allowed:
        raise InputError(f"rows is {rows:,}, and {_shortage(sources, scarcest, allowed)}")
    count = allowed if rows is None else rows
    owners = row_owners([source.share for source in sources], count)
    for index, source in enumerate(sources):
        if not (owners == index).any():
            raise InputError(f"rows is {count:,}, of which {source.name} with a share of {source.share} gets none")
    indices: list[list[int]] = [[] for _ in sources]
    for pool in dict.fromkeys(source.pool for source in sources):
        members = [index for index, source in enumerate(sources) if source.pool == pool]
        order = permutation(sources[members[0]].pool_rows, seed)
        drawn = owners[np.isin(owners, members)].tolist()
        for owner, row in zip(drawn, order, strict=False):
            indices[owner].append(row)
    return indices


def row_owners(shares: Sequence[float], rows: int) -> np.ndarray:
    """Return which source each row of a mix comes from, `(rows,)`, by Webster's method.

    The owners of fewer rows are a prefix of those of more, and every prefix has the shares up to rounding.
    """
    priorities = np.concatenate([(2 * np.arange(rows) + 1) / share for share in shares])
    return np.argsort(priorities, kind="stable")[:rows] // max(rows, 1)


def permutation(count: int, seed: int) -> list[int]:
    """Return the numbers below `count` in random order."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def _check_pools(sources: Sequence[MixSource]) -> None:
    """Check that sources of one pool have the same rows, without which a row could be drawn twice."""
    first: dict[Hashable, MixSource] = {}
    for source in sources:
        other = first.setdefault(source.pool, source)
        if other.pool_rows != source.pool_rows:
            raise InputError(
                f"data has {other.name} with {other.pool_rows:,} rows and {source.name} with {source.pool_rows:,} "
                "rows of the same dataset, so that a row could be drawn twice; set `rows` of these datasets to one "
                "number"
            )


def _largest_mix(sources: Sequence[MixSource]) -> tuple[int, Hashable]:
    """Return the number of rows at which a pool is used up, and the pool."""
    shares, sizes = {}, {}
    for source in sources:
        shares[source.pool] = shares.get(source.pool, 0.0) + source.share
        sizes[source.pool] = source.pool_rows
    bounds = {pool: int(sizes[pool] / share + ROUNDING) for pool, share in shares.items()}
    owners = row_owners([source.share for source in sources], min(bounds.values()))
    ends = {}
    for pool, size in sizes.items():  # rounding can use a pool up a few rows earlier
        members = [index for index, source in enumerate(sources) if source.pool == pool]
        positions = np.flatnonzero(np.isin(owners, members))
        ends[pool] = int(positions[size]) if len(positions) > size else bounds[pool]
    scarcest = min(ends, key=ends.get)
    return ends[scarcest], scarcest


def _shortage(sources: Sequence[MixSource], pool: Hashable, allowed: int) -> str:
    if len(sources) == 1:
        return f"{sources[0].name} has {allowed:,}"
    members = [source for source in sources if source.pool == pool]
    names, share = " with ".join(source.name for source in members), sum(source.share for source in members)
    return f"{names}, with {members[0].pool_rows:,} rows for a share of {share:g}, allows {allowed:,} at most"
