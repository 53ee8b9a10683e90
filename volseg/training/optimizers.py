"""Optimisers of PyTorch, and Muon for convolution kernels, which PyTorch implements for matrices only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from volseg.config import TrainingConfig

#: Coefficients and iterations of Newton-Schulz in `orthogonalize` (Jordan 2024).
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95
#: Root mean square of an update, that of AdamW, so that both share a learning rate (Liu et al. 2025, section 2.2).
_RMS = 0.2


def build_optimizer(network: nn.Module, settings: TrainingConfig) -> torch.optim.Optimizer:
    """Build the optimiser of a network.

    Args:
        network: The network; frozen parameters, which need no gradient, are left out.
        settings: The optimiser, its learning rate and its weight decay.

    Returns:
        The optimiser before its first step.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings.optimizer:
        case "muon":
            return Muon(trainable, rate, decay)
        case "adamw":
            return torch.optim.AdamW(trainable, rate, weight_decay=decay)
        case "sgd":
            return torch.optim.SGD(trainable, rate, momentum=0.99, nesterov=True, weight_decay=decay)


class Muon(torch.optim.AdamW):
    """Muon for the kernels of convolutions, AdamW for everything else.

    Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") turns the averaged gradient of
    a matrix into the nearest orthogonal one, so that all directions of a layer learn equally fast. A kernel is a matrix
    with a row per output channel (per input channel of a transposed convolution). As in Jordan's work, kernels of one
    voxel, such as the output layer, and vectors are left to AdamW. Updates are scaled to the size of those of AdamW
    (Liu et al. 2025, "Muon is scalable for LLM training", arXiv 2502.16982).

    Args:
        parameters: Trainable parameters.
        learning_rate: Learning rate of both optimisers.
        weight_decay: Decoupled weight decay of both optimisers.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        groups = [
            {"params": [each for each in parameters if _is_kernel(each) == kernels], "kernels": kernels}
            for kernels in (False, True)
        ]
        super().__init__(groups, learning_rate, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters; the gradients of kernels are consumed."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for kernel in group["params"] if group["kernels"] else []:
                if kernel.grad is not None:
                    self._step_kernel(kernel, kernel.grad, group["lr"], group["weight_decay"])
                    kernel.grad = None  # AdamW skips parameters without a gradient
        super().step()
        return loss

    def _step_kernel(self, kernel: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[kernel]
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
            state["step"] = torch.zeros(())  # AdamW expects one in every state that it loads
        mean = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        update = orthogonalize(gradient.lerp(mean, _MOMENTUM).flatten(1))  # Nesterov's momentum
        kernel.mul_(1 - rate * decay)
        kernel.add_(update.reshape(kernel.shape), alpha=-rate * _RMS * math.sqrt(max(update.shape)))


def _is_kernel(parameter: nn.Parameter) -> bool:
    return math.prod(parameter.shape[2:]) > 1


def orthogonalize(matrix: Tensor) -> Tensor:
    """Bring all singular values of a matrix near 1 and keep its singular vectors.

    The Newton-Schulz iteration of Jordan (2024) leaves them between 0.7 and 1.2, which works as well as 1.

    Args:
        matrix: (rows, columns) float.

    Returns:
        A matrix of the same shape; zeros stay zeros.
    """
    a, b, c = _QUINTIC
    flat = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    flat = flat / flat.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = flat @ flat.T
        flat = torch.addmm(flat, torch.addmm(gram, gram, gram, beta=b, alpha=c), flat, beta=a)
    return flat if matrix.shape[0] <= matrix.shape[1] else flat.T
