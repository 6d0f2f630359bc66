import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.mixing import MixSource, draw_mix, row_owners
from trl_prune.errors import InputError


@st.composite
def mixes(draw):
    """Sources over one to three pools, with shares that sum to 1."""
    weights = draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    pools = [draw(st.integers(0, 2)) for _ in weights]
    sizes = {pool: draw(st.integers(len(weights) * 25, 400)) for pool in pools}
    return [
        MixSource(f"s{index}", weight / sum(weights), pool, sizes[pool])
        for index, (weight, pool) in enumerate(zip(weights, pools, strict=True))
    ]


@given(mixes(), st.integers(0, 5))
def test_no_row_is_drawn_twice_from_a_pool(sources, seed):
    drawn = draw_mix(sources, None, seed)
    for pool in {source.pool for source in sources}:
        rows = [row for source, part in zip(sources, drawn, strict=True) if source.pool == pool for row in part]
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(range(next(source.pool_rows for source in sources if source.pool == pool)))


@given(mixes(), st.data())
def test_a_smaller_mix_is_a_subset_of_a_larger_one(sources, data):
    largest = draw_mix(sources, None, 0)
    total = sum(map(len, largest))
    rows = data.draw(st.integers(min(80 * len(sources), total), total))
    smaller = draw_mix(sources, rows, 0)
    assert sum(map(len, smaller)) == rows
    for part, whole in zip(smaller, largest, strict=True):
        assert part == whole[: len(part)]


@given(mixes())
def test_as_many_rows_are_drawn_as_the_scarcest_pool_allows(sources):
    total = sum(map(len, draw_mix(sources, None, 0)))
    with pytest.raises(InputError, match="allows|has"):
        draw_mix(sources, total + 1, 0)
    shares = {}
    for source in sources:
        shares[source.pool] = shares.get(source.pool, 0) + source.share
    ideal = min(source.pool_rows / shares[source.pool] for source in sources)
    assert ideal - 2 * len(sources) - 1 <= total <= ideal + 1e-6


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(1, 20))
def test_shares_are_exact_where_rows_can_be_divided(weights, factor):
    total = sum(weights)
    owners = row_owners([weight / total for weight in weights], total * factor)
    assert [(owners == index).sum() for index in range(len(weights))] == [weight * factor for weight in weights]


def test_the_seed_determines_the_draw():
    sources = [MixSource("a", 1.0, "a", 50)]
    assert draw_mix(sources, 20, 0) == draw_mix(sources, 20, 0) != draw_mix(sources, 20, 1)
    assert sorted(draw_mix(sources, None, 3)[0]) == list(range(50))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (500, "rows is 500, and a with b, with 100 rows for a share of 0.9, allows 111 at most"),
        (3, "rows is 3, of which c with a share of 0.1 gets none"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(rows, message):
    sources = [MixSource("a", 0.6, "one", 100), MixSource("b", 0.3, "one", 100), MixSource("c", 0.1, "two", 900)]
    with pytest.raises(InputError) as error:
        draw_mix(sources, rows, 0)
    assert str(error.value) == message


def test_sources_of_one_pool_have_the_same_rows():
    sources = [MixSource("references", 0.5, "q", 240), MixSource("text of q", 0.5, "q", 1000)]
    with pytest.raises(InputError) as error:
        draw_mix(sources, 10, 0)
    assert str(error.value) == (
        "data has references with 240 rows and text of q with 1,000 rows of the same dataset, so that a row could be "
        "drawn twice; set `rows` of these datasets to one number"
    )


def test_one_source_has_fewer_rows_than_asked_for():
    with pytest.raises(InputError, match="rows is 1,000, and references has 250$"):
        draw_mix([MixSource("references", 1.0, None, 250)], 1000, 0)
