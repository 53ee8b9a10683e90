"""A synthetic patient: the body that holds all organs, and how to paint them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from volseg.cases.phantoms.shapes import ENDLESS, Array, Triple, ellipsoid, rotation, without

#: Half the width of the body, and its depth in front of and behind its centre.
_HALF_WIDTH_MM, _FRONT_MM, _BACK_MM = 65.0, 50.0, 45.0
#: Exponent of the superellipse of the body, between an ellipse (2) and a rectangle.
_ROUNDNESS = 2.3
SKIN_MM, MUSCLE_MM = 1.6, 6.0


class Patient:
    """A patient onto whom tissues are painted; later ones cover earlier ones.

    Args:
        rng: Random number generator for all variation between patients.
        points_mm: (3, N) points to sample: millimetres from the centre of the body towards the patient's right, front
            and head.
        edge_mm: Width of the transition between tissues: about a voxel.

    Attributes:
        rng: The random number generator.
        points: (3, M) the points within the body, at which all following distances are given.
        skin: Distance to the surface of the body.
        muscle: Distance to the outer surface of the muscles, beneath the fat.
        cavity: Distance to their inner surface.
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
        """The points with the left side mirrored to the right, for structures on both sides."""
        x, y, z = self.points
        return np.stack([np.abs(x), y, z])

    def paint(self, distance_mm: Array, brightness: float, label: int | None = 0) -> None:
        """Paint a shape.

        Args:
            distance_mm: Distance from its surface.
            brightness: Brightness of its tissue.
            label: Label of all points within; None leaves the labels unchanged.
        """
        share = np.clip(0.5 - distance_mm / self._edge_mm, 0, 1)
        self._tissue += share * (brightness - self._tissue)
        if label is not None:
            self._labels[distance_mm < 0] = label

    def shade(self, brightness: float) -> float:
        """Return the brightness of a tissue in this patient."""
        return brightness * self.rng.uniform(0.92, 1.08)

    def around(self, center_mm: Triple, shift_mm: float = 4.0, turn_deg: float = 8.0, breath: float = 0.0) -> Array:
        """Return the points relative to the centre of an organ that is slightly moved, rotated and resized.

        Args:
            center_mm: Centre of the organ in the average body.
            shift_mm: Scale of the shift along each axis.
            turn_deg: Scale of the rotation about each axis.
            breath: Share of the diaphragm's movement that the organ follows.
        """
        center = center_mm + self.rng.uniform(-shift_mm, shift_mm, size=3)
        center[2] += breath * self._breath_mm
        turned = rotation(np.deg2rad(self.rng.uniform(-turn_deg, turn_deg, size=3)))
        turned_and_resized = turned / self.rng.uniform(0.9, 1.1, size=(3, 1))
        return turned_and_resized.astype(np.float32) @ (self.points - center[:, np.newaxis].astype(np.float32))

    def in_abdomen(self, distance_mm: Array, gap_mm: float = 0.8) -> Array:
        """Cut off the part of a shape outside the abdomen, a little before the muscles and the diaphragm."""
        return np.maximum(distance_mm, np.maximum(self.cavity, self.diaphragm) + np.float32(gap_mm))

    def above_diaphragm(self, distance_mm: Array, gap_mm: float = 0.0) -> Array:
        """Cut off the part of a shape below the diaphragm."""
        return np.maximum(distance_mm, np.float32(gap_mm) - self.diaphragm)

    def _diaphragm(self) -> Array:
        """Return the distance to the space below the diaphragm, which arches from the wall, higher above the liver."""
        x, _, z = self.points
        top = 39 + 4 * np.tanh(x / 12) - 34 * np.exp(self.cavity / 7) + np.float32(self._breath_mm)
        return (z - top) * np.float32(0.8)


def _skin(points_mm: Array) -> Array:
    """Return the distance to the skin: the back is flatter than the belly, with a furrow along the spine."""
    x, y, _ = points_mm
    depth_mm = np.where(y > 0, np.float32(_FRONT_MM), np.float32(_BACK_MM))
    across, along = np.abs(x) / np.float32(_HALF_WIDTH_MM), np.abs(y) / depth_mm
    length = (across**_ROUNDNESS + along**_ROUNDNESS + np.float32(1e-6)) ** (1 / _ROUNDNESS)
    steep = _ROUNDNESS - 1
    slope = np.hypot((across / length) ** steep / np.float32(_HALF_WIDTH_MM), (along / length) ** steep / depth_mm)
    return without((length - 1) / slope, ellipsoid(points_mm, (0, -_BACK_MM - 4, 0), (7, 6.5, ENDLESS)), 6)
