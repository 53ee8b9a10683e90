"""contract.json: what is needed to run a converted model."""

from __future__ import annotations

from typing import Any

from volseg.config import Config, SwinUNETR
from volseg.inference.mirroring import Mirroring
from volseg.model.label_encoding import cutoffs
from volseg.model.networks import patch_divisor
from volseg.version import __version__

#: Version of the contract's format; it changes when readers have to.
_FORM = 1


Steps = tuple[int | None, int | None, int | None]


def onnx_steps(config: Config) -> Steps:
    """Return the divisor of each image side that a network in ONNX accepts; None where the side is fixed.

    SwinUNETR shifts windows by numbers computed at conversion; a side of one voxel means that slices are processed one
    by one.
    """
    if isinstance(config.network, SwinUNETR):
        return None, None, None
    i, j, k = (
        None if side == 1 else step for side, step in zip(config.window, patch_divisor(config.network), strict=True)
    )
    return i, j, k


def contract_of(config: Config, networks: list[str], window_weights: str, steps: Steps) -> dict[str, Any]:
    """Return the contract of one or more networks of one configuration.

    Args:
        config: Their configuration.
        networks: Names of their files.
        window_weights: Name of the file with the weight of each voxel of a patch.
        steps: Divisors of each side of other images that a network accepts; None where it accepts no other side.

    Returns:
        Plain values. Everything along axes is in the order of `preprocessing.axes`.
    """
    preprocessing, inference, data = config.preprocessing, config.inference, config.data
    mirroring = Mirroring.of(config)
    last_steps = ["normalize each channel", "resample"]
    if preprocessing.normalize == "after_resampling":
        last_steps.reverse()
    outputs = [{"name": label.name, "value": label.value} for label in data.output_labels]
    if not data.regions:
        outputs.insert(0, {"name": "background", "value": 0})
    return {
        "form": _FORM,
        "made_by": f"volseg {__version__}",
        "networks": networks,
        "input": {"name": "image", "type": "float32", "shape": [1, data.inputs, *config.window]},
        "other_sides": list(steps),
        "channels": [
            {"name": name, "modality": modality, "normalization": normalization.model_dump(mode="json")}
            for name, modality, normalization in zip(
                data.channels, data.modalities, preprocessing.normalization, strict=True
            )
        ],
        "preprocessing": preprocessing.model_dump(mode="json", exclude={"normalization"}),
        "order": ["turn the axes", "crop", *last_steps],
        "patch": list(config.window),
        "overlap": inference.overlap,
        "steps": inference.steps,
        "window_weights": window_weights,
        "padding": inference.padding,
        "mirror_axes": list(mirroring.axes),
        "mirroring": inference.mirroring,
        "views": len(mirroring.views),
        "output": {"name": "logits", "type": "float32", "shape": [1, data.outputs, *config.window]},
        "activation": "sigmoid" if data.regions else "softmax",
        "outputs": [{**output, "cutoff": cutoff} for output, cutoff in zip(outputs, cutoffs(data), strict=True)],
        "paint_order": list(data.paint_order),
        "postprocess": [rule.model_dump(mode="json") for rule in config.rules],
    }
