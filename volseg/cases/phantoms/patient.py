"""A patient to be painted: the body that all organs lie in, and the brush."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from volseg.cases.phantoms.shapes import ENDLESS, Array, Triple, ellipsoid, rotation, without

#: Half the width of the body, and its depth in front of and behind its middle.
_HALF_WIDTH_MM, _FRONT_MM, _BACK_MM = 65.0, 50.0, 45.0
#: Between an ellipse (2) and a rectangle.
_ROUNDNESS = 2.3
SKIN_MM, MUSCLE_MM = 1.6, 6.0


class Patient:
    """One patient. What is painted later lies over what was there.

    Args:
        rng: Of all that differs from patient to patient.
        points_mm: (3, N) where the patient is looked at: millimetres from the middle of the body towards the patient's
            right, front and head.
        edge_mm: Over what length tissues pass into each other: about a voxel.

    Attributes:
        rng: As given.
        points: (3, M) those that lie in the body, to which all that follows belongs.
        skin: Distance to the surface of the body.
        muscle: Distance to the outside of the muscles, beneath the fat.
        cavity: Distance to their inside.
        diaphragm: Distance to the space beneath the diaphragm.
    """

    def __init__(self, rng: np.random.Generator, points_mm: Array, edge_mm: float) -> None:
        self.rng = rng
        self._edge_mm = edge_mm
        self._breath_mm = rng.uniform(-5, 4)
        fat_mm = rng.uniform(2.5, 6)
        skin = _skin(points_mm)
        self._inside = skin < edge_mm
        self.points: Array = points_mm[:, self._inside]
        self.skin: Array = skin[self._inside]
        self.muscle = self.skin + np.float32(SKIN_MM + fat_mm)
        self.cavity = self.muscle + np.float32(MUSCLE_MM)
        self.diaphragm = self._diaphragm()
        self._tissue = np.zeros(len(self.skin), dtype=np.float32)
        self._labels = np.zeros(len(self.skin), dtype=np.uint8)

    @property
    def tissue(self) -> Array:
        """Brightness at each of the N points."""
        whole = np.zeros(len(self._inside), dtype=np.float32)
        whole[self._inside] = self._tissue
        return whole

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Label at each of the N points."""
        whole = np.zeros(len(self._inside), dtype=np.uint8)
        whole[self._inside] = self._labels
        return whole

    @property
    def mirrored(self) -> Array:
        """The points with both sides of the body on its right: for what is the same on the left."""
        x, y, z = self.points
        return np.stack([np.abs(x), y, z])

    def paint(self, distance_mm: Array, brightness: float, label: int | None = 0) -> None:
        """Paint a shape.

        Args:
            distance_mm: From its surface.
            brightness: Of its tissue.
            label: Of all within; None leaves the labels as they are.
        """
        share = np.clip(0.5 - distance_mm / self._edge_mm, 0, 1)
        self._tissue += share * (brightness - self._tissue)
        if label is not None:
            self._labels[distance_mm < 0] = label

    def shade(self, brightness: float) -> float:
        """Return how bright a tissue is in this patient."""
        return brightness * self.rng.uniform(0.92, 1.08)

    def around(self, center_mm: Triple, shift_mm: float = 4.0, turn_deg: float = 8.0, breath: float = 0.0) -> Array:
        """Return the points as an organ sees them: from its centre, and it is moved, turned and resized a little.

        Args:
            center_mm: In the average body.
            shift_mm: How far it may be moved along each axis.
            turn_deg: By how much it may be turned about each axis.
            breath: Share of the diaphragm's movement that it takes part in.
        """
        center = center_mm + self.rng.uniform(-shift_mm, shift_mm, size=3)
        center[2] += breath * self._breath_mm
        turned = rotation(np.deg2rad(self.rng.uniform(-turn_deg, turn_deg, size=3)))
        turned_and_resized = turned / self.rng.uniform(0.9, 1.1, size=(3, 1))
        return turned_and_resized.astype(np.float32) @ (self.points - center[:, np.newaxis].astype(np.float32))

    def in_abdomen(self, distance_mm: Array, gap_mm: float = 0.8) -> Array:
        """Cut off what a shape has outside the abdomen: it ends a little before the muscles and the diaphragm."""
        return np.maximum(distance_mm, np.maximum(self.cavity, self.diaphragm) + np.float32(gap_mm))

    def above_diaphragm(self, distance_mm: Array, gap_mm: float = 0.0) -> Array:
        """Cut off what a shape has below the diaphragm."""
        return np.maximum(distance_mm, np.float32(gap_mm) - self.diaphragm)

    def _diaphragm(self) -> Array:
        """It arches from the wall of the cavity, higher above the liver."""
        x, _, z = self.points
        top = 39 + 4 * np.tanh(x / 12) - 34 * np.exp(self.cavity / 7) + np.float32(self._breath_mm)
        return (z - top) * np.float32(0.8)


def _skin(points_mm: Array) -> Array:
    """Distance to the skin: the back is flatter than the belly, with a furrow along the spine."""
    x, y, _ = points_mm
    depth_mm = np.where(y > 0, np.float32(_FRONT_MM), np.float32(_BACK_MM))
    across, along = np.abs(x) / np.float32(_HALF_WIDTH_MM), np.abs(y) / depth_mm
    length = (across**_ROUNDNESS + along**_ROUNDNESS + np.float32(1e-6)) ** (1 / _ROUNDNESS)
    steep = _ROUNDNESS - 1
    slope = np.hypot((across / length) ** steep / np.float32(_HALF_WIDTH_MM), (along / length) ** steep / depth_mm)
    return without((length - 1) / slope, ellipsoid(points_mm, (0, -_BACK_MM - 4, 0), (7, 6.5, ENDLESS)), 6)
