"""The base class of all recipe sections, and the number types that they share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


Share = Annotated[float, Field(gt=0, le=1)]


Count = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A part of the recipe: frozen, and deaf to no key."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
