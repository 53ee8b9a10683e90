"""Model files: weights together with the configuration and the labels they were trained with."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from volseg.config import Config, DicomRules, PartialConfig, dump, validate
from volseg.errors import CheckpointError, ConfigError
from volseg.io.files import atomic_path
from volseg.model.files import COARSE_FOLDER, PARTS_FOLDER, model_files, previous_folder
from volseg.model.identity import fingerprint
from volseg.model.networks import arranged, build_network, check_divisible
from volseg.model.usual_volumes import VolumeRange
from volseg.version import __version__

_ANOTHER = "name the folder of a run, or the model.pt in it"


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The region of interest of a model: around what a coarse one has found.

    Attributes:
        models: The folds of the coarse model.
        labels: Values of its labels.
        margin_mm: Around them, along each axis.
    """

    models: tuple[TrainedNetwork, ...]
    labels: tuple[int, ...]
    margin_mm: float


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained network with everything needed to use it.

    Attributes:
        weights: By name.
        config: The configuration it was trained with.
        volumes: Label name -> range of its volumes in the cases of the run; empty if unknown.
        device: Where the network runs.
        origin: Its name in errors.
        previous: For a cascade, the previous networks, whose mask it takes as input.
        parts: For a model made of parts, which has no weights itself: the folds of each, in the order in which their
            labels are painted.
        around: The region of interest of its parts; None for the whole volume.
    """

    weights: Mapping[str, Tensor]
    config: Config
    volumes: Mapping[str, VolumeRange] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    origin: str = "the model"
    previous: tuple[TrainedNetwork, ...] = ()
    parts: tuple[tuple[TrainedNetwork, ...], ...] = ()
    around: Surroundings | None = None

    @classmethod
    def of(cls, network: nn.Module, config: Config) -> TrainedNetwork:
        """Wrap a network in memory, and set it to evaluation mode."""
        model = cls(network.state_dict(), config, device=next(network.parameters()).device)
        vars(model)["network"] = network
        return model

    @cached_property
    def network(self) -> nn.Module:
        """The network in evaluation mode, built on first use, since importing its dependencies takes seconds.

        Raises:
            CheckpointError: If the weights do not fit the configuration, or the model is made of parts.
        """
        if self.parts:
            raise CheckpointError(f"{self.origin} is made of parts", hint=f"use one of those in {PARTS_FOLDER}/")
        network = build_network(self.config.network, self.config.data.inputs, self.config.data.outputs)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError as error:
            why = _first_lines(error)
            raise CheckpointError(f"{self.origin}: the weights do not fit the network: {why}", hint=_ANOTHER) from error
        arranged(network, torch.channels_last_3d, self.device)
        return network.eval()

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the network, computed once: its weights must not change afterwards."""
        return fingerprint(self.weights, self.config.network)


def reconfigured(model: TrainedNetwork, given: PartialConfig) -> TrainedNetwork:
    """Return a model with other settings, where they do not affect what was learned.

    Args:
        model: As trained.
        given: Keys of `inference`, of `postprocess`, and of DICOM reading.

    Raises:
        ConfigError: If other keys are given, or a value is not valid.
    """
    check_changes(given)
    if not given.model_fields_set:
        return model
    config = given.laid_over(model.config)
    check_window(config)
    inner = PartialConfig.of({key: value for key, value in given.tree.items() if key != "postprocess"})
    around = model.around
    return replace(
        model,
        config=config,
        previous=tuple(reconfigured(each, given) for each in model.previous),
        parts=tuple(tuple(reconfigured(fold, inner) for fold in part) for part in model.parts),
        around=around and replace(around, models=tuple(reconfigured(each, inner) for each in around.models)),
    )


#: Keys of `data` that matter for what is written, not for the network.
_OF_DISPLAY = ("colors", "structures")


def check_changes(given: PartialConfig) -> None:
    """Check that keys are not fixed by training.

    Raises:
        ConfigError: If any are; names them.
    """
    learned = given.model_fields_set - {"inference", "postprocess", "data"}
    learned |= {f"data.{key}" for key in given.data.model_fields_set - {*DicomRules.model_fields, *_OF_DISPLAY}}
    if learned:
        raise ConfigError(
            f"{', '.join(sorted(learned))} cannot be changed after training",
            hint="predict accepts keys of inference and postprocess, DICOM reading, data.colors and data.structures",
        )


def save_model(path: Path, network: nn.Module, config: Config, *, dice: float, epoch: int) -> None:
    """Save a model file.

    Args:
        path: The file.
        network: Its weights are saved.
        config: Saved with them.
        dice: Validation Dice, for information.
        epoch: The epoch that reached it.

    Raises:
        OutputError: If it cannot be written.
    """
    save(path, {"weights": network.state_dict(), "config": dump(config), "dice": dice, "epoch": epoch})


def finalize_model(path: Path, decided: Config, volumes: Mapping[str, VolumeRange]) -> None:
    """Add to a model file what is known at the end of a run.

    Args:
        path: The file.
        decided: Configuration with the chosen post-processing and region thresholds; everything else in the file's own
            configuration stays.
        volumes: Label name -> range of its volumes in the cases of the run.

    Raises:
        CheckpointError: If it is damaged.
        OutputError: If it cannot be written.
    """
    content = load(path)
    config = stored_config(path, content["config"])
    config = config.model_copy(update={"data": decided.data, "postprocess": decided.postprocess})
    ranges = {name: asdict(volume) for name, volume in volumes.items()}
    save(path, {**content, "config": dump(config), "volumes": ranges})


def set_window(path: Path, window: tuple[int, int, int]) -> None:
    """Set the window size of the network in a model file.

    Raises:
        CheckpointError: If it is damaged.
        OutputError: If it cannot be written.
    """
    content = load(path)
    config = stored_config(path, content["config"]).inferring(window=window)
    save(path, {**content, "config": dump(config)})


def check_window(config: Config) -> None:
    """Check that the window is divisible by the network's total stride.

    Raises:
        ConfigError: If not; names the sides.
    """
    if config.inference.window:
        hint = "change it, or set it to null for windows as large as patches"
        check_divisible(config.network, config.window, "inference.window", "windows", hint)


def load_model(path: Path, device: torch.device) -> TrainedNetwork:
    """Load a model file, or the only one of a run.

    Args:
        path: A file or a run folder.
        device: Where the network will run.

    Returns:
        The model. Whether its weights fit its own configuration is checked when its network is first used.

    Raises:
        CheckpointError: If there is none or more than one, or it is damaged, or it is of a cascade whose previous
            networks are missing.
    """
    file = _only_file(path)
    content = load(file)
    if not {"weights", "config"} <= set(content):
        raise CheckpointError(f"{file} is not a model of volseg: it lacks its weights or its config", hint=_ANOTHER)
    config = stored_config(file, content["config"])
    volumes = {name: VolumeRange(**volume) for name, volume in content.get("volumes", {}).items()}
    previous: tuple[TrainedNetwork, ...] = ()
    if config.data.previous_labels:
        previous = tuple(load_model(each, device) for each in model_files(previous_folder(file)))
    run = file.parent
    parts = tuple(
        tuple(load_model(fold, device) for fold in model_files(run / PARTS_FOLDER / str(n)))
        for n in range(content.get("parts", 0))
    )
    around = None
    if "around" in content:
        coarse = tuple(load_model(each, device) for each in model_files(run / COARSE_FOLDER))
        around = Surroundings(coarse, tuple(content["around"]["labels"]), content["around"]["margin_mm"])
    return TrainedNetwork(content["weights"], config, volumes, device, str(file), previous, parts, around)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Save tensors and plain values, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    written = io.BytesIO()  # on a full disk PyTorch's own writer fails without saying why
    torch.save({"volseg": __version__, **content}, written)
    with atomic_path(path) as temporary:
        temporary.write_bytes(written.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Load what `save` saved; nothing in the file is executed.

    Raises:
        CheckpointError: If the file is damaged or holds anything but tensors and plain values.
    """
    content = _unpickle(path)
    if "volseg" not in content:
        raise CheckpointError(f"{path} is not a model of volseg", hint=_ANOTHER)
    return content


def load_weights(path: Path) -> tuple[dict[str, Tensor], Config | None]:
    """Load the weights of a model, or of a file that holds nothing else, as in MONAI's bundles.

    Args:
        path: A run with one model, a model file, or a file with a state dictionary, at its top level or under one key.

    Returns:
        Weights by name, and their configuration if the file contains it.

    Raises:
        CheckpointError: If there is no such file or more than one, or it is damaged.
    """
    file = _only_file(path)
    content = _unpickle(file)
    if content.get("parts"):
        raise CheckpointError(f"{file} is made of parts", hint=f"name one of those in {file.parent / PARTS_FOLDER}")
    if {"volseg", "weights", "config"} <= set(content):
        return content["weights"], stored_config(file, content["config"])
    weights = {str(key).removeprefix("module."): value for key, value in tensors_in(content).items()}
    if not weights:
        raise CheckpointError(f"{file} holds no weights", hint="name a file with a state dictionary")
    return weights, None


def tensors_in(content: Mapping[Any, Any]) -> dict[Any, Tensor]:
    """Return the tensors of a file: those at its top level, or under one key, whichever are more."""
    parts = [content, *(part for part in content.values() if isinstance(part, dict))]
    return max(({key: each for key, each in part.items() if isinstance(each, Tensor)} for part in parts), key=len)


def load_plain(path: Path, harmless: Sequence[Any] = ()) -> Any:
    """Load tensors and plain values that `torch.save` wrote; nothing in the file is executed.

    Args:
        path: The file, from any program.
        harmless: Types allowed in addition, as for `torch.serialization.safe_globals`.

    Raises:
        pickle.UnpicklingError: If it holds anything else.
        ValueError: If it is damaged, or is not an archive of `torch.save`.
    """
    if not zipfile.is_zipfile(path):  # what torch.save writes; anything else would be fed to an unpickler
        raise ValueError("it is not an archive")
    try:
        with torch.serialization.safe_globals(list(harmless)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError("it is damaged") from error


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        content = load_plain(path)
    except (pickle.UnpicklingError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a model of volseg", hint="copy it again or train again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a model of volseg", hint=_ANOTHER)
    return content


def _only_file(path: Path) -> Path:
    """Return the only model file of a path: a file or a run folder.

    Raises:
        CheckpointError: If there is none, or one for each of several folds.
    """
    file, *others = model_files(path)
    if others:
        raise CheckpointError(f"{path} holds {1 + len(others)} models, one for each fold", hint=f"name one: {file}")
    if not file.is_file():
        raise CheckpointError(f"there is no model at {file}", hint="name the folder that `volseg train` wrote")
    return file


def stored_config(file: Path, text: str) -> Config:
    """Read the configuration inside a file; keys unknown to its version get their default.

    Raises:
        CheckpointError: If it has keys that no longer exist.
    """
    try:
        return validate(yaml.safe_load(text), f"the config inside {file}")
    except (yaml.YAMLError, ConfigError) as error:
        raise CheckpointError(
            f"{file} was written by another version of volseg: {error}",
            hint="predict with the version that wrote it (about.json beside it says which), or train again",
        ) from error


def _first_lines(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(lines[1:3])[:300]
