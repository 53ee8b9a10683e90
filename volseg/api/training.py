"""Functions to plan and train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
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
    executor: Executor | None = None,
) -> Plan:
    """Analyse a labelled data set and plan a complete configuration, with a reason for every choice.

    Args:
        data: A labelled data set in any layout, or a manifest.
        network: Architecture of the network; by default a DynUNet.
        minutes: Time budget of the whole training, if it is limited.
        config: A YAML file with some keys, or a mapping of the keys.
        changes: Keys that override those.
        allow_gaps: Whether to bridge missing slices of DICOM series by interpolation.
        output: The YAML file to write; if None, nothing is written.
        overwrite: Whether to replace a file there that volseg did not write.
        threads: Number of threads of this process; by default all that it may use.
        device: Device to plan for: "cpu", "cuda", "cuda:1" or "mps"; by default a CUDA device if there is one.
        progress: Called per case.
        executor: Reads the cases, such as `volseg.cluster.on(client)`; by default threads of this process.

    Returns:
        The plan; `changed` returns a modified one, `save` writes it.

    Raises:
        DataError: If there is no labelled case.
        ConfigError: If a key is unknown or its value is not allowed, or the device does not exist.
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
    made = replace(plan_folder(Path(data), given, progress, StepTimer(chosen), chosen, executor)[1], inputs=inputs)
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
    executor: Executor | None = None,
) -> Run:
    """Train a network; settings that are not given are planned.

    Under `torchrun` all processes call this and train one network together; the first of them writes the files.

    Args:
        data: A labelled data set in any layout, or a manifest.
        output: The run folder.
        plan: A plan from `plan`.
        config: A YAML file with some or all keys, or a mapping of the keys, which override the plan.
        changes: Keys that override those.
        minutes: Time budget of the whole run.
        epochs: Number of epochs of `training.steps_per_epoch` steps.
        target_dice: Validation Dice at which training stops.
        fold: Fold used for validation, or "all" to train one network per fold.
        start_from: A run, a model or a weights file to start from, as far as it fits.
        allow_gaps: Whether to bridge missing slices of DICOM series by interpolation.
        validate_all: Whether to score all validation cases at the end, even if it exceeds a tenth of `minutes`.
        resume: Continue the interrupted run in `output`; if there is none, a new one starts, with a warning.
        overwrite: Whether to replace files in the output that volseg did not write; never a run.
        began: `time.monotonic()` when `minutes` began to count; by default now.
        threads: Number of threads of this process; by default all that it may use.
        device: "cpu", "cuda", "cuda:1" (not under `torchrun`) or "mps"; by default a CUDA device if there is one.
        progress: Called per case and per step.
        on_epoch_done: Called after each epoch with its row of history.csv, preceded by `fold` and `kind` if there
            are several.
        executor: Reads and prepares the cases, such as `volseg.cluster.on(client)`; by default threads of this process.
            The network is trained in this process, or by all of `torchrun`.

    Returns:
        The finished run.

    Raises:
        VolsegError: Any of its subclasses, if the data, the configuration or the output is invalid.
    """
    from volseg.config import PartialConfig
    from volseg.io.written import Inputs
    from volseg.model.devices import choose_device
    from volseg.parallel import use_threads
    from volseg.training.distributed import join_process_group, was_restarted
    from volseg.training.history import ignore_epochs
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
            executor=executor,
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
    """Train 2D, 2.5D or 3D networks on all folds, and choose the kind with the best Dice on the validation cases.

    Args:
        data: A labelled data set in any layout, or a manifest.
        output: Folder for a run per kind, comparison.csv and choice.json; `load` accepts it as the chosen model.
        among: The kinds to compare: "2d,3d", or "2d,2.5d,3d", which adds networks that see neighbouring slices.
        config: A YAML file with some or all keys, or a mapping of the keys, which override the plan of each kind.
        changes: Keys that override those.
        minutes: Time budget of the whole comparison.
        epochs: Number of epochs of each network.
        resume: Continue an interrupted comparison.
        overwrite: Whether to replace files in the output that volseg did not write.
        threads: Number of threads of this process; by default all that it may use.
        device: Where networks are trained; by default a CUDA device if there is one.
        progress: Called per case and per step.
        on_epoch_done: Called after each epoch with its row of history.csv, preceded by `fold` and `kind` if there
            are several.

    Returns:
        The choice, and the Dice of every case.

    Raises:
        VolsegError: Any of its subclasses, if the data, the configuration or the output is invalid.
    """
    from volseg.config import PartialConfig
    from volseg.io.written import Inputs
    from volseg.model.devices import choose_device
    from volseg.parallel import use_threads
    from volseg.training import choice
    from volseg.training.history import ignore_epochs

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
