# SPDX-License-Identifier: BSD-3-Clause
"""What one would write without this package, in plain torch. Written here, from the formula."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def zero_stuffing(x: Tensor, kernel: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    """Insert zeros, pad, convolve every output with channels folded into the batch, then slice.

    The formulation of rosinality's and diffusers' fallbacks.
    """
    n, c, h, w = x.shape
    stuffed = x.reshape(n * c, 1, h, 1, w, 1)
    stuffed = F.pad(stuffed, (0, up - 1, 0, 0, 0, up - 1)).reshape(n * c, 1, h * up, w * up)
    stuffed = F.pad(stuffed, (*pad, *pad))
    out = F.conv2d(stuffed, kernel.flip(0, 1)[None, None].to(x.dtype))[:, :, ::down, ::down]
    return out.reshape(n, c, *out.shape[2:])


def depthwise(x: Tensor, kernel: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    """A strided depthwise convolution to go down, a transposed one to go up."""
    c, taps = x.shape[1], kernel.shape[0]
    weight = kernel.to(x.dtype)[None, None].expand(c, 1, taps, taps)
    if up == 1:
        return F.conv2d(F.pad(x, (*pad, *pad)), weight.flip(2, 3), stride=down, groups=c)
    crop = taps - 1 - pad[0]
    out = F.conv_transpose2d(x, weight, stride=up, groups=c)
    height, width = x.shape[2] * up, x.shape[3] * up
    return out[:, :, crop : crop + height : down, crop : crop + width : down]


def interpolate(x: Tensor, kernel: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    """torch's own resampling: another filter and another border, so its deviation is large."""
    if up == down:
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1)
    return F.interpolate(
        x, scale_factor=up / down, mode="bilinear", antialias=down > 1, align_corners=False
    )


def diffusers_native(x: Tensor, kernel: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    """diffusers' function, called as installed from its package."""
    from diffusers.models.upsampling import upfirdn2d_native  # type: ignore[import-not-found]

    out: Tensor = upfirdn2d_native(x, kernel.to(x.dtype), up=up, down=down, pad=pad)
    return out


def available() -> dict[str, object]:
    """The formulations by column title; diffusers' only where it is installed."""
    table: dict[str, object] = {
        "zero-stuffing": zero_stuffing,
        "depthwise": depthwise,
        "interpolate": interpolate,
    }
    try:
        diffusers_native(torch.ones(1, 1, 2, 2), torch.ones(1, 1), 1, 1, (0, 0))
    except ImportError:
        return table
    return {**table, "diffusers": diffusers_native}
