"""A key-value cache with room for the next tokens, so that a step does not copy all the earlier ones."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


# Tokens of room that a layer gets when it is full; its content is copied once for so many tokens.
ROOM = 64


def roomy_cache(config: PreTrainedConfig) -> DynamicCache:
    """Return an empty cache for a model; its layers that grow without limit have room."""
    cache = DynamicCache(config=config)
    # Layers of a sliding window stay as they are: they are short.
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def can_join(cache: DynamicCache) -> bool:
    """Return whether `joined` works: layers of a sliding window do not hold all that they have read."""
    return all(isinstance(layer, RoomyLayer) for layer in cache.layers)


def joined(parts: Sequence[DynamicCache]) -> DynamicCache:
    """Return the rows of several caches of equal length as one cache; the parts are emptied."""
    if len(parts) == 1:
        return parts[0]
    layers = []
    while parts[0].layers:  # layer by layer, so that only one is in memory twice
        same = [part.layers.pop(0) for part in parts]
        layer = RoomyLayer()
        layer.update(torch.cat([one.keys for one in same]), torch.cat([one.values for one in same]))
        layers.append(layer)
    parts[0].layers = layers
    return parts[0]


class RoomyLayer(DynamicLayer):
    """A cache layer whose `keys` and `values` are the filled part of larger tensors."""

    _all_keys: Tensor | None = None
    _all_values: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens, each `(batch, heads, tokens, size)`, and return those of all tokens."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self._all_keys is None or end > self._all_keys.shape[-2]:
            self._all_keys = _with_room(self.keys, key_states, start, end)
            self._all_values = _with_room(self.values, value_states, start, end)
        self._all_keys[..., start:end, :] = key_states
        self._all_values[..., start:end, :] = value_states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch."""
        if self._all_keys is None:
            super().batch_select_indices(indices)
        else:
            end = self.get_seq_length()
            self._all_keys, self._all_values = self._all_keys[indices], self._all_values[indices]
            self._show(end)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch."""
        super().batch_repeat_interleave(repeats)
        self._all_keys = self._all_values = None

    def _show(self, end: int) -> None:
        self.keys, self.values = self._all_keys[..., :end, :], self._all_values[..., :end, :]


def _with_room(filled: Tensor, new: Tensor, start: int, end: int) -> Tensor:
    larger = new.new_empty(*new.shape[:-2], end + ROOM, new.shape[-1])
    if start:
        larger[..., :start, :] = filled
    return larger
