"""Planning and training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.loaded_model import Changes, StrPath
from volseg.progress import Progress, ignore_progress

if TYPE_CHECKING:
    import torch

    from volseg.config import NetworkName
    from volseg.planning import Plan
    from volseg.training.choice import Choice
    from volseg.training.run import Run


def plan(  # noqa: PLR0913  each is an option of the command
    data: StrPath,
    *,
    network: NetworkName | None = None,
    minutes: float | None = None,
    config: StrPath | Changes | None = None,
    changes: Changes | None = None,
    allow_gaps: bool = False,
    output: StrPath | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress = ignore_progress,
) -> Plan:
    """Look at a labelled data set and plan a complete configuration, with a reason beside every choice.

    Args:
        data: A labelled data set in any layout, or a manifest.
        network: Which network; a DynUNet unless another is named.
        minutes: For the whole training, if that is limited.
        config: A YAML file of some keys, or the keys themselves.
        changes: Keys that are laid over those.
        allow_gaps: Whether DICOM series with missing slices are bridged by interpolation.
        output: The YAML file to write; without it nothing is written.
        overwrite: Whether a file there is given up.
        threads: How many threads this process computes with; unless given, those that it may use.
        device: What it is made for: "cpu", "cuda", "cuda:1", "mps"; unless given, a CUDA device if there is one.
        progress: Told per case.

    Returns:
        The plan; `changed` gives another one, `save` writes it.

    Raises:
        DataError: If there is no labelled case.
        ConfigError: If a key is unknown or its value not allowed, or there is no such device.
    """
    from volseg.config import PartialConfig
    from volseg.io.written import Inputs, claim
    from volseg.model.devices import choose_device
    from volseg.parallel import use_threads
    from volseg.planning import plan_folder
    from volseg.training.timing import StepTimer

    use_threads(threads)
    chosen = choose_device(device)
    given = PartialConfig.stated(config, changes, allow_gaps, network=network, training={"minutes": minutes})
    inputs, written = Inputs.of(data, config), [] if output is None else [Path(output)]
    claim(written, inputs, overwrite=overwrite)
    made = replace(plan_folder(Path(data), given, progress, StepTimer(chosen), chosen)[1], inputs=inputs)
    for path in written:
        made.save(path)
    return made


def train(  # noqa: PLR0913  each is an option of the command
    data: StrPath,
    output: StrPath,
    *,
    plan: Plan | None = None,
    config: StrPath | Changes | None = None,
    changes: Changes | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    target_dice: float | None = None,
    fold: int | str | None = None,
    start_from: StrPath | None = None,
    allow_gaps: bool = False,
    validate_all: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    began: float | None = None,
    threads: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress = ignore_progress,
    on_epoch_done: Callable[[Mapping[str, Any]], None] | None = None,
) -> Run:
    """Train a network; what is left open is planned.

    Under `torchrun` all processes call this and train one network together; the first of them writes.

    Args:
        data: A labelled data set in any layout, or a manifest.
        output: The run folder.
        plan: What `plan` returned.
        config: A YAML file of some or all keys, or the keys themselves, laid over the plan.
        changes: Keys that are laid over those.
        minutes: Time for the whole run.
        epochs: Rounds of `training.steps_per_epoch` steps.
        target_dice: Training ends as soon as validation reaches it.
        fold: Which fold is held out for validation, or "all", one network each.
        start_from: A run, a model or a file of weights to start with, as far as it fits.
        allow_gaps: Whether DICOM series with missing slices are bridged by interpolation.
        validate_all: Whether all held-out cases are scored at the end, even where that exceeds a tenth of `minutes`.
        resume: Go on with the interrupted run in `output`; where there is none, one begins, with a warning.
        overwrite: Whether files of the user's that lie where those of the run are to be are given up; never a run.
        began: `time.monotonic()` when `minutes` began to count; now, if it is left out.
        threads: How many threads this process computes with; unless given, those that it may use.
        device: "cpu", "cuda", "cuda:1" (not under `torchrun`), "mps"; unless given, a CUDA device if there is one.
        progress: Told per case and per step.
        on_epoch_done: Gets the row of history.csv of each epoch.

    Returns:
        The finished run.

    Raises:
        VolsegError: In any of its kinds, for what can be wrong with data, configuration and output.
    """
    from volseg.config import PartialConfig
    from volseg.io.written import Inputs
    from volseg.model.devices import choose_device
    from volseg.parallel import use_threads
    from volseg.training.distributed import join_process_group, was_restarted
    from volseg.training.loop import ignore_epochs
    from volseg.training.run import train_folder

    use_threads(threads)
    chosen = choose_device(device)
    options: dict[str, Any] = {"minutes": minutes, "epochs": epochs, "target_dice": target_dice, "fold": fold}
    options |= {"start_from": None if start_from is None else str(start_from), "validate_all": validate_all or None}
    given = PartialConfig.stated(config, changes, allow_gaps, training=options)
    if plan is not None:
        given = given.laid_over_partial(plan.config.model_dump(mode="json"))
    with join_process_group(chosen) as group:
        return train_folder(
            Path(data),
            Path(output),
            given,
            resume=resume or was_restarted(),
            overwrite=overwrite,
            inputs=Inputs.of(data, config, start_from),
            progress=progress if group.is_leader else ignore_progress,
            on_epoch_done=on_epoch_done or ignore_epochs,
            group=group,
            began=began,
            device=chosen,
        )


def choose_dimensions(  # noqa: PLR0913  each is an option of the command
    data: StrPath,
    output: StrPath,
    among: str | Sequence[str] = ("2d", "3d"),
    *,
    config: StrPath | Changes | None = None,
    changes: Changes | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress = ignore_progress,
    on_epoch_done: Callable[[Mapping[str, Any]], None] | None = None,
) -> Choice:
    """Train networks of planes and of volumes for all folds, and choose what is best on cases that they never saw.

    Args:
        data: A labelled data set in any layout, or a manifest.
        output: Gets a run for each kind, comparison.csv and choice.json; `load` takes it for what was chosen.
        among: What is compared: "2d,3d", or "2d,2.5d,3d", where slices are also seen with those beside them.
        config: A YAML file of some or all keys, or the keys themselves, laid over the plan of each.
        changes: Keys that are laid over those.
        minutes: Time for all of it.
        epochs: Of each network.
        resume: Go on with what was interrupted.
        overwrite: Whether files of the user's that lie where those of the runs are to be are given up.
        threads: How many threads this process computes with; unless given, those that it may use.
        device: Where networks are trained; unless given, a CUDA device if there is one.
        progress: Told per case and per step.
        on_epoch_done: Gets the row of history.csv of each epoch.

    Returns:
        What was chosen, and the Dice of every case.

    Raises:
        VolsegError: In any of its kinds, for what can be wrong with data, configuration and output.
    """
    from volseg.config import PartialConfig
    from volseg.io.written import Inputs
    from volseg.model.devices import choose_device
    from volseg.parallel import use_threads
    from volseg.training import choice
    from volseg.training.loop import ignore_epochs

    use_threads(threads)
    given = PartialConfig.stated(config, changes, training={"minutes": minutes, "epochs": epochs})
    return choice.choose_dimensions(
        Path(data),
        Path(output),
        given,
        choice.parse_dimensions(among),
        resume=resume,
        overwrite=overwrite,
        inputs=Inputs.of(data, config),
        progress=progress,
        device=choose_device(device),
        on_epoch_done=on_epoch_done or ignore_epochs,
    )
