# SPDX-License-Identifier: BSD-3-Clause
"""Adaptive discriminator augmentation (ADA), for small sets of images; and a blur for the start.

The discriminator sees real and generated images changed at random: mirrored, turned, moved,
stretched, and in other colours, each change with probability ``p``. It cannot learn the few real
images by heart then; and so long as ``p`` stays well below 1, the generator does not learn to make
such changes. ``p`` follows how sure the discriminator is of the real images.

Source: Karras et al., Training Generative Adversarial Networks with Limited Data, 2020, appendix
B. Its geometric and colour transformations are here, its filtering and corruptions are not; and
the images are resampled through this package's layers, in place of its wavelets.

StyleGAN3-R learns from blurred images at first, so that the discriminator cannot go by details
that the generator does not make yet. Source: Karras et al., 2021, appendix G.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resample_layers import UpFirDnDownsample, UpFirDnUpsample
from resample_layers.filters import NAMED_TAPS
from resample_layers.ops import upfirdn2d

LUMA = 1 / math.sqrt(3)  # each coordinate of the grey axis of RGB


class Changes(NamedTuple):
    """What is to happen to each image of a batch.

    ``geometry`` [N, 3, 3] moves points (x, y, 1) of the image, whose sides are at -1 and 1.
    ``colour`` [N, 4, 4] does the same to (red, green, blue, 1).
    """

    geometry: Tensor
    colour: Tensor


class Augment(nn.Module):
    """Change images as told: differentiable in them, once.

    Images with the unit matrix stay as they are, bit for bit. The others are upsampled by 2,
    sampled bilinearly where they come from, reflected at the edges, and downsampled, so that
    turning and stretching make no aliasing that the discriminator could go by.

    Shape:
        - input, output: ``[N, C, H, H]``, ``C`` 1 or 3

    Raises:
        ValueError: if the images have neither one nor three channels.
    """

    def __init__(self) -> None:
        super().__init__()
        taps = NAMED_TAPS["lanczos3"]
        self.up = UpFirDnUpsample(taps, factor=2, padding_mode="reflect")
        self.down = UpFirDnDownsample(taps, factor=2, padding_mode="reflect")

    def forward(self, images: Tensor, changes: Changes) -> Tensor:
        n, channels, height, width = images.shape
        if channels not in (1, 3):
            raise ValueError(f"images must have 1 or 3 channels to be augmented, got {channels}")
        source = inverse(changes.geometry)  # where each point comes from
        size = [n, channels, 2 * height, 2 * width]
        grid = F.affine_grid(source, size, align_corners=False)
        moved = F.grid_sample(
            self.up(images), grid, "bilinear", padding_mode="reflection", align_corners=False
        )
        unit = torch.eye(3, device=images.device)
        stays = (changes.geometry == unit).all((1, 2))[:, None, None, None]
        images = torch.where(stays, images, self.down(moved))

        matrix, offset = changes.colour[:, :3, :3], changes.colour[:, :3, 3:]
        if channels == 1:  # the mean of what three equal channels would give
            matrix, offset = matrix.sum(2, keepdim=True).mean(1, True), offset.mean(1, True)
        coloured = (matrix @ images.flatten(2) + offset).view_as(images)
        unit = torch.eye(4, device=images.device)
        stays = (changes.colour == unit).all((1, 2))[:, None, None, None]
        return torch.where(stays, images, coloured)


def inverse(geometry: Tensor) -> Tensor:
    """The upper two rows [N, 2, 3] of the inverse of ``geometry`` [N, 3, 3].

    Its last row is (0, 0, 1). `torch.linalg.inv` would wait for the device, to tell of singular
    matrices.
    """
    linear, offset = geometry[:, :2, :2], geometry[:, :2, 2:]
    (a, b), (c, d) = (row.unbind(1) for row in linear.unbind(1))
    adjugate = torch.stack((d, -b, -c, a), 1).view(-1, 2, 2)
    back = adjugate / (a * d - b * c)[:, None, None]
    return torch.cat((back, -back @ offset), 2)


def draw(n: int, side: int, p: float | Tensor, rng: torch.Generator) -> Changes:
    """Changes for ``n`` images of a side in pixels, each kind with probability ``p``.

    Drawn on the device of ``rng``, where ``p`` is too if it is a tensor [].
    """
    unit = torch.eye(4, device=rng.device).expand(n, 4, 4)
    geometry, colour = unit[:, :3, :3], unit
    for step in geometry_steps(n, side, p, rng):
        geometry = step @ geometry
    for step in colour_steps(n, p, rng):
        colour = step @ colour
    return Changes(geometry, colour)


class _Draws:
    """Numbers [n] for the images of a batch."""

    def __init__(self, n: int, p: float | Tensor, rng: torch.Generator) -> None:
        self.n, self.p, self.rng = n, p, rng

    def uniform(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(self.n, generator=self.rng, device=self.rng.device)

    def normal(self, deviation: float) -> Tensor:
        return deviation * torch.randn(self.n, generator=self.rng, device=self.rng.device)

    def happens(self, p: float | Tensor | None = None) -> Tensor:
        """1 with probability ``p``, else 0."""
        return (self.uniform(0, 1) < (self.p if p is None else p)).float()

    def sometimes(self, value: Tensor, otherwise: float, p: float | Tensor | None = None) -> Tensor:
        return torch.where(self.happens(p) == 1, value, torch.full_like(value, otherwise))


def geometry_steps(n: int, side: int, p: float | Tensor, rng: torch.Generator) -> Iterator[Tensor]:
    """Matrices [n, 3, 3], in the order in which they apply.

    Mirror, quarter turns, moves by whole pixels, up to an eighth of the side; scale, turn,
    stretch, turn, moves with a deviation of an eighth. Lengths are halves of the side.
    """
    draws = _Draws(n, p, rng)
    ones = torch.ones(n, device=rng.device)
    yield _scale(1 - 2 * draws.sometimes(draws.uniform(0, 2).floor(), 0.0), ones)
    yield _turn(draws.sometimes(draws.uniform(0, 4).floor(), 0.0) * (math.pi / 2))
    x, y, happens = draws.uniform(-0.125, 0.125), draws.uniform(-0.125, 0.125), draws.happens()
    yield _move(*(happens * (part * side).round() * (2 / side) for part in (x, y)))
    factor = draws.sometimes(draws.normal(0.2).exp2(), 1.0)
    yield _scale(factor, factor)
    share = 1 - (1 - p) ** 0.5  # so that one turn or more happens with probability p
    yield _turn(draws.sometimes(draws.uniform(-math.pi, math.pi), 0.0, share))
    factor = draws.sometimes(draws.normal(0.2).exp2(), 1.0)
    yield _scale(factor, 1 / factor)
    yield _turn(draws.sometimes(draws.uniform(-math.pi, math.pi), 0.0, share))
    happens = draws.happens()
    yield _move(happens * draws.normal(0.25), happens * draws.normal(0.25))


def colour_steps(n: int, p: float | Tensor, rng: torch.Generator) -> Iterator[Tensor]:
    """Matrices [n, 4, 4]: brightness, contrast, luma flip, hue, saturation."""
    draws = _Draws(n, p, rng)
    axis = torch.full((3,), LUMA, device=rng.device)
    grey, unit = torch.outer(axis, axis), torch.eye(3, device=rng.device)
    cross = torch.linalg.cross(unit, axis.expand(3, 3))  # turns about the grey axis
    brightness = draws.sometimes(draws.normal(0.2), 0.0)
    yield _affine(unit.expand(n, 3, 3), brightness[:, None].expand(n, 3))
    contrast = draws.sometimes(draws.normal(0.5).exp2(), 1.0)[:, None, None]
    yield _affine(contrast * unit)
    flips = draws.sometimes(draws.uniform(0, 2).floor(), 0.0)[:, None, None]
    yield _affine(unit - 2 * grey * flips)
    hue = draws.sometimes(draws.uniform(-math.pi, math.pi), 0.0)[:, None, None]
    turned = grey + hue.cos() * (unit - grey) + hue.sin() * cross
    yield _affine(torch.where(hue == 0, unit, turned))
    saturation = draws.sometimes(draws.normal(1.0).exp2(), 1.0)[:, None, None]
    yield _affine(torch.where(saturation == 1, unit, grey + saturation * (unit - grey)))


def _matrix(n: int, device: torch.device, entries: dict[tuple[int, int], Tensor]) -> Tensor:
    """Unit matrices [n, 3, 3] but for some entries [n]."""
    matrix = torch.eye(3, device=device).repeat(n, 1, 1)
    for (row, column), values in entries.items():
        matrix[:, row, column] = values
    return matrix


def _scale(x: Tensor, y: Tensor) -> Tensor:
    return _matrix(len(x), x.device, {(0, 0): x, (1, 1): y})


def _move(x: Tensor, y: Tensor) -> Tensor:
    return _matrix(len(x), x.device, {(0, 2): x, (1, 2): y})


def _turn(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return _matrix(len(angle), angle.device, {(0, 0): cos, (0, 1): -sin, (1, 0): sin, (1, 1): cos})


def _affine(matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    """[N, 4, 4] of ``matrix`` [N, 3, 3] and ``offset`` [N, 3]."""
    affine = torch.eye(4, device=matrix.device).repeat(len(matrix), 1, 1)
    affine[:, :3, :3] = matrix
    if offset is not None:
        affine[:, :3, 3] = offset
    return affine


def blur_taps(sigma: float, largest: float) -> Tensor | None:
    """Taps ``2 ** -(x / sigma) ** 2``, divided by their sum, for ``x`` up to ``3 * sigma``.

    Zeros follow on both sides up to ``3 * largest``, so that their number does not depend on
    ``sigma``. None where there is one tap alone.
    """
    reach, farthest = math.floor(3 * sigma), math.floor(3 * largest)
    if reach < 1:
        return None
    at = torch.arange(-farthest, farthest + 1)
    taps = torch.where(at.abs() <= reach, torch.exp2(-(at / sigma).square()), 0.0)
    return taps / taps.sum()


def blur(images: Tensor, taps: Tensor) -> Tensor:
    """Images [N, C, H, W] filtered along both axes with an odd number of taps; zeros around."""
    reach = len(taps) // 2
    return upfirdn2d(images, taps, pad=(reach, reach))


class Controller:
    """``p``, which rises while the discriminator is too sure of the real images, and falls else.

    How sure: the mean sign of the real images' scores, which is 0 where it guesses and 1 where it
    is always right; it is looked at every ``every`` steps.

    Args:
        target: mean sign to keep to.
        images: in so many images ``p`` goes from 0 to 1 at most.
        average: puts the mean over all processes into tensors.
    """

    def __init__(
        self,
        target: float,
        images: float,
        average: Callable[[list[Tensor]], None],
        every: int = 4,
    ) -> None:
        self.target, self.images, self.average, self.every = target, images, average, every
        self.p, self.sign, self.steps, self._signs = 0.0, 0.0, 0, 0.0

    def see(self, scores: Tensor, batch: int) -> None:
        """Learn the scores [n, 1] of a step's real images, of which all processes had ``batch``."""
        sign = scores.detach().sign().mean()
        self.average([sign])
        self._signs += float(sign)
        self.steps += 1
        if self.steps % self.every == 0:
            self.sign, self._signs = self._signs / self.every, 0.0
            step = self.every * batch / self.images
            towards = (self.sign > self.target) - (self.sign < self.target)
            self.p = min(max(self.p + towards * step, 0.0), 1.0)

    def state_dict(self) -> dict[str, float]:
        return {"p": self.p, "sign": self.sign, "steps": self.steps, "signs": self._signs}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.p, self.sign = state["p"], state["sign"]
        self.steps, self._signs = int(state["steps"]), state["signs"]
