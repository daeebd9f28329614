# SPDX-License-Identifier: BSD-3-Clause
"""The discriminator: images to scores."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .blocks import BINOMIAL, ConvLayer, EqualLinear, MinibatchStdDev, ResBlock, Taps
from .generator import channel_table, check_resolution, resolutions


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

    Shape:
        - input: ``[N, image_channels, resolution, resolution]``
        - output: ``[N, 1]``, high for what looks real

    Raises:
        ValueError: if ``resolution`` is no power of two >= 8, or ``channels`` lacks one.

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
    ) -> None:
        super().__init__()
        check_resolution(resolution)
        channels = channel_table(resolution) if channels is None else channels
        sides = resolutions(resolution, channels)
        blocks = [
            ResBlock(channels[side], channels[side // 2], resample_kernel)
            for side in reversed(sides[1:])
        ]
        last = channels[4]
        self.convs = nn.Sequential(ConvLayer(image_channels, channels[resolution], 1), *blocks)
        self.stddev = MinibatchStdDev(group_size)
        self.final_conv = ConvLayer(last + 1, last, 3)
        self.final_linear = nn.Sequential(
            EqualLinear(last * 4 * 4, last, activate=True), EqualLinear(last, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        features = self.final_conv(self.stddev(self.convs(images)))
        return self.final_linear(features.flatten(1))
