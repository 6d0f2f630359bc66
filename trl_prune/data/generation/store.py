"""Generated answers on disk: small JSONL files in one folder, one for each group of answers that was finished."""

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from trl_prune.checkpoints import write_text
from trl_prune.data.generation.prompts import Prompt
from trl_prune.data.generation.sampling import Answer, Sampling


def answer_key(prompt: Prompt, sampling: Sampling, fingerprint: str) -> str:
    """Return a hash of whatever determines an answer: prompt, model, length limit, and how it is sampled.

    Batch size and expected length do not; seed and sample only at a temperature above 0.
    """
    determined_by = [
        prompt.ids,
        prompt.tools or None,
        prompt.chat_template_kwargs or None,
        fingerprint,
        sampling.max_new_tokens,
        float(sampling.temperature),
        [sampling.seed, prompt.sample] if sampling.temperature > 0 else None,
    ]
    return hashlib.sha256(json.dumps(determined_by, sort_keys=True).encode()).hexdigest()


def answer_seed(prompt: Prompt, sampling: Sampling, fingerprint: str) -> int:
    """Return the seed of one answer, below 2^31: its own, so that it does not depend on what else is generated."""
    return int(answer_key(prompt, sampling, fingerprint)[:8], 16) >> 1


class AnswerStore:
    """Answers by their keys.

    Several processes and runs may share one folder: files are written atomically, and equal keys mean equal answers.

    Args:
        folder: where the files are; created by the first write.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._answers: dict[str, Answer] = {}
        self._files_read: set[str] = set()

    def read(self, keys: Collection[str]) -> dict[str, Answer]:
        """Return the stored answers of these keys; lines and files of other content are skipped.

        A file is read once: it is complete when it appears, and never changes.
        """
        for path in sorted(self.folder.glob("*.jsonl")):
            if path.name not in self._files_read:
                self._answers.update(_read_file(path))
                self._files_read.add(path.name)
        return {key: self._answers[key] for key in keys if key in self._answers}

    def write(self, answers: dict[str, Answer]) -> None:
        """Store a group of answers durably."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256("".join(sorted(answers)).encode()).hexdigest()[:24]
        lines = [json.dumps({"key": key} | vars(answer)) for key, answer in answers.items()]
        write_text(self.folder / f"{name}.jsonl", "\n".join(lines) + "\n")
        self._answers.update(answers)  # the file may have the name of a torn one that was read


def _read_file(path: Path) -> Iterator[tuple[str, Answer]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:  # a folder, or a file that another process removed
        return
    for line in lines:
        try:
            fields = json.loads(line)
            yield str(fields["key"]), Answer(str(fields["text"]), bool(fields["finished"]))
        except (ValueError, KeyError, TypeError):  # torn or foreign
            continue
