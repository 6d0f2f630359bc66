"""Forward passes of a model without some of its blocks, for many choices of blocks that share their first ones.

Two choices that agree below a block give it the same input. So choices are run in an order in which those that agree
longest are neighbours, and each starts from the state that it shares with the one before; only those states are held
that a later choice starts from, at most one for each block.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.pruning.choosing.removal import Choice
from trl_prune.pruning.importance.forward import Batch, input_device, model_inputs
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.importance.one_block import SHARING_KEYS
from trl_prune.pruning.importance.skipped_layers import IdentityBlock


# How far, as a share of the largest state, a pass that starts from a state may be from a whole one: some kernels on
# GPUs sum in varying order.
TOLERANCE = 1e-3


class SharedRuns:
    """Runs a model's decoder without some of its blocks.

    Attributes:
        model: the model, in eval mode. Whether its blocks can start from a state is tried on the first batch.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self._blocks = model, decoder_blocks(model)
        self._stand_ins = [IdentityBlock(block, index) for index, block in enumerate(self._blocks)]
        self._shares: bool | None = None

    def __len__(self) -> int:
        """Return the number of decoder blocks."""
        return len(self._blocks)

    @torch.inference_mode()
    def final_states(self, batch: Batch, choices: Sequence[Choice]) -> Iterator[tuple[int, Tensor]]:
        """Yield the position of each choice and the input of the LM head, `(rows, tokens, hidden_size)`.

        Args:
            batch: `input_ids` and `attention_mask`, each `(rows, tokens)`.
            choices: the removed blocks of each; the order in which they come back is another.
        """
        if self.shares(batch):
            yield from self._shared(batch, choices)
        else:
            for index, choice in enumerate(choices):
                yield index, self._run(batch, choice)

    def shares(self, batch: Batch) -> bool:
        """Return whether a pass that starts from the state before a block is the whole pass; tried once, on a row.

        It is not where blocks hand on more than their states, such as keys and values (Gemma 3n) or a router's state.
        """
        if self._shares is None:
            config = self.model.config.get_text_config()
            handed_on = any(getattr(config, key, 0) for key in SHARING_KEYS)
            row = {name: tensor[:1] for name, tensor in batch.items()}
            self._shares = not handed_on and all(self._starts_from(row, layer) for layer in _probed(len(self)))
        return self._shares

    @torch.inference_mode()
    def _starts_from(self, batch: Batch, layer: int) -> bool:
        entries: dict[int, Tensor] = {}
        whole = self._run(batch, (), read=(layer,), entries=entries)
        again = self._run(batch, (), start=layer, state=entries[layer])
        return bool((whole - again).abs().max() <= TOLERANCE * whole.abs().max())

    def _shared(self, batch: Batch, choices: Sequence[Choice]) -> Iterator[tuple[int, Tensor]]:
        order = sorted(range(len(choices)), key=lambda index: _kept_mask(choices[index], len(self)))
        splits = [_split(choices[one], choices[other], len(self)) for one, other in pairwise(order)]
        entries: dict[int, Tensor] = {}
        for position, index in enumerate(order):
            start = splits[position - 1] if position else 0
            entries = {layer: state for layer, state in entries.items() if layer <= start}
            read = [layer for layer in _descending(splits[position:]) if layer > start]
            yield index, self._run(batch, choices[index], start, entries.get(start), read, entries)

    def _run(  # noqa: PLR0913
        self,
        batch: Batch,
        removed: Choice,
        start: int = 0,
        state: Tensor | None = None,
        read: Sequence[int] = (),
        entries: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """Return the last hidden states of a pass that begins at a block, given the state before it.

        Args:
            batch: the batch.
            removed: the blocks left out.
            start: the first block that runs.
            state: its input; None for a whole pass.
            read: the blocks whose inputs are put into `entries`.
            entries: the inputs, by block.
        """
        with ExitStack() as stack:
            for layer in {*(range(start) if state is not None else ()), *removed}:
                stack.callback(self._blocks.__setitem__, layer, self._blocks[layer])
                self._blocks[layer] = self._stand_ins[layer]
            if state is not None and start:
                stack.enter_context(self._stand_ins[start - 1].returning(state))
            for layer in read:
                hook = self._blocks[layer].register_forward_pre_hook(_reader(layer, entries), with_kwargs=True)
                stack.callback(hook.remove)
            inputs = model_inputs(batch, input_device(self.model))
            return self.model.get_decoder()(**inputs, use_cache=False).last_hidden_state


def num_block_runs(choices: Sequence[Choice], num_layers: int, shares: bool = True) -> int:
    """Return how many blocks run, each on all tokens, where the choices share what they agree on below a block."""
    if not shares:
        return sum(num_layers - len(choice) for choice in choices)
    ordered = sorted({_kept_mask(choice, num_layers) for choice in choices})
    starts = [0, *(_first_difference(one, other) for one, other in pairwise(ordered))]
    return sum(sum(mask[start:]) for mask, start in zip(ordered, starts, strict=True))


def _kept_mask(choice: Choice, num_layers: int) -> tuple[bool, ...]:
    removed = set(choice)
    return tuple(layer not in removed for layer in range(num_layers))


def _split(one: Choice, other: Choice, num_layers: int) -> int:
    return _first_difference(_kept_mask(one, num_layers), _kept_mask(other, num_layers))


def _first_difference(one: Sequence[bool], other: Sequence[bool]) -> int:
    """Return the first block that one keeps and the other does not; of equal ones, the last block."""
    pairs = enumerate(zip(one, other, strict=True))
    return next((layer for layer, (kept, also) in pairs if kept != also), len(one) - 1)


def _descending(splits: Sequence[int]) -> list[int]:
    """Return the blocks that later choices start from with the state of this one: each lower than those before."""
    found: list[int] = []
    for layer in splits:
        if not found or layer < found[-1]:
            found.append(layer)
    return found


def _probed(num_layers: int) -> set[int]:
    """Return the blocks at which it is tried whether a pass can start there."""
    return {num_layers // 2, num_layers - 1} - {0}


def _reader(layer: int, entries: dict[int, Tensor] | None) -> object:
    def read(_: nn.Module, args: tuple, kwargs: dict) -> None:
        entries[layer] = (args[0] if args else kwargs["hidden_states"]).clone()

    return read
