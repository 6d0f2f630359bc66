"""What repairs learn from: the dense model at work on calibration texts, seen through hooks in one or a few passes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


Batch = dict[str, Tensor]
See = Callable[[Tensor], None]
Attach = Callable[[nn.Module, See], torch.utils.hooks.RemovableHandle]
GIB = 2**30


@dataclass
class Moments:
    """Running sums over positions: count, sum and second moments, float64.

    Products are taken in float32 (float64 where the activations are), one batch at a time, and summed in float64, so
    that neither the order nor the split of the batches matters beyond float32 rounding.

    Attributes:
        gram: sum of `x x^T`, `(features, features)`.
        total: sum of `x`, `(features,)`.
        count: how many positions.
    """

    gram: Tensor
    total: Tensor
    count: int = 0

    @classmethod
    def empty(cls, features: int, device: torch.device) -> "Moments":
        """Return sums over nothing."""
        zeros = torch.zeros(features + 1, features, dtype=torch.float64, device=device)
        return cls(zeros[1:], zeros[0])

    def add(self, rows: Tensor) -> None:
        """Add positions, `(positions, features)`."""
        rows = rows if rows.dtype == torch.float64 else rows.float()
        self.gram += rows.mT @ rows
        self.total += rows.sum(dim=0, dtype=torch.float64)
        self.count += len(rows)

    def second(self, centred: bool = False) -> Tensor:
        """Return the mean of `x x^T`, or the covariance."""
        mean = self.total / self.count
        return self.gram / self.count - (torch.outer(mean, mean) if centred else 0)


@dataclass
class Calibration:
    """The dense model and the texts that repairs are fitted on.

    Attributes:
        load: returns the dense model, in eval mode; called once, and only where a repair needs it.
        batches: dicts with `input_ids` and `attention_mask`, each `(batch, tokens)`.
        scratch: a folder for what was fitted, so that a broken pass goes on; of one model and one set of batches.
        head_scores: importance of every query head, `(layers, heads)`, for merging heads.
        memory_bytes: the sums held at once; where they do not fit, the texts are passed several times.
        progress: wraps the batches of each pass, to show how far it is.
    """

    load: Callable[[], PreTrainedModel]
    batches: Sequence[Batch]
    scratch: Path
    head_scores: Tensor | None = None
    memory_bytes: int = 4 * GIB
    progress: Callable[[Iterable[Batch]], Iterable[Batch]] = field(default=iter)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The dense model."""
        return self.load()

    @property
    def tokens(self) -> int:
        """How many positions the batches have that are no padding."""
        return sum(int(batch["attention_mask"].sum()) for batch in self.batches)

    def module(self, name: str) -> nn.Module:
        """Return the module that a tensor's name in a checkpoint belongs to."""
        name = name.rpartition(".")[0]
        # Some checkpoints were saved from the bare backbone and lack its name in front.
        for prefix in ("", f"{self.model.base_model_prefix}."):
            try:
                return self.model.get_submodule(prefix + name)
            except AttributeError:
                continue
        raise KeyError(name)

    def input_moments(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, Moments]]:
        """Yield the moments of the inputs of linear maps, group by group within the memory budget.

        Args:
            sizes: the length of each map's input, by its weight's name.
        """
        for names in _groups(sizes, self.memory_bytes):
            seen = {name: Moments.empty(sizes[name], self.module(name).weight.device) for name in names}
            self.watch_inputs({name: (lambda rows, name=name: seen[name].add(rows)) for name in names})
            while seen:
                yield seen.popitem()

    def watch_inputs(self, watchers: Mapping[str, See]) -> None:
        """Run the texts, handing each named module's inputs, `(positions, features)`, to its watcher."""
        hooks = [(self.module(name), on_input, watcher) for name, watcher in watchers.items()]
        self.run(hooks)

    @torch.inference_mode()
    def run(self, hooks: Iterable[tuple[nn.Module, Attach, See]]) -> None:
        """Run the texts through the backbone; the head never runs, and padding is never seen."""
        decoder, mask = self.model.get_decoder(), {}
        with _attached(hooks, mask):
            for batch in self.progress(self.batches):
                inputs = {name: tensor.to(self.model.device) for name, tensor in batch.items()}
                mask["kept"] = inputs["attention_mask"].flatten().bool()
                decoder(**inputs, use_cache=False)


def _groups(sizes: Mapping[str, int], memory_bytes: int) -> list[list[str]]:
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        needed = 8 * size * (size + 1)
        if not groups or needed > room:
            groups.append([])
            room = memory_bytes
        groups[-1].append(name)
        room -= needed
    return groups


def on_input(module: nn.Module, see: See) -> torch.utils.hooks.RemovableHandle:
    """Hand a module's inputs on."""
    return module.register_forward_pre_hook(
        lambda _, args, kwargs: see(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )


def on_output(module: nn.Module, see: See) -> torch.utils.hooks.RemovableHandle:
    """Hand a module's outputs on."""
    return module.register_forward_hook(lambda _, __, output: see(output if isinstance(output, Tensor) else output[0]))


@contextmanager
def _attached(hooks: Iterable[tuple[nn.Module, Attach, See]], mask: dict[str, Tensor]) -> Iterator[None]:
    def positions(see: See) -> See:
        def told(states: Tensor) -> None:
            rows = states.flatten(0, -2)
            see(rows[mask["kept"].to(rows.device)])

        return told

    handles = [attach(module, positions(see)) for module, attach, see in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
