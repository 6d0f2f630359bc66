"""The `select` section."""

from numbers import Integral
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from trl_prune.errors import shown
from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.section import Count, Section


MethodName = Literal[
    "paser", "equal", "random", "random_matched", "full", "longest", "perplexity", "ifd", "rds"
]  # fmt: skip
METHODS = get_args(MethodName)


class SelectionSection(Section):
    """One selection: which of the rows are chosen, given what was measured of them."""

    other_names: ClassVar[dict[str, str]] = {
        "algorithm": "method", "count": "budget", "fraction": "budget", "num_samples": "budget", "rows": "budget",
        "samples": "budget", "share": "budget", "strategy": "method",
    }  # fmt: skip

    method: MethodName = "paser"
    """PASER (2502.12594); or a baseline: equal budgets, random rows, random rows as long as PASER's, all rows, longest
    answers, answers least likely to the pruned model, instruction-following difficulty, or nearest to `target`."""
    budget: int | float = 0.2
    """Share of the rows, as in 0.2 (the paper's for 52,000 rows), or their number, as in 2000."""
    allocation: Literal["degradation", "equal", "softmax", "size"] = "degradation"
    """What a cluster's budget is proportional to: its capability degradation score (the paper, equation 6), nothing,
    the softmax of the score, or its size."""
    allocation_temperature: Annotated[float, Field(gt=0)] = 0.1
    """Divisor of the scores, which are below 0.7, in the softmax."""
    ranking: Literal["efficiency", "divergence", "random"] = "efficiency"
    """Order inside a cluster: divergence by cost (the paper, equation 7), divergence alone, or random."""
    cost: Literal["squared_tokens", "none"] = "squared_tokens"
    """Cost of training on a row, whose logarithm divides its divergence (the paper), or no cost."""
    consistency: Literal["hard", "soft", "off"] = "soft"
    """Rows that pair known concepts in a new way are rejected (the paper), ranked lower, or treated as others."""
    order: Literal["degradation", "random"] = "degradation"
    """Order of the clusters, which decides what is consistent: the most degraded first, or drawn with the seed."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Seed of all draws; the recipe's if left out."""

    @field_validator("budget", mode="before")
    @classmethod
    def _check_budget(cls, budget: object) -> object:
        is_count = isinstance(budget, Integral) and not isinstance(budget, bool) and budget >= 1
        if not is_count and not (isinstance(budget, float) and 0 < budget <= 1):
            raise ValueError(f"is {shown(budget)}; wanted: a share above 0 and up to 1.0, or a number of rows from 1")
        return int(budget) if is_count else budget

    @field_validator("consistency", mode="before")
    @classmethod
    def _read_off(cls, consistency: object) -> object:
        return "off" if consistency is False else consistency  # YAML 1.1 reads `off` as false


class SelectSection(SelectionSection):
    """Selection of recovery data (PASER, 2502.12594): the rows that repair what pruning broke."""

    other_names: ClassVar[dict[str, str]] = SelectionSection.other_names | {
        "embedding_model": "embedder", "n_clusters": "clusters", "num_clusters": "clusters", "tau": "temperature",
    }  # fmt: skip

    instruction: str | None = None
    """Column of the texts to cluster; the users' messages before the answer if left out."""
    embedder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A sentence-transformers model by hub id or folder, or `hidden_states` for those of the dense model."""
    near_duplicates: float | Literal["auto"] | None = "auto"
    """Cosine similarity of two instructions from which their rows count as one; `auto` is 0.95, or 0.98 by hidden
    states, which are alike for different texts; null finds equal texts only, as does `auto` with `instruction`."""
    clusters: int | Literal["auto"] = "auto"
    """Number of clusters; `auto` takes the largest whose clusters are found again in held-out rows; 1 is none."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divisor of both models' logits in the divergence."""
    max_length: Count = 1024
    """Tokens of a row that are scored, at most; the models' context length is a limit too."""
    batch_tokens: Count = 4096
    """Tokens per batch of the scoring pass, with padding."""
    resident: bool = True
    """Whether both models are in memory at once; else the dense model's final states are written to disk first."""
    target: DatasetSection | None = None
    """For `rds`: examples of what the model should do."""
    selections: dict[str, SelectionSection] = {}
    """Other selections to compare with, by name; each key that one leaves out is the section's own."""

    @field_validator("near_duplicates", mode="before")
    @classmethod
    def _check_near_duplicates(cls, similarity: object) -> object:
        is_number = isinstance(similarity, int | float) and not isinstance(similarity, bool)
        if similarity not in ("auto", None) and not (is_number and 0 < similarity <= 1):
            raise ValueError(f"is {shown(similarity)}; wanted: auto, null, or a cosine similarity above 0 and up to 1")
        return similarity

    @field_validator("clusters", mode="before")
    @classmethod
    def _check_clusters(cls, clusters: object) -> object:
        if clusters != "auto" and (isinstance(clusters, bool) or not isinstance(clusters, int) or clusters < 1):
            raise ValueError(f"is {shown(clusters)}; wanted: auto, or a number of clusters from 1")
        return clusters

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: object) -> object:
        if not isinstance(values, dict) or not isinstance(values.get("selections"), dict):
            return values
        own = {name: values[name] for name in SelectionSection.model_fields if name in values}
        inherited = {
            name: own | other if isinstance(other, dict) else other for name, other in values["selections"].items()
        }
        return values | {"selections": inherited}

    @model_validator(mode="after")
    def _check_target(self) -> "SelectSection":
        if self.target is None and "rds" in {self.method, *(other.method for other in self.selections.values())}:
            raise ValueError("has `method: rds` and no `target`, the examples to be near to")
        if self.method == "random_matched":
            raise ValueError("has `method: random_matched`, which matches the lengths of the section's own selection")
        if self.method in self.selections:
            raise ValueError(f"selections has {self.method!r}, the name of the section's own selection; rename it")
        for name, other in self.selections.items():
            if name in METHODS and name != other.method:
                raise ValueError(f"selections.{name} has `method: {other.method}`; {name!r} is a method, so rename it")
        return self

    def selection(self, name: str) -> SelectionSection | None:
        """Return a selection by the name that arms use: `selections`' or a method's; None for an unknown name."""
        own = SelectionSection(**{key: getattr(self, key) for key in SelectionSection.model_fields})
        if name == self.method:
            return own
        if name in self.selections:
            return self.selections[name]
        return own.model_copy(update={"method": name}) if name in METHODS else None
