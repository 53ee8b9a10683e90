"""The organs of the abdomen and their surroundings.

x grows towards the patient's right, y towards the front, z towards the head, in millimetres, in the size of a newborn.
Brightness is that of a fat-suppressed T1-weighted image some time after injection of contrast agent.
"""

from __future__ import annotations

import numpy as np

from volseg.cases.phantoms.patient import MUSCLE_MM, SKIN_MM, Patient
from volseg.cases.phantoms.shapes import ENDLESS, Array, Polyline, Triple, ellipsoid, rotation, tube, union, without
from volseg.image.volume import Label

#: The labels; "left" and "right" are the patient's.
LABELS: tuple[Label, ...] = (
    Label(1, "liver", (217, 95, 70)),
    Label(2, "kidney_left", (240, 190, 60)),
    Label(3, "kidney_right", (95, 170, 220)),
    Label(4, "spleen", (160, 105, 190)),
)
_LIVER, _LEFT_KIDNEY, _RIGHT_KIDNEY, _SPLEEN = (label.value for label in LABELS)

#: Distance from vertebra to vertebra, and from rib to rib.
_VERTEBRA_MM, _RIB_MM = 14.0, 12.5
#: Descent of a rib from the spine to the front.
_DESCENT_MM = 36.0

# Brightness of tissues.
_AIR, _LUNG, _SKIN, _FAT, _MUSCLE = 2.0, 14.0, 130.0, 52.0, 100.0
_BONE, _MARROW, _DISC, _CANAL, _CORD = 20.0, 112.0, 66.0, 30.0, 95.0
_LIVER_TISSUE, _BILE, _SPLEEN_TISSUE, _PANCREAS, _GUT = 145.0, 45.0, 158.0, 132.0, 130.0
_CORTEX, _MEDULLA, _SINUS = 192.0, 160.0, 80.0
_ARTERY, _VEIN, _HEART, _BLOOD = 205.0, 192.0, 110.0, 165.0

#: Vessels in the liver, relative to its centre.
_PORTAL_BRANCHES: tuple[Polyline, ...] = (
    ((-10, 0, -8), (0, -2, -3), (12, -6, -1), (22, -12, -6)),
    ((0, -2, -3), (8, 10, 2), (14, 22, 2)),
    ((-10, 0, -8), (-16, 10, 4), (-26, 18, 10), (-40, 20, 12)),
)
_HEPATIC_VEINS: tuple[Polyline, ...] = (
    ((-14, -6, 24), (2, -6, 16), (16, -4, 4)),
    ((-14, -6, 24), (-4, 8, 16), (4, 20, 6)),
    ((-14, -6, 24), (-22, 10, 18), (-34, 18, 14)),
)
#: The vena cava from the left iliac vein to the heart; the right iliac vein; both renal veins; the splenic vein, which
#: becomes the portal one; the mesenteric vein.
_VEINS: tuple[tuple[Polyline, float], ...] = (
    (((14, -14, -72), (9, -12, -46), (9, -11, 0), (10, -8, 24), (7, -4, 44), (5, 0, 56)), 4.5),
    (((-14, -14, -72), (9, -12, -46)), 3.5),
    (((9, -11, -16), (18, -15, -19)), 2.0),
    (((9, -9, -12), (-4, -7, -12), (-18, -15, -13)), 2.0),
    (((16, 2, 6), (4, 1, -6), (-16, -6, 4), (-30, -11, 12)), 2.2),
    (((4, 1, -6), (3, 6, -44)), 2.4),
)
#: The aorta, the iliac arteries, the superior mesenteric one.
_ARTERIES: tuple[tuple[Polyline, float], ...] = (
    (((-7, -15, 72), (-5, -14, 0), (-3, -14, -44)), 4.2),
    (((-3, -14, -44), (13, -16, -72)), 2.8),
    (((-3, -14, -44), (-14, -16, -72)), 2.8),
    (((-4, -14, 2), (-4, 0, -6), (-1, 6, -40)), 1.8),
)
#: The colon: up on the right, across in front, down on the left.
_COLON: tuple[Polyline, ...] = (
    ((46, -10, -40), (45, -4, 6), (34, 16, 12), (14, 28, 10), (-12, 29, 12), (-32, 16, 22), (-46, -4, 26)),
    ((-46, -4, 26), (-47, -10, 8), (-45, -10, -40)),
)
_PANCREAS_PATH: Polyline = ((14, 6, -14), (4, 2, -6), (-14, -4, 2), (-32, -8, 8))


def paint_all(patient: Patient) -> None:
    """Paint a whole patient, from the outside in and from soft to rigid structures."""
    _paint_wall(patient)
    _paint_ribs(patient)
    _paint_chest(patient)
    _paint_small_bowel(patient)
    _paint_colon(patient)
    _paint_liver(patient)
    _paint_stomach(patient)
    _paint_spleen(patient)
    _paint_spine(patient)
    _paint_vessels(patient)
    _paint_kidney(patient, _LEFT_KIDNEY, -1, (-28, -19, -14))
    _paint_kidney(patient, _RIGHT_KIDNEY, 1, (28, -19, -20))


def _paint_wall(patient: Patient) -> None:
    """Paint skin, fat, muscles and the fat within; muscles of the back, psoas, and the wings of the pelvis."""
    fat, muscle, mirrored = patient.shade(_FAT), patient.shade(_MUSCLE), patient.mirrored
    patient.paint(patient.skin, _SKIN)
    patient.paint(patient.skin + SKIN_MM, fat)
    patient.paint(patient.muscle, muscle)
    patient.paint(patient.cavity, fat)
    patient.paint(ellipsoid(mirrored, (14, -36, 0), (11, 7.5, ENDLESS)), muscle)
    thinner_above_mm = np.clip((patient.points[2] + 30) * 0.2, -1, 12)
    patient.paint(ellipsoid(mirrored, (14, -24, 0), (8, 8, ENDLESS)) + thinner_above_mm, muscle)
    wing = ellipsoid(mirrored, (40, -24, -66), (4, 20, 16))
    patient.paint(wing, _BONE)
    patient.paint(wing + 1.4, _MARROW)


def _paint_ribs(patient: Patient) -> None:
    """Paint ribs within the muscles, each a little longer than the one below."""
    x, y, z = patient.points
    around = np.arctan2(np.abs(x), -y - 10) / np.pi  # 0 at the back, 1 in front
    number = (z + _DESCENT_MM * np.sin(np.pi * np.minimum(around, 0.5))) / _RIB_MM
    nearest = np.rint(number)
    rib = np.hypot(patient.muscle + 0.5 * MUSCLE_MM, 0.7 * _RIB_MM * (number - nearest)) - 2.8
    rib[(nearest < 0) | (around > np.minimum(0.34 + 0.14 * nearest, 0.86))] = _RIB_MM
    patient.paint(rib, _BONE)
    patient.paint(rib + 1.6, 0.8 * _MARROW)


def _paint_chest(patient: Patient) -> None:
    """Paint the lungs, the mediastinum and the heart."""
    patient.paint(patient.above_diaphragm(patient.cavity + 0.5), _LUNG)
    patient.paint(patient.above_diaphragm(ellipsoid(patient.points, (-1, -14, 0), (13, 14, ENDLESS))), _FAT)
    heart = ellipsoid(patient.around((-9, 14, 60), breath=1), (0, 0, 0), (26, 20, 19))
    heart = patient.above_diaphragm(heart, gap_mm=1)
    patient.paint(heart, patient.shade(_HEART))
    patient.paint(heart + 4, patient.shade(_BLOOD))


def _paint_small_bowel(patient: Patient) -> None:
    """Paint the bowel loops that fill the middle, as a gyroid whose two sides wind through each other."""
    rng = patient.rng
    a, b, c = (0.24 * patient.points.T + rng.uniform(0, 2 * np.pi, size=3)).T.astype(np.float32)
    gyroid = np.sin(a) * np.cos(b) + np.sin(b) * np.cos(c) + np.sin(c) * np.cos(a)
    right = ellipsoid(patient.around((14, 10, -56)), (0, 0, 0), (26, 30, 38))
    left = ellipsoid(patient.around((-16, 14, -48)), (0, 0, 0), (24, 24, 36))
    place = union(right, left, 4) - 3 * np.sin(a + c)
    wall, one, other = patient.shade(_GUT), rng.uniform(50, 80), rng.uniform(70, 115)
    for side, content in ((gyroid, one), (-gyroid, other)):
        loops = patient.in_abdomen(np.maximum(place, 4 * (0.28 - side)), gap_mm=2)
        patient.paint(loops, wall)
        patient.paint(loops + 2.2, content)


def _paint_colon(patient: Patient) -> None:
    """Paint the colon, whose pouches hold stool, and gas at their highest points in a supine patient."""
    points, wall = patient.around((0, 0, -20), turn_deg=5), patient.shade(_GUT)
    pouches_mm = 0.9 * np.sin(0.55 * (points[0] + points[2]))
    for path in _COLON:
        colon = patient.in_abdomen(tube(points, path, 7.5) + pouches_mm, gap_mm=1)
        _paint_hollow(patient, colon, wall, gas_above=patient.rng.uniform(14, 22))


def _paint_stomach(patient: Patient) -> None:
    """Paint the stomach with fluid and gas, and the pancreas behind it."""
    points = patient.around((-24, 6, 14), breath=0.7)
    fundus = ellipsoid(points, (-2, -8, 10), (14, 15, 13))
    stomach = union(fundus, ellipsoid(points, (4, 8, -4), (12, 11, 14)), 8)
    stomach = union(stomach, ellipsoid(points, (18, 15, -15), (15, 8, 7)), 8)
    _paint_hollow(patient, patient.in_abdomen(stomach), patient.shade(_GUT), gas_above=patient.rng.uniform(8, 20))
    pancreas = tube(patient.around((0, 0, 2), breath=0.5), _PANCREAS_PATH, (6, 5, 5, 4))
    patient.paint(pancreas, patient.shade(_PANCREAS))


def _paint_hollow(patient: Patient, outside: Array, wall: float, gas_above: float) -> None:
    """Paint a wall, fluid within it, and gas above the fluid."""
    inside = outside + 2.3
    patient.paint(outside, wall)
    patient.paint(inside, patient.rng.uniform(50, 110))
    patient.paint(np.maximum(inside, gas_above - patient.points[1]), _AIR)


def _paint_liver(patient: Patient) -> None:
    """Paint both lobes of the liver, hollow where other organs lie, with vessels and gallbladder."""
    points = patient.around((26, 2, 14), breath=1)
    lobes = union(ellipsoid(points, (4, -2, 0), (31, 34, 34)), ellipsoid(points, (-24, 16, 9), (30, 16, 14)), 10)
    liver = patient.in_abdomen(without(lobes, ellipsoid(points, (-22, -6, -20), (24, 24, 24)), 6))
    patient.paint(liver, patient.shade(_LIVER_TISSUE), _LIVER)
    blood = patient.shade(_VEIN)
    for path in (*_PORTAL_BRANCHES, *_HEPATIC_VEINS):
        vessel = tube(points, path, np.linspace(2.6, 1.4, len(path)).tolist())
        patient.paint(np.maximum(vessel, liver + 2), blood, label=None)
    patient.paint(ellipsoid(points, (-8, 19, -19), (5, 6, 9)), patient.shade(_BILE))


def _paint_spleen(patient: Patient) -> None:
    """Paint the spleen, a wedge between the wall and the stomach."""
    points = patient.around((-46, -13, 20), shift_mm=2.5, breath=0.8)
    spleen = without(ellipsoid(points, (2, 0, 0), (21, 22, 25)), ellipsoid(points, (28, 12, -2), (14, 20, 26)), 4)
    patient.paint(patient.in_abdomen(spleen), patient.shade(_SPLEEN_TISSUE), _SPLEEN)


def _paint_spine(patient: Patient) -> None:
    """Paint vertebrae with their processes, the discs between them, and the spinal cord."""
    x, y, z = patient.points
    number = z / np.float32(_VERTEBRA_MM) + np.float32(patient.rng.uniform())
    height = (number - np.rint(number)) * np.float32(_VERTEBRA_MM)
    column = ellipsoid(patient.points, (0, -26, 0), (10.5, 8.5, ENDLESS)) + 0.6 - 0.02 * height**2
    patient.paint(column, _BONE)
    patient.paint(column + 1.2, patient.shade(_MARROW))
    patient.paint(np.maximum(column + 1.2, 0.5 * _VERTEBRA_MM - 1.8 - np.abs(height)), _DISC)
    level = np.stack([np.abs(x), y, height])
    for center, radii in (((0, -40, 0), (2.2, 5, 4.5)), ((9, -34, 0), (8, 2, 2.6)), ((0, -35, 0), (7, 6, 5.5))):
        process = ellipsoid(level, center, radii)
        patient.paint(process, _BONE)
        patient.paint(process + 1.3, _MARROW)
    patient.paint(ellipsoid(patient.points, (0, -35, 0), (5, 4, ENDLESS)), _CANAL)
    patient.paint(ellipsoid(patient.points, (0, -35, 0), (2.4, 2, ENDLESS)), _CORD)


def _paint_vessels(patient: Patient) -> None:
    points = patient.around((0, 0, 0), shift_mm=1.5, turn_deg=2)
    for vessels, brightness in ((_VEINS, _VEIN), (_ARTERIES, _ARTERY)):
        blood = patient.shade(brightness)
        for path, radius_mm in vessels:
            patient.paint(tube(points, path, radius_mm), blood)


def _paint_kidney(patient: Patient, label: int, side: int, center_mm: Triple) -> None:
    """Paint a kidney in its fat, with the upper pole towards the spine and the hilum towards the front.

    Args:
        patient: The patient.
        label: Label value.
        side: 1 on the right, -1 on the left.
        center_mm: Centre of the kidney.
    """
    points = patient.around(center_mm, shift_mm=3, turn_deg=10, breath=0.5)
    points = rotation(np.deg2rad((8, -14 * side, -25 * side))).astype(np.float32) @ points
    points[0] *= side
    kidney = without(ellipsoid(points, (0, 0, 0), (12.5, 11, 21)), ellipsoid(points, (-13, 0, 0), (6, 5, 8)), 4)
    patient.paint(kidney - 1.5, _FAT)
    patient.paint(kidney, patient.shade(_CORTEX), label)
    time = patient.rng.uniform()  # since injection of the contrast agent, which fills the cortex first
    patient.paint(0.6 * (kidney + 3.5), time * _CORTEX + (1 - time) * _MEDULLA, label=None)
    patient.paint(ellipsoid(points, (-6, 0, 0), (4.5, 3.5, 10)), patient.shade(_SINUS), label=None)
