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


class ContradictionError(ValueError):
    """A value that is of the right form and yet cannot be meant; raised by validators, whose errors pydantic collects.

    Args:
        message: What is wrong.
        hint: What the user can do about it.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
