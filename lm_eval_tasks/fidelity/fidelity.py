"""Hold a model against the dense model's own answers, which a JSON Lines file has with their log-probabilities."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask


# Names the file where lm-eval gets no `--metadata '{"fidelity_file": "..."}'`.
VARIABLE = "FIDELITY_FILE"


class Context(str):
    """A context that keeps the white space at its end, which lm-eval counts to the answer.

    A chat template ends in a line break; a model that was trained on answers alone need not expect it.
    """

    __slots__ = ()

    def rstrip(self, chars: str | None = None, /) -> str:  # noqa: ARG002
        """Return the whole context."""
        return self


class FidelityTask(ConfigurableTask):
    """A task of the contexts in the file, which no chat template or few-shot example changes."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Build the task from its YAML, of which lm-eval's base class does not take `class`."""
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def fewshot_context(self, doc: dict[str, Any], *_args: object, **_kwargs: object) -> str:
        """Return the context that the dense model answered."""
        return doc["context"]

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """Ask for the dense model's answer and, where a greedy one is right, for its final answer behind its words."""
        answer = self.doc_to_target(doc)
        pairs = [(Context(ctx), answer)]
        if doc.get("right_answer") is not None:
            pairs.append((Context(ctx + doc["before_reference"]), doc["right_answer"]))
        metadata = kwargs["metadata"]
        return [
            Instance("loglikelihood", doc=doc, arguments=pair, idx=index, metadata=metadata)
            for index, pair in enumerate(pairs)
        ]


def sampled(fidelity_file: str | None = None, file: str | None = None, **_: object) -> dict[str, Dataset]:
    """Return the sampled answers."""
    keys = ("context", "sampled", "sampled_log_prob", "sampled_tokens")
    return _split([{key: row[key] for key in keys} for row in _rows(fidelity_file or file)])


def greedy(fidelity_file: str | None = None, file: str | None = None, **_: object) -> dict[str, Dataset]:
    """Return the greedy answers that lm-eval calls the dense model's greedy ones, with the right answer in them.

    A text can read back as other tokens than those that were generated, which are then not the likeliest ones.
    """
    keys = ("context", "greedy", "before_reference", "right_answer")
    rows = [row for row in _rows(fidelity_file or file) if row["greedy_is_own"]]
    return _split([{key: row[key] for key in keys} for row in rows])


def divergence(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Return the estimate of KL(dense || model), in nats, per token of the answer and for the whole answer."""
    ((log_prob, _is_greedy),) = results
    difference = doc["sampled_log_prob"] - log_prob
    return {"sampled_kl": difference / doc["sampled_tokens"], "sampled_kl_answer": difference}


def agreement(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:  # noqa: ARG001
    """Return whether the model's greedy answer is the dense one's and, of right ones, whether the model loses it.

    `answer_flips` is there for right answers only: 1 if the model, after the dense model's words up to its final
    answer, does not go on with it.
    """
    (_log_prob, is_greedy), *right = results
    flips = {"answer_flips": float(not right[0][1])} if right else {}
    return {"agreement": float(is_greedy), **flips}


def _split(docs: list[dict[str, Any]]) -> dict[str, Dataset]:
    if not docs:
        raise ValueError("the file of the dense model's answers has none that this fidelity task can use")
    return {"test": Dataset.from_list(docs)}


def _rows(file: str | None) -> list[dict[str, Any]]:
    name = file or os.environ.get(VARIABLE, "")
    if not Path(name).is_file():
        raise FileNotFoundError(
            f"the fidelity tasks need a file of the dense model's answers, but {name or 'none'} is given; name it as "
            f'--metadata \'{{"fidelity_file": "..."}}\' or in {VARIABLE}'
        )
    with Path(name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]
