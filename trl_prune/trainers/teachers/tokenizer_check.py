"""Check that teacher and student encode text as the same ids."""

import logging
from collections.abc import Mapping

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from trl_prune.errors import InputError
from trl_prune.trainers.teachers.source import TeacherSource


logger = logging.getLogger(__name__)
# Texts that similar but different tokenizers encode differently.
PROBES = (
    "The teacher's answer, in 2024, was 1,234.5 (about 12 %).",
    "def f(x):\n    return x  # tabs\tand   spaces\n",
    "naïve café, 東京, Привет, 🙂 e\u0301",
)


def check_tokenizers(
    teacher: TeacherSource, student: PreTrainedConfig, student_tokenizer: PreTrainedTokenizerBase
) -> None:
    """Check that ids mean the same to both models, by encoding a few texts with both tokenizers.

    Raises:
        InputError: they do not, or the vocabularies differ in size and the teacher has no tokenizer to compare.
    """
    teacher_tokenizer = teacher.load_tokenizer()
    student_size, teacher_size = (config.get_text_config().vocab_size for config in (student, teacher.config))
    if teacher_tokenizer is not None:
        check_encodings({"teacher": teacher_tokenizer, "student": student_tokenizer})
    elif student_size == teacher_size:
        logger.warning(
            "The teacher in memory has no tokenizer: whether its ids mean the same as the student's is not checked"
        )
    else:
        raise InputError(
            f"the teacher's vocabulary has {teacher_size} ids and the student's {student_size}, and the teacher in "
            "memory has no tokenizer to compare; give `teacher_model` as a folder or hub id"
        )
    if student_size != teacher_size:
        logger.warning(
            "The student's vocabulary has %d ids, the teacher's %d, and their tokenizers encode alike: the divergence "
            "is taken over the %d shared ids, with the teacher's mass renormalised.",
            student_size,
            teacher_size,
            min(student_size, teacher_size),
        )


def check_encodings(tokenizers: Mapping[str, PreTrainedTokenizerBase]) -> None:
    """Check that two models' tokenizers encode a few texts alike.

    Args:
        tokenizers: of the larger and of the smaller model, by what the error calls the model.

    Raises:
        InputError: they do not.
    """
    (one, teacher), (other, student) = tokenizers.items()
    special_tokens = "".join(token for token in teacher.all_special_tokens if token in student.get_vocab())
    for text in (*PROBES, special_tokens):
        teacher_ids, student_ids = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in (teacher, student)
        )
        if student_ids != teacher_ids:
            raise InputError(
                f"the {one}'s tokenizer differs from the {other}'s: it encodes {text!r} as {teacher_ids[:8]}..., "
                f"the {other}'s as {student_ids[:8]}...; ids are compared, so both must be the same"
            )
