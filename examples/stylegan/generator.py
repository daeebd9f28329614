# SPDX-License-Identifier: BSD-3-Clause
"""The generator: latents to styles (mapping), styles to images (synthesis)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import BINOMIAL, EqualLinear, PixelNorm, StyledConv, Taps, ToRGB


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


def half_sides(resolution: int) -> list[int]:
    """The sides that compute in 16 bits where a network is told to: the four largest, from 8 up.

    Source: Karras et al., StyleGAN2-ADA, 2020.
    """
    return [side for side in (resolution >> n for n in range(4)) if side >= 8]


def check_resolution(resolution: int) -> None:
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution must be a power of two >= 8, got {resolution}")


class ConstantInput(nn.Module):
    """The learned image [1, C, 4, 4] that every sample starts from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, n: int) -> Tensor:
        return self.input.expand(n, -1, -1, -1)


class Generator(nn.Module):
    """StyleGAN2's skip generator with its mapping network.

    1. ``mapping``: latents ``z`` [N, style_dim] to intermediate latents ``w`` [N, style_dim].
    2. ``styles`` [N, num_styles, style_dim]: one ``w`` for each layer. :meth:`mix` takes the
       coarse layers' from one ``w`` and the fine layers' from another; :meth:`truncate` pulls
       them towards the mean.
    3. ``synthesis``: from a constant of 4x4, two styled convolutions per resolution, the first of
       which doubles it; the image is the sum of what each resolution adds.

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

    Shape:
        - input ``z``: ``[N, style_dim]``
        - output: ``[N, image_channels, resolution, resolution]``, pixels about [-1, 1]

    Raises:
        ValueError: if ``resolution`` is no power of two >= 8, or ``channels`` lacks one.

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
    ) -> None:
        super().__init__()
        check_resolution(resolution)
        channels = channel_table(resolution) if channels is None else channels
        sides = resolutions(resolution, channels)
        self.resolution, self.style_dim, self.image_channels = resolution, style_dim, image_channels
        self.channels, self.clamp = {side: channels[side] for side in sides}, clamp
        self.num_styles = 2 * len(
            sides
        )  # conv1 and to_rgb1, then three a block, one of them shared

        layers = [
            EqualLinear(style_dim, style_dim, lr_multiplier=mapping_lr, activate=True)
            for _ in range(mapping_layers)
        ]
        self.style = nn.Sequential(PixelNorm(), *layers)

        self.input = ConstantInput(channels[4])
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

    def forward(
        self,
        z: Tensor,  # [N, style_dim]
        noise: Sequence[Tensor] | None = None,  # as in synthesis
        dtype: torch.dtype | None = None,  # as in synthesis
    ) -> Tensor:
        """Images of latents, one style each, without truncation."""
        return self.synthesis(self.repeat(self.mapping(z)), noise, dtype)

    def mapping(self, z: Tensor) -> Tensor:
        """Latents [N, style_dim] to intermediate latents [N, style_dim]."""
        return self.style(z)

    def repeat(self, w: Tensor) -> Tensor:
        """The same style for every layer: [N, style_dim] to [N, num_styles, style_dim]."""
        return w[:, None].expand(-1, self.num_styles, -1)

    def mix(
        self,
        w: Tensor,  # [N, style_dim]
        other: Tensor,  # [N, style_dim]
        crossover: int | Tensor,  # [N] or an int, 0 to num_styles
    ) -> Tensor:
        """Styles from ``w`` for layers before ``crossover``, from ``other`` for the rest.

        Shape:
            - output: ``[N, num_styles, style_dim]``
        """
        layer = torch.arange(self.num_styles, device=w.device)
        coarse = layer < torch.as_tensor(crossover, device=w.device).reshape(-1, 1)  # [N or 1, L]
        return torch.where(coarse[:, :, None], w[:, None], other[:, None])

    def truncate(
        self,
        styles: Tensor,  # [..., style_dim]
        mean: Tensor,  # [style_dim]
        psi: float,
    ) -> Tensor:
        """``mean + psi * (styles - mean)``: less variety, fewer failures, for psi below 1."""
        return mean + psi * (styles - mean)

    @torch.no_grad()
    def mean_style(self, samples: int = 4096, rng: torch.Generator | None = None) -> Tensor:
        """The mean of ``w`` [style_dim] over random latents: where truncation pulls to."""
        device = self.input.input.device
        z = torch.randn(samples, self.style_dim, generator=rng)
        return self.mapping(z.to(device)).mean(0)

    def synthesis(
        self,
        styles: Tensor,  # [N, num_styles, style_dim]
        noise: Sequence[Tensor] | None = None,  # one [N or 1, 1, side, side] for each convolution
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Styles to images; ``noise`` None draws fresh noise, :meth:`fixed_noise` has the stored.

        ``dtype``, float16 or bfloat16, is what the sides of :func:`half_sides` compute in; None
        for the dtype of the weights.

        Shape:
            - output: ``[N, image_channels, resolution, resolution]``, in the dtype of the weights
        """
        count = 1 + len(self.convs)
        if noise is not None and len(noise) != count:
            raise ValueError(
                f"noise must hold one image for each of {count} layers, got {len(noise)}"
            )
        images: list[Tensor | None] = [None] * count if noise is None else list(noise)
        w = styles.unbind(1)
        x = self.conv1(self.input(styles.shape[0]), w[0], images[0])
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

    def fresh_noise(self, n: int, rng: torch.Generator | None = None) -> Iterator[Tensor]:
        """Noise for each layer in turn, one image for each of ``n`` samples, [n, 1, side, side]."""
        for image in self.fixed_noise():
            size = (n, *image.shape[1:])
            yield torch.randn(size, generator=rng, dtype=image.dtype, device=image.device)

    def fixed_noise(self) -> list[Tensor]:
        """The noise stored with the weights: the same samples look the same each time."""
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
