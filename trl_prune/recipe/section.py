"""The base class of all recipe sections, and the number types that they share."""

from typing import Annotated, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from trl_prune.errors import shown


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _distinct(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError(f"is {shown(values)}; wanted: each number once")
    return values


Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0)]
# One number or several.
Counts = Annotated[list[Count], Field(min_length=1), BeforeValidator(_listed), AfterValidator(_distinct)]


class Section(BaseModel):
    """A section of the recipe: frozen, and any unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    other_names: ClassVar[dict[str, str]] = {}
    """What neighbouring tools call keys of this section, for "did you mean"; values may be dotted."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Keys that a dump leaves out while they have their default: a result of an older version still matches."""

    @model_serializer(mode="wrap")
    def _without_unset(self, serialise: SerializerFunctionWrapHandler) -> dict[str, object]:
        values, fields = serialise(self), type(self).model_fields
        left_out = {name for name in self.optional if values.get(name) == fields[name].default}
        return {name: value for name, value in values.items() if name not in left_out}
