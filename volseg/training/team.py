"""Processes that train one network together, started by `torchrun`; a process of its own is a team of one.

Each makes its part of every batch. The losses of a batch are not sums over patches (Dice is a ratio of sums), so the
answers of all are gathered before the loss is taken: a team learns what one process with the same batch would.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

# Its functions keep the group that exists when they are defined, as the default of an argument. DDP brings them in
# while there is one, whose threads would then outlive it and could abort the process at its end.
import torch.distributed.nn
from torch import distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from volseg.errors import ConfigError, TrainingError
from volseg.model.networks import choose_device

_Item = TypeVar("_Item")

#: The leader may read and prepare a large data set while the others wait.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Team:
    """One member's view of the team.

    Attributes:
        rank: Which member this process is, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this member writes files and talks."""
        return self.rank == 0

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the leader do something before the others do the same, which then find it done."""
        if not self.leads:
            self.meet()
        yield
        if self.leads:
            self.meet()

    def meet(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            distributed.barrier()

    def part(self, size: int) -> slice:
        """Which patches of a batch are this member's.

        Raises:
            ConfigError: If a batch cannot be dealt out evenly.
        """
        if size % self.size:
            raise ConfigError(
                f"training.batch_size: {size} patches cannot be dealt to {self.size} processes",
                hint=f"make it a multiple of {self.size}",
            )
        share = size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def deal(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """This member's part of something; as evenly as it goes."""
        return items[self.rank :: self.size]

    def collect(self, dealt: list[_Item]) -> list[_Item]:
        """What all made of their parts, in the order before `deal`."""
        if self.size == 1:
            return dealt
        parts: list[list[_Item]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(parts, dealt)
        return [parts[n % self.size][n // self.size] for n in range(sum(map(len, parts)))]

    def broadcast(self, value: float) -> float:
        """The leader's number."""
        if self.size == 1:
            return value
        number = torch.tensor([value], dtype=torch.float64, device=choose_device())
        distributed.broadcast(number, 0)
        return number.item()

    def share(self, network: nn.Module) -> nn.Module:
        """A network whose gradients are averaged over the team."""
        return DistributedDataParallel(network) if self.size > 1 else network

    def whole(self, part: torch.Tensor) -> torch.Tensor:
        """A batch from the parts of all, (B / size, ...) each, in the order of ranks.

        Gradients flow into the own part only. Of a loss of the whole batch each member then has its share of the
        gradient, of which `share` takes the mean: the loss has to be multiplied by the size of the team.
        """
        if self.size == 1:
            return part
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(self.size)]
        distributed.all_gather(parts, part.detach().contiguous())
        parts[self.rank] = part
        return torch.cat(parts)


ALONE = Team()


@contextmanager
def gather_team() -> Iterator[Team]:
    """The team that `torchrun` started this process in, for as long as it works together.

    Raises:
        TrainingError: If another member is lost meanwhile.
    """
    if not distributed.is_torchelastic_launched():
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    store, rank, size = next(rendezvous("env://"))
    # After a restart the store still holds the addresses of the processes before.
    store = PrefixStore(f"attempt {_restarts()}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield Team(rank, size)
    except RuntimeError as error:
        if not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        raise TrainingError(
            "another process of the team was lost",
            hint="what it said itself is the cause; the same command with --resume goes on",
        ) from error
    finally:
        distributed.destroy_process_group()


def was_restarted() -> bool:
    """Whether `torchrun` has started this command again, after a member was lost."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
