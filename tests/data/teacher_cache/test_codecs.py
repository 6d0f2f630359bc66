import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.data.teacher_cache import codecs
from trl_prune.data.teacher_cache.codecs import (
    CODECS,
    Hidden,
    Sampled,
    TopK,
    codec_from_settings,
    codec_settings,
    pack_bytes,
    run_lengths,
    systematic_draws,
    unpack_bytes,
)
from trl_prune.errors import InputError
from trl_prune.losses.lm_head import LMHead


def head_and_states(vocab_size=37, hidden_size=8, positions=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = 2 * torch.randn(vocab_size, hidden_size, generator=generator)
    return LMHead(weight), torch.randn(positions, hidden_size, generator=generator)


def full_probs(target, vocab_size):
    return torch.zeros(len(target.ids), vocab_size).scatter_add_(1, target.ids, target.probs)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12).filter(lambda p: sum(p) > 0.1), st.integers(1, 64))
@settings(deadline=None, max_examples=60)
def test_the_sample_is_unbiased(probs, draws):
    """The counts are step functions of the shift; their integral over all shifts is exactly R p."""
    probs = torch.tensor([probs], dtype=torch.float64)
    probs = probs / probs.sum()
    steps = (draws * probs.cumsum(-1)).remainder(1).flatten()
    edges = torch.cat([torch.tensor([0.0, 1.0], dtype=torch.float64), steps]).sort().values
    widths, middles = edges.diff(), (edges[1:] + edges[:-1]) / 2
    ids = systematic_draws(probs.expand(len(middles), -1), middles, draws)
    counts = torch.zeros(len(middles), probs.shape[1], dtype=torch.float64)
    counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=torch.float64))
    torch.testing.assert_close(widths @ counts, draws * probs[0], atol=1e-9, rtol=0)
    # No count differs from R p by a full draw, as with independent draws.
    assert ((counts - draws * probs).abs() < 1 + 1e-9).all()


def test_ids_of_probability_zero_are_never_drawn():
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    for shift in (0.0, 0.5, 1 - 2**-53):
        ids = systematic_draws(probs, torch.tensor([shift], dtype=torch.float64), 10)
        assert set(ids.flatten().tolist()) == {1, 3}


@given(st.lists(st.lists(st.integers(0, 6), min_size=5, max_size=5).map(sorted), min_size=1, max_size=8))
@settings(deadline=None)
def test_run_lengths_decode_to_the_rows(rows):
    ids, counts, lengths = run_lengths(torch.tensor(rows))
    decoded = [
        [index for index, count in zip(row_ids.tolist(), row_counts.tolist(), strict=True) for _ in range(count)]
        for row_ids, row_counts in zip(ids.split(lengths.tolist()), counts.split(lengths.tolist()), strict=True)
    ]
    assert decoded == rows


@given(st.integers(1, 2**40).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, b - 1), min_size=1))))
@settings(deadline=None)
def test_packed_integers_are_unpacked_unchanged(case):
    bound, values = case
    packed = pack_bytes(torch.tensor(values), bound)
    assert packed.dtype == torch.uint8
    assert packed.shape[-1] == max(1, -(-(bound - 1).bit_length() // 8))
    assert unpack_bytes(packed).tolist() == values


@pytest.mark.parametrize(("vocab_size", "width"), [(49_152, 3), (128_256, 3), (262_144, 3), (262_208, 4)])
def test_a_drawn_id_and_its_count_take_three_bytes_up_to_a_vocabulary_of_2_to_18(vocab_size, width):
    assert pack_bytes(torch.zeros(1, dtype=torch.long), vocab_size << 6).shape[-1] == width


@given(st.integers(2, 40), st.integers(1, 64), st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_a_decoded_sample_has_the_drawn_shares(vocab_size, draws, seed):
    head, states = head_and_states(vocab_size, seed=seed)
    shifts = torch.rand(len(states), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    codec = Sampled(draws)
    target = codec.decode(codec.encode(states, head, shifts), None)
    drawn = systematic_draws(head.logits(states).softmax(-1), shifts, draws)
    expected = torch.zeros(len(states), vocab_size).scatter_add_(1, drawn, torch.ones(drawn.shape)) / draws
    torch.testing.assert_close(full_probs(target, vocab_size), expected)
    assert target.tail is None


@given(st.integers(2, 40), st.integers(1, 45), st.sampled_from([0.5, 1.0, 3.0]), st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_top_k_and_tail_equal_those_of_the_distribution(vocab_size, k, temperature, seed):
    head, states = head_and_states(vocab_size, seed=seed)
    codec = TopK(k, temperature)
    target = codec.decode(codec.encode(states, head, torch.zeros(len(states))), None)
    expected = (head.logits(states) / temperature).softmax(-1)
    top = expected.topk(min(k, vocab_size)).values
    torch.testing.assert_close(target.probs, top, atol=1e-5, rtol=1e-2)
    torch.testing.assert_close(target.tail, 1 - top.sum(-1), atol=1e-5, rtol=1e-2)
    torch.testing.assert_close(target.probs.sum(-1) + target.tail, torch.ones(len(states)))
    torch.testing.assert_close(expected.gather(1, target.ids), top)


def test_decoded_states_are_rounded_to_bfloat16():
    head, states = head_and_states()
    codec = Hidden()
    target = codec.decode(codec.encode(states, head, torch.zeros(len(states))), head)
    assert torch.equal(target.hidden, states.bfloat16().float())
    assert target.head is head


@pytest.mark.parametrize("codec", [Sampled(7, 3), TopK(5, 2.0), Hidden()])
def test_the_chunk_size_changes_nothing(codec, monkeypatch):
    """In float64, since the rounding of a float32 product depends on the number of its rows."""
    head, states = head_and_states(positions=11)
    head, states = LMHead(head.weight.double()), states.double()
    shifts = torch.rand(11, dtype=torch.float64)
    single_chunk = codec.encode(states, head, shifts)
    monkeypatch.setattr(codecs, "CHUNK_ELEMENTS", 2 * len(head.weight))
    many_chunks = codec.encode(states, head, shifts)
    assert {name: array.tolist() for name, array in many_chunks.items()} == {
        name: array.tolist() for name, array in single_chunk.items()
    }


@pytest.mark.parametrize("codec", [Sampled(7, 3), TopK(5, 2.0), Hidden()])
def test_codecs_round_trip_through_their_settings(codec):
    assert codec_from_settings(codec_settings(codec)) == codec
    assert set(CODECS) == {"sampled", "topk", "hidden"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampled(65), "draws is 65; allowed: 1..64"),
        (lambda: TopK(0), "k is 0"),
        (lambda: TopK(1, 0.0), "temperature 0.0"),
        (lambda: codec_from_settings({"tier": "zip"}), "tier is 'zip'; allowed: sampled, topk, hidden"),
    ],
)
def test_invalid_settings_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
