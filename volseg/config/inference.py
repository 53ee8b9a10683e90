"""Inference and post-processing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from volseg.config.section import Axis, IntTriple, Section

Steps = Literal["fixed", "even"]
Weights = Literal["gaussian", "cut_gaussian", "constant"]
Padding = Literal["zeros", "edge"]


class InferenceConfig(Section):
    """How a volume is segmented.

    Attributes:
        window: Voxels that are looked at, at once; null takes a patch. Where volumes are much longer than patches,
            training tries larger windows on held-out cases, and keeps them if they are as good.
        overlap: Share of a window that neighbouring ones have in common, at least.
        steps: Where windows lie: a `fixed` step apart, the last one at the end, as MONAI has them; or at `even`
            distances, as nnU-Net has them.
        weights: How much a window counts away from its middle: a `gaussian` that never falls below a thousandth, as
            MONAI's; or a `cut_gaussian`, which nnU-Net cuts after four deviations; or `constant`.
        padding: What a window sees beyond a volume that is shorter: `zeros`, or the voxels at its `edge` repeated.
        batch_size: Patches that go through the network at once; on a CPU it is one.
        mirror_axes: Axes along which the volume is also mirrored and the answers averaged.
        mirroring: Whether windows that share halves take `turns` among the mirror images, or `each` is seen in all.
        precision: Numbers that the network multiplies; auto takes the fastest that keeps the labels of fp32.
        backend: What runs the network: PyTorch, PyTorch compiled, or OpenVINO; auto takes the fastest on this machine.
        air: Blocks of 4 x 4 x 4 voxels no brighter than the darkest by this share of the range of intensities are air,
            and nothing is computed where there is nothing else; null computes everything.
        memory_gb: What segmenting may take beside the network and the volume; null lets the machine decide.
    """

    window: IntTriple | None = None
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    steps: Steps = "fixed"
    weights: Weights = "gaussian"
    padding: Padding = "zeros"
    batch_size: Annotated[int, Field(ge=1)] = 2
    mirror_axes: tuple[Axis, ...] = ()
    mirroring: Literal["turns", "each"] = "turns"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    backend: Literal["auto", "torch", "compile", "openvino"] = "auto"
    air: Annotated[float, Field(ge=0, lt=1)] | None = 0.02
    memory_gb: Annotated[float, Field(gt=0)] | None = None


class LabelRule(Section):
    """What is done to one label after the network, in this order: morphology, small parts, largest part, holes.

    Attributes:
        label: Name of the label, or "*" for each.
        keep_largest: Keep only the largest connected part.
        min_volume_ml: Remove connected parts smaller than this volume.
        min_voxels: Remove connected parts of fewer voxels.
        fill_holes: Fill background that the label encloses.
        morphology: Shape operation with a ball of `radius_mm`.
        radius_mm: Radius of that ball, in millimetres.
        connectivity: Which neighbours are connected: by faces (6), edges too (18), corners too (26).
    """

    label: str = "*"
    keep_largest: bool = False
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    min_voxels: Annotated[int, Field(ge=0)] = 0
    fill_holes: bool = False
    morphology: Literal["none", "opening", "closing", "erosion", "dilation"] = "none"
    radius_mm: Annotated[float, Field(ge=0)] = 0.0
    connectivity: Literal[6, 18, 26] = 26
