"""Data-parallel training in several processes that `torchrun` starts; a process on its own is a group of one.

Each process computes its shard of every batch. The loss of a batch is no sum over patches (Dice is a ratio of sums), so
the logits of all processes are gathered before it is taken: several processes learn what one with the same batch would.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

# Its functions keep the group that exists when they are defined, as the default of an argument. DDP imports them while
# there is one, whose threads would then outlive it and could abort the process at its end.
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
    """The processes that train one network together, as one of them sees it.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this process writes the files and prints."""
        return self.rank == 0

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Run a block on the leader before the others run it, which then find its work done."""
        if not self.is_leader:
            self.barrier()
        yield
        if self.is_leader:
            self.barrier()

    def barrier(self) -> None:
        """Wait until every process has come this far."""
        if self.world_size > 1:
            distributed.barrier()

    def batch_shard(self, batch_size: int) -> slice:
        """The patches of a batch that this process computes.

        Raises:
            ConfigError: If the batch cannot be divided evenly.
        """
        if batch_size % self.world_size:
            raise ConfigError(
                f"training.batch_size: {batch_size} patches cannot be dealt to {self.world_size} processes",
                hint=f"make it a multiple of {self.world_size}",
            )
        length = batch_size // self.world_size
        return slice(self.rank * length, (self.rank + 1) * length)

    def shard(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """The items that this process works on: every `world_size`-th."""
        return items[self.rank :: self.world_size]

    def gather(self, shard: list[_Item]) -> list[_Item]:
        """Undo `shard`: the results of all processes, on each of them, in the order of the items."""
        if self.world_size == 1:
            return shard
        shards: list[list[_Item]] = [[] for _ in range(self.world_size)]
        distributed.all_gather_object(shards, shard)
        return [shards[n % self.world_size][n // self.world_size] for n in range(sum(map(len, shards)))]

    def broadcast(self, value: float) -> float:
        """Replace a number by the leader's."""
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

        Gradients flow into the shard of this process only. Of a loss of the whole batch each process then has its part
        of the gradient, and the network of `distribute` takes the mean: the loss has to be multiplied by `world_size`.

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
    """Join the processes that `torchrun` started together with this one, until the block ends.

    Args:
        device: What they compute on: "cpu", or "cuda", which is a device of its own for each.

    Raises:
        ConfigError: If they cannot share the device, or there are too few of them.
        TrainingError: If another process is lost meanwhile.
    """
    if not distributed.is_torchelastic_launched():
        yield SINGLE_PROCESS
        return
    if str(device) not in {"cpu", "cuda"}:
        raise ConfigError(
            f"{device}: several processes train on CPUs, or on a CUDA device each",
            hint="take cuda or cpu; CUDA_VISIBLE_DEVICES says which devices torchrun may use",
        )
    if device.type == "cuda":
        torch.cuda.set_device(choose_device(f"cuda:{os.environ['LOCAL_RANK']}"))
    backend = "nccl" if device.type == "cuda" else "gloo"
    store, rank, world_size = next(rendezvous("env://"))
    # After a restart the store still holds the addresses of the processes before.
    store = PrefixStore(f"attempt {_restarts()}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=_TIMEOUT)
    try:
        yield ProcessGroup(rank, world_size)
    except RuntimeError as error:
        if not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        raise TrainingError(
            "another process of the group was lost",
            hint="what it said itself is the cause; the same command with --resume goes on",
        ) from error
    finally:
        distributed.destroy_process_group()


def was_restarted() -> bool:
    """Whether `torchrun` has restarted this command after a process was lost."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
