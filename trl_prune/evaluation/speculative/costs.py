"""What a step of the draft and a call of the target cost, measured in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from trl_prune.checkpoints import cache_argument
from trl_prune.evaluation.speculative.prediction import DepthCost
from trl_prune.evaluation.timing import Interval, interleaved_seconds, speed_up


# A step takes milliseconds, so that many repeats are cheap.
REPEATS, WARM_UP = 15, 2


@dataclass(frozen=True)
class StepCosts:
    """Costs at one batch size, in units of a step of the target: one token of each text in the batch.

    Attributes:
        batch_size: texts that are decoded together.
        context: tokens before the step.
        cost_ratio: a step of the draft, c.
        verification: a call of the target over `draft_length + 1` tokens of each text, by draft length.
        target_seconds: median seconds of a step of the target.
    """

    batch_size: int
    context: int
    cost_ratio: Interval
    verification: dict[int, Interval]
    target_seconds: float


@torch.inference_mode()
def measure_costs(
    target: PreTrainedModel, draft: PreTrainedModel, draft_lengths: Sequence[int], batch_size: int, context: int
) -> StepCosts:
    """Return the costs of steps over random tokens with a cache, which depend on shapes alone.

    Args:
        target: the target.
        draft: the draft.
        draft_lengths: numbers of proposed tokens.
        batch_size: texts that are decoded together.
        context: tokens in the cache, from 1.
    """
    one = _step(target, batch_size, context, 1)
    calls = {"target": one, "draft": _step(draft, batch_size, context, 1)}
    calls |= {str(length): _step(target, batch_size, context, length + 1) for length in draft_lengths}
    seconds = interleaved_seconds(calls, REPEATS, WARM_UP)
    ratios = {name: speed_up(values, seconds["target"]) for name, values in seconds.items()}
    return StepCosts(
        batch_size,
        context,
        ratios["draft"],
        {length: ratios[str(length)] for length in draft_lengths},
        sorted(seconds["target"])[REPEATS // 2],
    )


def _step(model: PreTrainedModel, batch_size: int, context: int, tokens: int) -> Callable[[], object]:
    """Return a call that reads some tokens after a cached context, and forgets them again."""
    vocab_size = model.config.get_text_config().vocab_size
    ids = torch.randint(vocab_size, (batch_size, context + tokens), generator=torch.Generator().manual_seed(0))
    ids, cache = ids.to(model.device), DynamicCache(config=model.config)
    if hasattr(cache, "activate_past_recording"):  # so that sliding windows can be cut back; transformers 5.24
        cache.activate_past_recording()
    name = cache_argument(model)
    model(input_ids=ids[:, :context], use_cache=True, logits_to_keep=1, **{name: cache})

    def read() -> None:
        model(input_ids=ids[:, context:], use_cache=True, **{name: cache})
        cache.crop(-tokens)

    return read


def depth_cost(model: PreTrainedModel) -> DepthCost:
    """Return what each block and the LM head weigh in a step of a model."""
    blocks = model.config.get_text_config().num_hidden_layers
    stacks = [module for module in model.get_decoder().modules() if isinstance(module, nn.ModuleList)]
    stack = next(module for module in stacks if len(module) == blocks)
    count = sum(weight.numel() for weight in stack.parameters())
    return DepthCost(blocks, count, model.get_output_embeddings().weight.numel())


def medians(verification: Mapping[int, Interval]) -> dict[int, float]:
    """Return the medians of measured costs by draft length."""
    return {length: cost.value for length, cost in verification.items()}
