# SPDX-License-Identifier: BSD-3-Clause
"""NVIDIA's bias, activation, gain and clamp, which mmcv took over under other names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..ops.arguments import DTYPES
from ..ops.native import accumulate_dtype
from .arguments import as_number


class Activation(NamedTuple):
    """A function of ``(value, alpha)`` and NVIDIA's defaults for it."""

    func: Callable[[Tensor, float], Tensor]
    def_alpha: float = 0.0
    def_gain: float = 1.0


activation_funcs = {
    "linear": Activation(lambda z, alpha: z),
    "relu": Activation(lambda z, alpha: F.relu(z), def_gain=math.sqrt(2.0)),
    "lrelu": Activation(F.leaky_relu, 0.2, math.sqrt(2.0)),
    "tanh": Activation(lambda z, alpha: torch.tanh(z)),
    "sigmoid": Activation(lambda z, alpha: torch.sigmoid(z)),
    "elu": Activation(lambda z, alpha: F.elu(z)),
    "selu": Activation(lambda z, alpha: F.selu(z)),
    "softplus": Activation(lambda z, alpha: F.softplus(z)),
    "swish": Activation(lambda z, alpha: F.silu(z), def_gain=math.sqrt(2.0)),
}
"""Activations by name; ``alpha`` is the slope of ``lrelu`` and means nothing to the others."""


def biased_activation(
    names: tuple[str, str],  # of input and bias, for errors
    input: Tensor,  # of any shape
    bias: Tensor | None,  # [input.shape[dim]]
    dim: int,
    act: str,
    alpha: float | None,
    gain: float | None,
    clamp: float | None,
) -> Tensor:
    """``clamp(gain * act(input + bias))``, of the input's dtype; half types compute in float32.

    What our one-pass op serves, (leaky) ReLU over images, it computes. It keeps its result for the
    backward pass, so 'linear' is not left to it: NVIDIA's networks add to such a result in place.

    Raises:
        TypeError: for a wrong kind of value. ValueError: for a wrong value, or an ``alpha`` that
            ``act`` has no use for.
    """
    x, b = names
    if not isinstance(input, Tensor) or input.dtype not in DTYPES:
        kind = input.dtype if isinstance(input, Tensor) else type(input).__name__
        raise TypeError(f"{x} must be a floating-point tensor, got {kind}")
    if act not in activation_funcs:
        raise ValueError(f"act must be one of {', '.join(activation_funcs)}, got act={act!r}")
    spec = activation_funcs[act]
    if alpha is not None and act != "lrelu" and alpha != spec.def_alpha:
        raise ValueError(f"alpha must be None for act={act!r}, which ignores it, got {alpha!r}")
    alpha = spec.def_alpha if alpha is None else as_number("alpha", alpha)
    gain = spec.def_gain if gain is None else as_number("gain", gain)
    clamp = None if clamp is None else as_number("clamp", clamp)
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp must be >= 0 or None, got clamp={clamp!r}")
    if bias is not None:
        _check_bias(x, b, input, bias, dim)

    if (
        act in ("relu", "lrelu")
        and input.dim() == 4
        and (bias is None or dim == 1)
        and alpha >= 0
        and gain > 0
        and (clamp is None or clamp > 0)
    ):
        return ops.bias_act(input, bias, negative_slope=alpha, gain=gain, clamp=clamp)
    value = input.to(accumulate_dtype(input))
    if bias is not None:
        value = value + bias.to(value.dtype).reshape(-1, *(1,) * (input.dim() - dim - 1))
    value = spec.func(value, alpha) * gain
    if clamp is not None:
        value = value.clamp(-clamp, clamp)
    return value.to(input.dtype)


def _check_bias(x: str, b: str, input: Tensor, bias: Any, dim: Any) -> None:
    if not isinstance(bias, Tensor) or bias.dtype not in DTYPES:
        kind = bias.dtype if isinstance(bias, Tensor) else type(bias).__name__
        raise TypeError(f"{b} must be a floating-point tensor or None, got {kind}")
    if not isinstance(dim, int) or not 0 <= dim < input.dim():
        raise ValueError(f"dim must lie in [0, {input.dim()}), got dim={dim!r}")
    if bias.dim() != 1 or bias.shape[0] != input.shape[dim]:
        raise ValueError(
            f"{b} must be a vector as long as dimension {dim} of {x}, got {b} of shape "
            f"{tuple(bias.shape)} and {x} of shape {tuple(input.shape)}"
        )
