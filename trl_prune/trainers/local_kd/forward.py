"""The two forward passes of local distillation: the dense model up to the last cut, the student next to its cuts.

Both run inside the models' own forwards, which make masks and position embeddings; blocks that do not matter return a
state that is known without running.
"""

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from trl_prune.data.shared_blocks import recorded_output, returning
from trl_prune.losses.hidden_states import HIDDEN_LOSSES
from trl_prune.losses.positions import learned_positions
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.trainers.added_forward import add_forward
from trl_prune.trainers.intermediate_states import StatePoint, capture_states, comparison_norm
from trl_prune.trainers.local_kd.segments import Segment


@dataclass(frozen=True)
class DenseStates:
    """The dense model's side of a batch.

    Attributes:
        sources: what the dense block before each segment returns; None for a segment that gets the embeddings.
        targets: the state that each block of each segment is to give, `(batch, tokens, hidden_size)`.
        last: what the last dense block that ran returns.
    """

    sources: list[object]
    targets: list[list[Tensor]]
    last: object


@dataclass
class LocalOutput(ModelOutput):
    """The student's output.

    Args:
        loss (`torch.Tensor`):
            The distance of the states, summed over learned positions and averaged over trained blocks.
        label_mask (`torch.Tensor`):
            The learned positions.
    """

    loss: Tensor | None = None
    label_mask: Tensor | None = None


@torch.no_grad()
def dense_states(model: PreTrainedModel, inputs: dict, segments: Sequence[Segment]) -> DenseStates:
    """Return the states of a dense model that the student's segments get and are to give.

    Args:
        model: the dense model.
        inputs: its backbone's arguments: `input_ids`, `(batch, tokens)`, and what else it takes.
        segments: those of the student.
    """
    blocks, last = decoder_blocks(model), segments[-1].targets[-1]
    points = [[StatePoint("block", target) for target in segment.targets] for segment in segments]
    with ExitStack() as stack:
        states = stack.enter_context(capture_states(model, tuple(point for run in points for point in run)))
        sources = [
            None if segment.source is None else stack.enter_context(recorded_output(blocks[: segment.source + 1]))
            for segment in segments
        ]
        outputs = stack.enter_context(recorded_output(blocks[: last + 1]))
        stack.enter_context(returning(blocks[last + 1 :], lambda: outputs[0]))
        model.base_model(**inputs, use_cache=False)
    return DenseStates(
        [None if source is None else source[0] for source in sources],
        [[states[point] for point in run] for run in points],
        outputs[0],
    )


def next_norms(model: PreTrainedModel, segments: Sequence[Segment]) -> list[nn.Module | None]:
    """Return what a dense model does to the state of each trained block before anything else reads it.

    Some channels of the residual stream can be so large that nothing else would count in a distance of raw states; the
    next norm's weights make them small.
    """
    return [comparison_norm(model, StatePoint("block", target)) for segment in segments for target in segment.targets]


def patch_forward(
    model: PreTrainedModel, segments: Sequence[Segment], norms: Sequence[nn.Module | None], distance: str
) -> None:
    """Make `model(..., labels=labels, dense_states=DenseStates(...))` return a `LocalOutput`; other calls remain.

    Args:
        model: the student, outside any PEFT or distributed wrapper.
        segments: the blocks that run.
        norms: the norm under which each of their states is compared (`next_norms`).
        distance: a name of `HIDDEN_LOSSES`.
    """

    def local_forward(
        model: PreTrainedModel, call: functools.partial, labels: Tensor, dense: DenseStates
    ) -> LocalOutput:
        # The backbone alone: the LM head does not matter.
        backbone = functools.partial(model.base_model, *call.args, **call.keywords)
        given = _segment_states(model, backbone, segments, dense)
        return _local_output(given, dense, norms, labels, distance)

    add_forward(model, "dense_states", local_forward)


def _local_output(
    given: list[Tensor], dense: DenseStates, norms: Sequence[nn.Module | None], labels: Tensor, distance: str
) -> LocalOutput:
    """Return the distance of the states that the student's blocks give from those that they are to give."""
    learned, sums = learned_positions(labels), []
    targets = [target for run in dense.targets for target in run]
    # With a `device_map` the blocks can be on several devices.
    for state, target, norm in zip(given, targets, norms, strict=True):
        compared = [_at(states, learned, state.device) for states in (state, target)]
        if norm is not None:
            compared = [norm.to(state.device)(states.float()) for states in compared]
        sums.append(HIDDEN_LOSSES[distance](*compared).sum().to(labels.device))
    return LocalOutput(sum(sums) / len(sums), learned)


def _segment_states(
    model: PreTrainedModel, backbone: functools.partial, segments: Sequence[Segment], dense: DenseStates
) -> list[Tensor]:
    """Return the state that each block of the segments gives when its segment gets the dense model's state."""
    blocks = decoder_blocks(model)
    points = [StatePoint("block", block) for segment in segments for block in segment.blocks]
    with ExitStack() as stack:
        states = stack.enter_context(capture_states(model, tuple(points)))
        ran = 0
        # Nothing reads the state behind the last segment, so that any will do there.
        starts = [*(segment.blocks.start for segment in segments), len(blocks)]
        stops = [segment.blocks.stop for segment in segments]
        for start, stop, output in zip(starts, [*stops, len(blocks)], [*dense.sources, dense.last], strict=True):
            if skipped := blocks[ran:start]:
                weight = next(blocks[min(start, len(blocks) - 1)].parameters())
                stack.enter_context(returning(skipped, functools.partial(_like, output, weight)))
            ran = stop
        backbone(use_cache=False)
    return [states[point] for point in points]


def _at(states: Tensor, learned: Tensor, device: torch.device) -> Tensor:
    """Return the states whose next token is learned, `(N, hidden_size)`."""
    return states.to(device)[:, :-1][learned.to(device)]


def _like(output: object, weight: Tensor) -> object:
    """Return what a block of the dense model returns as a block of the student would: on its device, in its dtype."""

    def moved(value: object) -> object:
        is_state = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(weight.device, weight.dtype) if is_state else value

    return tuple(map(moved, output)) if isinstance(output, tuple) else moved(output)
