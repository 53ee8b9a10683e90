"""Run a model that volseg has converted, without volseg: from the network's grid to labels.

    python run_model.py volume.npy labels.npy

volume.npy: (C, I, J, K) float32, the channels in the order of contract.json, along its axes, at its voxel size,
normalised as it says. labels.npy: (I, J, K), the values of contract.json, 0 where there is none. It takes NumPy, and
onnxruntime or openvino, whichever the networks beside it are for.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent


def load(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load a network: (1, C, *patch) -> (1, outputs, *patch)."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda patch: session.run(["logits"], {"image": patch})[0]
    import openvino

    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda patch: compiled(patch)[0]


def starts(size: int, side: int, overlap: float, steps: str) -> list[int]:
    """Return the first voxel of each window along an axis; windows extend beyond both ends of a shorter volume."""
    if size <= side:
        return [-((side - size) // 2)]
    last = size - side
    if steps == "fixed":
        return [*range(0, last, max(1, int(side * (1 - overlap)))), last]
    count = math.ceil(last / (side * (1 - overlap)))
    return sorted({round(last / count * n) for n in range(count + 1)})


def logits_of(
    volume: np.ndarray,
    contract: dict[str, Any],
    networks: Sequence[Callable[[np.ndarray], np.ndarray]],
    weights: np.ndarray,
) -> np.ndarray:
    """Sum the weighted logits of all windows; the argmax of the sum is the argmax of the mean."""
    patch, shape = contract["patch"], volume.shape[1:]
    views = [[a for n, a in enumerate(contract["mirror_axes"]) if bits >> n & 1] for bits in range(contract["views"])]
    missing = [max(0, side - size) for size, side in zip(shape, patch, strict=True)]
    margins = [(count // 2, count - count // 2) for count in missing]
    padded = np.pad(volume, [(0, 0), *margins], mode="constant" if contract["padding"] == "zeros" else "edge")
    cutoffs = np.array([output["cutoff"] for output in contract["outputs"]], np.float32)[:, None, None, None]
    sums = np.zeros((len(cutoffs), *padded.shape[1:]), np.float32)
    places = [
        starts(size, side, contract["overlap"], contract["steps"]) for size, side in zip(shape, patch, strict=True)
    ]
    for place in itertools.product(*(range(len(along)) for along in places)):
        corner = [along[n] + before for along, n, (before, _) in zip(places, place, margins, strict=True)]
        window = (slice(None), *(slice(begin, begin + side) for begin, side in zip(corner, patch, strict=True)))
        chosen = [views[sum(place) % len(views)]] if takes_turns(contract, places) else views
        for flip in chosen:
            axes = tuple(2 + axis for axis in flip)
            image = np.ascontiguousarray(np.flip(padded[window][None], axes))
            answers = [np.flip(network(image), axes)[0] / len(chosen) for network in networks]
            sums[window] += (sum(answers) / len(networks) - cutoffs / len(chosen)) * weights
    inside = (slice(None), *(slice(before, before + size) for (before, _), size in zip(margins, shape, strict=True)))
    return sums[inside]


def takes_turns(contract: dict[str, Any], places: Sequence[Sequence[int]]) -> bool:
    """Return whether each window is seen in one mirror image only: where neighbours share half of their voxels."""
    steps = [
        (b - a, side)
        for along, side in zip(places, contract["patch"], strict=True)
        for a, b in itertools.pairwise(along)
    ]
    share = all(2 * step <= side for step, side in steps)
    return contract["mirroring"] == "turns" and share and 1 + len(steps) >= contract["views"]


def decide(logits: np.ndarray, contract: dict[str, Any]) -> np.ndarray:
    """Turn logits into values: the label with the largest, or the last painted region with a logit above its cutoff."""
    outputs = contract["outputs"]
    if contract["activation"] == "softmax":
        return np.array([output["value"] for output in outputs], np.uint16)[logits.argmax(axis=0)]
    labels = np.zeros(logits.shape[1:], np.uint16)
    for n in contract["paint_order"]:
        labels[logits[n] > 0] = outputs[n]["value"]
    return labels


def main() -> None:
    """Read the volume, run the networks, write the labels."""
    contract = json.loads((FOLDER / "contract.json").read_text(encoding="utf-8"))
    networks = [load(FOLDER / name) for name in contract["networks"]]
    weights = np.load(FOLDER / contract["window_weights"])
    volume = np.load(sys.argv[1]).astype(np.float32)
    np.save(sys.argv[2], decide(logits_of(volume, contract, networks, weights), contract))


if __name__ == "__main__":
    main()
