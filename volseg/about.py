"""Origin of results: versions, models and hardware, in about.json."""

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

#: Format of versions in about.json of version 0.1.0, which was a list of names and values.
_EARLIER_VERSIONS = re.compile(r"(?P<volseg>\S+), torch (?P<torch>\S+), MONAI (?P<monai>\S+)")
_DAY = "%Y-%m-%d %H:%M UTC"


class Versions(Section):
    """The programs that results depend on.

    Attributes:
        volseg: This program.
        torch: PyTorch.
        monai: MONAI.
        python: Python; empty if version 0.1.0 wrote the file.
    """

    volseg: str
    torch: str
    monai: str
    python: str = ""


class Hardware(Section):
    """The hardware of a machine that ran the networks.

    Attributes:
        device: Device of the networks: cpu, cuda or mps.
        gpu: Name of the GPU; null if the networks ran on the CPU.
        processor: Name of the processor; empty if the system does not report it.
        cores: Number of cores that each process used.
        memory_gb: Memory that a process may use, in 10^9 bytes.
        instructions: Widest vector instructions that PyTorch uses on the processor: AVX2, AVX512 ...
        bf16: Whether the device multiplies bf16 natively.
        processes: Number of processes that worked together.
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
        """All of it in one line."""
        processor = f"{self.processor or 'processor'}, {self.cores} core{'s' * (self.cores > 1)}, {self.instructions}"
        device = self.gpu or self.device
        bf16 = "bf16" if self.bf16 else "no bf16"
        together = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{device} ({bf16}){together}; {processor}; {self.memory_gb:g} GB"


class About(Section):
    """The origin of a folder of results; empty if the folder does not state it.

    Attributes:
        versions: Versions of the programs.
        made: Time of creation.
        facts: Further facts by name; no name or value contains a patient's name or a path.
        hardware: The machines that ran the networks, in order.
    """

    versions: Versions | None = None
    made: datetime | None = None
    facts: Mapping[str, str] = Field(default_factory=dict)
    hardware: tuple[Hardware, ...] = ()

    @property
    def lines(self) -> Facts:
        """Readable names and values of everything."""
        versions, made = self.versions, self.made
        return (
            *((("volseg", f"{versions.volseg}, torch {versions.torch}, MONAI {versions.monai}"),) if versions else ()),
            *((("made", made.strftime(_DAY)),) if made else ()),
            *self.facts.items(),
            *((("machine", ", then ".join(machine.words for machine in self.hardware)),) if self.hardware else ()),
        )


def made_now(facts: Facts = (), hardware: Sequence[Hardware] = ()) -> About:
    """Return the origin of results created now, with these versions."""
    versions = Versions(
        volseg=__version__, torch=version("torch"), monai=version("monai"), python=platform.python_version()
    )
    made = datetime.now(UTC).replace(microsecond=0)
    return About(versions=versions, made=made, facts=dict(facts), hardware=tuple(hardware))


def facts_of_models(files: Sequence[Path]) -> Facts:
    """Return the identity of models: a hash of each file."""
    return tuple((f"model {number}", hash_of(file)) for number, file in enumerate(files, start=1) if file.is_file())


def facts_of_config(config: Config) -> Facts:
    """Return the main facts about a training configuration."""
    training = config.training
    sizes = config.preprocessing.spacing_mm
    spacing = " x ".join("unchanged" if size is None else f"{size:g}" for size in sizes) + " mm"
    grid = "pixel by pixel" if config.data.unit == "px" else spacing
    limits = {"minutes": training.minutes, "epochs": training.epochs, "target Dice": training.target_dice}
    return (
        ("network", config.network.name),
        ("channels", ", ".join(config.data.channels)),
        ("labels", ", ".join(label.name for label in config.data.output_labels)),
        ("voxel size", grid),
        ("patches", f"{' x '.join(map(str, config.patches.size))}, {training.batch_size} per step"),
        ("loss, optimizer", f"{config.loss.name}, {training.optimizer}, learning rate {training.learning_rate:g}"),
        *((name, f"{value:g}") for name, value in limits.items() if value is not None),
        ("seed", str(training.seed)),
    )


def hash_of(file: Path) -> str:
    """Return the first digits of a file's SHA-256, which identify a model."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def write_about(about: About, folder: Path) -> None:
    """Write `about.json` atomically.

    Raises:
        OutputError: If it cannot be written.
    """
    write_json(folder / ABOUT_FILE, about.model_dump(mode="json"))


def read_about(folder: Path) -> About:
    """Read the origin of the results in a folder, as written by this version or 0.1.0.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / ABOUT_FILE
    if not path.is_file():
        return About()
    return read_json(path, _parse, "is damaged", hint="delete it, or create the results again")


def _parse(content: Any) -> About:
    if isinstance(content, list):
        return _of_pairs(content)
    try:
        return About.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _of_pairs(pairs: Sequence[Sequence[object]]) -> About:
    """Convert the format of version 0.1.0, a list of names and texts."""
    facts = {str(name): str(value) for name, value in pairs}
    versions = _EARLIER_VERSIONS.fullmatch(facts.pop("volseg", ""))
    made = facts.pop("made", None)
    return About(
        versions=Versions(**versions.groupdict()) if versions else None,
        made=datetime.strptime(made, _DAY).replace(tzinfo=UTC) if made else None,
        facts=facts,
    )
