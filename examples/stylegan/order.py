# SPDX-License-Identifier: BSD-3-Clause
"""Which images make up the batch of a step, and how worker processes are told."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from .processes import World


class Order:
    """Which images make up the batch of a step: epoch after epoch, each in an order of its own.

    The answer depends on the arguments alone, so that a resumed run needs no other state.

    Example:
        >>> order = Order(count=5, batch=4, seed=0)
        >>> sorted(torch.cat([order.batch(step) for step in range(5)]).tolist()) == sorted(
        ...     [0, 1, 2, 3, 4] * 4)
        True
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.size, self.seed = count, batch, seed
        self._epoch, self._order = -1, [0]

    def batch(self, step: int) -> Tensor:
        """Indices [batch] of the step's images."""
        first = step * self.size
        return torch.tensor([self._at(i) for i in range(first, first + self.size)])

    def _at(self, position: int) -> int:
        epoch, index = divmod(position, self.count)
        if epoch != self._epoch:
            rng = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch = epoch
            self._order = torch.randperm(self.count, generator=rng).tolist()
        return self._order[index]


class Shares(Sampler[list[int]]):
    """The indices of one process's share of the images, step after step without end."""

    def __init__(self, order: Order, first_step: int, world: World) -> None:
        self.order, self.first_step, self.world = order, first_step, world

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            yield self.world.share(self.order.batch(step))[0].tolist()
            step += 1


def worker_signals(_: int) -> None:
    """Leave Ctrl-C to the training, which lets the step under way end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
