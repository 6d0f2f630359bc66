"""Parameters that FSDP2 or ZeRO-3 shards over processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from trl_prune.losses.lm_head import LMHead, lm_head
from trl_prune.trainers.trl_names import gathered_parameters


@contextmanager
def full_parameters(*parameters: Tensor | None) -> Iterator[list[Tensor | None]]:
    """Yield parameters as full tensors; every rank enters the context, outside of which ZeRO-3 empties them again."""
    with gathered_parameters(*parameters):
        yield [
            parameter.full_tensor() if isinstance(parameter, DTensor) else parameter  # a DTensor is FSDP2's
            for parameter in parameters
        ]


@contextmanager
def full_lm_head(model: PreTrainedModel) -> Iterator[LMHead]:
    """Yield a model's LM head with full tensors; every rank enters the context."""
    head = lm_head(model)
    with full_parameters(head.weight, head.bias) as (weight, bias):
        yield replace(head, weight=weight, bias=bias)


@torch.no_grad()
def copy_full_tensor(source: Tensor, parameter: Tensor) -> None:
    """Copy a full tensor into a parameter; every rank calls this.

    A parameter of another shape is left as it is: ZeRO-3's are empty, and DeepSpeed's own checkpoint fills them.
    """
    if isinstance(parameter, DTensor):
        source = distribute_tensor(
            source.to(parameter.device, parameter.dtype), parameter.device_mesh, parameter.placements
        )
    if parameter.shape == source.shape:
        parameter.copy_(source)
