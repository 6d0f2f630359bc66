"""One merge of the `merge` section."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.section import Section


# The name of the only merge where the section is one merge rather than several by name.
ONE_MERGE = "merge"


class MergeSearchSection(Section):
    """Search for t or the weights with the least loss on the dev texts."""

    other_names: ClassVar[dict[str, str]] = {"points": "grid", "steps": "refine"}

    grid: Annotated[int, Field(ge=3)] = 5
    """Of two models: number of shares that are tried first, evenly from 0 to 1."""
    refine: Annotated[int, Field(ge=0)] = 4
    """Of two models: how many are tried after that at most, near the best."""


class MergeSection(Section):
    """Several recovered models become one, with mergekit."""

    other_names: ClassVar[dict[str, str]] = {
        "arms": "models", "base_model": "base", "dataset": "dev", "density": "parameters.density",
        "lambda": "parameters.lambda", "merge_method": "recipe", "method": "recipe", "validation": "dev",
        "weight": "parameters.weight", "weights": "parameters.weight",
    }  # fmt: skip

    recipe: str
    """A shipped merge recipe, such as `slerp`, or the path of a YAML with the same placeholders."""
    models: Annotated[list[str], Field(min_length=2)]
    """Arms of `recover`, folders (`./name`) of models or LoRA adapters, or hub ids."""
    base: str | None = None
    """For recipes with a base: the model that all were trained from; the pruned one if left out."""
    t: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] | None = None
    """For recipes with `t`: the share of the second model; `auto` is `search: {}`."""
    parameters: dict[str, object] = {}
    """The recipe's other parameters, such as `{weight: [1, 2]}` or `{density: 0.5}`."""
    search: MergeSearchSection | None = None
    """How t, or the weights, are searched by held-out likelihood; as given above if left out."""
    dev: DatasetSection | None = None
    """For a search: texts that no arm trains on and that are not `evaluate.held_out`."""
    prove_ends: bool = True
    """Of two models merged by t: whether to merge twice more, at t = 0 and 1, and compare logits with the models'."""

    @model_validator(mode="after")
    def _check_search(self) -> "MergeSection":
        if self.t is not None and "t" in self.parameters:
            raise ValueError("has both `t` and `parameters.t`; give one")
        if self.search is not None and isinstance(self.t, float):
            raise ValueError(f"has t {self.t:g} and `search`, which finds it; leave one of the two out")
        if (self.searched is None) != (self.dev is None):
            present, absent = ("dev", "`search` or `t: auto`") if self.searched is None else ("a search", "`dev`")
            raise ValueError(f"has {present} and lacks {absent}; t and weights are searched on dev texts")
        return self

    @model_validator(mode="after")
    def _check_grid(self) -> "MergeSection":
        given = sorted(self.search.model_fields_set) if self.search is not None else []
        if given and len(self.models) > 2:
            raise ValueError(
                f"has search.{given[0]} {getattr(self.search, given[0])} for {len(self.models)} models; it is for "
                "two, and the weights of more are chosen greedily: give `search: {}`"
            )
        return self

    @property
    def searched(self) -> MergeSearchSection | None:
        """How t or the weights are searched, or None where they are given."""
        return MergeSearchSection() if self.search is None and self.t == "auto" else self.search

    @property
    def given_parameters(self) -> dict[str, object]:
        """The parameters that are given, `t` among them."""
        return self.parameters | ({"t": self.t} if isinstance(self.t, float) else {})


def expand_merges(value: object) -> object:
    """Return the `merge` section as a mapping of merges by name; one merge alone has the name `merge`."""
    if not isinstance(value, dict):
        return {} if value is None else value
    is_one = bool({"recipe", "models"} & value.keys()) or any(not _is_mapping(merge) for merge in value.values())
    return {ONE_MERGE: value} if is_one and value else value


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict | MergeSection)
