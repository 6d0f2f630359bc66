"""The `speculate` section."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from trl_prune.errors import shown
from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.section import Count, Section


# What stages call the folder of a checkpoint, which so tells no runs apart.
MODEL_FOLDER = "model"


class SpeculateSection(Section):
    """Speculative decoding (2211.17192): smaller models as drafts for the dense one."""

    other_names: ClassVar[dict[str, str]] = {
        "assistant_model": "drafts", "batch_size": "batch_sizes", "draft": "drafts", "draft_length": "draft_lengths",
        "draft_model": "drafts", "gamma": "draft_lengths", "models": "drafts",
        "num_assistant_tokens": "draft_lengths", "num_speculative_tokens": "draft_lengths", "rows": "prompts",
        "samples": "prompts",
    }  # fmt: skip

    drafts: list[str] | None = None
    """Models of the recipe, folders (`./name`) or hub ids; all models of the recipe but the dense one if left out."""
    draft_lengths: list[Count] = [1, 2, 3, 4, 5, 8, 10]
    """Numbers of tokens that the draft proposes before the dense model judges them."""
    batch_sizes: list[Count] = [1, 4, 8]
    """Numbers of texts decoded together, for costs and predictions; one at a time is judged always, and timed."""
    dataset: DatasetSection | None = None
    """Prompts, with given answers where there are; `evaluate.held_out` if left out, or else the training rows."""
    prompts: Count = 32
    """Number of prompts, drawn with the recipe's seed."""
    timed_prompts: Annotated[int, Field(ge=2)] = 8
    """Number of prompts that are decoded with every draft length, and timed; fewer than 6 give no interval."""
    max_new_tokens: Annotated[int, Field(ge=2)] = 128
    """Maximum length of an answer."""
    sampled: bool = True
    """Whether sampling is judged beside greedy decoding."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of sampling."""

    @field_validator("drafts", "draft_lengths", "batch_sizes")
    @classmethod
    def _check_list(cls, values: list | None) -> list | None:
        if values is not None and (not values or len(set(values)) < len(values)):
            raise ValueError(f"is {shown(values)}; wanted: one entry at least, and no entry twice")
        return values


def is_model_name(draft: str) -> bool:
    """Return whether a draft is named as models of the recipe are, and neither as a folder nor by a hub id."""
    return "/" not in draft and not draft.startswith((".", "~"))


def draft_names(drafts: Sequence[str]) -> list[str]:
    """Return what drafts are called in results: their name in the recipe, or the end of their path or hub id.

    That is the last part, of a folder `model` of a run the one before it, with as many of the parts before as tell
    drafts apart, joined by hyphens.
    """
    parts = [_parts(draft) for draft in drafts]
    counts = [1] * len(parts)
    while True:
        names = ["-".join(part[-count:]) for part, count in zip(parts, counts, strict=True)]
        longer = [
            count + (names.count(name) > 1 and count < len(part))
            for name, part, count in zip(names, parts, counts, strict=True)
        ]
        if longer == counts:
            return names
        counts = longer


def _parts(draft: str) -> list[str]:
    parts = [part for part in Path(draft).parts if part not in ("/", ".", "..", "~")]
    return parts[:-1] if parts[-1:] == [MODEL_FOLDER] and len(parts) > 1 else parts
