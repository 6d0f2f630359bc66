"""What generates the texts of a stage: the dense model, with the answers kept in the stage's folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from trl_prune.data.generation.engines import build_engine
from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.sharing import ProcessShare
from trl_prune.runs.context import Run


ANSWERS = "answers"


def answer_generator(
    run: Run, engine: str, engine_kwargs: Mapping[str, object], folder: Path, share: ProcessShare
) -> AnswerGenerator:
    """Return what generates one process's share of a stage's texts.

    Args:
        run: the run, whose teacher generates.
        engine: the engine's name.
        engine_kwargs: its arguments.
        folder: the stage's folder.
        share: the batches that this process generates.
    """
    teacher = replace(run.teacher, fingerprint=f"{run.teacher_fingerprint} {run.dtype}")
    return AnswerGenerator(
        build_engine(engine, teacher, engine_kwargs), run.teacher.tokenizer, folder / ANSWERS, share
    )
