import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.data.teacher_cache import codecs as teacher_codecs
from trl_prune.data.teacher_cache.codecs import (
    CODECS,
    Hidden,
    Sampled,
    TopK,
    codec_of,
    packed,
    run_lengths,
    settings_of,
    systematic_draws,
    unpacked,
)
from trl_prune.errors import InputError
from trl_prune.losses.lm_head import LMHead


def head_and_states(vocabulary=37, hidden=8, positions=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = 2 * torch.randn(vocabulary, hidden, generator=generator)
    return LMHead(weight), torch.randn(positions, hidden, generator=generator)


def dense(target, vocabulary):
    return torch.zeros(len(target.ids), vocabulary).scatter_add_(1, target.ids, target.probs)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12).filter(lambda p: sum(p) > 0.1), st.integers(1, 64))
@settings(deadline=None, max_examples=60)
def test_the_sample_is_unbiased(probs, draws):
    """The counts are step functions of the shift; their integral over all shifts is R p, exactly."""
    probs = torch.tensor([probs], dtype=torch.float64)
    probs = probs / probs.sum()
    steps = (draws * probs.cumsum(-1)).remainder(1).flatten()
    edges = torch.cat([torch.tensor([0.0, 1.0], dtype=torch.float64), steps]).sort().values
    widths, middles = edges.diff(), (edges[1:] + edges[:-1]) / 2
    ids = systematic_draws(probs.expand(len(middles), -1), middles, draws)
    counts = torch.zeros(len(middles), probs.shape[1], dtype=torch.float64)
    counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=torch.float64))
    torch.testing.assert_close(widths @ counts, draws * probs[0], atol=1e-9, rtol=0)
    # ... and no id is ever off by a whole draw, as independent draws would be.
    assert ((counts - draws * probs).abs() < 1 + 1e-9).all()


def test_no_draw_falls_on_an_id_without_probability():
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    for shift in (0.0, 0.5, 1 - 2**-53):
        ids = systematic_draws(probs, torch.tensor([shift], dtype=torch.float64), 10)
        assert set(ids.flatten().tolist()) == {1, 3}


@given(st.lists(st.lists(st.integers(0, 6), min_size=5, max_size=5).map(sorted), min_size=1, max_size=8))
@settings(deadline=None)
def test_run_lengths_count_each_id_of_each_row(rows):
    ids, counts, lengths = run_lengths(torch.tensor(rows))
    told = [
        [index for index, count in zip(part.tolist(), times.tolist(), strict=True) for _ in range(count)]
        for part, times in zip(ids.split(lengths.tolist()), counts.split(lengths.tolist()), strict=True)
    ]
    assert told == rows


@given(st.integers(1, 2**40).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, b - 1), min_size=1))))
@settings(deadline=None)
def test_integers_come_back_from_bytes(case):
    bound, values = case
    told = packed(torch.tensor(values), bound)
    assert told.dtype == torch.uint8
    assert told.shape[-1] == max(1, -(-(bound - 1).bit_length() // 8))
    assert unpacked(told).tolist() == values


@pytest.mark.parametrize(("vocabulary", "bytes_"), [(49_152, 3), (128_256, 3), (262_144, 3), (262_208, 4)])
def test_a_drawn_id_and_its_count_take_three_bytes_up_to_a_vocabulary_of_2_to_18(vocabulary, bytes_):
    assert packed(torch.zeros(1, dtype=torch.long), vocabulary << 6).shape[-1] == bytes_


@given(st.integers(2, 40), st.integers(1, 64), st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_a_sample_comes_back_as_it_was_drawn(vocabulary, draws, seed):
    head, states = head_and_states(vocabulary, seed=seed)
    shifts = torch.rand(len(states), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    codec = Sampled(draws)
    told = codec.decode(codec.encode(states, head, shifts), None)
    drawn = systematic_draws(head.logits(states).softmax(-1), shifts, draws)
    wanted = torch.zeros(len(states), vocabulary).scatter_add_(1, drawn, torch.ones(drawn.shape)) / draws
    torch.testing.assert_close(dense(told, vocabulary), wanted)
    assert told.tail is None


@given(st.integers(2, 40), st.integers(1, 45), st.sampled_from([0.5, 1.0, 3.0]), st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_the_top_and_its_tail_are_the_distributions(vocabulary, k, temperature, seed):
    head, states = head_and_states(vocabulary, seed=seed)
    codec = TopK(k, temperature)
    told = codec.decode(codec.encode(states, head, torch.zeros(len(states))), None)
    wanted = (head.logits(states) / temperature).softmax(-1)
    top = wanted.topk(min(k, vocabulary)).values
    torch.testing.assert_close(told.probs, top, atol=1e-5, rtol=1e-2)
    torch.testing.assert_close(told.tail, 1 - top.sum(-1), atol=1e-5, rtol=1e-2)
    torch.testing.assert_close(told.probs.sum(-1) + told.tail, torch.ones(len(states)))
    torch.testing.assert_close(wanted.gather(1, told.ids), top)


def test_states_come_back_in_bfloat16_with_their_head():
    head, states = head_and_states()
    codec = Hidden()
    told = codec.decode(codec.encode(states, head, torch.zeros(len(states))), head)
    assert torch.equal(told.hidden, states.bfloat16().float())
    assert told.head is head


@pytest.mark.parametrize("codec", [Sampled(7, 3), TopK(5, 2.0), Hidden()])
def test_chunks_change_nothing(codec, monkeypatch):
    head, states = head_and_states(positions=11)
    shifts = torch.rand(11, dtype=torch.float64)
    whole = codec.encode(states, head, shifts)
    monkeypatch.setattr(teacher_codecs, "CHUNK_ELEMENTS", 2 * len(head.weight))
    parts = codec.encode(states, head, shifts)
    assert {name: array.tolist() for name, array in parts.items()} == {
        name: array.tolist() for name, array in whole.items()
    }


@pytest.mark.parametrize("codec", [Sampled(7, 3), TopK(5, 2.0), Hidden()])
def test_settings_name_a_codec(codec):
    assert codec_of(settings_of(codec)) == codec
    assert set(CODECS) == {"sampled", "topk", "hidden"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampled(65), "draws is 65; allowed: 1..64"),
        (lambda: TopK(0), "k is 0"),
        (lambda: TopK(1, 0.0), "temperature 0.0"),
        (lambda: codec_of({"tier": "zip"}), "tier is 'zip'; allowed: sampled, topk, hidden"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
