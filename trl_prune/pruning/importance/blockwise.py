"""The scores of all axes with one decoder block in memory: every calibration text goes through a block, then the next.

The states between blocks are kept, in memory those of the current block and on disk the scored positions of every
block, for the distances between all pairs of them. The sums equal those of a model in memory bit for bit, because each
slice of texts meets the same operations in the same order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trl_prune.checkpoints import atomic_folder
from trl_prune.pruning.importance.forward import Batch, attached, counted_positions, max_rows, model_inputs, row_slices
from trl_prune.pruning.importance.layers import LayerObserver, scored_positions
from trl_prune.pruning.importance.one_block import OneBlockModel
from trl_prune.pruning.importance.scores import Scores, unit_observers


SUMS, STATES, SCORED = "sums.safetensors", "states.safetensors", "scored.safetensors"
NUM_OUTPUTS = "num_outputs"


def score_by_blocks(  # noqa: PLR0913
    source: OneBlockModel,
    batches: Sequence[Batch],
    tokens: str,
    scores: Scores,
    folder: Path,
    after_block: Callable[[], None] = lambda: None,
) -> Scores:
    """Return the scores of every axis, as `score` does for a model in memory.

    Args:
        source: the model.
        batches: dicts with `input_ids` and `attention_mask`, each `(rows, tokens)`.
        tokens: the positions that block distances are measured at, `all` or `last`.
        scores: empty scores of this model.
        folder: where the states are kept, from which an interrupted pass resumes; the caller removes it.
        after_block: called after each block.

    Raises:
        InputError: blocks of the model cannot run one by one.
    """
    device = torch.device(source.device)
    slices = [rows for batch in batches for rows in row_slices(batch, max_rows(source.model, batch, device))]
    store = _Store(folder)
    states = store.resume(scores, source)
    if not states:
        states = [None] * len(slices)
    for layer in range(store.finished, len(source)):
        with source.loaded(layer):
            inputs = _run_block(source, layer, slices, states, scores)
        if layer == 0:
            store.keep_embeddings(_scored(inputs, slices, tokens))
        store.finish(layer, states, _scored(states, slices, tokens), scores, source)
        after_block()
    _add_distances(LayerObserver(scores.layers, tokens), slices, store, device)
    scores.num_texts = sum(int(counted_positions(batch).any(dim=1).sum()) for batch in batches)
    scores.layers.num_batches = len(batches)
    return scores


@torch.inference_mode()
def _run_block(
    source: OneBlockModel, layer: int, slices: Sequence[Batch], states: list[Tensor | None], scores: Scores
) -> list[Tensor]:
    """Run all slices through the loaded block, replace their states by its outputs, and return its inputs."""
    observers, inputs = unit_observers(source.model, scores), []
    with attached(source.model, observers):
        for index, rows in enumerate(slices):
            batch = model_inputs(rows, source.device)
            for observer in observers:
                observer.before_forward(counted_positions(rows).to(source.device))
            given = None if states[index] is None else states[index].to(source.device)
            given, output = source.run(layer, batch, given)
            inputs.append(given.cpu() if layer == 0 else None)  # those of later blocks are outputs
            states[index] = output.cpu()
    return inputs


def _scored(states: Sequence[Tensor], slices: Sequence[Batch], tokens: str) -> list[Tensor]:
    """Return the states at the scored positions of each slice, `(positions, hidden_size)`, row after row."""
    pairs = zip(states, slices, strict=True)
    return [state[scored_positions(counted_positions(rows), tokens)] for state, rows in pairs]


@torch.inference_mode()
def _add_distances(observer: LayerObserver, slices: Sequence[Batch], store: "_Store", device: torch.device) -> None:
    """Add the distances between the stored states of every two blocks."""
    for index, rows in enumerate(slices):
        states = [state.to(device) for state in store.scored(index)]
        observer.before_forward(counted_positions(rows).to(device))
        observer.add(states)


@dataclass
class _Store:
    """The states and sums of a pass, in a folder for each finished block.

    Attributes:
        folder: where they are.
        finished: the number of finished blocks.
    """

    folder: Path
    finished: int = 0

    def resume(self, scores: Scores, source: OneBlockModel) -> list[Tensor]:
        """Read the sums of an interrupted pass into the scores, and return the states after its last block."""
        while self._block(self.finished).is_dir():
            self.finished += 1
        if not self.finished:
            return []
        last = self._block(self.finished - 1)
        stored = Scores.load(last / SUMS)
        scores.channels, scores.experts = stored.channels, stored.experts
        tensors = load_file(last / STATES)
        source.num_outputs = dict(enumerate(tensors.pop(NUM_OUTPUTS).tolist()))
        return [tensors[str(index)] for index in range(len(tensors))]

    def finish(
        self, layer: int, states: list[Tensor], scored: list[Tensor], scores: Scores, source: OneBlockModel
    ) -> None:
        """Store what a block left, and remove what only the block before needed."""
        forms = torch.tensor([source.num_outputs[index] for index in range(layer + 1)])
        with atomic_folder(self._block(layer)) as part:
            save_file(_numbered(scored), part / SCORED)
            save_file(_numbered(states) | {NUM_OUTPUTS: forms}, part / STATES)
            scores.save(part / SUMS)
        self.finished = layer + 1
        for name in (STATES, SUMS):
            (self._block(layer - 1) / name).unlink(missing_ok=True)

    def keep_embeddings(self, scored: list[Tensor]) -> None:
        """Store the scored positions of the stream's first state."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_file(_numbered(scored), self._scored_path(0))

    def scored(self, index: int) -> list[Tensor]:
        """Return the states before the first and after every block of a slice, at its scored positions."""
        states = []
        for state in range(self.finished + 1):
            with safe_open(self._scored_path(state), "pt") as file:
                states.append(file.get_tensor(str(index)))
        return states

    def _block(self, layer: int) -> Path:
        return self.folder / str(layer)

    def _scored_path(self, state: int) -> Path:
        return self._block(state - 1) / SCORED if state else self.folder / "embeddings.safetensors"


def _numbered(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {str(index): tensor.contiguous() for index, tensor in enumerate(tensors)}
