"""What all parts of an experiment's schema have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Width = Annotated[int, Field(ge=1, le=4096)]  # units or filters


class Section(BaseModel):
    """Base of every part of an experiment: immutable, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")
