"""Inference and post-processing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from volseg.config.section import Axis, IntTriple, Section

Steps = Literal["fixed", "even"]
Weights = Literal["gaussian", "cut_gaussian", "constant"]
Padding = Literal["zeros", "edge"]


class InferenceConfig(Section):
    """Segmentation of a volume with a sliding window.

    Attributes:
        window: Voxels of the sliding window along each axis; null takes the patch size, or larger windows if training
            found them at least as good on validation cases.
        overlap: Minimum overlap of adjacent windows, as a share of the window.
        steps: Positions of windows: a `fixed` step apart with the last one shifted to the end, as in MONAI, or at
            `even` distances, as in nnU-Net.
        weights: Importance map of a window: `gaussian` with a floor of 0.001, as in MONAI; `cut_gaussian`, cut off
            after four standard deviations, as in nnU-Net; or `constant`.
        padding: Voxels of a window beyond the volume: `zeros`, or the border repeated (`edge`).
        batch_size: Windows per forward pass on a GPU; a CPU takes one at a time.
        mirror_axes: Axes along which the volume is mirrored for test-time augmentation; predictions are averaged.
        mirroring: Test-time augmentation of overlapping windows: `each` window in all mirror images, or `turns`, each
            window in one of them, alternating, at no extra cost.
        precision: Precision of the network; `auto` takes the fastest that changes the labels of at most 0.1 % of the
            voxels.
        backend: Inference runtime: PyTorch, compiled PyTorch, or OpenVINO; `auto` takes the fastest on this machine.
        air: Skip windows that hold only air: blocks of 4 x 4 x 4 voxels in which all lie within this share of the
            intensity range above the minimum; null computes everything.
        memory_gb: Memory in GB in addition to the network, the volume and its mask; null takes half of the machine's,
            at most 3 GB.
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
    """Post-processing of one label, in this order: morphology, small components, largest component, holes.

    Attributes:
        label: Name of the label, or "*" for every label.
        keep_largest: Keep only the largest connected component.
        min_volume_ml: Remove components smaller than this volume, in ml.
        min_voxels: Remove components with fewer voxels than this.
        fill_holes: Fill background enclosed by the label.
        morphology: Morphological operation with a ball of `radius_mm`.
        radius_mm: Radius of the ball, in mm.
        connectivity: Connectivity of components: 6 (faces), 18 (faces and edges) or 26 (faces, edges and corners).
    """

    label: str = "*"
    keep_largest: bool = False
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    min_voxels: Annotated[int, Field(ge=0)] = 0
    fill_holes: bool = False
    morphology: Literal["none", "opening", "closing", "erosion", "dilation"] = "none"
    radius_mm: Annotated[float, Field(ge=0)] = 0.0
    connectivity: Literal[6, 18, 26] = 26
