"""What made a folder of results, and on which machine: about.json."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from volseg.config import Config
from volseg.config.section import Section
from volseg.io.json_files import read_json, write_json
from volseg.version import __version__

ABOUT_FILE = "about.json"

#: Pairs of name and value; neither names a patient or a path.
Facts = tuple[tuple[str, str], ...]

#: Of version 0.1.0, whose about.json was a list of names and values.
_EARLIER_VERSIONS = re.compile(r"(?P<volseg>\S+), torch (?P<torch>\S+), MONAI (?P<monai>\S+)")
_DAY = "%Y-%m-%d %H:%M UTC"


class Versions(Section):
    """The programs that results depend on.

    Attributes:
        volseg: This one.
        torch: PyTorch.
        monai: MONAI.
        python: Empty where only version 0.1.0 wrote it down.
    """

    volseg: str
    torch: str
    monai: str
    python: str = ""


class Hardware(Section):
    """A machine that networks ran on.

    Attributes:
        device: Of the networks: cpu, cuda or mps.
        gpu: Its name; null where the networks ran on the processor.
        processor: Its name; empty where the system does not tell.
        cores: How many of its cores each process computed with.
        memory_gb: Memory that a process may take, in 10^9 bytes.
        instructions: The widest that PyTorch uses on the processor: AVX2, AVX512 ...
        bf16: Whether the device multiplies bf16 itself.
        processes: How many worked together.
    """

    device: str
    gpu: str | None = None
    processor: str
    cores: int
    memory_gb: float
    instructions: str
    bf16: bool
    processes: int = 1

    @property
    def words(self) -> str:
        """Everything in a line."""
        processor = f"{self.processor or 'processor'}, {self.cores} core{'s' * (self.cores > 1)}, {self.instructions}"
        device = self.gpu or self.device
        bf16 = "bf16" if self.bf16 else "no bf16"
        together = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{device} ({bf16}){together}; {processor}; {self.memory_gb:g} GB"


class About(Section):
    """What made a folder of results; nothing is known of a folder that does not say.

    Attributes:
        versions: Of the programs.
        made: When.
        facts: What else there is to say, by name; neither a name nor a value names a patient or a path.
        hardware: The machines that networks ran on, in the order in which they worked.
    """

    versions: Versions | None = None
    made: datetime | None = None
    facts: Mapping[str, str] = Field(default_factory=dict)
    hardware: tuple[Hardware, ...] = ()

    @property
    def lines(self) -> Facts:
        """All of it in words, for people."""
        versions, made = self.versions, self.made
        return (
            *((("volseg", f"{versions.volseg}, torch {versions.torch}, MONAI {versions.monai}"),) if versions else ()),
            *((("made", made.strftime(_DAY)),) if made else ()),
            *self.facts.items(),
            *((("machine", ", then ".join(machine.words for machine in self.hardware)),) if self.hardware else ()),
        )


def made_now(facts: Facts = (), hardware: Sequence[Hardware] = ()) -> About:
    """Return what is to be written down of results that are made now, by these versions."""
    versions = Versions(
        volseg=__version__, torch=version("torch"), monai=version("monai"), python=platform.python_version()
    )
    made = datetime.now(UTC).replace(microsecond=0)
    return About(versions=versions, made=made, facts=dict(facts), hardware=tuple(hardware))


def facts_of_models(files: Sequence[Path]) -> Facts:
    """Return which models these are, by what is in them."""
    return tuple((f"model {number}", hash_of(file)) for number, file in enumerate(files, start=1) if file.is_file())


def facts_of_config(config: Config) -> Facts:
    """Return what a person asks first about a training."""
    training = config.training
    sizes = config.preprocessing.spacing_mm
    spacing = " x ".join("as it is" if size is None else f"{size:g}" for size in sizes) + " mm"
    grid = "pixel by pixel" if config.data.unit == "px" else spacing
    limits = {"minutes": training.minutes, "epochs": training.epochs, "target Dice": training.target_dice}
    return (
        ("network", config.network.name),
        ("channels", ", ".join(config.data.channels)),
        ("labels", ", ".join(label.name for label in config.data.output_labels)),
        ("voxel size", grid),
        ("patches", f"{' x '.join(map(str, config.patches.size))}, {training.batch_size} in a step"),
        ("loss, optimizer", f"{config.loss.name}, {training.optimizer}, learning rate {training.learning_rate:g}"),
        *((name, f"{value:g}") for name, value in limits.items() if value is not None),
        ("seed", str(training.seed)),
    )


def hash_of(file: Path) -> str:
    """Return the first digits of a file's SHA-256, by which two models can be told apart."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def write_about(about: About, folder: Path) -> None:
    """Write `about.json`, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    write_json(folder / ABOUT_FILE, about.model_dump(mode="json"))


def read_about(folder: Path) -> About:
    """Read what made the results in a folder, as this version or 0.1.0 wrote it.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / ABOUT_FILE
    if not path.is_file():
        return About()
    return read_json(path, _parse, "is damaged", hint="delete it, or make the results again")


def _parse(content: Any) -> About:
    if isinstance(content, list):
        return _of_pairs(content)
    try:
        return About.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _of_pairs(pairs: Sequence[Sequence[object]]) -> About:
    """Understand what version 0.1.0 wrote: everything as a name and words."""
    facts = {str(name): str(value) for name, value in pairs}
    versions = _EARLIER_VERSIONS.fullmatch(facts.pop("volseg", ""))
    made = facts.pop("made", None)
    return About(
        versions=Versions(**versions.groupdict()) if versions else None,
        made=datetime.strptime(made, _DAY).replace(tzinfo=UTC) if made else None,
        facts=facts,
    )
