"""A second forward pass in a model's own `forward`, so that DDP, FSDP and autocast see it as any other call."""

import functools
import types
from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput


def add_forward(
    model: PreTrainedModel,
    keyword: str,
    added: Callable[[PreTrainedModel, functools.partial, Tensor, object], ModelOutput],
) -> None:
    """Make `model(..., labels=labels, KEYWORD=value)` call another forward; calls without the keyword remain.

    Args:
        model: the model, outside any PEFT or distributed wrapper.
        keyword: the name of the argument that asks for the other forward.
        added: gets the model, its forward until now with the call's arguments bound, the labels and the value.
    """
    original = model.forward

    @functools.wraps(getattr(original, "__func__", original))  # a bound one's signature would lose its first argument
    def forward(self: PreTrainedModel, *args: object, labels: Tensor | None = None, **kwargs: object) -> ModelOutput:
        value = kwargs.pop(keyword, None)
        if value is None:
            return original(*args, **(kwargs if labels is None else kwargs | {"labels": labels}))
        return added(self, functools.partial(original, *args, **kwargs), labels, value)

    model.forward = types.MethodType(forward, model)
