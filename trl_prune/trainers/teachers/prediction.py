"""What a teacher says of a batch."""

from dataclasses import dataclass, field

from trl_prune.losses.targets import TeacherTarget
from trl_prune.trainers.intermediate_states import CapturedStates


@dataclass(frozen=True)
class Prediction:
    """A teacher's side of a batch.

    Attributes:
        target: its distributions at the learned positions, in their order.
        states: its intermediate states at the points asked for.
        shared_output: the output of the last of the blocks that it shares with the student; None where it shares none.
    """

    target: TeacherTarget
    states: CapturedStates = field(default_factory=dict)
    shared_output: object = None
