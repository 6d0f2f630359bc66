"""A row of the starter set: an instruction, its reference completion and the answer to check."""

from typing import Literal

from trl_prune.data.starter.files import Entry


class StarterRow(Entry):
    """One instruction with its reference completion.

    Attributes:
        prompt: text of the user's message.
        completion: text of the reference completion.
        capability: what the row trains, a key of `CAPABILITIES`.
        answer_type: `number`, `phrase` or `open`, as in `trl_prune.data.rewriting`.
        answer: the number or phrase that a correct completion contains, None for open rows.
    """

    prompt: str
    completion: str
    capability: str
    answer_type: Literal["number", "phrase", "open"]
    answer: str | None = None

    def conversational(self) -> dict[str, object]:
        """Return the row in TRL's conversational prompt-completion format, with the columns for the answer."""
        return {
            "prompt": [{"role": "user", "content": self.prompt}],
            "completion": [{"role": "assistant", "content": self.completion}],
            "capability": self.capability,
            "answer_type": self.answer_type,
            "answer": self.answer,
        }
