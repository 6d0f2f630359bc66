"""Decoding with a draft gives the target's own text, and its counts are those that acceptance expects."""

from dataclasses import replace

import pytest
import torch

from tests.conftest import tiny_model
from tests.evaluation.speculative.models import draft_of, flatter
from trl_prune.errors import InputError
from trl_prune.evaluation.speculative.acceptance import rounds_of_texts, text_acceptance
from trl_prune.evaluation.speculative.drafting import (
    Decoding,
    DraftedText,
    first_difference,
    generate_drafted,
    generate_plain,
)
from trl_prune.evaluation.speculative.prediction import total
from trl_prune.evaluation.speculative.texts import Text


PROMPT, TOKENS = [5, 6, 7, 8], 20


@pytest.fixture(scope="module")
def models():
    target = flatter(tiny_model("llama"))
    return target, draft_of(target)


@pytest.mark.parametrize("draft_length", [1, 3, 8])
def test_greedy_text_is_the_targets_and_takes_the_expected_calls(models, draft_length):
    target, draft = models
    own = generate_plain(target, PROMPT, Decoding(TOKENS))
    drafted = generate_drafted(target, draft, PROMPT, Decoding(TOKENS), draft_length)
    assert drafted.ids == own
    assert len(own) == TOKENS
    expected = rounds_of_texts(text_acceptance(target, draft, [Text(PROMPT, own)]), draft_length, is_greedy=True)
    assert len(drafted.rounds) == expected.calls < TOKENS
    assert all(accepted <= proposed <= draft_length for proposed, accepted in drafted.rounds)


def test_an_ending_token_ends_the_text(models):
    target, draft = models
    own = generate_plain(target, PROMPT, Decoding(TOKENS))
    ending = Decoding(TOKENS, end_ids=(own[6],))
    ended = own[: own.index(own[6]) + 1]
    assert generate_plain(target, PROMPT, ending) == ended
    drafted = generate_drafted(target, draft, PROMPT, ending, 4)
    assert drafted.ids == ended
    assert drafted.counts(4).tokens == len(ended)


def test_counts_leave_out_what_was_not_judged():
    rounds = DraftedText([1] * 9, [(3, 3), (3, 0), (3, 1), (1, 1)]).counts(3)
    assert (rounds.tokens, rounds.calls) == (9, 4)
    assert (rounds.proposed, rounds.accepted) == ((4, 2, 1), (3, 1, 1))


@pytest.mark.slow  # some hundred texts
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampling_accepts_what_is_expected(models, temperature):
    target, draft = models
    decodings = [Decoding(8, temperature=temperature, seed=seed) for seed in range(200)]
    texts = [Text(PROMPT, generate_plain(target, PROMPT, decoding)) for decoding in decodings]
    expected = rounds_of_texts(text_acceptance(target, draft, texts, temperature), 3, is_greedy=False)
    drafted = [generate_drafted(target, draft, PROMPT, decoding, 3) for decoding in decodings]
    measured = total(one.counts(3) for one in drafted)
    rates = [sum(one.accepted) / sum(one.proposed) for one in (measured, expected)]
    error = (rates[1] * (1 - rates[1]) / sum(measured.proposed)) ** 0.5
    assert abs(rates[0] - rates[1]) < 4 * error
    # Both ways the first tokens have one distribution: the total variation of two samples of it is small.
    counts = [torch.bincount(torch.tensor([ids[1] for ids in found]), minlength=300) for found in
              ([one.ids for one in drafted], [text.continuation for text in texts])]  # fmt: skip
    assert (counts[0] - counts[1]).abs().sum() / 400 < 0.5


def test_settings_of_the_checkpoints_are_put_back(models):
    target, draft = models
    before = target.generation_config, draft.generation_config
    target.generation_config.repetition_penalty = 1.7
    penalised = generate_plain(target, PROMPT, Decoding(TOKENS))
    target.generation_config.repetition_penalty = None
    assert penalised == generate_plain(target, PROMPT, Decoding(TOKENS))
    generate_drafted(target, draft, PROMPT, Decoding(4), 2)
    assert (target.generation_config, draft.generation_config) == before
    assert not target._forward_pre_hooks


def test_seeds_decide_samples_and_leave_the_global_ones_alone(models):
    target, _ = models
    decoding = Decoding(8, temperature=1.0, seed=3)
    state = torch.random.get_rng_state()
    first = generate_plain(target, PROMPT, decoding)
    assert torch.equal(state, torch.random.get_rng_state())
    assert (
        first == generate_plain(target, PROMPT, decoding) != generate_plain(target, PROMPT, replace(decoding, seed=4))
    )


def test_differences_are_found_with_their_gap(models):
    target, _ = models
    own = generate_plain(target, PROMPT, Decoding(6))
    assert first_difference(target, PROMPT, own, own) is None
    assert first_difference(target, PROMPT, own, own[:4]) == (4, None)
    other = [*own[:3], (own[3] + 1) % 200, *own[4:]]
    position, gap = first_difference(target, PROMPT, own, other)
    logits = target(torch.tensor([PROMPT + own[:3]])).logits[0, -1].detach()
    assert position == 3
    assert gap == pytest.approx(float(logits[own[3]] - logits[other[3]]))
    assert gap > 0


def test_pairs_that_cannot_decode_are_refused(models):
    target, _ = models
    with pytest.raises(InputError, match="target and draft are one model in memory"):
        generate_drafted(target, target, PROMPT, Decoding(4), 2)
    padded = tiny_model("llama", vocab_size=264)
    with pytest.raises(InputError, match="embedding has 259 rows and the draft's 264, and transformers decodes"):
        generate_drafted(target, padded, PROMPT, Decoding(4), 2)
