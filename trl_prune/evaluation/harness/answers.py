"""A model's answers to lm-eval's requests on disk, by what was asked, so that nothing is asked twice."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO


# A log-likelihood and whether the text is the greedy one; a log-likelihood; a generated text.
Answer = list | float | str


def request_key(kind: str, arguments: Sequence, draw: Sequence | None = None) -> str:
    """Return a hash of what is asked.

    Args:
        kind: the method of lm-eval's model, such as `loglikelihood`.
        arguments: the request's arguments: texts, and the settings of a generation.
        draw: of a sampled answer, what tells it from other samples of the same prompt.
    """
    asked = [kind, *arguments, *_own_types(arguments)] + ([] if draw is None else [list(draw)])
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _own_types(arguments: Sequence) -> list[str]:
    """Return the types of texts that are more than texts: a task may have one that lm-eval splits differently."""
    return [type(text).__name__ for text in arguments if isinstance(text, str) and type(text) is not str]


class Answers:
    """The answers of one model, as it is loaded and prompted, by the hash of what was asked (`request_key`).

    Each is written as soon as it is there, so that a killed evaluation loses a batch at most. lm-eval's own cache
    (`use_cache`) is not used: its keys do not say which model answered.

    Args:
        path: a JSONL file, which is created by the first answer; None keeps the answers in memory only.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self._answers: dict[str, Answer] = {}
        self._stream: IO[str] | None = None
        if path is not None and path.is_file():
            self._answers.update(_read(path))

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, key: str, answer: Answer) -> None:
        """Store an answer."""
        self._answers[key] = answer
        if self.path is not None:
            self._stream = self._stream or self._open()
            self._stream.write(json.dumps({"key": key, "answer": answer}) + "\n")

    def _open(self) -> IO[str]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stream = self.path.open("a", encoding="utf-8", buffering=1)  # each line is written at once
        if stream.tell() > 0:
            stream.write("\n")  # ends the line that a kill may have torn
        return stream

    def close(self) -> None:
        """Close the file; the next answer opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _read(path: Path) -> Iterator[tuple[str, Answer]]:
    with path.open("rb") as lines:
        for line in lines:
            try:
                fields = json.loads(line)
                yield fields["key"], fields["answer"]
            except (ValueError, KeyError, TypeError):  # empty or torn
                continue
