"""Engine trials: find and remember the fastest engine on this machine that keeps the labels of float32."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from volseg.errors import ConfigError
from volseg.inference.engines import Engine
from volseg.inference.sliding import InferFn
from volseg.io.measurements import cache_folder, keep, measurement_key, recall
from volseg.model.devices import device_kind

#: An engine that changes a larger share of the labels than this is not used.
TOLERATED_SHARE = 0.001
#: An engine must be faster than a simpler one by this factor: smaller differences may be noise of a busy machine.
_WORTHWHILE = 1.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """The result of trying out an engine.

    Attributes:
        engine: The engine.
        seconds: For one patch.
        changed: Share of the labels that differ from those of the first engine.
    """

    engine: Engine
    seconds: float
    changed: float


def try_engines(
    engines: Sequence[Engine],
    begin: Callable[[Engine], InferFn],
    patches: Sequence[torch.Tensor],
    decide: Callable[[torch.Tensor], torch.Tensor],
) -> list[Trial]:
    """Try out engines.

    Args:
        engines: The first one is the reference for the others.
        begin: Starts an engine.
        patches: (1, C, *patch) of real images.
        decide: (outputs, ...) logits -> labels.

    Returns:
        A trial of each engine that can run the network.

    Raises:
        ConfigError: If the first one cannot.
    """
    trials: list[Trial] = []
    wanted: list[torch.Tensor] = []
    for n, engine in enumerate(engines):
        try:
            run = begin(engine)
        except ConfigError as error:
            if n == 0:
                raise
            logger.info("engine %s cannot be used: %s", engine, error)
            continue
        labels = [decide(run(patch)[0]) for patch in patches]
        wanted = wanted or labels
        differing = sum(int((one != other).sum()) for one, other in zip(labels, wanted, strict=True))
        changed = differing / sum(each.numel() for each in wanted)
        trials.append(Trial(engine, min(_seconds(run, patches[0]) for _ in range(2)), changed))
        logger.info("%s: %.3f s a patch, %.4f %% of labels changed", engine, trials[-1].seconds, 100 * changed)
    return trials


def fastest_engine(trials: Sequence[Trial]) -> Engine:
    """Return the fastest engine that keeps the labels; a later one must be clearly faster than those before it."""
    best = trials[0]
    for trial in trials[1:]:
        if trial.changed <= TOLERATED_SHARE and trial.seconds * _WORTHWHILE < best.seconds:
            best = trial
    return best.engine


def trial_key(model: str, engines: Sequence[Engine], device: torch.device) -> str:
    """Hash everything a choice depends on: model, engines, machine, and versions.

    The number of threads is not among it: processes that share a machine segment in the same way as one that has it.
    """
    return measurement_key(model, [asdict(engine) for engine in engines], *device_kind(device))


def remembered(key: str, engines: Sequence[Engine], cache: Path) -> Engine | None:
    """Return the engine chosen before, None if there is none among these."""
    chosen = recall(cache, key, lambda content: Engine(**content))
    return chosen if chosen in engines else None


def remember(key: str, engine: Engine, cache: Path) -> None:
    """Store a choice, so that the next batch is segmented the same way."""
    keep(cache, key, asdict(engine))


def default_cache() -> Path:
    """Return the default folder of the stored choices."""
    return cache_folder("engines")


def _seconds(run: InferFn, patch: torch.Tensor) -> float:
    began = time.perf_counter()
    run(patch).cpu()
    return time.perf_counter() - began
