# SPDX-License-Identifier: BSD-3-Clause
"""One training on several processes, each with a device of its own, as ``torchrun`` starts them.

Random numbers are drawn for the whole batch by every process, from the same seed, and each takes
its share. So the result does not depend on how many processes there are, up to the order of sums.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .device import pick_device

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a training: this one's number and how many there are."""

    rank: int = 0
    size: int = 1

    def share(self, whole: Tensor, rounds: int = 1) -> list[Tensor]:
        """Samples of a batch [N, ...] for this process, for each of so many rounds.

        Sample ``i`` goes to process ``i % size``, and there to round ``i // size % rounds``. With
        shares that are multiples of the group, the groups of the minibatch standard deviation hold
        the same samples as in one process: in both, sample ``i`` meets those ``i + N / group``
        further on.
        """
        # A copy is made, so that the whole batch can be freed
        mine = whole[self.rank :: self.size].contiguous()
        return [mine[number::rounds] for number in range(rounds)]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean of all processes' numbers into these tensors, of one dtype and device."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            dist.barrier()

    def gather(self, content: T) -> list[T]:
        """What each process brings, in all of them, in the order of their numbers."""
        if self.size == 1:
            return [content]
        gathered: list[T] = [content] * self.size
        dist.all_gather_object(gathered, content)
        return gathered

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is true in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag), device=device)
        dist.all_reduce(flags)
        return flags.item() > 0


@contextlib.contextmanager
def join(device: str) -> Iterator[tuple[World, torch.device]]:
    """Meet the other processes where ``torchrun`` started this one; who is there, and the device.

    GPUs are dealt by ``LOCAL_RANK`` and meet through NCCL, CPUs through gloo.

    Raises:
        ValueError: if torch does not find the device here, one GPU is named for all processes, or
            the environment is not as ``torchrun`` makes it.
    """
    size = _number("WORLD_SIZE", 1) if "WORLD_SIZE" in os.environ else 1
    if size == 1:
        yield World(), pick_device(device)
        return
    local, rank, _ = (_number(name) for name in ("LOCAL_RANK", "RANK", "MASTER_PORT"))
    if rank >= size:
        raise ValueError(f"RANK must be < WORLD_SIZE, got {rank} and {size}")
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        device = f"cuda:{local}"  # decided before this process touches any GPU
    elif device.startswith("cuda:"):
        raise ValueError(f"device must leave each process its own GPU, got {device!r}: say cuda")
    chosen = pick_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size), chosen
    finally:
        dist.destroy_process_group()


def _number(name: str, least: int = 0) -> int:
    """A variable of the environment that ``torchrun`` sets."""
    text = os.environ.get(name)
    try:
        number = int(text or "")
    except ValueError:
        number = least - 1
    if number < least:
        raise ValueError(
            f"{name} must be a whole number >= {least}, as torchrun sets it, got "
            f"{'none' if text is None else repr(text)}"
        )
    return number
