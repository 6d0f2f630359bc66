"""Which blocks of teacher and student are compared."""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from trl_prune.checkpoints import Provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import LAYERS
from trl_prune.trainers.intermediate_states import StatePoint


# The best pair of arXiv 2407.14679: both models' last block but two (table 17).
FROM_THE_END = 3
# With at least this share of blocks removed, comparing embeddings and block outputs helps (section 3 of that paper,
# which gives no share).
DEEP_PRUNING = 0.25


@dataclass(frozen=True)
class StatePairs:
    """The points whose states are compared, the student's and the teacher's in the same order."""

    student: tuple[StatePoint, ...] = ()
    teacher: tuple[StatePoint, ...] = ()


def compared_states(hidden_loss: list[str] | str, student_blocks: int, teacher_blocks: int) -> list[str]:
    """Return the names of the intermediate states that `hidden_loss` selects."""
    if hidden_loss == "none":
        return []
    if hidden_loss != "auto":
        return list(hidden_loss)
    return ["embedding", "block"] if student_blocks <= (1 - DEEP_PRUNING) * teacher_blocks else []


def state_pairs(
    hidden_loss: list[str] | str,
    layer_map: dict | str,
    student: PreTrainedConfig,
    teacher: PreTrainedConfig,
    provenance: Provenance | None,
) -> StatePairs:
    """Return the points whose states are compared; none if `hidden_loss` selects no state.

    Raises:
        InputError: a layer map out of range, or one that needs a provenance that the student does not have.
    """
    counts = [config.get_text_config().num_hidden_layers for config in (student, teacher)]
    states = compared_states(hidden_loss, *counts)
    return points_of_blocks(states, block_pairs(layer_map, *counts, provenance)) if states else StatePairs()


def block_pairs(
    layer_map: dict | str, student_blocks: int, teacher_blocks: int, provenance: Provenance | None
) -> dict[int, int]:
    """Return the teacher's block for each block of the student that is compared.

    Raises:
        InputError: a layer map out of range, or one that needs a provenance that the student does not have.
    """
    origins = _original_blocks(student_blocks, teacher_blocks, provenance)
    if layer_map == "origins":
        if origins is None:
            raise InputError("layer_map is 'origins', but the student has no provenance whose `keep` fits both models")
        return dict(enumerate(origins))
    if layer_map == "auto":
        block, teacher_block = (max(count - FROM_THE_END, 0) for count in (student_blocks, teacher_blocks))
        if origins is not None and not _is_unchanged_until(block, origins, provenance):
            teacher_block = origins[block]
        return {block: teacher_block}
    return _parse_map(layer_map, student_blocks, teacher_blocks)


def _original_blocks(student_blocks: int, teacher_blocks: int, provenance: Provenance | None) -> list[int] | None:
    """Return the dense index of each of the student's blocks, None where it is unknown."""
    if provenance is None:
        return None
    kept = provenance.keep.get(LAYERS, list(range(student_blocks)))
    return kept if len(kept) == student_blocks and max(kept) < teacher_blocks else None


def _is_unchanged_until(block: int, origins: list[int], provenance: Provenance) -> bool:
    """Return whether nothing was removed or edited up to a block, whose output then equals its original's."""
    first_blocks = origins[: block + 1] == list(range(block + 1))
    return first_blocks and not provenance.edits and provenance.keep.keys() <= {LAYERS}


def _parse_map(layer_map: dict, student_blocks: int, teacher_blocks: int) -> dict[int, int]:
    try:
        pairs = {int(student): int(teacher) for student, teacher in layer_map.items()}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"layer_map is {layer_map!r}; wanted: student's block -> teacher's block, two numbers"
        ) from error
    for blocks, count, model in ((pairs, student_blocks, "student"), (pairs.values(), teacher_blocks, "teacher")):
        invalid = [block for block in blocks if not 0 <= block < count]
        if invalid:
            raise InputError(f"layer_map names block {invalid[0]} of the {model}, which has blocks 0 to {count - 1}")
    if not pairs:
        raise InputError("layer_map is empty; wanted: at least one pair of blocks")
    return pairs


def points_of_blocks(states: list[str], blocks: dict[int, int]) -> StatePairs:
    """Return the points of states in pairs of blocks; embeddings are compared once, whatever the blocks."""
    pairs = [
        (StatePoint(state, student), StatePoint(state, teacher))
        for state in states
        for student, teacher in ({0: 0} if state == "embedding" else blocks).items()
    ]
    return StatePairs(tuple(student for student, _ in pairs), tuple(teacher for _, teacher in pairs))
