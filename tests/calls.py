# SPDX-License-Identifier: BSD-3-Clause
"""One call that several files of tests make, and what they need around a call."""

import itertools

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


def assert_gradients_of_some_are_those_of_all(call, tensors, graph=False):
    """Each tensor alone, and each two, get the gradients that they get where all of them learn."""
    everything = [t.detach().clone().requires_grad_() for t in tensors]
    out = call(*everything)
    grad = torch.randn_like(out)
    whole = torch.autograd.grad(out, everything, grad, create_graph=graph)
    places = range(len(tensors))
    for learn in (*itertools.combinations(places, 1), *itertools.combinations(places, 2)):
        leaves = [t.detach().clone().requires_grad_(i in learn) for i, t in enumerate(tensors)]
        wanted = [leaves[i] for i in learn]
        ours = torch.autograd.grad(call(*leaves), wanted, grad, create_graph=graph)
        for i, one in zip(learn, ours, strict=True):
            torch.testing.assert_close(one, whole[i], msg=lambda m: f"{learn}: {m}")  # noqa: B023


def logged_tensor() -> type[torch.Tensor]:
    """A new subclass of tensors, whose ``calls`` are the functions that have met one of them."""

    class Logged(torch.Tensor):
        calls: list = []  # noqa: RUF012

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            cls.calls.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    return Logged
