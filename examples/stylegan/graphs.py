# SPDX-License-Identifier: BSD-3-Clause
"""Calls of functions of tensors, which CUDA graphs can repeat without Python and launches.

A function that can be recorded reads and writes nothing but its arguments and tensors that stay
where they are: weights, moments of the optimiser, the state of a random number generator. It reads
no value of a tensor in Python, since that would wait for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

Inputs = Sequence[Tensor | None]
Outputs = dict[str, Tensor]
Function = Callable[..., Outputs]


class Eager:
    """Each call runs the function."""

    def __call__(self, key: Hashable, function: Function, inputs: Inputs = ()) -> Outputs:
        """The function's outputs for these inputs.

        Calls of one key have the same function, and the same of its inputs are None.
        """
        return function(*inputs)

    def reset(self) -> None:
        """Forget what was recorded, since tensors have been replaced."""


class Recorder(Eager, ABC):
    """The first calls of a key run its function; the next records it, and all after repeat that.

    The first calls are no rehearsal: they do the work. They let libraries choose their algorithms
    and the optimiser make its state, which cannot be recorded.
    """

    FIRST = 2  # calls of a key that run as they are

    def __init__(self) -> None:
        self._calls: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, tuple[Callable[[], None], Inputs, Outputs]] = {}

    def __call__(self, key: Hashable, function: Function, inputs: Inputs = ()) -> Outputs:
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] <= self.FIRST:
            return self.first(lambda: function(*inputs))
        if key not in self._recorded:
            own = [None if x is None else x.clone() for x in inputs]
            repeat, outputs = self.record(lambda: function(*own))
            self._recorded[key] = repeat, own, outputs
        repeat, own, outputs = self._recorded[key]
        for mine, given in zip(own, inputs, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given)
        repeat()
        # Copies, since what another key has recorded may use the same memory
        return {name: value.clone() for name, value in outputs.items()}

    def reset(self) -> None:
        self._calls.clear()
        self._recorded.clear()

    def first(self, call: Callable[[], Outputs]) -> Outputs:
        """Run a call that is not recorded yet."""
        return call()

    @abstractmethod
    def record(self, call: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """Record a call without doing its work.

        Returns:
            What does the work, each time it is called, and the outputs that it fills.
        """


class CudaGraphs(Recorder):
    """Recorded calls are CUDA graphs: one launch for all kernels of a call.

    All graphs share their memory, since no two of them run at once. Random numbers are those of
    calls that are not recorded: a graph reads the generator's state when it begins, and moves it
    on.

    Args:
        device: a GPU.
        rng: the generator that the functions draw from.
    """

    def __init__(self, device: torch.device, rng: torch.Generator) -> None:
        super().__init__()
        self.device, self.rng = device, rng
        # Beside the stream that the rest runs on; gradients are made on the stream of the forward
        # pass, so that the first calls run here too
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def reset(self) -> None:
        super().reset()
        # Torch refuses the memory of graphs of which none is left
        self.pool = torch.cuda.graph_pool_handle()

    def first(self, call: Callable[[], Outputs]) -> Outputs:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = call()
        current.wait_stream(self.stream)
        return outputs

    def record(self, call: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.rng)
        # Another thread may pin memory for the next images meanwhile, so its calls are not checked
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            outputs = call()
        return graph.replay, outputs
