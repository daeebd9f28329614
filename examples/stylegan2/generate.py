# SPDX-License-Identifier: BSD-3-Clause
"""Images from a checkpoint: ``python -m examples.stylegan2.generate --checkpoint FILE --out DIR``.

Reads checkpoints of this example's training, rosinality's, BasicSR's and NVIDIA's (see
``checkpoints``). By default one picture, ``grid.png``, of the seeds 0 to 15; otherwise

``--files``             ``seed0000.png`` and so on, a file for each seed
``--mix SEEDS``         ``mix.png``: the coarse layers of the seeds (rows) with the fine layers of
                        these seeds (columns); with ``--noise seed``, the noise of the row
``--interpolate N``     ``interpolation.webp``: a walk from seed to seed and back to the first, N
                        pictures a step

Pictures are RGB, or grey where the generator's are; those of the same name are replaced. An image
depends on its seed and the checkpoint, not on the other seeds nor on ``--batch``, up to the last
bits of the arithmetic.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .checkpoints import Checkpoint, load
from .data import to_bytes
from .device import pick_device
from .generator import Generator
from .settings import DTYPES

ANIMATED = {  # slowest and fastest rate; the fastest shows a picture for the unit of durations
    ".webp": (0.02, 1000),
    ".gif": (0.002, 100),
    ".png": (0.02, 1000),
}
CHANNELS = (1, 3)  # of grey pictures, and of RGB
MEAN_SAMPLES = 10_000  # of w, where the checkpoint has no mean


class Sampler:
    """A generator with all that decides how its images are made.

    Args:
        generator: on the device where it is to run.
        mean: ``[style_dim]``, where truncation pulls to; None where ``psi`` is 1.
        psi: of :meth:`Generator.truncate`; 1 leaves styles as they are.
        noise: ``"stored"``: the noise kept with the weights; ``"seed"``: each seed its own;
            ``"none"``: zeros.
        dtype: float16 or bfloat16 for the largest sides, as for :meth:`Generator.synthesis`.
        batch: images at a time.
        compile: compile the synthesis network.

    Raises:
        ValueError: if images have other than 1 or 3 channels, or ``mean`` is lacking.
    """

    def __init__(
        self,
        generator: Generator,
        mean: Tensor | None = None,
        psi: float = 1.0,
        noise: str = "stored",
        dtype: torch.dtype | None = None,
        batch: int = 8,
        compile: bool = False,
    ) -> None:
        if generator.image_channels not in CHANNELS:
            raise ValueError(
                "image_channels must be 1, for grey pictures, or 3, for RGB, got "
                f"{generator.image_channels}"
            )
        if mean is None and psi != 1:
            raise ValueError(f"mean must be given where psi is not 1, got None and psi={psi:g}")
        self.generator, self.mean, self.psi = generator, mean, psi
        self.noise, self.dtype, self.batch = noise, dtype, batch
        self.device = generator.input.input.device
        self.synthesis: Callable[..., Tensor] = generator.synthesis
        if compile:
            self.synthesis = torch.compile(self.synthesis, dynamic=True)

    @torch.no_grad()
    def w(self, seeds: Sequence[int]) -> Tensor:
        """Intermediate latents of seeds [n, style_dim], truncated."""
        latents = [
            torch.randn(self.generator.style_dim, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        w = self.generator.mapping(torch.stack(latents).to(self.device))
        return w if self.mean is None else self.generator.truncate(w, self.mean, self.psi)

    @torch.no_grad()
    def images(
        self,
        styles: Tensor,  # [n, num_styles, style_dim]
        seeds: Sequence[int],  # n, of the noise
    ) -> Iterator[Tensor]:
        """Bytes [C, H, W] on the CPU, one image after another."""
        with tqdm(total=len(seeds), desc="generating", unit="image", disable=None) as bar:
            for first in range(0, len(seeds), self.batch):
                part = slice(first, first + self.batch)
                noise = self.noise_of(seeds[part])
                images = self.synthesis(styles[part], noise, self.dtype)
                for seed, finite in zip(
                    seeds[part], images.isfinite().all((1, 2, 3)).tolist(), strict=True
                ):
                    if not finite:
                        raise FloatingPointError(
                            f"every pixel must be finite, got others for seed {seed} in "
                            f"{self.dtype or images.dtype}: try --dtype bfloat16 or float32, or "
                            "the checkpoint itself is broken"
                        )
                yield from to_bytes(images).cpu()
                bar.update(len(images))

    def noise_of(self, seeds: Sequence[int]) -> list[Tensor]:
        """One image [n or 1, 1, side, side] for each layer."""
        stored = self.generator.fixed_noise()
        if self.noise == "stored":
            return stored
        if self.noise == "none":
            return [torch.zeros_like(image) for image in stored]
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        return [
            torch.cat([torch.randn(image.shape, generator=rng) for rng in rngs]).to(self.device)
            for image in stored
        ]


def make_sampler(
    checkpoint: Checkpoint, device: torch.device, psi: float = 1.0, **options: Any
) -> Sampler:
    """A sampler on a device, with the mean of ``w`` where truncation needs it.

    A checkpoint without that mean gets it from 10,000 latents.
    """
    generator = checkpoint.generator.eval().requires_grad_(False).to(device)
    mean = None
    if psi != 1:
        mean = checkpoint.latent_avg
        if mean is None:
            mean = generator.mean_style(MEAN_SAMPLES, torch.Generator().manual_seed(0))
        mean = mean.to(device)
    return Sampler(generator, mean, psi, **options)


# Pictures


def save_grid(sampler: Sampler, seeds: Sequence[int], folder: Path) -> list[Path]:
    """``grid.png``, as square as may be."""
    styles = sampler.generator.repeat(sampler.w(seeds))
    images = list(sampler.images(styles, seeds))
    path = folder / "grid.png"
    to_picture(tile(images, math.ceil(math.sqrt(len(seeds))))).save(path)
    return [path]


def save_files(sampler: Sampler, seeds: Sequence[int], folder: Path) -> list[Path]:
    """``seedNNNN.png`` for each seed."""
    styles = sampler.generator.repeat(sampler.w(seeds))
    paths = [folder / f"seed{seed:04d}.png" for seed in seeds]
    for path, image in zip(paths, sampler.images(styles, seeds), strict=True):
        to_picture(image).save(path)
    return paths


def save_mix(
    sampler: Sampler, rows: Sequence[int], columns: Sequence[int], crossover: int, folder: Path
) -> list[Path]:
    """``mix.png``: row seeds down the left side, column seeds along the top, mixtures inside."""
    generator = sampler.generator
    w_rows, w_columns = sampler.w(rows), sampler.w(columns)
    mixed = generator.mix(
        w_rows.repeat_interleave(len(columns), 0), w_columns.repeat(len(rows), 1), crossover
    )
    styles = torch.cat((generator.repeat(w_columns), generator.repeat(w_rows), mixed))
    noise_seeds = [*columns, *rows, *(row for row in rows for _ in columns)]
    images = list(sampler.images(styles, noise_seeds))
    top, left = images[: len(columns)], images[len(columns) : len(columns) + len(rows)]
    inside = iter(images[len(columns) + len(rows) :])
    cells = [torch.zeros_like(images[0]), *top]
    for first in left:
        cells += [first, *(next(inside) for _ in columns)]
    path = folder / "mix.png"
    to_picture(tile(cells, len(columns) + 1)).save(path)
    return [path]


def save_interpolation(
    sampler: Sampler, seeds: Sequence[int], steps: int, rate: float, path: Path
) -> list[Path]:
    """An animated picture: from each seed's ``w`` to the next one's in a straight line, round.

    Pictures are made while the file is written, so that of a WebP no more than one is held at a
    time, besides what is written already. Of a GIF Pillow holds all in 256 colours; of a PNG, which
    it goes through twice, all as they are.
    """
    w = sampler.w(seeds)
    share = torch.arange(steps, device=w.device)[:, None] / steps  # [steps, 1]
    walk = torch.cat(
        [a + share * (b - a) for a, b in zip(w, w.roll(-1, 0), strict=True)]
    )  # [len(seeds) * steps, style_dim]
    styles = sampler.generator.repeat(walk)
    frames = map(to_picture, sampler.images(styles, [seeds[0]] * len(walk)))
    options = {"lossless": True} if path.suffix == ".webp" else {}
    first = next(frames)
    rest = list(frames) if path.suffix == ".png" else [Reel(frames, len(walk) - 1)]
    temporary = path.with_name(f"{path.name}.tmp")  # an earlier picture stays until this is whole
    try:
        with open(temporary, "w+b") as file:
            first.save(
                file,
                format=path.suffix[1:],
                save_all=True,
                append_images=rest,
                duration=duration(rate, path.suffix),
                loop=0,
                **options,
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return [path]


class Reel:
    """Pictures as the frames of one, each made when Pillow turns to it, and then let go.

    Pillow takes a generator of pictures too, but makes a list of it first.
    """

    def __init__(self, pictures: Iterator[Image.Image], n_frames: int) -> None:
        self.pictures, self.n_frames = pictures, n_frames
        self.position = -1
        self.picture: Image.Image | None = None

    def seek(self, frame: int) -> None:
        """Turn to the next frame, which is all that writing a file asks for."""
        if frame >= self.n_frames:
            raise EOFError(f"frame must be < {self.n_frames}, got {frame}")
        assert frame in (self.position, self.position + 1)
        if frame > self.position:
            self.picture, self.position = next(self.pictures), frame

    def __getattr__(self, name: str) -> Any:
        return getattr(self.picture, name)


def duration(rate: float, suffix: str) -> int:
    """Milliseconds of a picture, at so many pictures a second, that a format can hold.

    Raises:
        ValueError: if the format has no such rate.
    """
    slowest, fastest = ANIMATED[suffix]
    if not slowest <= rate <= fastest:
        raise ValueError(
            f"--rate must be between {slowest:g} and {fastest:g} for {suffix}, got {rate:g}"
        )
    unit = 1000 // fastest
    return round(1000 / rate / unit) * unit


def tile(images: Sequence[Tensor], columns: int) -> Tensor:
    """Images [C, H, W] side by side, in rows: [C, rows * H, columns * W]; black where none is."""
    cells = [*images, *[torch.zeros_like(images[0])] * (-len(images) % columns)]
    rows = [torch.cat(cells[i : i + columns], 2) for i in range(0, len(cells), columns)]
    return torch.cat(rows, 1)


def to_picture(image: Tensor) -> Image.Image:
    """Bytes [C, H, W], C 1 or 3."""
    if image.shape[0] == 1:
        return Image.fromarray(image[0].numpy())
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


# Command line


def parse_seeds(text: str) -> list[int]:
    """Numbers and ranges, each number once: ``"0-3,7"`` is ``[0, 1, 2, 3, 7]``."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            low, high = int(first), int(last) if dash else int(first)
        except ValueError:
            low, high = 1, 0
        if not 0 <= low <= high < 2**63:
            raise argparse.ArgumentTypeError(
                f"seeds must be numbers from 0 to 2**63 - 1 and ranges of them, such as 0-3,7, "
                f"got {text!r}"
            )
        seeds += range(low, high + 1)
    return list(dict.fromkeys(seeds))  # each once


def parse(argv: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m examples.stylegan2.generate",
        description="Generate images from a checkpoint.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="FILE", help="ours, or another code's")
    add("--out", required=True, metavar="DIR", help="where pictures go")
    add("--seeds", type=parse_seeds, default="0-15", help="numbers and ranges, such as 0-3,7")
    add("--psi", type=float, default=1.0, help="truncation: below 1 less variety, fewer failures")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--files", action="store_true", help="a file for each seed")
    kind.add_argument("--mix", type=parse_seeds, metavar="SEEDS", help="fine layers of these seeds")
    kind.add_argument("--interpolate", type=int, metavar="N", help="pictures from seed to seed")
    add("--crossover", type=int, help="first fine layer of --mix; default: the middle one")
    add("--format", choices=ANIMATED, default=next(iter(ANIMATED)), help="of --interpolate")
    add("--rate", type=float, default=30.0, help="pictures a second of --interpolate")
    add("--noise", choices=("stored", "seed", "none"), default="stored", help="of the layers")
    add("--batch", type=int, default=8, help="images at a time")
    add("--device", default="auto", help="cpu, cuda or cuda:N; auto: a GPU where there is one")
    add("--dtype", choices=DTYPES, default="float32", help="of the four largest sides")
    add("--compile", action="store_true", help="compile the synthesis network first")
    args = parser.parse_args(argv)
    for name in ("batch", "interpolate"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be >= 1, got {value}")
    if args.interpolate is not None and len(args.seeds) < 2:
        parser.error(f"--interpolate must have two --seeds or more to go between, got {args.seeds}")
    try:
        shown = 1000 / duration(args.rate, args.format)
    except ValueError as error:
        parser.error(str(error))
    if args.interpolate is not None and abs(shown / args.rate - 1) > 0.05:
        print(
            f"{parser.prog}: note: --rate is {shown:.3g}, not {args.rate:g}, for {args.format} has "
            f"durations in units of {1000 // ANIMATED[args.format][1]} ms",
            file=sys.stderr,
        )
    if not math.isfinite(args.psi):
        parser.error(f"--psi must be finite, got {args.psi}")
    return parser, args


def main(argv: Sequence[str] | None = None) -> int:
    parser, args = parse(argv)
    folder = Path(args.out)
    try:
        device = pick_device(args.device)
        checkpoint = load(args.checkpoint)
        print(f"{args.checkpoint}: {checkpoint.summary}", file=sys.stderr)
        layers = checkpoint.generator.num_styles
        crossover = layers // 2 if args.crossover is None else args.crossover
        if not 0 <= crossover <= layers:
            raise ValueError(f"--crossover must be between 0 and {layers}, got {crossover}")
        sampler = make_sampler(
            checkpoint,
            device,
            psi=args.psi,
            noise=args.noise,
            dtype=DTYPES[args.dtype],
            batch=args.batch,
            compile=args.compile,
        )
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        if args.files:
            paths = save_files(sampler, args.seeds, folder)
        elif args.mix is not None:
            paths = save_mix(sampler, args.seeds, args.mix, crossover, folder)
        elif args.interpolate is not None:
            path = folder / f"interpolation{args.format}"
            paths = save_interpolation(sampler, args.seeds, args.interpolate, args.rate, path)
        else:
            paths = save_grid(sampler, args.seeds, folder)
    except FloatingPointError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    print(f"{len(paths)} file{'s' if len(paths) > 1 else ''}: {paths[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
