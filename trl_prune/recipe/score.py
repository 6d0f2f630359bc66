"""The `score` section."""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Tag, field_validator, model_validator

from trl_prune.errors import shown
from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.section import Count, Counts, Section


GENERATED = "generated"
# Which form of `dataset` an error is about; `recipe.messages` leaves these out of keys.
OWN_ANSWERS, READ_ROWS = "<own answers>", "<read rows>"
# Tokens of the dense model's answers where the recipe names no number.
MAX_NEW_TOKENS = 128


class ScoreSection(Section):
    """Importance of every unit, from one forward pass over calibration texts."""

    other_names: ClassVar[dict[str, str]] = {
        "calibration": "dataset", "limit": "samples", "max_seq_length": "max_length", "num_samples": "samples",
        "rows": "samples",
    }  # fmt: skip
    optional: ClassVar[tuple[str, ...]] = ("max_new_tokens", "rows_per_text")

    samples: Count = 256
    """Number of calibration texts."""
    rows_per_text: Counts = [1]
    """Rows of a calibration text. Several are plain text, without a chat template: each message on a line of its own,
    one row after the other, as in a prompt with examples; rows that name a `capability` are sorted by it. A list, such
    as `[1, 8]`, has the same rows in each of these forms."""
    tokens: Literal["all", "last"] = "all"
    """Positions that count for blocks: every token, or each text's last (2410.09982; needs 1,000 texts or more)."""
    max_length: Count = 512
    """Maximum length of a calibration text, in tokens; never more than the model's context."""
    batch_size: Count = 8
    """Calibration texts per batch."""
    device_map: Literal["auto"] | None = None
    """`auto` spreads a model that is larger than the accelerator over all accelerators, CPU memory and disk."""
    out_of_core: bool | None = None
    """Whether one decoder block at a time is in memory, with the states of all texts; the scores are the same. Left
    out: where the model does not fit in the free memory."""
    dataset: (
        Annotated[
            Annotated[Literal["generated"], Tag(OWN_ANSWERS)] | Annotated[DatasetSection, Tag(READ_ROWS)],
            Discriminator(lambda value: OWN_ANSWERS if isinstance(value, str) else READ_ROWS),
        ]
        | None
    ) = None
    """Calibration texts; the recipe's own training rows if left out. `generated`: the prompts of these rows, with the
    dense model's greedy answers, of which only the answers' tokens count."""
    max_new_tokens: Count | None = None
    """For `dataset: generated`: the most tokens of an answer, 128 if left out."""

    @field_validator("dataset", mode="before")
    @classmethod
    def _check_name(cls, value: object) -> object:
        if isinstance(value, str) and value != GENERATED:
            raise ValueError(f"is {shown(value)}; wanted: {GENERATED!r}, or a section with a `path`")
        return value

    @model_validator(mode="after")
    def _check_answers(self) -> "ScoreSection":
        if self.max_new_tokens is not None and not self.is_generated:
            raise ValueError(f"has `max_new_tokens`, which is for `dataset: {GENERATED}`")
        if self.is_generated and self.answer_tokens >= self.max_length:
            raise ValueError(
                f"has answers of up to {self.answer_tokens} tokens (`max_new_tokens`), which leaves no room for a "
                f"prompt in texts of {self.max_length} (`max_length`)"
            )
        return self

    @model_validator(mode="after")
    def _check_rows(self) -> "ScoreSection":
        if self.rows_per_text != [1] and self.is_generated:
            raise ValueError(f"has `rows_per_text`, which is for rows that are read, and `dataset: {GENERATED}`")
        return self

    @property
    def is_generated(self) -> bool:
        """Whether the calibration texts are the dense model's own answers."""
        return self.dataset == GENERATED

    @property
    def read_dataset(self) -> DatasetSection | None:
        """The dataset that the texts are read from or asked about; None for the recipe's training rows."""
        return None if self.is_generated else self.dataset

    @property
    def answer_tokens(self) -> int:
        """The most tokens of a generated answer."""
        return self.max_new_tokens or MAX_NEW_TOKENS

    @model_validator(mode="after")
    def _check_one_way(self) -> "ScoreSection":
        if self.out_of_core and self.device_map is not None:
            raise ValueError("has `device_map` and `out_of_core`, which are two ways to score a large model; keep one")
        return self

    @property
    def determining(self) -> dict:
        """The keys and values that determine the scores."""
        return self.model_dump(mode="json", exclude={"out_of_core"})
