"""Engines: the library and the precision that a network is run with."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from volseg.config import InferenceConfig
from volseg.errors import ConfigError, MemoryShortageError
from volseg.image.box import Triple
from volseg.inference.network_rewriting import rewrite, rewrite_for_torch
from volseg.inference.sliding import InferFn
from volseg.model.networks import choose_precision

if TYPE_CHECKING:
    import openvino

Library = Literal["torch", "compile", "openvino"]
Precision = Literal["fp32", "bf16", "fp16"]

#: Out-of-memory messages of PyTorch without their own exception type: CPU allocator, CUDA, cuBLAS and cuDNN.
_SHORTAGE = ("allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Engine:
    """One way to run a network.

    Attributes:
        library: PyTorch, PyTorch compiled, or OpenVINO.
        precision: Number format of weights and activations.
    """

    library: Library
    precision: Precision

    @classmethod
    def of(cls, dtype: torch.dtype) -> Engine:
        """Return the PyTorch engine for a dtype."""
        return cls("torch", next(name for name, each in _DTYPES.items() if each is dtype))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the network's weights and activations."""
        return _DTYPES[self.precision]

    @property
    def sums_dtype(self) -> torch.dtype:
        """Dtype of the sums of its logits: finer than the logits themselves, and no larger than necessary."""
        return torch.float32 if self.precision == "fp32" else torch.float16

    def __str__(self) -> str:
        return f"{self.library} {self.precision}"


def available(device: torch.device) -> list[Engine]:
    """Return the engines of this machine, the simplest first; the first one is the reference for the others."""
    native = Engine.of(choose_precision("auto", device))  # the most precise format that the hardware is fast with
    engines = [Engine("torch", "fp32"), native]
    if device.type == "cuda":
        engines += [Engine("torch", "fp16"), Engine("compile", native.precision)]
    elif importlib.util.find_spec("openvino") is not None:
        engines.append(Engine("openvino", native.precision))
    return list(dict.fromkeys(engines))


def allowed(config: InferenceConfig, engines: Sequence[Engine]) -> list[Engine]:
    """Return the available engines that a configuration permits, or the one that it names."""
    fitting = [
        engine
        for engine in engines
        if config.backend in {"auto", engine.library} and config.precision in {"auto", engine.precision}
    ]
    library: Library = "torch" if config.backend == "auto" else config.backend
    return fitting or [Engine(library, "fp32" if config.precision == "auto" else config.precision)]


def start(engine: Engine, network: nn.Module, channels: int, patch: Triple, device: torch.device) -> InferFn:
    """Prepare a network to run.

    Args:
        engine: How to run it.
        network: In float32; it is not changed.
        channels: Of its input.
        patch: Voxels of its input.
        device: Where it runs.

    Returns:
        A function from float32 patches on the CPU to logits.

    Raises:
        ConfigError: If the engine is not installed.
    """
    lean = rewrite(network, channels, patch)
    match engine.library:
        case "torch":
            return _start_torch(engine, lean, device)
        case "compile":
            return _start_compiled(engine, lean, (1, channels, *patch), device)
        case "openvino":
            return _start_openvino(engine, lean, (1, channels, *patch))


def subtract_cutoffs(run: InferFn, cutoffs: Sequence[float]) -> InferFn:
    """Subtract from each output the logit above which it counts as positive."""
    if not any(cutoffs):
        return run
    lower = torch.tensor(cutoffs).reshape(-1, 1, 1, 1)

    @torch.inference_mode()
    def above(patches: torch.Tensor) -> torch.Tensor:
        answer = run(patches)
        return answer.float() - lower.to(answer.device)

    return above


def averaged(runs: Sequence[InferFn]) -> InferFn:
    """Average the logits of several networks."""
    if len(runs) == 1:
        return runs[0]

    @torch.inference_mode()  # outputs computed in this mode can be modified only in this mode
    def average(patches: torch.Tensor) -> torch.Tensor:
        total = runs[0](patches).float()
        for run in runs[1:]:
            total += run(patches)
        return total / len(runs)

    return average


def split_on_oom(run: InferFn) -> InferFn:
    """Halve batches that do not fit into memory.

    Raises:
        MemoryShortageError: If a single patch does not.
    """

    def spare(patches: torch.Tensor) -> torch.Tensor:
        try:
            return run(patches)
        except RuntimeError as error:
            if not is_shortage(error):
                raise
            if len(patches) == 1:
                raise MemoryShortageError(
                    f"a patch of {' x '.join(str(size) for size in patches.shape[2:])} voxels does not fit into memory"
                ) from error
        return torch.cat([spare(half) for half in patches.tensor_split(2)])

    return spare


def is_shortage(error: BaseException) -> bool:
    """Return whether an error means out of memory, of the machine or of a GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in _SHORTAGE)


def _start_torch(engine: Engine, network: nn.Module, device: torch.device) -> InferFn:
    lean = (rewrite_for_torch(network) if device.type == "cpu" else network).to(device, engine.dtype)

    def run(patches: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            ordered = patches.to(device, engine.dtype).to(memory_format=torch.channels_last_3d)
            answer: torch.Tensor = lean(ordered)
            return answer

    return run


def _start_compiled(engine: Engine, network: nn.Module, shape: tuple[int, ...], device: torch.device) -> InferFn:
    """Compile at once: it needs a compiler that not every machine has, and errors show with the first patch."""
    network.compile()
    run = _start_torch(engine, network, device)
    try:
        run(torch.zeros(shape))
    except Exception as error:  # of any kind: it states what the compiler cannot do, and the next engine is tried
        if is_shortage(error):
            raise
        what = str(error).strip().partition("\n")[0]
        raise ConfigError(f"PyTorch cannot compile this network: {what}", hint="set inference.backend=torch") from error
    return run


def _start_openvino(engine: Engine, network: nn.Module, shape: tuple[int, ...]) -> InferFn:
    core = _openvino_core()
    import openvino

    hints = {
        "INFERENCE_PRECISION_HINT": "f32" if engine.precision == "fp32" else engine.precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of its converter and PyTorch's exporter about each other
        try:
            graph = openvino.convert_model(torch.export.export(network.cpu(), (torch.zeros(shape),)))
            request = core.compile_model(graph, "CPU", hints).create_infer_request()
        except Exception as error:  # of any kind: it states what the converter cannot do, and the next engine is tried
            what = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"OpenVINO cannot run this network: {what}", hint="set inference.backend=torch"
            ) from error

    def run(patches: torch.Tensor) -> torch.Tensor:
        answers = [np.array(request.infer([patch[None].numpy()])[0]) for patch in patches.contiguous()]
        return torch.from_numpy(np.concatenate(answers)).contiguous(memory_format=torch.channels_last_3d)

    return run


@cache
def _openvino_core() -> openvino.Core:
    """Return OpenVINO's core, one for the whole process.

    Its CPU plugin installs a signal stack in the thread that loads it, and removes it when it is destroyed. If that
    happened in another thread, the next signal (Ctrl-C, the end of a child) would find no stack and end the process.

    Raises:
        ConfigError: If OpenVINO is not installed.
    """
    # OpenVINO would report each import and conversion to its makers. Nothing leaves the machine.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # documented: importing it then fails
    try:
        import openvino
    except ImportError:
        raise ConfigError(
            "OpenVINO is not installed", hint="pip install openvino, or set inference.backend=torch"
        ) from None
    return openvino.Core()
