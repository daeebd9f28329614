# SPDX-License-Identifier: BSD-3-Clause
"""The discriminator: images to scores."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .blocks import BINOMIAL, ConvLayer, EqualLinear, MinibatchStdDev, ResBlock, Taps
from .generator import channel_table, resolutions
from .styles import check_resolution, half_sides


class Discriminator(nn.Module):
    """StyleGAN2's residual discriminator.

    A 1x1 convolution from the image, residual blocks down to 4x4, the standard deviation within
    groups of the batch, one convolution and two linear layers.

    Args:
        resolution: side of the images, a power of two >= 8.
        image_channels: 3 for RGB, 1 for grey.
        channels: channels by resolution; default :func:`~.generator.channel_table`.
        group_size: samples that the minibatch standard deviation compares.
        resample_kernel: taps of all resampling layers.
        clamp: limit of what each activated convolution gives, to both sides; None for none.
        stddev_channels: channels that the minibatch standard deviation adds.

    Shape:
        - input: ``[N, image_channels, resolution, resolution]``
        - output: ``[N, 1]``, high for what looks real

    Raises:
        ValueError: if ``resolution`` is no power of two >= 8, ``channels`` lacks one, or
            ``stddev_channels`` does not divide the channels at 4x4.

    Example:
        >>> import torch
        >>> discriminator = Discriminator(16, channels={4: 8, 8: 8, 16: 4})
        >>> discriminator(torch.randn(2, 3, 16, 16)).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        channels: Mapping[int, int] | None = None,
        group_size: int = 4,
        resample_kernel: Taps = BINOMIAL,
        clamp: float | None = None,
        stddev_channels: int = 1,
    ) -> None:
        super().__init__()
        check_resolution(resolution)
        channels = channel_table(resolution) if channels is None else channels
        sides = resolutions(resolution, channels)
        self.resolution, self.image_channels = resolution, image_channels
        self.channels, self.clamp = {side: channels[side] for side in sides}, clamp
        blocks = [
            ResBlock(channels[side], channels[side // 2], resample_kernel, clamp)
            for side in reversed(sides[1:])
        ]
        last = channels[4]
        if stddev_channels < 1 or last % stddev_channels:
            raise ValueError(
                f"stddev_channels must divide the channels at 4x4, {last}, got {stddev_channels}"
            )
        from_rgb = ConvLayer(image_channels, channels[resolution], 1, clamp=clamp)
        self.convs = nn.Sequential(from_rgb, *blocks)
        self.stddev = MinibatchStdDev(group_size, stddev_channels)
        self.final_conv = ConvLayer(last + stddev_channels, last, 3, clamp=clamp)
        self.final_linear = nn.Sequential(
            EqualLinear(last * 4 * 4, last, activate=True), EqualLinear(last, 1)
        )

    def forward(self, images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Scores; ``dtype`` is what the sides of :func:`half_sides` compute in, as in synthesis."""
        x, side = images, self.resolution
        halved = [] if dtype is None else half_sides(self.resolution)
        for layer in self.convs:  # from RGB, then a block for each side from the largest to 8
            x = x.to(dtype if side in halved else images.dtype)
            x = layer(x)
            if isinstance(layer, ResBlock):
                side //= 2
        features = self.final_conv(self.stddev(x.to(images.dtype)))
        return self.final_linear(features.flatten(1))
