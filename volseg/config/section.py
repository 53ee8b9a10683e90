"""What all sections of the configuration have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Triple = tuple[float, float, float]
IntTriple = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
SpacingMm = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Fraction = Annotated[float, Field(ge=0, le=1)]
Axis = Literal["left-right", "posterior-anterior", "inferior-superior"]
#: The axes of a preprocessed volume, which is stored R, A, S.
AXES: tuple[Axis, ...] = ("left-right", "posterior-anterior", "inferior-superior")


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
