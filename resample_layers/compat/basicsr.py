# SPDX-License-Identifier: BSD-3-Clause
"""BasicSR's ``basicsr.ops`` and the resampling layers of its StyleGAN2.

A ``pad`` of two is *(before, after)* for both axes. A ``kernel`` may be separable, as ``[taps]`` or
a pair of such; the original refuses these. The layers put nothing into a ``state_dict``.

What the original gets wrong without a word, and what happens here instead:

- It ignores the values of ``pad`` after the second. Here they are an error, unless they repeat the
  first two.
- It pads a kernel that is not square by its height on both axes. Here the layers refuse it.
- ``UpFirDnSmooth`` with an upsample factor above 2 returns an image that is ``factor - 2`` too
  small, and with both factors above 1 it ignores the second. Here both are errors.
- Taps that sum to zero become inf or nan. Here they are an error.
- On CUDA, the kernel gets no gradient, and third derivatives are wrong. Here they are right, on
  every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import layers, ops
from ..ops.arguments import as_pads
from ..values import shown
from . import activation, arguments

__all__ = [
    "FusedLeakyReLU",
    "UpFirDnDownsample",
    "UpFirDnSmooth",
    "UpFirDnUpsample",
    "fused_leaky_relu",
    "make_resample_kernel",
    "upfirdn2d",
]


def upfirdn2d(
    input: Tensor,  # [N, C, H, W]
    kernel: Tensor,  # [kh, kw]; our [taps] or ([kw], [kh]) too
    up: int = 1,
    down: int = 1,
    pad: Sequence[int] = (0, 0),  # (before, after)
) -> Tensor:
    """:func:`resample_layers.ops.upfirdn2d` with one factor and one pair of pads for both axes.

    Also what diffusers calls ``upfirdn2d_native``.

    Raises:
        TypeError, ValueError: as our op; and if a factor is not one int, or ``pad`` has more than
            two values that do not repeat the first two.

    Example:
        >>> import torch
        >>> upfirdn2d(torch.ones(1, 1, 4, 5), torch.ones(4, 4), up=2, pad=(2, 1)).shape
        torch.Size([1, 1, 8, 10])
    """
    up, down = arguments.as_rate("up", up), arguments.as_rate("down", down)
    pad = arguments.as_list(pad)
    is_long = isinstance(pad, (tuple, list)) and len(pad) != 2
    if is_long and (len(pad) != 4 or as_pads(pad)[2:] != as_pads(pad)[:2]):
        raise ValueError(
            f"pad must be 2 ints (before, after) for both axes, got pad={shown(pad)}: the original "
            "ignores all but the first two; resample_layers.ops.upfirdn2d takes 4"
        )
    return ops.upfirdn2d(input, kernel, up, down, pad)


def make_resample_kernel(k: Any) -> Tensor:
    """Make the float32 kernel of some taps: ``outer(k, k)`` if 1-D, and divided by its sum.

    Raises:
        TypeError, ValueError: as :func:`resample_layers.make_resample_kernel`.
    """
    return arguments.make_kernel("k", k)


class UpFirDnUpsample(layers.UpFirDnUpsample):
    """``[H, W] -> [H * factor, W * factor]``: our layer with BasicSR's arguments.

    Raises:
        TypeError, ValueError: if an argument is at fault, or the kernel is not square.
    """

    def __init__(self, resample_kernel: Any, factor: int = 2) -> None:
        super().__init__(resample_kernel, arguments.as_rate("factor", factor))
        arguments.check_square("resample_kernel", self.kernel.shape)


class UpFirDnDownsample(layers.UpFirDnDownsample):
    """``[H, W] -> [H // factor, W // factor]``: our layer with BasicSR's arguments.

    Raises:
        TypeError, ValueError: if an argument is at fault, or the kernel is not square.
    """

    def __init__(self, resample_kernel: Any, factor: int = 2) -> None:
        super().__init__(resample_kernel, arguments.as_rate("factor", factor))
        arguments.check_square("resample_kernel", self.kernel.shape)


class UpFirDnSmooth(layers.UpFirDnSmooth):
    """The filter beside a strided convolution: our layer with BasicSR's arguments.

    Raises:
        TypeError, ValueError: if an argument is at fault, the kernel is not square, both factors
            are above 1, or ``upsample_factor`` is above 2.
        NotImplementedError: if both factors are 1, as in the original.
    """

    def __init__(
        self,
        resample_kernel: Any,
        upsample_factor: int = 1,
        downsample_factor: int = 1,
        kernel_size: int = 1,
    ) -> None:
        up = arguments.as_rate("upsample_factor", upsample_factor)
        down = arguments.as_rate("downsample_factor", downsample_factor)
        size = arguments.as_rate("kernel_size", kernel_size)
        if up == down == 1:
            raise NotImplementedError(
                "one of upsample_factor and downsample_factor must be above 1, got 1 and 1; "
                "resample_layers.UpFirDnSmooth takes both"
            )
        if up > 2:
            raise ValueError(
                f"upsample_factor must be 1 or 2, got {up}: the original's image is {up - 2} "
                "too small; resample_layers.UpFirDnSmooth restores the size"
            )
        super().__init__(resample_kernel, up, down, size)
        arguments.check_square("resample_kernel", self.kernel.shape)


def fused_leaky_relu(
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


class FusedLeakyReLU(activation.FusedLeakyReLU):
    """:func:`fused_leaky_relu` with a learned bias; there is no argument ``bias`` here.

    Shape:
        - input, output: ``[N, channel, ...]``

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """

    def __init__(
        self, channel: int, negative_slope: float = 0.2, scale: float = math.sqrt(2.0)
    ) -> None:
        super().__init__(channel, True, negative_slope, scale)
