# SPDX-License-Identifier: BSD-3-Clause
"""What all generators share: the mapping network, and styles made of its intermediate latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .blocks import EqualLinear, PixelNorm


class StyledGenerator(nn.Module, ABC):
    """A mapping network, and what is done with styles before :meth:`synthesis`.

    1. ``mapping``: latents ``z`` [N, style_dim] to intermediate latents ``w`` [N, style_dim].
    2. ``styles`` [N, num_styles, style_dim]: one ``w`` for each layer. :meth:`mix` takes the
       coarse layers' from one ``w`` and the fine layers' from another; :meth:`truncate` pulls
       them towards the mean.
    3. ``synthesis``: styles to images, which each network has of its own.

    Args:
        resolution: side of the images.
        num_styles: number of styles that ``synthesis`` takes.
        style_dim: length of ``z``, ``w`` and styles.
        mapping_layers: depth of the mapping network.
        image_channels: 3 for RGB, 1 for grey.
        mapping_lr: learning-rate multiplier of the mapping network.
        clamp: limit of what each convolution gives, to both sides; None for none.

    Shape:
        - input ``z``: ``[N, style_dim]``
        - output: ``[N, image_channels, resolution, resolution]``, pixels about [-1, 1]

    Raises:
        ValueError: if ``resolution`` is no power of two >= 8.
    """

    def __init__(
        self,
        resolution: int,
        num_styles: int,
        style_dim: int,
        mapping_layers: int,
        image_channels: int,
        mapping_lr: float,
        clamp: float | None,
    ) -> None:
        super().__init__()
        check_resolution(resolution)
        self.resolution, self.image_channels = resolution, image_channels
        self.num_styles, self.style_dim, self.clamp = num_styles, style_dim, clamp
        layers = [
            EqualLinear(style_dim, style_dim, lr_multiplier=mapping_lr, activate=True)
            for _ in range(mapping_layers)
        ]
        self.style = nn.Sequential(PixelNorm(), *layers)

    def forward(
        self,
        z: Tensor,  # [N, style_dim]
        noise: Sequence[Tensor] | None = None,  # as in synthesis
        dtype: torch.dtype | None = None,  # as in synthesis
    ) -> Tensor:
        """Images of latents, one style each, without truncation."""
        return self.synthesis(self.repeat(self.mapping(z)), noise, dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

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
        z = torch.randn(samples, self.style_dim, generator=rng)
        return self.mapping(z.to(self.device)).mean(0)

    @abstractmethod
    def synthesis(
        self,
        styles: Tensor,  # [N, num_styles, style_dim]
        noise: Sequence[Tensor] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Styles to images; ``noise`` None draws fresh noise, :meth:`fixed_noise` has the stored.

        ``dtype``, float16 or bfloat16, is what the sides of :func:`half_sides` compute in; None
        for the dtype of the weights.

        Shape:
            - output: ``[N, image_channels, resolution, resolution]``, in the dtype of the weights
        """

    @abstractmethod
    def fixed_noise(self) -> list[Tensor]:
        """The noise stored with the weights: the same samples look the same each time."""

    def fresh_noise(self, n: int, rng: torch.Generator | None = None) -> Iterator[Tensor]:
        """Noise for each layer in turn, one image for each of ``n`` samples, [n, 1, side, side]."""
        for image in self.fixed_noise():
            size = (n, *image.shape[1:])
            yield torch.randn(size, generator=rng, dtype=image.dtype, device=image.device)


def half_sides(resolution: int) -> list[int]:
    """The sides that compute in 16 bits where a network is told to: the four largest, from 8 up.

    Source: Karras et al., StyleGAN2-ADA, 2020.
    """
    return [side for side in (resolution >> n for n in range(4)) if side >= 8]


def check_resolution(resolution: int) -> None:
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution must be a power of two >= 8, got {resolution}")


def check_noise(noise: Sequence[Tensor] | None, count: int) -> None:
    """Raise where noise is given for another number of layers than ``count``."""
    if noise is not None and len(noise) != count:
        raise ValueError(f"noise must hold one image for each of {count} layers, got {len(noise)}")
