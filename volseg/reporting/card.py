"""Model cards (Mitchell et al. 2019, arXiv 1810.03993): what to know about a model before using it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

from volseg.about import Facts, facts_of_config, facts_of_models
from volseg.config import UNKNOWN
from volseg.image.units import Units
from volseg.io.files import write_text
from volseg.io.json_files import write_json
from volseg.io.written import claim
from volseg.reporting.record import RunRecord, ValidationDice, read_record

CARD_FILE, CARD_TABLE_FILE = "MODEL_CARD.md", "model_card.json"
CARD_FILES = (CARD_FILE, CARD_TABLE_FILE)
_NOT_STATED = "not stated"
_NOT_FOR = (
    "Not for diagnosis or treatment: this is a research tool, not a medical device, and a person must check every mask "
    "before it is used."
)
#: What users of a model should know and no program can.
_TO_FILL_IN = (
    "Origin of the images: sites, scanners, protocols, years",
    "Study population: number of people, age, sex, disease, exclusion criteria",
    "Annotation: who made the references, how, and the agreement between annotators",
    "Consent or ethics approval, and licence of the data",
    "Contact",
)
_LIMITS = (
    "The Dice on these cases does not carry over to other scanners, protocols, ages or diseases.",
    "Images whose modality, intensities or voxel size differ clearly from those listed above are refused.",
)


@dataclass(frozen=True)
class LabelCard:
    """A label or region of a model.

    Attributes:
        value: Value in masks.
        name: Name of the label.
        structure: Name and code of the structure; empty if unknown.
        dice: Mean over the validation cases that were scored; None if there is none.
        cases: Number of these cases.
        median_size: Median volume or area in the cases of the run; None if unknown.
        dice_ci95: Confidence interval of the mean, by resampling cases; None for fewer than two cases.
    """

    value: int
    name: str
    structure: str
    dice: float | None
    cases: int
    median_size: float | None
    dice_ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class ModelCard:
    """A card.

    Attributes:
        channels: Name -> modality.
        labels: The labels and regions.
        size_unit: Unit of `median_size`: "ml", or "px2" for pictures without a pixel size.
        spacings_mm: Smallest and largest voxel size of the training cases along R, A, S; empty if unknown.
        intensities: Name of a channel -> range of intensities of the training cases.
        networks: Number of networks, whose predictions are averaged.
        training_cases: Number of training cases of each network; empty if unknown.
        validation_cases: Number of validation cases of each network; empty if unknown.
        licence: Licence of the model.
        recipe: Settings, duration and hardware of the training.
        about: Versions that made it, and hashes of its files.
    """

    channels: Mapping[str, str]
    labels: tuple[LabelCard, ...]
    size_unit: str
    spacings_mm: tuple[tuple[float, float], ...]
    intensities: Mapping[str, tuple[float, float]]
    networks: int
    training_cases: tuple[int, ...]
    licence: str
    recipe: Facts
    about: Facts
    validation_cases: tuple[int, ...] = ()

    @property
    def markdown(self) -> str:
        """Return the card as Markdown."""
        sections = [
            f"# {', '.join(label.name for label in self.labels)}{f' in {self._kinds}' if self._kinds else ''}",
            f"A segmentation model of volseg. Licence: {self.licence}.",
            "## Intended use",
            _list((f"Research: segmenting the structures below in {self._kinds or 'such'} images.", _NOT_FOR)),
            "## Structures and performance",
            _table(
                ("value", "label", "structure", "Dice", "95 % interval", "cases scored", f"median {self.size_unit}"),
                self._rows,
            ),
            self._evidence,
            "## Training data",
            _table(("channel", "modality", "intensities of the training cases"), self._seen),
            f"Voxels of the training cases: {self._spacing}. {self._cases}",
            "## Training",
            _table(("", ""), self.recipe),
            "## Limitations",
            _list(_LIMITS),
            "## To be filled in",
            _list([f"{question}: ..." for question in _TO_FILL_IN]),
            "## Identity",
            _table(("", ""), self.about),
        ]
        return "\n\n".join(sections) + "\n"

    @property
    def _kinds(self) -> str:
        return ", ".join(sorted(set(self.channels.values()) - {UNKNOWN}))

    @property
    def _rows(self) -> list[Sequence[str]]:
        return [
            [
                str(label.value),
                label.name,
                label.structure,
                _shown(label.dice, ".3f"),
                " to ".join(f"{limit:.3f}" for limit in label.dice_ci95 or ()),
                str(label.cases or ""),
                _shown(label.median_size, ".6g" if self.size_unit == "px2" else ".3g"),
            ]
            for label in self.labels
        ]

    @property
    def _evidence(self) -> str:
        if not any(label.cases for label in self.labels):
            return "The Dice on validation cases is unknown."
        folds = ", each case scored by the network that was not trained on it" if self.networks > 1 else ""
        return (
            f"Mean Dice of the validation cases, at the voxel size of the network and before post-processing{folds}; "
            "intervals are percentiles of 2,000 bootstrap resamples of the cases. The epoch and the post-processing "
            "were chosen on the same cases, so the Dice is slightly optimistic."
        )

    @property
    def _cases(self) -> str:
        if not self.training_cases:
            return "The number of training cases is unknown."
        pairs = dict.fromkeys(zip(self.training_cases, self.validation_cases, strict=True))
        counts = ", or ".join(
            f"{training} training and {validation} validation cases" for training, validation in pairs
        )
        return f"{'Each network' if self.networks > 1 else 'The network'} had {counts}."

    @property
    def _seen(self) -> list[tuple[str, str, str]]:
        ranges = {name: f"{low:.4g} to {high:.4g}" for name, (low, high) in self.intensities.items()}
        return [(name, modality, ranges.get(name, "unknown")) for name, modality in self.channels.items()]

    @property
    def _spacing(self) -> str:
        if self.size_unit == "px2":
            return "pixel by pixel"
        if not self.spacings_mm:
            return "unknown"
        return " x ".join(f"{low:.3g} to {high:.3g}" for low, high in self.spacings_mm) + " mm (R x A x S)"


def make_card(run: Path, licence: str = "") -> ModelCard:
    """Gather the card of a model from its run; no case is named.

    Args:
        run: A run folder, or a model file.
        licence: Licence of the model.

    Raises:
        CheckpointError: If it holds no model.
        DataError: If its tables are damaged.
    """
    record = read_record(run)
    config, domain = record.config, record.config.domain
    return ModelCard(
        channels=dict(zip(config.data.channels, config.data.modalities, strict=True)),
        labels=_labels(record),
        size_unit=Units.of(config.data.unit).size,
        spacings_mm=tuple((low, high) for low, high in domain.spacings_mm or ()),
        intensities={
            name: (seen.low[0], seen.high[1])
            for name, seen in zip(config.data.channels, domain.intensities, strict=False)
        },
        networks=len(record.files),
        training_cases=tuple(len(split.train) for split in record.splits),
        validation_cases=tuple(len(split.val) for split in record.splits),
        licence=licence or record.about.facts.get("licence", _NOT_STATED),
        recipe=_recipe(record),
        about=(*record.about.model_copy(update={"hardware": ()}).lines, *facts_of_models(record.files)),
    )


def card(
    model: str | PathLike[str],
    output: str | PathLike[str] | None = None,
    *,
    licence: str = "",
    overwrite: bool = False,
) -> Path:
    """Write the card of a model, as Markdown for people and as JSON for programs.

    Args:
        model: A run folder, or a model file.
        output: Folder; by default the run's.
        licence: Licence of the model.
        overwrite: Whether to replace files that volseg did not write.

    Returns:
        The Markdown file.

    Raises:
        CheckpointError: If there is no model.
        OutputError: If the card cannot be written.
    """
    run = Path(model)
    made = make_card(run, licence)
    folder = _folder(run) if output is None else Path(output)
    claim([folder / name for name in CARD_FILES], overwrite=overwrite)
    return write_card(made, folder)


def write_card(made: ModelCard, folder: Path) -> Path:
    """Write a card into a folder where its files have been claimed.

    Returns:
        The Markdown file.

    Raises:
        OutputError: If it cannot be written.
    """
    write_text(folder / CARD_FILE, made.markdown)
    write_json(folder / CARD_TABLE_FILE, asdict(made))
    return folder / CARD_FILE


def _folder(run: Path) -> Path:
    """Return the folder of a run, given the folder or a model file in it."""
    return run if run.is_dir() else run.parent


def _labels(record: RunRecord) -> tuple[LabelCard, ...]:
    found, dice = [], {each.label: each for each in record.dice}
    for label in record.config.data.output_labels:
        structure, volume, scored = label.structure, record.model.volumes.get(label.name), dice.get(label.name)
        marks = ""
        if structure is not None:
            side = f", {structure.modifier.meaning}" if structure.modifier else ""
            marks = f"{structure.type.meaning}{side} ({structure.type.scheme} {structure.type.value})"
        size = Units.of(record.config.data.unit).per_ml * volume.median_ml if volume else None
        mean, cases = (scored.mean, scored.cases) if scored else (None, 0)
        found.append(LabelCard(label.value, label.name, marks, mean, cases, size, _interval(scored)))
    return tuple(found)


def _interval(dice: ValidationDice | None) -> tuple[float, float] | None:
    return (dice.low, dice.high) if dice is not None and dice.cases > 1 else None


def _recipe(record: RunRecord) -> Facts:
    """Return the settings of the training, its duration and machine; little is known of imported models."""
    facts = facts_of_config(record.config)
    if not record.splits:
        return tuple(fact for fact in facts if fact[0] in {"network", "voxel size"})
    steps = " and ".join(dict.fromkeys(str(course.steps) for course in record.courses))
    minutes = sum(course.seconds for course in record.courses) / 60
    course = (("steps", steps), ("training took", f"{minutes:.1f} minutes")) if record.courses else ()
    return (*facts, *course, *(("trained on", machine.words) for machine in record.about.hardware))


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; bars and line breaks in names are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
