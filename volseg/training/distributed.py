"""Data-parallel training in several processes started by `torchrun`; a single process is a group of one.

Each process computes its shard of every batch. The loss of a batch is not a sum over patches (Dice is a ratio of sums),
so the logits of all processes are gathered first: several processes learn exactly what one with the same batch would.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

# Imported early: its functions keep the group that exists at their definition as a default argument. DDP would import
# them while there is one, whose threads would then outlive it and could abort the process at exit.
import torch.distributed.nn
from torch import distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from volseg.errors import ConfigError, TrainingError
from volseg.model.devices import choose_device

_Item = TypeVar("_Item")

#: The leader may read and prepare a large data set while the others wait.
_TIMEOUT = timedelta(days=1)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one network together, from the point of view of one of them.

    Attributes:
        rank: Index of this process, from 0.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_leader(self) -> bool:
        """Return whether this process writes the files and prints."""
        return self.rank == 0

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Run a block on the leader first; the other processes run it afterwards and find its work done."""
        if not self.is_leader:
            self.barrier()
        yield
        if self.is_leader:
            self.barrier()

    def barrier(self) -> None:
        """Wait until every process has reached this point."""
        if self.world_size > 1:
            distributed.barrier()

    def batch_shard(self, batch_size: int) -> slice:
        """Return which patches of a batch this process computes.

        Raises:
            ConfigError: If the batch cannot be divided evenly.
        """
        if batch_size % self.world_size:
            raise ConfigError(
                f"training.batch_size: {batch_size} patches cannot be divided evenly among {self.world_size} processes",
                hint=f"make it a multiple of {self.world_size}",
            )
        length = batch_size // self.world_size
        return slice(self.rank * length, (self.rank + 1) * length)

    def shard(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """Return the items that this process works on: every `world_size`-th."""
        return items[self.rank :: self.world_size]

    def gather(self, shard: list[_Item]) -> list[_Item]:
        """Undo `shard`: return the results of all processes, on each of them, in the order of the items."""
        if self.world_size == 1:
            return shard
        shards: list[list[_Item]] = [[] for _ in range(self.world_size)]
        distributed.all_gather_object(shards, shard)
        return [shards[n % self.world_size][n // self.world_size] for n in range(sum(map(len, shards)))]

    def broadcast(self, value: float) -> float:
        """Return the leader's value of a number."""
        if self.world_size == 1:
            return value
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        number = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.broadcast(number, 0)
        return number.item()

    def distribute(self, network: nn.Module) -> nn.Module:
        """Wrap a network so that its gradients are averaged over the processes."""
        return DistributedDataParallel(network) if self.world_size > 1 else network

    def gather_batch(self, shard: torch.Tensor) -> torch.Tensor:
        """Concatenate the shards of a batch, in the order of ranks.

        Gradients flow into the shard of this process only. For a loss of the whole batch, each process then holds its
        part of the gradient. The network of `distribute` averages the parts, so multiply the loss by `world_size`.

        Args:
            shard: (B / world_size, ...).

        Returns:
            (B, ...).
        """
        if self.world_size == 1:
            return shard
        shards = [torch.empty_like(shard, memory_format=torch.contiguous_format) for _ in range(self.world_size)]
        distributed.all_gather(shards, shard.detach().contiguous())
        shards[self.rank] = shard
        return torch.cat(shards)


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the group of processes that `torchrun` started, until the block ends.

    Args:
        device: "cpu", or "cuda" for one CUDA device per process.

    Raises:
        ConfigError: If they cannot share the device, or there are too few of them.
        TrainingError: If another process is lost.
    """
    if not distributed.is_torchelastic_launched():
        yield SINGLE_PROCESS
        return
    if str(device) not in {"cpu", "cuda"}:
        raise ConfigError(
            f"{device}: several processes train on CPUs, or on one CUDA device each",
            hint="use cuda or cpu; set CUDA_VISIBLE_DEVICES to the devices that torchrun may use",
        )
    if device.type == "cuda":
        torch.cuda.set_device(choose_device(f"cuda:{os.environ['LOCAL_RANK']}"))
    backend = "nccl" if device.type == "cuda" else "gloo"
    store, rank, world_size = next(rendezvous("env://"))
    # After a restart the store still holds the addresses of the earlier processes.
    store = PrefixStore(f"attempt {_restarts()}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=_TIMEOUT)
    try:
        yield ProcessGroup(rank, world_size)
    except RuntimeError as error:
        if not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        raise TrainingError(
            "another process of the group was lost",
            hint="see the error message of that process; continue with the same command and --resume",
        ) from error
    finally:
        distributed.destroy_process_group()


def was_restarted() -> bool:
    """Return whether `torchrun` has restarted this command after a process was lost."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
