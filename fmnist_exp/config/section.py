"""The base of all sections of an experiment file."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Width = Annotated[int, Field(ge=1, le=4096)]  # units of a dense layer or filters of a convolution


class Section(BaseModel):
    """The base of every section: it is immutable and refuses unknown names; a field's docstring is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
