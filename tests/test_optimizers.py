from copy import deepcopy

import pytest
import torch
from torch import nn

from volseg.config import TrainingConfig
from volseg.training.optimizers import Muon, build_optimizer, orthogonalize


@pytest.mark.parametrize("shape", [(16, 432), (432, 16), (8, 8)])
def test_an_orthogonalised_matrix_keeps_its_directions_and_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    assert values.min() > 0.05 * values.norm() / len(values)  # nothing that five rounds cannot lift

    turned = left.T @ orthogonalize(matrix) @ right.T
    diagonal = turned.diagonal()
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.3
    assert (turned - torch.diag(diagonal)).abs().max() < 1e-4


def test_a_gradient_of_zero_moves_nothing() -> None:
    assert not orthogonalize(torch.zeros(4, 6)).any()


def gradients(steps: int, *shape: int) -> list[torch.Tensor]:
    chance = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=chance) for _ in range(steps)]


def test_a_kernel_moves_as_pytorch_moves_a_matrix() -> None:
    kernel = nn.Parameter(torch.ones(6, 4, 3, 1, 2))
    matrix = nn.Parameter(torch.ones(6, 24))
    ours = Muon([kernel], 0.01, 0.1)
    theirs = torch.optim.Muon([matrix], 0.01, 0.1, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients(5, 6, 4, 3, 1, 2):
        kernel.grad, matrix.grad = gradient.clone(), gradient.flatten(1)
        ours.step()
        theirs.step()
    moved = (matrix - 1).abs().mean().item()
    # PyTorch's iterates in bf16.
    assert torch.allclose(kernel.flatten(1), matrix, atol=0.05 * moved, rtol=0)


def test_vectors_and_kernels_of_one_voxel_move_as_adamw_moves_them() -> None:
    shapes = [(5,), (3, 5, 1, 1, 1)]
    ours, theirs = ([nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    optimizers = Muon(ours, 0.01, 0.1), torch.optim.AdamW(theirs, 0.01, weight_decay=0.1)
    for step in zip(*(gradients(4, *shape) for shape in shapes), strict=True):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd"])
def test_what_is_frozen_is_left_alone(name: str) -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv3d(2, 1, 1))
    network[0].requires_grad_(False)
    before = network[0].weight.clone()
    optimizer = build_optimizer(network, TrainingConfig(optimizer=name))
    network(torch.ones(1, 1, 4, 4, 4)).sum().backward()
    optimizer.step()
    assert torch.equal(network[0].weight, before)
    assert network[1].bias.item() != 0.0


def test_a_saved_state_goes_on_where_it_was() -> None:
    kernels = [nn.Parameter(torch.ones(2, 2, 3, 3, 3)) for _ in range(2)]
    optimizers = [Muon([kernel], 0.01, 0.0) for kernel in kernels]
    for n, gradient in enumerate(gradients(4, 2, 2, 3, 3, 3)):
        if n == 2:
            kernels[1].data.copy_(kernels[0])
            optimizers[1].load_state_dict(deepcopy(optimizers[0].state_dict()))
        for kernel, optimizer in zip(kernels, optimizers, strict=True):
            kernel.grad = gradient.clone()
            optimizer.step()
    assert torch.equal(*kernels)
