# SPDX-License-Identifier: BSD-3-Clause
"""The nonlinearities that stand between two filters, and their derivatives, in plain torch.

A row of :data:`NONLINEARITIES` is all that Python must know of one; ``csrc/nonlinearity.h`` has
the same rows for the compiled kernels. ``alpha`` and ``beta`` are numbers of a channel, already
shaped for broadcasting; every tensor is of the accumulate dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LEAKY_RELU, SNAKE, SILU, GELU = range(4)
"""What an operator takes as ``activation``."""

SNAKE_EPSILON = 1e-9  # keeps the division by beta finite; BigVGAN's number


class Nonlinearity(NamedTuple):
    """``value(m, alpha, beta, slope)``, and the gradients ``grad(g, m, alpha, beta, slope)``.

    ``grad`` is ``g`` times the derivative in ``m``; ``operand_grads`` are ``g`` times those in
    ``alpha`` and ``beta``, or None where there are no such numbers. All can be differentiated.
    """

    value: Callable[..., Tensor]
    grad: Callable[..., Tensor]
    operand_grads: Callable[..., tuple[Tensor, Tensor]] | None = None


def _leaky_relu(m: Tensor, alpha: None, beta: None, slope: float) -> Tensor:
    return F.leaky_relu(m, slope)


def _leaky_relu_grad(g: Tensor, m: Tensor, alpha: None, beta: None, slope: float) -> Tensor:
    # Torch's own gradient: at 0 it is that of a negative number
    out: Tensor = torch.ops.aten.leaky_relu_backward(g, m, slope, False)
    return out


def _snake(m: Tensor, alpha: Tensor, beta: Tensor, slope: float) -> Tensor:
    sine = torch.sin(alpha * m)
    return m + sine * sine / (beta + SNAKE_EPSILON)


def _snake_grad(g: Tensor, m: Tensor, alpha: Tensor, beta: Tensor, slope: float) -> Tensor:
    return g * (1 + alpha * torch.sin(2 * alpha * m) / (beta + SNAKE_EPSILON))


def _snake_operand_grads(
    g: Tensor, m: Tensor, alpha: Tensor, beta: Tensor, slope: float
) -> tuple[Tensor, Tensor]:
    sine, scale = torch.sin(alpha * m), 1 / (beta + SNAKE_EPSILON)
    return g * m * torch.sin(2 * alpha * m) * scale, -g * (sine * scale) ** 2


def _silu(m: Tensor, alpha: None, beta: None, slope: float) -> Tensor:
    return F.silu(m)


def _silu_grad(g: Tensor, m: Tensor, alpha: None, beta: None, slope: float) -> Tensor:
    s = torch.sigmoid(m)
    return g * (s + m * s * (1 - s))


def _gelu(m: Tensor, alpha: None, beta: None, slope: float) -> Tensor:
    return F.gelu(m)


def _gelu_grad(g: Tensor, m: Tensor, alpha: None, beta: None, slope: float) -> Tensor:
    density = torch.exp(-0.5 * m * m) / math.sqrt(2 * math.pi)
    return g * (0.5 * (1 + torch.erf(m / math.sqrt(2))) + m * density)


NONLINEARITIES = {
    LEAKY_RELU: Nonlinearity(_leaky_relu, _leaky_relu_grad),
    SNAKE: Nonlinearity(_snake, _snake_grad, _snake_operand_grads),
    SILU: Nonlinearity(_silu, _silu_grad),
    GELU: Nonlinearity(_gelu, _gelu_grad),
}
