"""Forward passes of a model without some of its blocks, for many choices of blocks that share their first ones.

Two choices that agree below a block give it the same input. So choices are run in an order in which those that agree
longest are neighbours, and each starts from the state that it shares with the one before; only those states are held
that a later choice starts from, at most one for each block.

Where something is computed in the place of removed blocks (`repairs.run_maps`), the block before them computes it.
Then two choices share what comes before the last block that both keep below their first difference.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.pruning.choosing.removal import Choice
from trl_prune.pruning.importance.forward import Batch, input_device, model_inputs
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.importance.one_block import shared_between_blocks
from trl_prune.pruning.importance.skipped_layers import IdentityBlock


# A context in which the kept blocks before removed ones compute what is in the place of these.
InPlaceOf = Callable[[Choice], AbstractContextManager]
# How far, as a share of the largest state, a pass that starts from a state may be from a whole one: some kernels on
# GPUs sum in varying order.
TOLERANCE = 1e-3


class SharedRuns:
    """Runs a model without some of its blocks, up to the LM head.

    Attributes:
        model: the model, in eval mode. Whether its blocks can start from a state is tried on the first batch.
        in_place_of: what is computed in the place of removed blocks; None for a plain cut.
    """

    def __init__(self, model: PreTrainedModel, in_place_of: InPlaceOf | None = None) -> None:
        self.model, self.in_place_of = model, in_place_of
        self._blocks, self._head = decoder_blocks(model), model.get_output_embeddings()
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

    @torch.inference_mode()
    def logits(self, states: Tensor) -> Tensor:
        """Return the logits, `(positions, vocabulary)`, for inputs of the LM head, `(positions, hidden_size)`.

        They go through the model's own forward pass, which scales and caps logits where the family does.
        """
        token = torch.zeros(1, 1, dtype=torch.long, device=input_device(self.model))
        with ExitStack() as stack:
            self._replace(range(len(self)), stack)
            hook = self._head.register_forward_pre_hook(lambda *_: ((states[None],), {}), with_kwargs=True)
            stack.callback(hook.remove)
            return self.model(input_ids=token, use_cache=False).logits.flatten(0, -2)

    def shares(self, batch: Batch) -> bool:
        """Return whether a pass that starts from the state before a block is the whole pass; tried once, on a row.

        It is not where blocks hand on more than their states, such as keys and values (Gemma 3n) or a router's state.
        """
        if self._shares is None:
            row = {name: tensor[:1] for name, tensor in batch.items()}
            hands_on = shared_between_blocks(self.model.config) or any(map(_takes_more, self._blocks))
            self._shares = not hands_on and all(self._starts_from(row, layer) for layer in _probed(len(self)))
        return self._shares

    @torch.inference_mode()
    def _starts_from(self, batch: Batch, layer: int) -> bool:
        entries: dict[int, Tensor] = {}
        whole = self._run(batch, (), read=(layer,), entries=entries)
        again = self._run(batch, (), start=layer, state=entries[layer])
        return bool((whole - again).abs().max() <= TOLERANCE * whole.abs().max())

    def _shared(self, batch: Batch, choices: Sequence[Choice]) -> Iterator[tuple[int, Tensor]]:
        order = sorted(range(len(choices)), key=lambda index: _kept_mask(choices[index], len(self)))
        masks = [_kept_mask(choices[index], len(self)) for index in order]
        splits = [_split(one, other, self.in_place_of is not None) for one, other in pairwise(masks)]
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
        reached: list[Tensor] = []

        def stop(_: nn.Module, args: tuple, kwargs: dict) -> None:
            reached.append(args[0] if args else kwargs["input"])
            raise _HeadReached

        with ExitStack() as stack:
            self._replace({*(range(start) if state is not None else ()), *removed}, stack)
            stack.enter_context(self.in_place_of(removed) if self.in_place_of else nullcontext())
            if state is not None and start:
                stack.enter_context(self._stand_ins[start - 1].returning(state))
            for layer in read:
                hook = self._blocks[layer].register_forward_pre_hook(_reader(layer, entries), with_kwargs=True)
                stack.callback(hook.remove)
            stack.callback(self._head.register_forward_pre_hook(stop, with_kwargs=True).remove)
            stack.enter_context(suppress(_HeadReached))
            self.model(**model_inputs(batch, input_device(self.model)), use_cache=False)
        return reached[0].view(*batch["input_ids"].shape, -1)

    def _replace(self, layers: Iterable[int], stack: ExitStack) -> None:
        """Put stand-ins in place of blocks until the stack is left."""
        for layer in layers:
            stack.callback(self._blocks.__setitem__, layer, self._blocks[layer])
            self._blocks[layer] = self._stand_ins[layer]


class _HeadReached(Exception):
    """Ends a forward pass before the LM head."""


def num_block_runs(choices: Sequence[Choice], num_layers: int, shares: bool = True, replaced: bool = False) -> int:
    """Return how many blocks run, each on all tokens, where the choices share what they agree on below a block.

    Args:
        choices: the removed blocks of each.
        num_layers: the number of blocks.
        shares: whether passes can start from a state.
        replaced: whether something is computed in the place of removed blocks.
    """
    if not shares:
        return sum(num_layers - len(choice) for choice in choices)
    ordered = sorted({_kept_mask(choice, num_layers) for choice in choices})
    starts = [0, *(_split(one, other, replaced) for one, other in pairwise(ordered))]
    return sum(sum(mask[start:]) for mask, start in zip(ordered, starts, strict=True))


def _kept_mask(choice: Choice, num_layers: int) -> tuple[bool, ...]:
    removed = set(choice)
    return tuple(layer not in removed for layer in range(num_layers))


def _split(one: Sequence[bool], other: Sequence[bool], replaced: bool) -> int:
    """Return the block from which on two choices, given by what they keep, no longer compute the same.

    That is the first block that one keeps and the other does not, or, where something is computed in the place of
    removed blocks, the last kept one below it; of equal choices, the last block.
    """
    pairs = enumerate(zip(one, other, strict=True))
    first = next((layer for layer, (kept, also) in pairs if kept != also), len(one) - 1)
    return next((layer for layer in reversed(range(first)) if one[layer]), 0) if replaced else first


def _descending(splits: Sequence[int]) -> list[int]:
    """Return the blocks that later choices start from with the state of this one: each lower than those before."""
    found: list[int] = []
    for layer in splits:
        if not found or layer < found[-1]:
            found.append(layer)
    return found


def _takes_more(block: nn.Module) -> bool:
    """Return whether a block takes what the one before computed besides its states (Zaya's router)."""
    return any(name.startswith("prev_") for name in inspect.signature(block.forward).parameters)


def _probed(num_layers: int) -> set[int]:
    """Return the blocks at which it is tried whether a pass can start there."""
    return {num_layers // 2, num_layers - 1} - {0}


def _reader(layer: int, entries: dict[int, Tensor] | None) -> object:
    def read(_: nn.Module, args: tuple, kwargs: dict) -> None:
        entries[layer] = (args[0] if args else kwargs["hidden_states"]).clone()

    return read
