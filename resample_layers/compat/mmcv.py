# SPDX-License-Identifier: BSD-3-Clause
"""``mmcv.ops`` of mmcv 2: NVIDIA's functions under other names.

A ``padding`` of two is *[x, y]*, each for both sides. mmcv 1 had rosinality's ``upfirdn2d(input,
kernel, up, down, pad)`` with a ``pad`` of *(before, after)*: for code written against it, take
:mod:`resample_layers.compat.rosinality`; its ``pad=`` raises here, but two numbers in fifth place
cannot be told apart. ``use_custom_op`` is accepted and chooses nothing.

What the original gets wrong is what NVIDIA's does, see :mod:`resample_layers.compat.nvidia`.
"""

from __future__ import annotations

import math

from torch import Tensor

from . import activation, resampling
from .arguments import as_count
from .resampling import Call, Padding, Rate

__all__ = [
    "FusedBiasLeakyReLU",
    "bias_act",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "fused_bias_leakyrelu",
    "upfirdn2d",
    "upsample2d",
]

NAMES = ("input", "filter")


def upfirdn2d(
    input: Tensor,  # [N, C, H, W]
    filter: Tensor | None,  # [kh, kw] or [taps]
    up: Rate = 1,  # [x, y]
    down: Rate = 1,  # [x, y]
    padding: Padding = 0,  # [x, y] or [x0, x1, y0, y1]
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    """Upsample, pad, filter and downsample: :func:`resample_layers.compat.nvidia.upfirdn2d`.

    Example:
        >>> import torch
        >>> upfirdn2d(torch.ones(1, 1, 4, 5), None, up=2, padding=[1, 0]).shape
        torch.Size([1, 1, 8, 12])
    """
    return Call(NAMES, input, filter, padding, flip_filter, gain).plain(up, down)


def filter2d(
    input: Tensor,
    filter: Tensor | None,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    """:func:`resample_layers.compat.nvidia.filter2d`."""
    return Call(NAMES, input, filter, padding, flip_filter, gain).filter2d()


def upsample2d(
    input: Tensor,
    filter: Tensor | None,
    up: Rate = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    """:func:`resample_layers.compat.nvidia.upsample2d`."""
    return Call(NAMES, input, filter, padding, flip_filter, gain).upsample2d(up)


def downsample2d(
    input: Tensor,
    filter: Tensor | None,
    down: Rate = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    """:func:`resample_layers.compat.nvidia.downsample2d`."""
    return Call(NAMES, input, filter, padding, flip_filter, gain).downsample2d(down)


def bias_act(
    input: Tensor,
    bias: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    use_custom_op: bool = True,
) -> Tensor:
    """:func:`resample_layers.compat.nvidia.bias_act`."""
    return activation.biased_activation(
        ("input", "bias"), input, bias, dim, act, alpha, gain, clamp
    )


def filtered_lrelu(
    input: Tensor,  # [N, C, H, W]
    filter_up: Tensor | None = None,  # [kh, kw] or [taps]
    filter_down: Tensor | None = None,  # [kh, kw] or [taps]
    bias: Tensor | None = None,  # [C]
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,  # [x, y] or [x0, x1, y0, y1]
    gain: float = math.sqrt(2.0),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    use_custom_op: bool = True,
) -> Tensor:
    """:func:`resample_layers.compat.nvidia.filtered_lrelu`.

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """
    names = "input", "filter_up", "filter_down", "bias"
    return resampling.filtered_lrelu(
        names, input, filter_up, filter_down, bias, up, down, padding, gain, slope, clamp,
        flip_filter,
    )  # fmt: skip


def fused_bias_leakyrelu(
    input: Tensor,  # [N, C, ...]
    bias: Tensor | None,  # [C]
    negative_slope: float = 0.2,
    scale: float = math.sqrt(2.0),
) -> Tensor:
    """``scale * leaky_relu(input + bias)``: :func:`resample_layers.ops.fused_leaky_relu`.

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """
    return activation.fused_leaky_relu(input, bias, negative_slope, scale)


class FusedBiasLeakyReLU(activation.FusedLeakyReLU):
    """:func:`fused_bias_leakyrelu` with a learned bias.

    Shape:
        - input, output: ``[N, num_channels, ...]``

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """

    def __init__(
        self, num_channels: int, negative_slope: float = 0.2, scale: float = math.sqrt(2.0)
    ) -> None:
        super().__init__(as_count("num_channels", num_channels), True, negative_slope, scale)
