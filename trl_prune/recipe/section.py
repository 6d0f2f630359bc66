"""The base class of all recipe sections, and the number types that they share."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field


Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A section of the recipe: frozen, and any unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    other_names: ClassVar[dict[str, str]] = {}
    """What neighbouring tools call keys of this section, for "did you mean"; values may be dotted."""
