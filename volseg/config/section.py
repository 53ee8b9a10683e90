"""Base class and common types of the sections of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from volseg.errors import ConfigError
from volseg.image.geometry import world_axis

Triple = tuple[float, float, float]
IntTriple = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
_SizeMm = Annotated[float, Field(gt=0)] | None
#: Voxel size along each axis; null leaves it unchanged.
SpacingMm = tuple[_SizeMm, _SizeMm, _SizeMm]
Fraction = Annotated[float, Field(ge=0, le=1)]
#: An axis by its anatomical name, or by its position among the axes that networks see.
Axis = Literal["left-right", "posterior-anterior", "inferior-superior", "i", "j", "k"]
#: Anatomical axes, in the order R, A, S.
AXES: tuple[Axis, ...] = ("left-right", "posterior-anterior", "inferior-superior")
#: Axes in the order in which files store them, whatever their anatomical direction.
STORED = "stored"
_PLACES: tuple[Axis, ...] = ("i", "j", "k")


class ContradictionError(ValueError):
    """A value of the right type that contradicts another; raised in validators, whose errors pydantic collects.

    Args:
        message: What is wrong.
        hint: What the user can do about it.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _known_axes(value: str) -> str:
    """Check the directions of the axes that the network sees."""
    try:
        known = value == STORED or sorted(map(world_axis, value)) == [0, 1, 2]
    except ValueError:
        known = False
    if not known:
        raise ContradictionError(
            f"{value!r} is not an axis order",
            hint="use three letters, one each of R or L, A or P, S or I, as RAS; or stored",
        )
    return value


#: The direction of each axis that networks see, as "RAS" or "LPS", or `STORED`.
Orientation = Annotated[str, AfterValidator(_known_axes)]


def axis_number(axis: Axis, orientation: str) -> int:
    """Return the index of an axis among those that the network sees.

    Args:
        axis: Its name.
        orientation: Directions of the axes that the network sees.

    Raises:
        ContradictionError: If it is an anatomical axis, and the directions are unknown.
    """
    if axis in _PLACES:
        return _PLACES.index(axis)
    if orientation == STORED:
        raise ContradictionError(f"{axis} is unknown if preprocessing.axes is {STORED}", hint="use i, j or k instead")
    return [world_axis(letter) for letter in orientation].index(AXES.index(axis))


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: object) -> None:
            raise ConfigError(
                f"{name} cannot be set: configurations do not change",
                hint='make a new plan: plan.changed({"training.minutes": 5})',
            )
