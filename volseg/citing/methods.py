"""The methods section of a paper about a run, in Markdown with Pandoc citations."""

from __future__ import annotations

from volseg.citing.images import augmentation_words, preparation_words
from volseg.citing.learning import course_words, learning_words
from volseg.citing.networks import network_words, slices_words
from volseg.citing.segmenting import segmenting_words
from volseg.citing.words import between, brief_dice, count, dice_words, named, ranged
from volseg.config import MIXED, UNKNOWN, Config
from volseg.reporting.record import RunRecord
from volseg.text import listed

#: Modalities that have a more common name than their DICOM term.
_MODALITIES = {"PT": "PET", "US": "ultrasound"}
#: Most labels that are listed by name.
_MOST_NAMES = 12


def methods_of(record: RunRecord) -> str:
    """Return paragraphs on the network, its training, its validation and segmentation."""
    begun = f"{_labels(record.config)} segmented in {_images(record.config)} with {_programs(record)}."
    if record.model.parts:  # each with its own network, grid and windows
        parts = count(len(record.model.parts), "part")
        return f"{begun} The model consists of {parts}, whose labels are painted over one another. {_origin(record)}"
    training = [_training(record), _validation(record)] if record.splits else [_origin(record)]
    return "\n\n".join(filter(None, (f"{begun} {_network(record)}", *training, segmenting_words(record))))


def _network(record: RunRecord) -> str:
    config = record.config
    network = f"The network was {network_words(config)}; it had {_parameters(record)} parameters."
    cascade = "It also took the mask of the previous network as input." if config.data.previous_labels else ""
    return " ".join(filter(None, (network, slices_words(config), cascade, preparation_words(config))))


def _labels(config: Config) -> str:
    """Return subject and verb, with only the number of labels if there are many."""
    names = [named(label.name) for label in config.data.output_labels]
    if len(names) > _MOST_NAMES:
        return f"{len(names)} labels were"
    return f"The label{'s' * (len(names) > 1)} {listed(names)} {'were' if len(names) > 1 else 'was'}"


def _images(config: Config) -> str:
    kinds = [
        _MODALITIES.get(kind, kind) for kind in dict.fromkeys(config.data.modalities) if kind not in {UNKNOWN, MIXED}
    ]
    images = f"{listed(kinds)} images" if kinds else "[modality] images"  # for the author to fill in
    channels = config.data.channels
    return f"{images} of {len(channels)} channels ({', '.join(map(named, channels))})" if len(channels) > 1 else images


def _programs(record: RunRecord) -> str:
    versions = record.about.versions
    if versions is None:
        return "volseg [@volseg], which is built on MONAI [@cardoso2022monai] and PyTorch [@paszke2019pytorch]"
    torch, monai = (version.partition("+")[0] for version in (versions.torch, versions.monai))
    return (
        f"volseg {versions.volseg} [@volseg], which is built on MONAI {monai} [@cardoso2022monai] and PyTorch {torch} "
        "[@paszke2019pytorch]"
    )


def _parameters(record: RunRecord) -> str:
    number = sum(parameter.numel() for parameter in record.model.network.parameters())
    return f"{number / 1e6:.1f} million" if number >= 1e6 else f"{number:,}"


def _origin(record: RunRecord) -> str:
    """Return the origin of a model that volseg did not train."""
    origin = record.about.facts.get("imported from")
    said = f"It was trained with another program and imported ({named(origin)}). " if origin else ""
    return f"{said}Details of its training are not available."


def _training(record: RunRecord) -> str:
    config = record.config
    found = (_cases(record), learning_words(config), augmentation_words(config), course_words(record))
    return " ".join(filter(None, found))


def _cases(record: RunRecord) -> str:
    """Return a sentence on the numbers of training and validation cases."""
    train, held_out = (
        [len(ids) for ids in sides] for sides in zip(*((s.train, s.val) for s in record.splits), strict=True)
    )
    if len(record.splits) == 1:
        held = "1 was" if held_out == [1] else f"{held_out[0]} were"
        return f"The network was trained on {ranged(train, 'case')}, and {held} used for validation."
    once = sum(held_out) == len({case_id for split in record.splits for case_id in split.val})
    every = ", so that every case was used for validation once" if once else ""
    return (
        f"The {len(record.cases)} cases were divided into {count(len(record.splits), 'fold')} for cross-validation: "
        f"each of the {count(len(record.splits), 'network')} was trained on {ranged(train, 'case')} and validated on "
        f"the remaining {between(held_out)}{every}."
    )


def _validation(record: RunRecord) -> str:
    mean, labels = record.mean_dice, record.dice
    if mean is None:
        return ""
    each = f": {'; '.join(f'{named(dice.label)} {brief_dice(dice)}' for dice in labels)}" if len(labels) > 1 else ""
    unseen = ", each segmented by the network that had not been trained on it" if len(record.splits) > 1 else ""
    before = " and before post-processing" if record.config.rules else ""
    chosen = " and the post-processing" if record.chose_postprocessing else ""
    grid = "" if record.config.data.unit == "px" else " at the voxel size of the network"
    return (
        f"On {ranged([mean.cases], 'validation case')}{unseen}, the mean Dice coefficient [@dice1945]{grid}{before} "
        f"was {dice_words(mean)}{each}. Confidence intervals are percentile intervals of 2,000 bootstrap resamples of "
        f"the cases [@efron1979bootstrap]. The validation cases were also used to select the epoch{chosen}."
    )
