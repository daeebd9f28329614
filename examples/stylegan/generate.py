# SPDX-License-Identifier: BSD-3-Clause
"""Images from a checkpoint: ``python -m examples.stylegan.generate --checkpoint FILE --out DIR``.

Reads checkpoints of this example's training, rosinality's, BasicSR's and NVIDIA's (see
``checkpoints``), of StyleGAN2 and StyleGAN3. By default it makes one picture, ``grid.png``, of the
seeds 0 to 15; otherwise

``--files``             ``seed0000.png`` and so on, a file for each seed
``--mix SEEDS``         ``mix.png``: the coarse layers of the seeds (rows) with the fine layers of
                        these seeds (columns); with ``--noise seed``, the noise of the row
``--strip PSI,PSI,...`` ``psi.png``: each seed in a row, at these strengths of truncation
``--interpolate N``     ``interpolation.webp``: a walk from seed to seed and back to the first, N
                        pictures a step
``--move N``            ``movement.webp``: the grid, in N pictures from where it is drawn to where
                        ``--translate`` and ``--rotate`` put it, and in N pictures back

``--translate X,Y`` moves what each image shows by X widths to the right and by Y down, and
``--rotate DEGREES`` turns it about the middle, counter-clockwise; the turn comes first. Both go
with all of the above. They act on the network's input, so that it draws what comes in at the
edges; so they need StyleGAN3, or a StyleGAN2 with a Fourier input.

``--scale N`` draws each pixel as N x N, ``--gap N`` leaves N black pixels between the images of a
grid, and ``--labels`` writes the seeds above them. ``--format .mp4`` needs the program ffmpeg.

Pictures are RGB, or grey where the generator's are; those of the same name are replaced, each when
the new one is whole. An image depends on its seed, on all bits of it, and on the checkpoint, not on
the other seeds nor on ``--batch``, up to the last bits of the arithmetic.
"""

from __future__ import annotations

if not __package__:  # the imports below would fail without saying why
    raise SystemExit(
        "generate.py must be run as a module, from the root of the clone: "
        "python -m examples.stylegan.generate --checkpoint FILE --out DIR"
    )

import argparse
import contextlib
import errno
import io
import itertools
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from .checkpoints import Checkpoint
from .console import Parser, ending_without_output, load_checkpoint, parse_folder
from .data import to_bytes
from .device import is_out_of_memory, pick_device
from .files import explain_write, say, whole, writable
from .settings import DTYPES
from .styles import StyledGenerator
from .transforms import moved, rotation, transform_of, translation

ANIMATED = {  # slowest and fastest rate; the fastest shows a picture for the unit of durations
    ".webp": (0.02, 1000),
    ".gif": (0.002, 100),
    ".png": (0.02, 1000),
}
FORMATS = {**ANIMATED, ".mp4": (0.02, 1000)}  # and the film
STREAMED = (".webp", ".mp4")  # formats of which one picture at a time is held
LABEL = 14  # pixels of height, above an image
LARGEST = {"scale": 64, "gap": 256}
CHANNELS = (1, 3)  # of grey pictures, and of RGB
MEAN_SAMPLES = 10_000  # of w, where the checkpoint has no mean
MOST_PSI = 1000  # with far more, styles leave float32
MOST_WIDTHS = 1000  # of a translation: with far more, float32 does not tell pixels apart
MOST_IMAGES = 100_000  # of one command, which holds their w
MOST_BYTES = 1 << 30  # of pixels that are held at a time
STOPPED = 130  # the exit status after Ctrl-C


class Normal:
    """Normal numbers of a seed, one tensor after another.

    Torch's generator on the CPU takes the lowest 32 bits of a seed and no others. So it serves
    seeds below 2**32; for larger ones NumPy's ``RandomState`` takes both halves of the seed, and
    NumPy promises that its numbers stay the same from version to version.

    Args:
        seed: from 0 to 2**63 - 1.

    Raises:
        ValueError: for another seed.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must be between 0 and 2**63 - 1, got {seed}")
        high, low = divmod(seed, 2**32)
        self._rng: torch.Generator | np.random.RandomState
        if high:
            self._rng = np.random.RandomState([low, high])
        else:
            self._rng = torch.Generator().manual_seed(low)

    def __call__(self, *size: int) -> Tensor:
        """The next numbers, float32 on the CPU."""
        if isinstance(self._rng, torch.Generator):
            return torch.randn(size, generator=self._rng)
        return torch.from_numpy(self._rng.standard_normal(size)).to(torch.float32)


class Sampler:
    """A generator with all that decides how its images are made.

    Args:
        generator: on the device where it is to run.
        mean: ``[style_dim]``, where truncation pulls to; None where ``psi`` is 1.
        psi: of :meth:`StyledGenerator.truncate`, from -1000 to 1000; 1 leaves styles as they are.
        noise: ``"stored"``: the noise kept with the weights; ``"seed"``: each seed its own;
            ``"none"``: zeros.
        dtype: float16 or bfloat16 for the largest sides, as for :meth:`StyledGenerator.synthesis`.
        batch: images at a time.
        compile: compile the synthesis network.
        movement: [3, 3], of what the images show, as of :mod:`.transforms`; None where the
            generator is to draw as it does by itself.

    Raises:
        ValueError: if images have other than 1 or 3 channels, ``psi`` is out of its range,
            ``mean`` is lacking, or there is a movement for a generator without a Fourier input.
    """

    def __init__(
        self,
        generator: StyledGenerator,
        mean: Tensor | None = None,
        psi: float = 1.0,
        noise: str = "stored",
        dtype: torch.dtype | None = None,
        batch: int = 8,
        compile: bool = False,
        movement: Tensor | None = None,
    ) -> None:
        if generator.image_channels not in CHANNELS:
            raise ValueError(
                "image_channels must be 1, for grey pictures, or 3, for RGB, got "
                f"{generator.image_channels}"
            )
        check_psi(psi, "psi")
        if mean is None and psi != 1:
            raise ValueError(f"mean must be given where psi is not 1, got None and psi={psi:g}")
        if movement is not None:
            transform_of(generator)
        self.generator, self.mean, self.psi, self.movement = generator, mean, psi, movement
        self.noise, self.dtype, self.batch = noise, dtype, batch
        self.device = generator.device
        self.synthesis: Callable[..., Tensor] = generator.synthesis
        if compile:
            self.synthesis = torch.compile(self.synthesis, dynamic=True)

    @torch.no_grad()
    def w(self, seeds: Sequence[int], psi: float | None = None) -> Tensor:
        """Intermediate latents of seeds [n, style_dim], truncated; by the sampler's psi or another.

        Raises:
            ValueError: if ``psi`` is not 1 and the sampler has no mean.
        """
        psi = self.psi if psi is None else psi
        if self.mean is None and psi != 1:
            raise ValueError(f"mean must be given where psi is not 1, got None and psi={psi:g}")
        latents = [Normal(seed)(self.generator.style_dim) for seed in seeds]
        w = self.generator.mapping(torch.stack(latents).to(self.device))
        return w if self.mean is None else self.generator.truncate(w, self.mean, psi)

    @torch.no_grad()
    def images(
        self,
        styles: Tensor,  # [n, num_styles, style_dim]
        seeds: Sequence[int],  # n, of the noise
        movements: Sequence[Tensor] | None = None,  # each [3, 3]; None for the sampler's own
    ) -> Iterator[Tensor]:
        """Bytes [C, H, W] on the CPU, one image after another; all of them for each movement."""
        each = [self.movement] if movements is None else movements
        total = len(seeds) * len(each)
        with tqdm(total=total, desc="generating", unit="image", disable=None) as bar:
            for movement in each:
                for first in range(0, len(seeds), self.batch):
                    part = slice(first, first + self.batch)
                    images = self._draw(styles[part], seeds[part], movement)
                    yield from images
                    bar.update(len(images))

    def _draw(self, styles: Tensor, seeds: Sequence[int], movement: Tensor | None) -> Tensor:
        """Bytes [n, C, H, W] on the CPU, of a batch."""
        noise = self.noise_of(seeds)
        with contextlib.nullcontext() if movement is None else moved(self.generator, movement):
            images = self.synthesis(styles, noise, self.dtype)
        finite = images.isfinite().all((1, 2, 3)).tolist()
        if not all(finite):
            raise FloatingPointError(
                f"every pixel must be finite, got others for seed {seeds[finite.index(False)]} in "
                f"{self.dtype or images.dtype}: try --dtype bfloat16 or float32, or "
                "the checkpoint itself is broken"
            )
        return to_bytes(images).cpu()

    def noise_of(self, seeds: Sequence[int]) -> list[Tensor]:
        """One image [n or 1, 1, side, side] for each layer."""
        stored = self.generator.fixed_noise()
        if self.noise == "stored":
            return stored
        if self.noise == "none":
            return [torch.zeros_like(image) for image in stored]
        numbers = [Normal(seed) for seed in seeds]
        return [
            torch.cat([normal(*image.shape) for normal in numbers]).to(self.device)
            for image in stored
        ]


def make_sampler(
    checkpoint: Checkpoint,
    device: torch.device,
    psi: float = 1.0,
    truncates: bool = False,
    **options: Any,
) -> Sampler:
    """A sampler on a device, with the mean of ``w`` where ``psi`` is not 1 or it ``truncates``.

    A checkpoint without that mean gets it from 10,000 latents.
    """
    generator = checkpoint.generator.eval().requires_grad_(False).to(device)
    mean = None
    if psi != 1 or truncates:
        mean = checkpoint.latent_avg
        if mean is None:
            mean = generator.mean_style(MEAN_SAMPLES, torch.Generator().manual_seed(0))
        mean = mean.to(device)
    return Sampler(generator, mean, psi, **options)


# Pictures


class Look(NamedTuple):
    """How images become a picture."""

    scale: int = 1  # pixels of the picture for one of an image, along each axis
    gap: int = 0  # [pixels of the picture] between the images of a grid
    labels: bool = False  # whether their names stand above them


PLAIN = Look()


def save_grid(
    sampler: Sampler, seeds: Sequence[int], folder: Path, look: Look = PLAIN
) -> list[Path]:
    """``grid.png``, as square as may be."""
    styles = sampler.generator.repeat(sampler.w(seeds))
    images = list(sampler.images(styles, seeds))
    picture = to_picture(tile(images, math.ceil(math.sqrt(len(seeds))), look, seeds))
    return [save_png(picture, folder / "grid.png")]


def save_strip(
    sampler: Sampler, seeds: Sequence[int], psis: Sequence[float], folder: Path, look: Look = PLAIN
) -> list[Path]:
    """``psi.png``: a row for each seed, a column for each psi."""
    w = torch.stack([sampler.w(seeds, psi) for psi in psis], 1).flatten(0, 1)
    noise_seeds = [seed for seed in seeds for _ in psis]
    images = list(sampler.images(sampler.generator.repeat(w), noise_seeds))
    names = [f"{seed}: {psi:g}" for seed in seeds for psi in psis]
    return [save_png(to_picture(tile(images, len(psis), look, names)), folder / "psi.png")]


def save_files(
    sampler: Sampler, seeds: Sequence[int], folder: Path, look: Look = PLAIN
) -> list[Path]:
    """``seedNNNN.png`` for each seed."""
    styles = sampler.generator.repeat(sampler.w(seeds))
    images = zip(seeds, sampler.images(styles, seeds), strict=True)
    return [
        save_png(to_picture(enlarge(image, look.scale)), folder / name_of(seed))
        for seed, image in images
    ]


def name_of(seed: int) -> str:
    return f"seed{seed:04d}.png"


def save_mix(
    sampler: Sampler,
    rows: Sequence[int],
    columns: Sequence[int],
    crossover: int,
    folder: Path,
    look: Look = PLAIN,
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
    cells, names = [torch.zeros_like(images[0]), *top], ["", *columns]
    for row, first in zip(rows, left, strict=True):
        cells += [first, *(next(inside) for _ in columns)]
        names += [row, *[""] * len(columns)]
    picture = to_picture(tile(cells, len(columns) + 1, look, names))
    return [save_png(picture, folder / "mix.png")]


def save_interpolation(
    sampler: Sampler, seeds: Sequence[int], steps: int, rate: float, path: Path, look: Look = PLAIN
) -> list[Path]:
    """An animated picture: from each seed's ``w`` to the next one's in a straight line, round."""
    w = sampler.w(seeds)
    share = torch.arange(steps, device=w.device)[:, None] / steps  # [steps, 1]
    walk = torch.cat(
        [a + share * (b - a) for a, b in zip(w, w.roll(-1, 0), strict=True)]
    )  # [len(seeds) * steps, style_dim]
    styles = sampler.generator.repeat(walk)
    images = sampler.images(styles, [seeds[0]] * len(walk))
    frames = (to_picture(enlarge(image, look.scale)) for image in images)
    return [save_animation(frames, len(walk), rate, path)]


def save_move(
    sampler: Sampler,
    seeds: Sequence[int],
    movements: Sequence[Tensor],
    rate: float,
    path: Path,
    look: Look = PLAIN,
) -> list[Path]:
    """An animated picture: the grid of the seeds, moved as each of ``movements`` [3, 3] says."""
    images = sampler.images(sampler.generator.repeat(sampler.w(seeds)), seeds, movements)
    columns = math.ceil(math.sqrt(len(seeds)))
    frames = (
        to_picture(tile(list(itertools.islice(images, len(seeds))), columns, look, seeds))
        for _ in movements
    )
    return [save_animation(frames, len(movements), rate, path)]


def save_animation(frames: Iterator[Image.Image], count: int, rate: float, path: Path) -> Path:
    """``count`` pictures as one that is animated, in the format of its name.

    Pictures are made while the file is written, so that of a WebP no more than one is held at a
    time, besides what is written already. Of a GIF Pillow holds all in 256 colours; of a PNG, which
    it goes through twice, all as they are.
    """
    if path.suffix == ".mp4":
        return save_film(frames, rate, path)
    options = {"lossless": True} if path.suffix == ".webp" else {}
    first = next(frames)
    rest = list(frames) if path.suffix == ".png" else [Reel(frames, count - 1)]
    with whole(path) as file:
        first.save(
            file,
            format=path.suffix[1:],
            save_all=True,
            append_images=rest,
            duration=duration(rate, path.suffix),
            loop=0,
            **options,
        )
    return path


def save_film(frames: Iterator[Image.Image], rate: float, path: Path) -> Path:
    """Pictures as an MP4 that ffmpeg makes, one after another; even sides, by black pixels.

    Raises:
        OSError: if ffmpeg cannot write the file; with its last line.
    """
    with whole(path) as file:
        command = ["ffmpeg", "-loglevel", "error", "-y"]
        command += ["-f", "image2pipe", "-c:v", "bmp", "-framerate", f"{rate:g}", "-i", "-"]
        command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"]
        # Without "file:" ffmpeg would take "a:b" for a protocol, and "-a" for an option
        command += ["-f", "mp4", f"file:{file.name}"]
        with tempfile.TemporaryFile() as said:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said) as process:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # it has ended, and has said why
                    for frame in frames:
                        bitmap = io.BytesIO()
                        frame.convert("RGB").save(bitmap, "bmp")
                        process.stdin.write(bitmap.getvalue())
                    process.stdin.close()
            if process.returncode:
                said.seek(0)
                lines = said.read().decode(errors="replace").splitlines() or ["no reason"]
                raise OSError(errno.EIO, f"ffmpeg: {lines[-1]}", str(path))
    return path


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
    slowest, fastest = FORMATS[suffix]
    if not slowest <= rate <= fastest:
        raise ValueError(
            f"--rate must be between {slowest:g} and {fastest:g} for {suffix}, got {rate:g}"
        )
    unit = 1000 // fastest
    return round(1000 / rate / unit) * unit


def tile(
    images: Sequence[Tensor], columns: int, look: Look = PLAIN, names: Sequence[Any] = ()
) -> Tensor:
    """Images [C, H, W] side by side, in rows: [C, rows * H, columns * W]; black where none is.

    The sides are larger by what ``look`` adds; ``names`` are those of the images.
    """
    cells = [enlarge(image, look.scale) for image in images]
    if look.labels:
        cells = [label(image, str(name)) for image, name in zip(cells, names, strict=True)]
    cells += [torch.zeros_like(cells[0])] * (-len(cells) % columns)
    cells = [F.pad(image, (0, look.gap, 0, look.gap)) for image in cells]
    rows = [torch.cat(cells[i : i + columns], 2) for i in range(0, len(cells), columns)]
    picture = torch.cat(rows, 1)
    return picture[:, : picture.shape[1] - look.gap, : picture.shape[2] - look.gap]


def enlarge(image: Tensor, scale: int) -> Tensor:
    """An image [C, H, W] with ``scale`` x ``scale`` pixels for each."""
    return image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def label(image: Tensor, name: str) -> Tensor:
    """An image [C, H, W] below its name: [C, LABEL + H, W]. A name that is too long is cut off."""
    band = Image.new("L", (image.shape[2], LABEL))
    ImageDraw.Draw(band).text((1, 1), name, fill=255)
    text = torch.from_numpy(np.array(band)).expand(image.shape[0], -1, -1)
    return torch.cat((text, image), 1)


def to_picture(image: Tensor) -> Image.Image:
    """Bytes [C, H, W], C 1 or 3."""
    if image.shape[0] == 1:
        return Image.fromarray(image[0].numpy())
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def save_png(picture: Image.Image, path: Path) -> Path:
    with whole(path) as file:
        picture.save(file, format="png")
    return path


# Command line


def parse_suffix(text: str) -> str:
    """With its dot, which may be left out: ``"gif"`` is ``".gif"``."""
    return text if text.startswith(".") else f".{text}"


def parse_seeds(text: str) -> list[int]:
    """Numbers and ranges, each number once: ``"0-3,7"`` is ``[0, 1, 2, 3, 7]``."""
    seeds: list[int] = []
    count = 0
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
        count += high - low + 1
        if count > MOST_IMAGES:
            raise argparse.ArgumentTypeError(
                f"seeds must be {MOST_IMAGES:,} at most, got {count:,} in {text!r}"
            )
        seeds += range(low, high + 1)
    return list(dict.fromkeys(seeds))  # each once


def parse_point(text: str) -> tuple[float, float]:
    """Two numbers with a comma between them."""
    try:
        x, y = map(float, text.split(","))
        if max(abs(x), abs(y)) <= MOST_WIDTHS and not math.isnan(x + y):
            return x, y
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"it must be two finite numbers of widths, X,Y such as 0.25,-0.1, from -{MOST_WIDTHS} to "
        f"{MOST_WIDTHS}, got {text!r}"
    )


def parse_angle(text: str) -> float:
    """A finite number of degrees."""
    try:
        angle = float(text)
        if math.isfinite(angle):
            return angle
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"it must be a finite number of degrees, got {text!r}")


def take_signs(argv: Sequence[str]) -> list[str]:
    """Options with what follows those of signed values joined to them.

    Else argparse would take the value "-0.1,0.2" for an option, since it is no number.
    """
    found: list[str] = []
    for word in argv:
        if found and found[-1] in ("--translate", "--rotate", "--strip"):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def parse_psis(text: str) -> list[float]:
    """Strengths of truncation: ``"0,0.5,1"`` is ``[0.0, 0.5, 1.0]``."""
    try:
        psis = [float(part) for part in text.split(",")]
        for psi in psis:
            check_psi(psi, "psi")
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"it must be numbers from -{MOST_PSI} to {MOST_PSI}, such as 0,0.5,1, got {text!r}"
        ) from None
    return psis


def parse(argv: Sequence[str] | None) -> tuple[Parser, argparse.Namespace]:
    parser = Parser(
        prog="python -m examples.stylegan.generate",
        description="Generate images from a checkpoint.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="FILE", help="ours, or another code's")
    add("--out", type=parse_folder, required=True, metavar="DIR", help="where pictures go")
    add("--seeds", type=parse_seeds, default="0-15", help="numbers and ranges, such as 0-3,7")
    add("--psi", type=float, default=1.0, help="truncation: below 1 less variety, fewer failures")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--files", action="store_true", help="a file for each seed")
    kind.add_argument("--mix", type=parse_seeds, metavar="SEEDS", help="fine layers of these seeds")
    kind.add_argument("--strip", type=parse_psis, metavar="PSIS", help="each seed at these psi")
    kind.add_argument("--interpolate", type=int, metavar="N", help="pictures from seed to seed")
    kind.add_argument("--move", type=int, metavar="N", help="pictures from place to place")
    add("--translate", type=parse_point, metavar="X,Y", help="move by widths right and down")
    add("--rotate", type=parse_angle, metavar="DEGREES", help="turn counter-clockwise")
    add("--crossover", type=int, help="first fine layer of --mix; default: the middle one")
    add(
        "--format",
        type=parse_suffix,
        choices=FORMATS,
        default=next(iter(FORMATS)),
        help="of animations",
    )
    add("--rate", type=float, default=30.0, help="pictures a second of animations")
    add("--scale", type=int, default=1, help="pixels for one of an image, along each axis")
    add("--gap", type=int, default=0, help="pixels between the images of a grid")
    add("--labels", action="store_true", help="write the seeds above the images of a grid")
    add("--noise", choices=("stored", "seed", "none"), default="stored", help="of the layers")
    add("--batch", type=int, default=8, help="images at a time")
    add("--device", default="auto", help="cpu, cuda or cuda:N; auto: a GPU where there is one")
    add("--dtype", choices=DTYPES, default="float32", help="of the four largest sides")
    add("--compile", action="store_true", help="compile the synthesis network first")
    args = parser.parse_args(take_signs(sys.argv[1:] if argv is None else argv))
    args.moves = args.translate is not None or args.rotate is not None
    args.animated = args.interpolate is not None or args.move is not None
    for name in ("batch", "interpolate", "move"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be >= 1, got {value}")
    for name, least in (("scale", 1), ("gap", 0)):
        value = getattr(args, name)
        if not least <= value <= LARGEST[name]:
            parser.error(f"--{name} must be between {least} and {LARGEST[name]}, got {value}")
    if args.animated and args.format == ".mp4" and shutil.which("ffmpeg") is None:
        parser.error("--format .mp4 needs the program ffmpeg, which is not on the PATH: try .webp")
    if args.interpolate is not None and len(args.seeds) < 2:
        parser.error(f"--interpolate must have two --seeds or more to go between, got {args.seeds}")
    if args.move is not None and not args.moves:
        parser.error("--move needs --translate or --rotate, to say where the images go, got none")
    try:
        shown = 1000 / duration(args.rate, args.format)
    except ValueError as error:
        parser.error(str(error))
    if args.animated and args.format != ".mp4" and abs(shown / args.rate - 1) > 0.05:
        print(
            f"{parser.prog}: note: --rate is {shown:.3g}, not {args.rate:g}, for {args.format} has "
            f"durations in units of {1000 // ANIMATED[args.format][1]} ms",
            file=sys.stderr,
        )
    try:
        check_psi(args.psi, "--psi")
        check_count(args)
    except ValueError as error:
        parser.error(str(error))
    return parser, args


def check_psi(psi: float, name: str) -> None:
    if not -MOST_PSI <= psi <= MOST_PSI:
        raise ValueError(f"{name} must be between -{MOST_PSI} and {MOST_PSI}, got {psi}")


def check_count(args: argparse.Namespace) -> None:
    """Raise a ValueError if a command asks for too many images."""
    if args.mix is not None:
        option, count = "--mix", (len(args.seeds) + 1) * (len(args.mix) + 1) - 1
    elif args.strip is not None:
        option, count = "--strip", len(args.seeds) * len(args.strip)
    elif args.interpolate is not None:
        option, count = "--interpolate", len(args.seeds) * args.interpolate
    elif args.move is not None:
        option, count = "--move", len(args.seeds) * 2 * args.move
    else:
        return  # parse_seeds has counted them
    if count > MOST_IMAGES:
        raise ValueError(f"{option} must give {MOST_IMAGES:,} images at most, got {count:,}")


def check_bytes(args: argparse.Namespace, generator: StyledGenerator) -> None:
    """Raise a ValueError if what a command asks for needs too much memory at a time."""
    pixels, cure = generator.image_channels, "--files writes each image by itself"
    if args.animated and args.format == ".gif":
        pixels = 1
    if args.files or (args.interpolate is not None and args.format in STREAMED):
        # No more than a batch is held, and no more than one image at its scale
        option, count, cure = "--scale", 1, "try a smaller one"
    elif args.mix is not None:
        option, count = "--mix", (len(args.seeds) + 1) * (len(args.mix) + 1)
    elif args.strip is not None:
        option, count = "--strip", len(args.seeds) * len(args.strip)
    elif args.interpolate is not None:
        option, count = "--interpolate", len(args.seeds) * args.interpolate
        cure = "--format .webp holds one image at a time"
    elif args.move is not None:
        pictures = 1 if args.format in STREAMED else 2 * args.move
        option, count = "--move", len(args.seeds) * pictures
        cure = "--format .webp holds one picture at a time, and fewer --seeds make it smaller"
    else:
        option, count = "--seeds", len(args.seeds)
    side = args.scale * generator.resolution
    size = count * pixels * side**2
    if size > MOST_BYTES:
        raise ValueError(
            f"{option} must need {MOST_BYTES >> 30} GiB of pixels at most, got {count:,} images of "
            f"{side} pixels a side, {size / 2**30:.1f} GiB: {cure}"
        )


def names_of(args: argparse.Namespace) -> list[str]:
    """The files that a command is to write."""
    if args.files:
        return [name_of(seed) for seed in args.seeds]
    if args.mix is not None:
        return ["mix.png"]
    if args.strip is not None:
        return ["psi.png"]
    if args.move is not None:
        return [f"movement{args.format}"]
    return ["grid.png" if args.interpolate is None else f"interpolation{args.format}"]


def movement_of(args: argparse.Namespace, share: float = 1.0) -> Tensor:
    """The movement [3, 3] that a command asks for, or a share of it: the turn comes first."""
    x, y = args.translate or (0.0, 0.0)
    turn = rotation(math.radians(share * (args.rotate or 0.0)))
    return translation(share * x, share * y) @ turn


def there_and_back(args: argparse.Namespace) -> list[Tensor]:
    """Movements [3, 3] of ``--move``: N pictures up to the whole movement, then N back."""
    n = args.move
    return [movement_of(args, share / n) for share in (*range(n), *range(n, 0, -1))]


@ending_without_output
def main(argv: Sequence[str] | None = None) -> int:
    parser, args = parse(argv)
    folder = args.out
    look = Look(args.scale, args.gap, args.labels)
    try:
        with writable(folder, names_of(args)):
            device = pick_device(args.device)
            checkpoint = load_checkpoint(args.checkpoint)
            print(f"{args.checkpoint}: {checkpoint.summary}", file=sys.stderr)
            check_bytes(args, checkpoint.generator)
            layers = checkpoint.generator.num_styles
            crossover = layers // 2 if args.crossover is None else args.crossover
            if not 0 <= crossover <= layers:
                raise ValueError(f"--crossover must be between 0 and {layers}, got {crossover}")
            sampler = make_sampler(
                checkpoint,
                device,
                psi=args.psi,
                truncates=args.strip is not None,
                noise=args.noise,
                dtype=DTYPES[args.dtype],
                batch=args.batch,
                compile=args.compile,
                movement=movement_of(args) if args.moves else None,
            )
    except (OSError, ValueError) as error:
        parser.fail(str(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        parser.fail(f"out of memory before the first picture: {str(error).splitlines()[0]}")
    except KeyboardInterrupt:
        print("stopped before the first picture", file=sys.stderr)
        return STOPPED
    try:
        if args.files:
            paths = save_files(sampler, args.seeds, folder, look)
        elif args.mix is not None:
            paths = save_mix(sampler, args.seeds, args.mix, crossover, folder, look)
        elif args.strip is not None:
            paths = save_strip(sampler, args.seeds, args.strip, folder, look)
        elif args.interpolate is not None:
            path = folder / f"interpolation{args.format}"
            paths = save_interpolation(sampler, args.seeds, args.interpolate, args.rate, path, look)
        elif args.move is not None:
            path = folder / f"movement{args.format}"
            movements = there_and_back(args)
            paths = save_move(sampler, args.seeds, movements, args.rate, path, look)
        else:
            paths = save_grid(sampler, args.seeds, folder, look)
    except KeyboardInterrupt:
        print("stopped; the pictures that were finished are whole", file=sys.stderr)
        return STOPPED
    except (FloatingPointError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, OSError):
            reason = f"{explain_write(error)}; the pictures that were finished are whole"
        elif is_out_of_memory(error):
            reason = f"out of memory: try --batch {max(args.batch // 2, 1)}, or fewer --seeds"
        elif isinstance(error, FloatingPointError):
            reason = str(error)
        else:
            raise
        print(f"{parser.prog}: error: {reason}", file=sys.stderr)
        return 1
    say(f"{len(paths)} file{'s' if len(paths) > 1 else ''}: {paths[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
