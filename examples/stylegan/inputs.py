# SPDX-License-Identifier: BSD-3-Clause
"""What a generator's first convolution reads: a learned image, or Fourier features."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import EqualLinear


class ConstantInput(nn.Module):
    """The learned image [1, C, 4, 4] that every sample starts from.

    Shape:
        - input: a style for each sample, ``[N, ...]``, of which only ``N`` is used
        - output: ``[N, C, 4, 4]``
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, style: Tensor) -> Tensor:
        return self.input.expand(style.shape[0], -1, -1, -1)


class FourierInput(nn.Module):
    """Sine waves of random frequencies and phases, mixed by a learned matrix.

    They are functions of the plane, so they can be sampled wherever a transform puts the pixels:

    1. A pixel at ``p``, in image widths from the middle of the image, +x right and +y down, is
       looked up at ``rotation @ (transform @ p - shift)``. The buffer ``transform`` [3, 3] is the
       user's, and it is the inverse of what is wanted: to move the image to the right by a tenth
       of its width, ``transform[0, 2] = -0.1``. Rotation and shift are an affine function of the
       style, and at first those of the identity; there are none where ``style_dim`` is None.
    2. Each wave is ``sin(2 pi (frequency . place + phase))``. The frequencies are spread evenly
       over the disc whose radius is ``bandwidth``.
    3. A transform that shrinks the image raises the frequencies. Their waves fade from
       ``bandwidth`` to half of the sampling rate, beyond which there are none, since those would
       alias.
    4. The matrix mixes the waves of each pixel.

    Args:
        channels: number of waves and of output channels.
        size: side of the output in pixels, with the margin around the image.
        sampling_rate: pixels for each image width.
        bandwidth: largest frequency, in waves for each image width.
        style_dim: length of the style that moves and rotates the waves; None for none.

    Shape:
        - input: style ``[N, style_dim]``, or ``[N, ...]`` where ``style_dim`` is None
        - output: ``[N, channels, size, size]``

    Source of the formulas: Karras et al., Alias-Free Generative Adversarial Networks, 2021.
    """

    frequencies: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(
        self,
        channels: int,
        size: int,
        sampling_rate: float,
        bandwidth: float,
        style_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.size, self.sampling_rate, self.bandwidth = size, sampling_rate, bandwidth
        normal = torch.randn(channels, 2)
        # The squared radius r2 of a normal pair is above 2 t with the probability exp(-t), so that
        # exp(-r2 / 4) is below any s with the probability s ** 2: the share of the disc within s
        square = normal.square().sum(1, keepdim=True)
        frequencies = normal * (square.rsqrt() * torch.exp(-square / 4) * bandwidth)
        self.register_buffer("frequencies", frequencies)
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.register_buffer("transform", torch.eye(3))
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine: EqualLinear | None = None
        if style_dim is not None:
            self.affine = EqualLinear(style_dim, 4)
            nn.init.zeros_(self.affine.weight)
            with torch.no_grad():
                self.affine.bias[0] = 1  # the cosine of the angle

    def forward(self, style: Tensor) -> Tensor:
        x, y = self.frequencies.unbind(1)  # [C]
        shift = self.transform[:2, 2]
        if self.affine is None:
            phases = self.phases.expand(style.shape[0], -1)
        else:
            move = self.affine(style)  # [N, 4]: cosine, sine, shift to the right, shift down
            move = move / move[:, :2].norm(dim=1, keepdim=True)
            cosine, sine = move[:, :1], move[:, 1:2]
            x, y = x * cosine + y * sine, y * cosine - x * sine  # [N, C]
            shift = shift - move[:, 2:]
            phases = self.phases
        phases = phases + x * shift[..., :1] + y * shift[..., 1:]  # [N, C]
        linear = self.transform[:2, :2]
        x, y = x * linear[0, 0] + y * linear[1, 0], x * linear[0, 1] + y * linear[1, 1]

        half = self.sampling_rate / 2
        room = max(half - self.bandwidth, 1e-6 * half)  # there is none at the critical rate
        radii = (x.square() + y.square()).sqrt()  # ONNX has no hypot
        amplitudes = ((half - radii) / room).clamp(0, 1)  # [C] or [N, C]

        steps = torch.arange(self.size, device=x.device, dtype=x.dtype)
        places = (steps + (0.5 - self.size / 2)) / self.sampling_rate
        columns = x[..., None, None] * places  # [..., C, 1, W]
        rows = y[..., None, None] * places[:, None]  # [..., C, H, 1]
        waves = torch.sin(2 * math.pi * (columns + rows + phases[..., None, None]))
        waves = waves * amplitudes[..., None, None]  # [N, C, H, W]
        weight = self.weight / math.sqrt(len(self.weight))
        return F.conv2d(waves, weight[:, :, None, None])

    def extra_repr(self) -> str:
        return (
            f"{len(self.weight)}, size={self.size}, sampling_rate={self.sampling_rate:g}, "
            f"bandwidth={self.bandwidth:g}"
        )
