# SPDX-License-Identifier: BSD-3-Clause
"""How exactly a picture follows its input: ``python -m examples.stylegan.equivariance``.

    python -m examples.stylegan.equivariance --checkpoint FILE

A generator with a Fourier input can be asked for a picture that is moved or turned. It is
*equivariant* if that picture is the one that is not moved, moved afterwards. Where details stick
to the pixel grid, the two differ. The peak signal-to-noise ratio between them, in decibels, is

``EQ-T``       for movements by whole pixels, up to an eighth of the width
``EQ-T_frac``  for movements by any part of a pixel, up to the same
``EQ-R``       for turns by any angle

A movement by whole pixels loses nothing. The others need an interpolation, for which the published
definition has Lanczos filters of three lobes, and only pixels count that no edge reaches.

Source: Karras et al., Alias-Free Generative Adversarial Networks, 2021, appendix E, and the numbers
of NVIDIA's code for it: the extents of the filters, the mask of a turn, and the order in which
random numbers are drawn, so that one seed gives the decibels of both.
"""

from __future__ import annotations

if not __package__:  # the imports below would fail without saying why
    raise SystemExit(
        "equivariance.py must be run as a module, from the root of the clone: "
        "python -m examples.stylegan.equivariance --checkpoint FILE"
    )

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from resample_layers.ops import upfirdn2d

from .console import Parser, ending_without_output, load_checkpoint
from .device import is_out_of_memory, pick_device
from .files import say
from .transforms import moved, rotation, transform_of, translation

PEAK = 2.0  # from the darkest pixel, -1, to the brightest, 1
FARTHEST = 0.125  # of a translation along each axis, in widths
LOBES = 3  # of the Lanczos windows, on each side
EXTENT = 2 * LOBES  # of a rotation's filter, in pixels to each side: two windows, convolved
PERIOD = 64  # pixels to each side in which two sinc filters are convolved, round
LEAST_SIDE = 16  # of images that a turn leaves pixels to compare
UP = 4  # upsampling before a rotation takes its samples
MEANINGS = {
    "EQ-T": "translation by whole pixels",
    "EQ-T_frac": "translation by parts of a pixel",
    "EQ-R": "rotation",
}


class Compared(NamedTuple):
    """Images [N, C, H, H], and which of their pixels [H, H] are to be compared: 1, else 0."""

    images: Tensor
    mask: Tensor


# Moving images


def translate_by_pixels(images: Tensor, x: float, y: float) -> Compared:
    """Images moved by the number of whole pixels nearest to ``x``, ``y`` widths.

    Zeros follow from outside; they are not compared.
    """
    side = images.shape[-1]
    right, down = (min(max(round(part * side), -side), side) for part in (x, y))
    padded = F.pad(images, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    top, left = max(-down, 0), max(-right, 0)
    shifted = padded[..., top : top + side, left : left + side]
    mask = rectangle(images, right, side + right, down, side + down)
    return Compared(shifted, mask)


def translate(images: Tensor, x: float, y: float) -> Compared:
    """Images moved by ``x``, ``y`` widths, through a Lanczos filter of six taps.

    Pixels are compared where all taps lie in the image.
    """
    side = images.shape[-1]
    (right, taps_x), (down, taps_y) = (lanczos_taps(part * side) for part in (x, y))
    before, after = LOBES - 1, LOBES  # taps to the left of the one of `right`, and to its right
    pad = (after + right, before - right, after + down, before - down)
    shifted = upfirdn2d(images, (taps_x.to(images), taps_y.to(images)), pad=pad)
    mask = rectangle(
        images, right + after, side + right - before, down + after, side + down - before
    )
    return Compared(shifted, mask)


def lanczos_taps(shift: float) -> tuple[int, Tensor]:
    """The whole pixels of a shift, and taps [6] for what is left, of pixels from -2 to 3."""
    whole = math.floor(shift)
    at = torch.arange(1 - LOBES, LOBES + 1, dtype=torch.float64) - (shift - whole)
    taps = torch.sinc(at) * torch.sinc(at / LOBES)
    return whole, taps / taps.sum()


def rotate(images: Tensor, angle: float) -> Compared:
    """Images turned by ``angle`` radians, counter-clockwise, about their middle.

    1. Upsample by 4, with the filter that limits the band to what both the grid and the turned
       grid can hold.
    2. Take each pixel from where it comes from, bilinearly.

    Pixels are compared where the filter lies in the image.
    """
    side = images.shape[-1]
    matrix = rotation(angle)
    taps = rotation_filter(matrix, UP)
    reach = taps.shape[0] // 2
    pad = (2 * reach, 2 * reach + 1 - UP)  # all that is not zero, a sample of the image at its end
    upsampled = upfirdn2d(images, (taps * UP**2).to(images), up=UP, pad=pad)
    last = UP * (side - 1)  # where the image's last sample is; its first is at 0
    # Where each pixel comes from, on the upsampled grid, from the middle: [H, H, 2]
    at = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    place = UP * torch.stack(torch.meshgrid(at, at, indexing="xy"), 2) @ matrix[:2, :2].inverse().T
    grid = (place / (last / 2 + reach)).to(images).expand(len(images), -1, -1, -1)
    turned = F.grid_sample(upsampled, grid, "bilinear", padding_mode="zeros", align_corners=True)
    # The published mask begins one sample early
    nearest = (place + last / 2).round()
    inside = (nearest >= reach - 1) & (nearest <= last - reach)
    return Compared(turned, inside.all(2).to(images))


def blur_as_rotated(images: Tensor, angle: float) -> Compared:
    """Images that a generator has turned by ``angle``, limited to the band of :func:`rotate`.

    What :func:`rotate` takes off the corners of the spectrum is missing in the picture that it is
    compared with; this takes it off the other one.
    """
    side = images.shape[-1]
    taps = rotation_filter(rotation(-angle), 1)
    reach = taps.shape[0] // 2
    limited = upfirdn2d(images, taps.to(images), pad=(reach, reach))
    return Compared(limited, rectangle(images, reach, side - reach, reach, side - reach))


def rotation_filter(
    matrix: Tensor,  # [3, 3]
    up: int,
) -> Tensor:
    """A low-pass filter for turned images, ``up`` taps a pixel; it sums to 1.

    It is the convolution of two ideal filters, one along the axes of the grid, one along those of
    the turned grid, in a window that is the convolution of their two Lanczos windows. Each of the
    ``up * up`` phases sums to the same.

    Shape:
        - output: ``[2 * 6 * up - 1, 2 * 6 * up - 1]``, float64
    """
    count = PERIOD * up - 1
    at = torch.arange(-count, count + 1, dtype=torch.float64) / up
    along = torch.stack(torch.meshgrid(at, at, indexing="xy"), 2)  # [y, x, 2]
    axes = (along, along @ matrix[:2, :2].to(torch.float64).T)
    ideal = round_convolution(*(torch.sinc(axis).prod(2) for axis in axes))
    window = round_convolution(
        *(((axis.abs() < LOBES) * torch.sinc(axis / LOBES)).prod(2) for axis in axes)
    )
    middle = slice(count - (EXTENT * up - 1), count + EXTENT * up)
    taps = (ideal * window)[middle, middle].clone()
    for row in range(up):
        for column in range(up):
            phase = taps[row::up, column::up]
            phase /= phase.sum() * up**2
    return taps


def round_convolution(a: Tensor, b: Tensor) -> Tensor:
    """The periodic convolution of two images [L, L], with zero in the middle of both, L odd."""
    spectra = (torch.fft.rfft2(torch.fft.ifftshift(part)) for part in (a, b))
    first, second = spectra
    return torch.fft.fftshift(torch.fft.irfft2(first * second, s=a.shape))


def rectangle(images: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """A mask [H, W] of the pixels from ``left`` to before ``right``, ``top`` to before ``bottom``.

    What lies outside of the images is left out.
    """
    height, width = images.shape[-2:]
    x, y = torch.arange(width), torch.arange(height)[:, None]
    return ((left <= x) & (x < right) & (top <= y) & (y < bottom)).to(images)


# Measuring


class Ratio:
    """The peak signal-to-noise ratio over many images, in decibels."""

    def __init__(self) -> None:
        self.squares = 0.0  # sum of squared differences, over the pixels that are compared
        self.count = 0.0  # of those, channels counted

    def see(self, images: Tensor, reference: Tensor, mask: Tensor) -> None:
        difference = (images - reference).square() * mask
        self.squares += float(difference.sum(dtype=torch.float64))
        self.count += float(mask.sum()) * images.shape[0] * images.shape[1]

    def decibels(self) -> float:
        """Infinity where no pixel differs."""
        if not self.squares:
            return math.inf
        return 10 * math.log10(PEAK**2 / (self.squares / self.count))


@torch.no_grad()
def measure(generator: Any, images: int, seed: int = 0, batch: int = 4) -> dict[str, float]:
    """The equivariance of a generator with a Fourier input, in decibels.

    Each batch has one translation by whole pixels, one by parts of a pixel, and one angle.

    Args:
        generator: in evaluation mode; its layers get fresh noise for each batch, if they take any.
        images: latents to take; the last batch is whole, so there may be a few more.
        seed: of latents, translations, angles and noise.
        batch: images at a time.

    Returns:
        ``EQ-T``, ``EQ-T_frac`` and ``EQ-R``.

    Raises:
        ValueError: if the generator has no transform, ``images`` or ``batch`` is below 1, or the
            images are too small for a turn.
        FloatingPointError: if the images are not finite.
    """
    transform = transform_of(generator)
    for name, value in (("images", images), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    if generator.resolution < LEAST_SIDE:
        raise ValueError(
            f"resolution must be {LEAST_SIDE} or more, so that there are pixels that no edge "
            f"reaches, got {generator.resolution}"
        )
    rng = torch.Generator().manual_seed(seed)
    ratios = {name: Ratio() for name in MEANINGS}
    side = generator.resolution
    with tqdm(total=images, desc="measuring", unit="image", disable=None) as bar:
        for first in range(0, images, batch):
            noise = [
                torch.randn(image.shape, generator=rng).to(transform.device)
                for image in generator.fixed_noise()
            ]
            z = torch.randn(batch, generator.style_dim, generator=rng).to(transform.device)
            styles = generator.repeat(generator.mapping(z))

            def drawn(movement: Tensor, styles: Tensor = styles, noise: Any = noise) -> Tensor:
                with moved(generator, movement):
                    found = generator.synthesis(styles, noise).cpu()
                if not found.isfinite().all():
                    raise FloatingPointError("every pixel must be finite, got others")
                return found

            still = drawn(torch.eye(3))
            x, y = ((2 * torch.rand(2, generator=rng) - 1) * FARTHEST * side).round().tolist()
            x, y = x / side, y / side
            ratios["EQ-T"].see(drawn(translation(x, y)), *translate_by_pixels(still, x, y))

            x, y = ((2 * torch.rand(2, generator=rng) - 1) * FARTHEST).tolist()
            ratios["EQ-T_frac"].see(drawn(translation(x, y)), *translate(still, x, y))

            angle = float(2 * torch.rand((), generator=rng) - 1) * math.pi
            reference, mask = rotate(still, angle)
            turned, other = blur_as_rotated(drawn(rotation(angle)), angle)
            ratios["EQ-R"].see(turned, reference, mask * other)
            bar.update(min(batch, images - first))
    return {name: ratio.decibels() for name, ratio in ratios.items()}


def format_decibels(decibels: dict[str, float]) -> str:
    """A line for each figure."""
    return "\n".join(
        f"{name:<10}{value:>6.2f} dB  {MEANINGS[name]}" for name, value in decibels.items()
    )


# Command line


@ending_without_output
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m examples.stylegan.equivariance",
        description="Measure how exactly a picture follows its input: EQ-T, EQ-T_frac, EQ-R.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="FILE", help="ours, or another code's")
    add("--images", type=int, default=1000, metavar="N", help="to measure; papers take 50,000")
    add("--seed", type=int, default=0, help="of latents, translations, angles and noise")
    add("--batch", type=int, default=4, help="images at a time, which share a movement")
    add("--device", default="auto", help="cpu, cuda or cuda:N; auto: a GPU where there is one")
    args = parser.parse_args(argv)
    if not 0 <= args.seed < 2**63:
        parser.error(f"--seed must be between 0 and 2**63 - 1, got {args.seed}")
    for name in ("images", "batch"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be >= 1, got {getattr(args, name)}")
    try:
        device = pick_device(args.device)
        checkpoint = load_checkpoint(args.checkpoint)
        print(f"{args.checkpoint}: {checkpoint.summary}", file=sys.stderr)
        generator = checkpoint.generator.eval().requires_grad_(False).to(device)
        decibels = measure(generator, args.images, args.seed, args.batch)
    except (OSError, ValueError, FloatingPointError) as error:
        parser.fail(str(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        parser.fail(f"out of memory: try a lower --batch, got {args.batch}")
    except KeyboardInterrupt:
        print("stopped before the figures were known", file=sys.stderr)
        return 130
    say(format_decibels(decibels))
    return 0


if __name__ == "__main__":
    sys.exit(main())
