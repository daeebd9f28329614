# SPDX-License-Identifier: BSD-3-Clause
"""NVIDIA's bias, activation, gain and clamp, and the leaky ReLU that the other three share."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..ops.arguments import DTYPES
from ..ops.modes import is_tracing
from ..ops.native import accumulate_dtype
from ..values import as_index, shown
from .arguments import as_count, as_flag, as_number, check_dense, check_device


@dataclass(frozen=True)
class Activation:
    """``func(value, alpha)`` and NVIDIA's defaults, by attribute or by key; see its table."""

    func: Callable[..., Tensor]
    def_alpha: float = 0.0
    def_gain: float = 1.0

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)


def _plain(func: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """A function that takes ``alpha`` and has no use for it."""
    return lambda value, alpha=None: func(value)


ROOT = math.sqrt(2.0)
BOOLS = ("bool", "torch.bool", "NoneType")  # types and dtypes of what is no slope
activation_funcs = {
    "linear": Activation(_plain(lambda value: value)),
    "relu": Activation(_plain(F.relu), def_gain=ROOT),
    "lrelu": Activation(lambda value, alpha=0.2: F.leaky_relu(value, alpha), 0.2, ROOT),
    "tanh": Activation(_plain(torch.tanh)),
    "sigmoid": Activation(_plain(torch.sigmoid)),
    "elu": Activation(_plain(F.elu)),
    "selu": Activation(_plain(F.selu)),
    "softplus": Activation(_plain(F.softplus)),
    "swish": Activation(_plain(F.silu), def_gain=ROOT),
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
        TypeError: for a wrong kind of value.
        ValueError: for a wrong value, or an ``alpha`` that ``act`` has no use for.
    """
    x, b = names
    if not isinstance(input, Tensor) or input.dtype not in DTYPES:
        kind = input.dtype if isinstance(input, Tensor) else type(input).__name__
        raise TypeError(f"{x} must be a floating-point tensor, got {kind}")
    check_dense(x, input)
    if not isinstance(act, str) or act not in activation_funcs:
        raise ValueError(f"act must be one of {', '.join(activation_funcs)}, got act={shown(act)}")
    spec = activation_funcs[act]
    alpha = spec.def_alpha if alpha is None else _as_float("alpha", alpha)
    if act != "lrelu" and alpha != spec.def_alpha:
        raise ValueError(
            f"alpha must be None for act={act!r}, which ignores it, got {shown(alpha)}"
        )
    gain = spec.def_gain if gain is None else _as_float("gain", gain)
    clamp = math.inf if clamp is None else as_number("clamp", clamp, infinite=True)
    if clamp < 0:
        raise ValueError(f"clamp must be >= 0 or None, got clamp={shown(clamp)}")
    clamp = None if clamp == math.inf else clamp
    if bias is not None:
        dim = check_bias(x, b, input, bias, dim)

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


def _as_float(name: str, value: Any) -> float:
    """A finite number of whatever ``float`` reads, text too, as in NVIDIA's ``bias_act``.

    Raises:
        TypeError, ValueError: as :func:`as_number`.
    """
    if not isinstance(value, (Real, Tensor)):
        with suppress(Exception):  # as_number says what is wrong
            value = float(value)
    return as_number(name, value)


def check_bias(x: str, b: str, input: Tensor, bias: Any, dim: Any) -> int:
    """Check a bias along dimension ``dim`` of the input, and give the dimension as an int.

    Raises:
        TypeError: for another kind or dtype.
        ValueError: for another shape, dimension or device.
    """
    if not isinstance(bias, Tensor) or bias.dtype not in DTYPES:
        kind = bias.dtype if isinstance(bias, Tensor) else type(bias).__name__
        raise TypeError(f"{b} must be a floating-point tensor or None, got {kind}")
    check_dense(b, bias)
    axis = int(dim) if isinstance(dim, bool) else as_index(dim)
    if axis is None or not 0 <= axis < input.dim():
        raise ValueError(f"dim must be an int in [0, {input.dim()}), got dim={shown(dim)}")
    # Traced sizes are tensors: comparing them would fix them
    if bias.dim() != 1 or not (is_tracing() or bias.shape[0] == input.shape[axis]):
        raise ValueError(
            f"{b} must be a vector as long as dimension {axis} of {x}, got {b} of shape "
            f"{tuple(bias.shape)} and {x} of shape {tuple(input.shape)}"
        )
    check_device((x, b), input, bias)
    return axis


def fused_leaky_relu(
    input: Tensor,  # [N, C, ...]
    bias: Tensor | None = None,  # [C]
    negative_slope: float = 0.2,
    scale: float = ROOT,
) -> Tensor:
    """``scale * leaky_relu(input + bias)``: :func:`resample_layers.ops.fused_leaky_relu`.

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """
    slope, scale = as_number("negative_slope", negative_slope), as_number("scale", scale)
    return ops.fused_leaky_relu(input, bias, slope, scale)


class FusedLeakyReLU(ops.FusedLeakyReLU):
    """:func:`fused_leaky_relu` with a learned bias.

    Shape:
        - input, output: ``[N, channel, ...]``

    Raises:
        TypeError: if an argument is of another kind, ``bias`` a number: older copies of the code
            take the slope in its place.
        ValueError: if a number is out of its range.
    """

    def __init__(
        self, channel: int, bias: bool = True, negative_slope: float = 0.2, scale: float = ROOT
    ) -> None:
        if str(getattr(bias, "dtype", type(bias).__name__)) not in BOOLS:
            raise TypeError(
                f"bias must be True or False, got bias={shown(bias)}: a slope goes by name, "
                "negative_slope"
            )
        if isinstance(negative_slope, bool):  # other codes have a bias in its place
            raise TypeError(
                f"negative_slope must be a number, got negative_slope={shown(negative_slope)}"
            )
        super().__init__(
            as_count("channel", channel),
            as_flag("bias", bias),
            as_number("negative_slope", negative_slope),
            as_number("scale", scale),
        )
