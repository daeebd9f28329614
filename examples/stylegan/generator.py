# SPDX-License-Identifier: BSD-3-Clause
"""StyleGAN2's generator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .blocks import BINOMIAL, StyledConv, Taps, ToRGB
from .inputs import ConstantInput, FourierInput
from .styles import StyledGenerator, check_noise, check_resolution, half_sides

FOURIER = {"size": 4, "sampling_rate": 4, "bandwidth": 2}  # in place of an image of 4x4


def channel_table(
    resolution: int, channel_multiplier: float = 2.0, channel_max: int = 512
) -> dict[int, int]:
    """Channels by resolution, from 4 up.

    Each is ``min(channel_max, 16384 * channel_multiplier / resolution)``.

    The defaults are StyleGAN2's configuration f.

    Raises:
        ValueError: if ``resolution`` is no power of two >= 8, ``channel_multiplier`` is not
            finite, or a layer would have no channel.

    Example:
        >>> channel_table(128)
        {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256}
    """
    check_resolution(resolution)
    if not math.isfinite(channel_multiplier):
        raise ValueError(f"channel_multiplier must be finite, got {channel_multiplier}")
    table = {
        2**level: int(min(channel_max, 16384 * channel_multiplier / 2**level))
        for level in range(2, int(math.log2(resolution)) + 1)
    }
    if min(table.values()) < 1:
        raise ValueError(
            "channel_multiplier and channel_max must leave a channel at every resolution, got "
            f"channel_multiplier={channel_multiplier}, channel_max={channel_max}: {table}"
        )
    return table


class Generator(StyledGenerator):
    """StyleGAN2's skip generator with its mapping network.

    Synthesis starts from a constant of 4x4, and has two styled convolutions per resolution, the
    first of which doubles it; the image is the sum of what each resolution adds.

    Args:
        resolution: side of the images, a power of two >= 8.
        style_dim: length of ``z``, ``w`` and styles.
        mapping_layers: depth of the mapping network.
        image_channels: 3 for RGB, 1 for grey.
        channels: channels by resolution; default :func:`channel_table`.
        mapping_lr: learning-rate multiplier of the mapping network.
        resample_kernel: taps of all resampling layers.
        clamp: limit of what each convolution gives, to both sides; None for none. NVIDIA's later
            networks have 256, which keeps float16 from overflowing.
        input: ``"constant"``, or ``"fourier"`` for Fourier features in the constant's place, whose
            ``input.transform`` moves the image. Configuration B of the StyleGAN3 paper has them.

    Shape:
        - input ``z``: ``[N, style_dim]``
        - output: ``[N, image_channels, resolution, resolution]``, pixels about [-1, 1]

    Raises:
        ValueError: if ``resolution`` is no power of two >= 8, ``channels`` lacks one, or ``input``
            is none of both.

    Example:
        >>> import torch
        >>> generator = Generator(16, style_dim=8, mapping_layers=2, channels={4: 8, 8: 8, 16: 4})
        >>> generator(torch.randn(2, 8)).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        resolution: int,
        style_dim: int = 512,
        mapping_layers: int = 8,
        image_channels: int = 3,
        channels: Mapping[int, int] | None = None,
        mapping_lr: float = 0.01,
        resample_kernel: Taps = BINOMIAL,
        clamp: float | None = None,
        input: Literal["constant", "fourier"] = "constant",
    ) -> None:
        check_resolution(resolution)
        channels = channel_table(resolution) if channels is None else channels
        sides = resolutions(resolution, channels)
        num_styles = 2 * len(sides)  # conv1, to_rgb1, then three a block, one of them shared
        sizes = style_dim, mapping_layers, image_channels
        super().__init__(resolution, num_styles, *sizes, mapping_lr, clamp)
        self.channels = {side: channels[side] for side in sides}

        if input not in ("constant", "fourier"):
            raise ValueError(f"input must be 'constant' or 'fourier', got {input!r}")
        self.input: ConstantInput | FourierInput
        if input == "constant":
            self.input = ConstantInput(channels[4])
        else:
            self.input = FourierInput(channels[4], **FOURIER)
        options: dict[str, Any] = {"resample_kernel": resample_kernel, "clamp": clamp}
        self.conv1 = StyledConv(channels[4], channels[4], style_dim, **options)
        self.to_rgb1 = ToRGB(channels[4], image_channels, style_dim, upsample=False, **options)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for side in sides[1:]:
            before, here = channels[side // 2], channels[side]
            first = StyledConv(before, here, style_dim, upsample=True, **options)
            self.convs.extend((first, StyledConv(here, here, style_dim, **options)))
            self.to_rgbs.append(ToRGB(here, image_channels, style_dim, **options))

        self.noises = nn.Module()
        for index, side in enumerate(side for side in sides for _ in range(2)):
            if index > 0:  # 4x4 has one styled convolution, the others two
                self.noises.register_buffer(f"noise_{index - 1}", torch.randn(1, 1, side, side))

    def synthesis(
        self,
        styles: Tensor,  # [N, num_styles, style_dim]
        noise: Sequence[Tensor] | None = None,  # one [N or 1, 1, side, side] for each convolution
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        count = 1 + len(self.convs)
        check_noise(noise, count)
        images: list[Tensor | None] = [None] * count if noise is None else list(noise)
        w = styles.unbind(1)
        x = self.conv1(self.input(w[0]), w[0], images[0])
        rgb = self.to_rgb1(x, w[1])
        for block, to_rgb in enumerate(self.to_rgbs):
            # A block's to-RGB shares its style with the next block's first convolution
            i = 2 * block
            if dtype is not None and 8 << block in half_sides(self.resolution):
                x = x.to(dtype)
            x = self.convs[i](x, w[i + 1], images[i + 1])
            x = self.convs[i + 1](x, w[i + 2], images[i + 2])
            rgb = to_rgb(x, w[i + 3], rgb)
        return rgb

    def fixed_noise(self) -> list[Tensor]:
        return [self.noises.get_buffer(f"noise_{i}") for i in range(1 + len(self.convs))]


def resolutions(resolution: int, channels: Mapping[int, int]) -> list[int]:
    """The sides [4, 8, ..., resolution], each of which must have its channels."""
    sides = [2**level for level in range(2, int(math.log2(resolution)) + 1)]
    missing = [side for side in sides if side not in channels]
    if missing:
        raise ValueError(
            f"channels must name a number for each resolution from 4 to {resolution}, "
            f"got {dict(channels)}, without {missing}"
        )
    return sides
