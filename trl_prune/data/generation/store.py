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
    chance = [sampling.seed, prompt.sample] if sampling.temperature > 0 else []
    determined_by = [
        prompt.ids,
        prompt.tools,
        prompt.chat_template_kwargs,
        fingerprint,
        sampling.max_new_tokens,
        float(sampling.temperature),
        chance,
    ]
    return hashlib.sha256(json.dumps(determined_by, sort_keys=True).encode()).hexdigest()


class AnswerStore:
    """Answers by their keys.

    Several processes and runs may share one folder: files are written atomically, and equal keys mean equal answers.

    Args:
        folder: where the files are; created by the first write.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def read(self, keys: Collection[str]) -> dict[str, Answer]:
        """Return the stored answers of these keys; lines and files of other content are skipped."""
        wanted = frozenset(keys)
        found: dict[str, Answer] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            found |= {key: answer for key, answer in _answers(path) if key in wanted}
        return found

    def write(self, answers: dict[str, Answer]) -> None:
        """Store a group of answers durably."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256("".join(sorted(answers)).encode()).hexdigest()[:24]
        lines = [json.dumps({"key": key} | vars(answer)) for key, answer in answers.items()]
        write_text(self.folder / f"{name}.jsonl", "\n".join(lines) + "\n")


def _answers(path: Path) -> Iterator[tuple[str, Answer]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:  # a folder, or a file that another process removed
        return
    for line in lines:
        try:
            fields = json.loads(line)
            yield fields["key"], Answer(str(fields["text"]), bool(fields["finished"]))
        except (ValueError, KeyError, TypeError):  # torn or foreign
            continue
