"""Oracles: float64 autograd on full logits, and TRL's chunked divergence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from trl_prune.errors import InputError
from trl_prune.losses import distill_head
from trl_prune.losses.distill_head import distill
from trl_prune.losses.head_block import Objective
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import HeadTarget, SparseTarget


N, VOCAB, WIDTH, TEACHER_WIDTH = 37, 53, 8, 12


def random(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def student(bias: bool = True, **options: object) -> tuple[Tensor, LMHead]:
    hidden = random(N, WIDTH, seed=1).requires_grad_()
    weight = random(VOCAB, WIDTH, seed=2).requires_grad_()
    return hidden, LMHead(weight, random(VOCAB, seed=3).requires_grad_() if bias else None, **options)


def teacher(vocab_size: int = VOCAB, **options: object) -> HeadTarget:
    weight = random(vocab_size, TEACHER_WIDTH, seed=5, scale=0.5)
    return HeadTarget(random(N, TEACHER_WIDTH, seed=4), LMHead(weight, **options))


LABELS = torch.randint(0, VOCAB, (N,), generator=torch.Generator().manual_seed(6))


@pytest.fixture(autouse=True)
def small_tiles_and_blocks(monkeypatch):
    monkeypatch.setattr(distill_head, "MIN_ROWS", 5)
    monkeypatch.setitem(distill_head.TILE_BYTES, "cpu", 0)
    monkeypatch.setitem(distill_head.BLOCK_BYTES, "cpu", 2 * 4 * VOCAB)


def full_logits(hidden: Tensor, head: LMHead) -> Tensor:
    bias = 0 if head.bias is None else head.bias.double()
    logits = (hidden.double() @ head.weight.double().T + bias) * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def full_divergence(z: Tensor, t: Tensor, objective: Objective) -> Tensor:
    """Return the objective's divergence in float64, from the full logits of both models."""
    shared = min(z.shape[-1], t.shape[-1])
    z, t = (logits[:, :shared] / objective.temperature for logits in (z, t))
    if objective.top_k is None:
        p, q = z.softmax(-1), t.softmax(-1)
    else:
        ids = t.topk(objective.top_k).indices
        p, q = (torch.cat([part := x.softmax(-1).gather(1, ids), 1 - part.sum(1, keepdim=True)], 1) for x in (z, t))
    beta = objective.jsd_beta
    m = beta * q + (1 - beta) * p
    values = {
        "forward_kl": lambda: (q * (q / p).log()).sum(-1),
        "reverse_kl": lambda: (p * (p / q).log()).sum(-1),
        "jsd": lambda: beta * (q * (q / m).log()).sum(-1) + (1 - beta) * (p * (p / m).log()).sum(-1),
        "mse": lambda: (z - t).square().mean(-1),
        "cosine": lambda: 1 - torch.nn.functional.cosine_similarity(p, q, dim=-1),
    }[objective.divergence]()
    return values * objective.divergence_scale


def full_loss(hidden: Tensor, head: LMHead, target: HeadTarget | None, objective: Objective) -> Tensor:
    z = full_logits(hidden, head)
    log_probs = z.log_softmax(-1).gather(1, LABELS[:, None])[:, 0]
    weights = log_probs.exp().detach() if objective.dynamic_fine_tuning else 1
    loss = -objective.ce_weight * (weights * log_probs).sum()
    if target is not None:
        loss = (
            loss + objective.kd_weight * full_divergence(z, full_logits(target.hidden, target.head), objective).sum()
        )
    return loss


def check_loss_and_gradients(
    hidden: Tensor, head: LMHead, target: HeadTarget | None, objective: Objective, atol: float = 2e-5
) -> None:
    leaves = [leaf for leaf in (hidden, head.weight, head.bias) if leaf is not None]
    expected_loss = full_loss(hidden, head, target, objective)
    loss = distill(hidden, head, LABELS, target, objective).loss
    torch.testing.assert_close(loss.double(), expected_loss.detach(), atol=1e-4, rtol=1e-5)
    gradients, expected_gradients = torch.autograd.grad(loss, leaves), torch.autograd.grad(expected_loss, leaves)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected.float(), atol=atol, rtol=1e-4)
        assert gradient.abs().max() > 0


OBJECTIVES = [
    Objective(),
    Objective("reverse_kl"),
    Objective("jsd", 0.3),
    Objective("mse", kd_weight=0.3),
    Objective("cosine"),
    Objective(temperature=2.5),
    Objective(temperature=0.5, temperature_squared=False, ce_weight=0.7),
    Objective("reverse_kl", temperature=2.0, kd_weight=0.2, ce_weight=1.0),
    Objective(top_k=4),
    Objective("reverse_kl", top_k=4),
    Objective("jsd", 0.3, top_k=4, temperature=2.0, ce_weight=0.5),
    Objective(kd_weight=0.5, ce_weight=0.5),
    Objective(ce_weight=1.0, dynamic_fine_tuning=True),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_loss_and_gradients_equal_those_from_full_logits(objective):
    check_loss_and_gradients(*student(), teacher(), objective)


@pytest.mark.parametrize("head_options", [{"scale": 0.25}, {"softcap": 2.0}, {"scale": 3.0, "softcap": 5.0}], ids=str)
@pytest.mark.parametrize("objective", [Objective(), Objective("mse", ce_weight=0.4), Objective(top_k=3)], ids=str)
def test_softcap_and_scale_of_both_models(head_options, objective):
    target = teacher(scale=0.5, softcap=3.0, bias=random(VOCAB, seed=9))
    check_loss_and_gradients(*student(**head_options), target, objective)


@pytest.mark.parametrize("vocab_size", [VOCAB + 11, VOCAB - 11])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
def test_a_larger_or_smaller_teacher_vocabulary_is_compared_on_the_shared_ids(vocab_size, name):
    objective = Objective(name, temperature=2.0, ce_weight=0.5)
    check_loss_and_gradients(*student(bias=False), teacher(vocab_size), objective)


def test_cross_entropy_alone():
    check_loss_and_gradients(*student(), None, Objective(ce_weight=1.0))


@given(
    st.sampled_from(["forward_kl", "reverse_kl", "jsd"]),
    st.floats(0.3, 4.0),
    st.floats(0, 2),
    st.booleans(),
    st.integers(1, 60),
    st.integers(0, 60),
)
@settings(max_examples=25, deadline=None)
def test_any_objective_in_tiles_and_blocks_of_any_size(name, temperature, ce_weight, squared, tile_rows, block_rows):
    distill_head.MIN_ROWS, distill_head.BLOCK_BYTES["cpu"] = tile_rows, 4 * VOCAB * block_rows
    objective = Objective(name, 0.4, temperature, squared, None, 0.8, ce_weight)
    # The gradient and its float32 rounding error grow with 1 / temperature.
    check_loss_and_gradients(*student(), teacher(), objective, atol=2e-5 / min(1, temperature))


@pytest.mark.parametrize(("name", "beta"), [("forward_kl", 0.0), ("reverse_kl", 1.0), ("jsd", 0.3)])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_trls_chunked_divergence_is_the_same(name, beta, temperature):
    hidden, head = student()
    target = teacher()
    output = distill(hidden, head, LABELS, target, Objective(name, beta or 0.5, temperature, False))
    expected, entropy = ChunkedDivergenceFunction.apply(
        hidden, head.weight, head.bias, target.hidden, target.head.weight, None, beta, temperature
    )
    torch.testing.assert_close(output.divergence, expected.detach(), atol=1e-5, rtol=1e-4)
    leaves = (hidden, head.weight, head.bias)
    for gradient, expected_gradient in zip(
        torch.autograd.grad(output.loss, leaves), torch.autograd.grad(expected.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(gradient, expected_gradient, atol=3e-5, rtol=1e-4)
    if temperature == 1:
        torch.testing.assert_close(output.entropy, entropy, atol=1e-5, rtol=1e-4)


def test_the_statistics_that_sft_logs():
    hidden, head = student()
    output = distill(hidden, head, LABELS, teacher(), Objective())
    z = full_logits(hidden, head)
    log_p = z.log_softmax(-1)
    torch.testing.assert_close(output.log_probs, log_p.gather(1, LABELS[:, None])[:, 0].float().detach())
    torch.testing.assert_close(output.entropy, -(log_p.exp() * log_p).sum(-1).float().detach())
    assert torch.equal(output.is_top1, z.argmax(-1) == LABELS)
    assert not any(tensor.requires_grad for tensor in output[1:])


@pytest.mark.parametrize("objective", [Objective("reverse_kl"), Objective("mse"), Objective(top_k=60)], ids=str)
def test_evaluation_returns_kl_and_agreement_for_every_objective(objective):
    hidden, head = student()
    target = teacher()
    with torch.no_grad():
        output = distill(hidden, head, LABELS, target, objective)
        z, t = full_logits(hidden, head), full_logits(target.hidden, target.head)
        torch.testing.assert_close(output.kl.double(), full_divergence(z, t, Objective()), atol=1e-5, rtol=1e-4)
    assert torch.equal(output.agrees, z.argmax(-1) == t.argmax(-1))
    assert not output.loss.requires_grad


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "mse"])
def test_a_model_does_not_diverge_from_itself(name):
    hidden, head = student()
    with torch.no_grad():
        output = distill(hidden, head, LABELS, HeadTarget(hidden, head), Objective(name))
    assert output.divergence.abs().max() < 1e-6
    assert output.agrees.all()


def test_a_frozen_head_gets_no_gradient():
    hidden, head = student()
    frozen = LMHead(head.weight.detach(), head.bias.detach())
    (gradient,) = torch.autograd.grad(distill(hidden, frozen, LABELS, teacher(), Objective()).loss, hidden)
    (expected,) = torch.autograd.grad(distill(hidden, head, LABELS, teacher(), Objective()).loss, hidden)
    assert torch.equal(gradient, expected)


def test_gradients_scale_with_the_loss_and_are_freed_by_backward():
    hidden, head = student()
    (once,) = torch.autograd.grad(distill(hidden, head, LABELS, teacher(), Objective()).loss, hidden)
    (thrice,) = torch.autograd.grad(3 * distill(hidden, head, LABELS, teacher(), Objective()).loss, hidden)
    torch.testing.assert_close(thrice, 3 * once)
    loss = distill(hidden, head, LABELS, teacher(), Objective()).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="its gradients are freed"):
        loss.backward()


def test_without_positions_the_loss_is_zero_and_has_a_gradient():
    hidden, head = student()
    target = HeadTarget(torch.zeros(0, TEACHER_WIDTH), teacher().head)
    loss = distill(hidden[:0], head, LABELS[:0], target, Objective(ce_weight=1.0)).loss
    loss.backward()
    assert loss == 0
    assert not head.weight.grad.any()


def sparse_target(objective: Objective, k: int, tail: bool) -> tuple[SparseTarget, Tensor]:
    """Return the teacher's likeliest ids, as a cache stores them, and its full logits."""
    target = teacher()
    logits = full_logits(target.hidden, target.head)
    probs, ids = (logits / objective.temperature).softmax(-1).float().topk(k)
    if not tail:
        return SparseTarget(ids, probs / probs.sum(1, keepdim=True)), logits
    return SparseTarget(ids, probs, 1 - probs.sum(1), objective.temperature), logits


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_cached_top_k_equals_the_online_one(name, temperature):
    hidden, head = student()
    objective = Objective(name, 0.3, temperature, ce_weight=0.2)
    target, _ = sparse_target(objective, 6, tail=True)
    cached = distill(hidden, head, LABELS, target, objective)
    online = distill(hidden, head, LABELS, teacher(), Objective(name, 0.3, temperature, top_k=6, ce_weight=0.2))
    torch.testing.assert_close(cached.divergence, online.divergence, atol=1e-5, rtol=1e-4)
    leaves = (hidden, head.weight, head.bias)
    for gradient, expected in zip(
        torch.autograd.grad(cached.loss, leaves), torch.autograd.grad(online.loss, leaves), strict=True
    ):
        torch.testing.assert_close(gradient, expected, atol=2e-5, rtol=1e-4)


def test_the_gradient_of_a_sample_is_student_minus_sample():
    hidden, head = student(bias=False)
    target, _ = sparse_target(Objective(), 6, tail=False)
    padded = SparseTarget(torch.nn.functional.pad(target.ids, (0, 3)), torch.nn.functional.pad(target.probs, (0, 3)))
    (gradient,) = torch.autograd.grad(distill(hidden, head, LABELS, padded, Objective()).loss, hidden)
    p = full_logits(hidden, head).softmax(-1).detach()
    logit_gradient = p.scatter_add(1, target.ids, -target.probs.double())
    expected = (logit_gradient @ head.weight.detach().double()).float()
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)


def test_a_cache_of_every_id_equals_the_full_teacher():
    hidden, head = student()
    target, _ = sparse_target(Objective(), VOCAB, tail=False)
    cached = distill(hidden, head, LABELS, target, Objective())
    full = distill(hidden, head, LABELS, teacher(), Objective())
    torch.testing.assert_close(cached.divergence, full.divergence, atol=1e-5, rtol=1e-4)


def test_autocast_computes_in_its_dtype_and_returns_gradients_in_those_of_the_tensors():
    hidden, head = student()
    leaves = (hidden, head.weight)
    float32_gradients = torch.autograd.grad(distill(hidden, head, LABELS, teacher(), Objective()).loss, leaves)
    with torch.autocast("cpu", torch.bfloat16):
        loss = distill(hidden, head, LABELS, teacher(), Objective()).loss
    assert loss.dtype == torch.float32
    for gradient, expected in zip(torch.autograd.grad(loss, leaves), float32_gradients, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - expected).norm() < 0.02 * expected.norm()
    bf16_hidden = hidden.detach().bfloat16().requires_grad_()
    weight = head.weight.detach().bfloat16().requires_grad_()
    distill(bf16_hidden, LMHead(weight), LABELS, teacher(), Objective()).loss.backward()
    assert bf16_hidden.grad.dtype == weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "objective", "message"),
    [
        ("head", Objective("mse", top_k=4), "'mse' compares the full vocabulary"),
        ("sample", Objective("cosine"), "'cosine' compares the full vocabulary"),
        ("sample", Objective("jsd"), "a sampled teacher gives forward_kl only"),
        ("sample", Objective(temperature=2.0), "temperature is 2.0, but the teacher's was 1.0"),
    ],
)
def test_an_objective_that_the_target_does_not_support_is_refused(kind, objective, message):
    hidden, head = student()
    target = teacher() if kind == "head" else sparse_target(Objective(), 4, tail=False)[0]
    with pytest.raises(InputError, match=message):
        distill(hidden, head, LABELS, target, objective)
