"""Which blocks of teacher and student are compared."""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from trl_prune.checkpoints import Provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import LAYERS
from trl_prune.trainers.intermediate_states import StatePoint


# The pair that arXiv 2407.14679 found best: both models' last block but two (table 17).
FROM_THE_END = 3
# Where as large a share of the blocks is gone, embeddings and block outputs help (section 3 there; the share is ours).
DEEP_CUT = 0.25


@dataclass(frozen=True)
class Pairs:
    """The points that are compared, the student's and the teacher's in the same order."""

    student: tuple[StatePoint, ...] = ()
    teacher: tuple[StatePoint, ...] = ()


def states_to_compare(told: list[str] | str, student_blocks: int, teacher_blocks: int) -> list[str]:
    """Return which intermediate states `hidden_loss` asks for."""
    if told == "none":
        return []
    if told != "auto":
        return list(told)
    return ["embedding", "block"] if student_blocks <= (1 - DEEP_CUT) * teacher_blocks else []


def pairs_to_compare(
    hidden_loss: list[str] | str,
    layer_map: dict | str,
    student: PreTrainedConfig,
    teacher: PreTrainedConfig,
    provenance: Provenance | None,
) -> Pairs:
    """Return the points that are compared, none where no state is.

    Raises:
        InputError: a map out of range, or one that needs a provenance that is not there.
    """
    counts = [config.get_text_config().num_hidden_layers for config in (student, teacher)]
    states = states_to_compare(hidden_loss, *counts)
    return points_to_compare(states, block_pairs(layer_map, *counts, provenance)) if states else Pairs()


def block_pairs(
    told: dict | str, student_blocks: int, teacher_blocks: int, provenance: Provenance | None
) -> dict[int, int]:
    """Return the teacher's block for each of the student's that is compared.

    Raises:
        InputError: a map out of range, or one that needs a provenance that is not there.
    """
    origins = _origins(student_blocks, teacher_blocks, provenance)
    if told == "origins":
        if origins is None:
            raise InputError("layer_map is 'origins', but the student has no provenance whose `keep` fits both models")
        return dict(enumerate(origins))
    if told == "auto":
        block, theirs = (max(count - FROM_THE_END, 0) for count in (student_blocks, teacher_blocks))
        return {block: theirs if origins is None or _is_untouched(block, origins, provenance) else origins[block]}
    return _checked(told, student_blocks, teacher_blocks)


def _origins(student_blocks: int, teacher_blocks: int, provenance: Provenance | None) -> list[int] | None:
    if provenance is None:
        return None
    kept = provenance.keep.get(LAYERS, list(range(student_blocks)))
    return kept if len(kept) == student_blocks and max(kept) < teacher_blocks else None


def _is_untouched(block: int, origins: list[int], provenance: Provenance) -> bool:
    """Say whether nothing was cut or changed up to a block, which then says what its origin says."""
    prefix = origins[: block + 1] == list(range(block + 1))
    return prefix and not provenance.edits and provenance.keep.keys() <= {LAYERS}


def _checked(told: dict, student_blocks: int, teacher_blocks: int) -> dict[int, int]:
    try:
        pairs = {int(student): int(teacher) for student, teacher in told.items()}
    except (TypeError, ValueError) as error:
        raise InputError(f"layer_map is {told!r}; wanted: student's block -> teacher's block, two numbers") from error
    for blocks, count, whose in ((pairs, student_blocks, "student"), (pairs.values(), teacher_blocks, "teacher")):
        wrong = [block for block in blocks if not 0 <= block < count]
        if wrong:
            raise InputError(f"layer_map names block {wrong[0]} of the {whose}, which has blocks 0 to {count - 1}")
    if not pairs:
        raise InputError("layer_map is empty; wanted: at least one pair of blocks")
    return pairs


def points_to_compare(states: list[str], pairs: dict[int, int]) -> Pairs:
    """Return the points at which states are read."""
    student, teacher = [], []
    for state in states:
        for ours, theirs in {0: 0}.items() if state == "embedding" else pairs.items():
            student.append(StatePoint(state, ours))
            teacher.append(StatePoint(state, theirs))
    return Pairs(tuple(student), tuple(teacher))
