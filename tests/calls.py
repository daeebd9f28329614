# SPDX-License-Identifier: BSD-3-Clause
"""One call that several files of tests make, and what they need around a call."""

import torch

from resample_layers.ops import upfirdn2d

UP, DOWN, PAD = (2, 1), (1, 2), (2, 1, 1, 2)


def call(x, k):
    """With the fixture ``args``, or with kernels of other sizes."""
    return upfirdn2d(x, k, UP, DOWN, PAD)


def as_operands(kernel):
    """A kernel as users pass it, as the operators want it: (kernel, taps_y)."""
    if isinstance(kernel, tuple):
        return kernel
    return kernel, kernel if kernel.dim() == 1 else None


def logged_tensor() -> type[torch.Tensor]:
    """A new subclass of tensors, whose ``calls`` are the functions that have met one of them."""

    class Logged(torch.Tensor):
        calls: list = []  # noqa: RUF012

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            cls.calls.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    return Logged
