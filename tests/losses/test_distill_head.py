"""Oracles: dense float64 torch, and TRL's chunked divergence."""

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


def student(bias: bool = True, **more: object) -> tuple[Tensor, LMHead]:
    hidden = random(N, WIDTH, seed=1).requires_grad_()
    weight = random(VOCAB, WIDTH, seed=2).requires_grad_()
    return hidden, LMHead(weight, random(VOCAB, seed=3).requires_grad_() if bias else None, **more)


def teacher(vocab: int = VOCAB, **more: object) -> HeadTarget:
    return HeadTarget(
        random(N, TEACHER_WIDTH, seed=4), LMHead(random(vocab, TEACHER_WIDTH, seed=5, scale=0.5), **more)
    )


LABELS = torch.randint(0, VOCAB, (N,), generator=torch.Generator().manual_seed(6))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(distill_head, "MIN_ROWS", 5)
    monkeypatch.setitem(distill_head.TILE_BYTES, "cpu", 0)
    monkeypatch.setitem(distill_head.BLOCK_BYTES, "cpu", 2 * 4 * VOCAB)


def dense_logits(hidden: Tensor, head: LMHead) -> Tensor:
    bias = 0 if head.bias is None else head.bias.double()
    logits = (hidden.double() @ head.weight.double().T + bias) * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def dense_divergence(z: Tensor, t: Tensor, objective: Objective) -> Tensor:
    """The objective's divergence in float64 over dense logits of both."""
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


def dense_loss(hidden: Tensor, head: LMHead, target: HeadTarget | None, objective: Objective) -> Tensor:
    z = dense_logits(hidden, head)
    log_probs = z.log_softmax(-1).gather(1, LABELS[:, None])[:, 0]
    weights = log_probs.exp().detach() if objective.dynamic_fine_tuning else 1
    loss = -objective.ce_weight * (weights * log_probs).sum()
    if target is not None:
        loss = (
            loss + objective.kd_weight * dense_divergence(z, dense_logits(target.hidden, target.head), objective).sum()
        )
    return loss


def check(hidden: Tensor, head: LMHead, target: HeadTarget | None, objective: Objective) -> None:
    leaves = [leaf for leaf in (hidden, head.weight, head.bias) if leaf is not None]
    wanted = dense_loss(hidden, head, target, objective)
    told = distill(hidden, head, LABELS, target, objective)
    torch.testing.assert_close(told.loss.double(), wanted.detach(), atol=1e-4, rtol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(told.loss, leaves), torch.autograd.grad(wanted, leaves), strict=True):
        torch.testing.assert_close(ours, theirs.float(), atol=2e-5, rtol=1e-4)
        assert ours.abs().max() > 0


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
def test_loss_and_gradients_are_the_dense_ones(objective):
    check(*student(), teacher(), objective)


@pytest.mark.parametrize("head", [{"scale": 0.25}, {"softcap": 2.0}, {"scale": 3.0, "softcap": 5.0}], ids=str)
@pytest.mark.parametrize("objective", [Objective(), Objective("mse", ce_weight=0.4), Objective(top_k=3)], ids=str)
def test_softcap_and_scale_of_both_models(head, objective):
    check(*student(**head), teacher(scale=0.5, softcap=3.0, bias=random(VOCAB, seed=9)), objective)


@pytest.mark.parametrize("vocab", [VOCAB + 11, VOCAB - 11])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
def test_vocabularies_of_other_sizes_share_their_ids(vocab, name):
    check(*student(bias=False), teacher(vocab), Objective(name, temperature=2.0, ce_weight=0.5))


def test_cross_entropy_alone():
    check(*student(), None, Objective(ce_weight=1.0))


@given(
    st.sampled_from(["forward_kl", "reverse_kl", "jsd"]),
    st.floats(0.3, 4.0),
    st.floats(0, 2),
    st.booleans(),
    st.integers(1, 60),
    st.integers(0, 60),
)
@settings(max_examples=25, deadline=None)
def test_any_mixture_in_any_tiles_and_blocks(name, temperature, ce_weight, squared, rows, block):
    distill_head.MIN_ROWS, distill_head.BLOCK_BYTES["cpu"] = rows, 4 * VOCAB * block
    check(*student(), teacher(), Objective(name, 0.4, temperature, squared, None, 0.8, ce_weight))


@pytest.mark.parametrize(("name", "beta"), [("forward_kl", 0.0), ("reverse_kl", 1.0), ("jsd", 0.3)])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_trls_chunked_divergence_agrees(name, beta, temperature):
    hidden, head = student()
    target = teacher()
    told = distill(hidden, head, LABELS, target, Objective(name, beta or 0.5, temperature, False))
    theirs, entropy = ChunkedDivergenceFunction.apply(
        hidden, head.weight, head.bias, target.hidden, target.head.weight, None, beta, temperature
    )
    torch.testing.assert_close(told.divergence, theirs.detach(), atol=1e-5, rtol=1e-4)
    leaves = (hidden, head.weight, head.bias)
    for ours, other in zip(
        torch.autograd.grad(told.loss, leaves), torch.autograd.grad(theirs.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(ours, other, atol=3e-5, rtol=1e-4)
    if temperature == 1:
        torch.testing.assert_close(told.entropy, entropy, atol=1e-5, rtol=1e-4)


def test_what_sft_logs():
    hidden, head = student()
    told = distill(hidden, head, LABELS, teacher(), Objective())
    z = dense_logits(hidden, head)
    log_p = z.log_softmax(-1)
    torch.testing.assert_close(told.log_probs, log_p.gather(1, LABELS[:, None])[:, 0].float().detach())
    torch.testing.assert_close(told.entropy, -(log_p.exp() * log_p).sum(-1).float().detach())
    assert torch.equal(told.is_top1, z.argmax(-1) == LABELS)
    assert not any(part.requires_grad for part in told[1:])


@pytest.mark.parametrize("objective", [Objective("reverse_kl"), Objective("mse"), Objective(top_k=60)], ids=str)
def test_evaluation_tells_kl_and_agreement_whatever_is_trained(objective):
    hidden, head = student()
    target = teacher()
    with torch.no_grad():
        told = distill(hidden, head, LABELS, target, objective)
        z, t = dense_logits(hidden, head), dense_logits(target.hidden, target.head)
        torch.testing.assert_close(told.kl.double(), dense_divergence(z, t, Objective()), atol=1e-5, rtol=1e-4)
    assert torch.equal(told.agrees, z.argmax(-1) == t.argmax(-1))
    assert not told.loss.requires_grad


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "mse"])
def test_a_model_agrees_with_itself(name):
    hidden, head = student()
    with torch.no_grad():
        told = distill(hidden, head, LABELS, HeadTarget(hidden, head), Objective(name))
    assert told.divergence.abs().max() < 1e-6
    assert told.agrees.all()


def test_a_frozen_head_gets_no_gradient():
    hidden, head = student()
    frozen = LMHead(head.weight.detach(), head.bias.detach())
    (ours,) = torch.autograd.grad(distill(hidden, frozen, LABELS, teacher(), Objective()).loss, hidden)
    (wanted,) = torch.autograd.grad(distill(hidden, head, LABELS, teacher(), Objective()).loss, hidden)
    assert torch.equal(ours, wanted)


def test_gradients_follow_what_is_done_with_the_sum():
    hidden, head = student()
    (once,) = torch.autograd.grad(distill(hidden, head, LABELS, teacher(), Objective()).loss, hidden)
    (thrice,) = torch.autograd.grad(3 * distill(hidden, head, LABELS, teacher(), Objective()).loss, hidden)
    torch.testing.assert_close(thrice, 3 * once)
    told = distill(hidden, head, LABELS, teacher(), Objective()).loss
    told.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="used up"):
        told.backward()


def test_no_position_is_a_zero_with_a_gradient():
    hidden, head = student()
    target = HeadTarget(torch.zeros(0, TEACHER_WIDTH), teacher().head)
    told = distill(hidden[:0], head, LABELS[:0], target, Objective(ce_weight=1.0))
    told.loss.backward()
    assert told.loss == 0
    assert not head.weight.grad.any()


def sparse(objective: Objective, k: int, tail: bool) -> tuple[SparseTarget, Tensor]:
    """The teacher's likeliest ids, as a cache tells them, and its dense logits."""
    target = teacher()
    logits = dense_logits(target.hidden, target.head)
    probs, ids = (logits / objective.temperature).softmax(-1).float().topk(k)
    if not tail:
        return SparseTarget(ids, probs / probs.sum(1, keepdim=True)), logits
    return SparseTarget(ids, probs, 1 - probs.sum(1), objective.temperature), logits


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_cached_top_k_is_the_online_one(name, temperature):
    hidden, head = student()
    objective = Objective(name, 0.3, temperature, ce_weight=0.2)
    target, _ = sparse(objective, 6, tail=True)
    cached = distill(hidden, head, LABELS, target, objective)
    online = distill(hidden, head, LABELS, teacher(), Objective(name, 0.3, temperature, top_k=6, ce_weight=0.2))
    torch.testing.assert_close(cached.divergence, online.divergence, atol=1e-5, rtol=1e-4)
    leaves = (hidden, head.weight, head.bias)
    for ours, theirs in zip(
        torch.autograd.grad(cached.loss, leaves), torch.autograd.grad(online.loss, leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_a_samples_gradient_is_student_less_sample():
    hidden, head = student(bias=False)
    target, _ = sparse(Objective(), 6, tail=False)
    padded = SparseTarget(torch.nn.functional.pad(target.ids, (0, 3)), torch.nn.functional.pad(target.probs, (0, 3)))
    (ours,) = torch.autograd.grad(distill(hidden, head, LABELS, padded, Objective()).loss, hidden)
    p = dense_logits(hidden, head).softmax(-1).detach()
    slope = p.scatter_add(1, target.ids, -target.probs.double())
    torch.testing.assert_close(ours, (slope @ head.weight.detach().double()).float(), atol=1e-5, rtol=1e-4)


def test_every_id_cached_is_the_full_teacher():
    hidden, head = student()
    target, _ = sparse(Objective(), VOCAB, tail=False)
    told = distill(hidden, head, LABELS, target, Objective())
    full = distill(hidden, head, LABELS, teacher(), Objective())
    torch.testing.assert_close(told.divergence, full.divergence, atol=1e-5, rtol=1e-4)


def test_autocast_computes_in_its_dtype_and_returns_each_gradient_in_its_own():
    hidden, head = student()
    wanted = torch.autograd.grad(distill(hidden, head, LABELS, teacher(), Objective()).loss, (hidden, head.weight))
    with torch.autocast("cpu", torch.bfloat16):
        told = distill(hidden, head, LABELS, teacher(), Objective())
    assert told.loss.dtype == torch.float32
    for ours, theirs in zip(torch.autograd.grad(told.loss, (hidden, head.weight)), wanted, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.02 * theirs.norm()
    lower = hidden.detach().bfloat16().requires_grad_()
    weight = head.weight.detach().bfloat16().requires_grad_()
    told = distill(lower, LMHead(weight), LABELS, teacher(), Objective())
    told.loss.backward()
    assert lower.grad.dtype == weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("target", "objective", "message"),
    [
        ("head", Objective("mse", top_k=4), "'mse' compares the whole vocabulary"),
        ("sample", Objective("cosine"), "'cosine' compares the whole vocabulary"),
        ("sample", Objective("jsd"), "a sampled teacher gives forward_kl only"),
        ("sample", Objective(temperature=2.0), "temperature is 2.0, but the teacher's was 1.0"),
    ],
)
def test_what_a_target_cannot_tell_is_refused(target, objective, message):
    hidden, head = student()
    told = teacher() if target == "head" else sparse(Objective(), 4, tail=False)[0]
    with pytest.raises(InputError, match=message):
        distill(hidden, head, LABELS, told, objective)
