# SPDX-License-Identifier: BSD-3-Clause
"""What there is to learn from: handwritten digits, photographs, or images that people bring."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from resample_layers import UpFirDnUpsample
from resample_layers.filters import NAMED_TAPS

from .decode import EXTENSIONS, ImageError, decode, parse_colour
from .order import worker_signals
from .processes import World
from .sources import Source, find_images, name_some
from .styles import check_resolution

HELD_OUT_DIGITS = 360  # a fifth
SMALLEST_FOLDER = 4
WIDEST = 8  # times its height, or highest times its width; more is cut off before resizing
MOST_HELD_OUT = 1000
IN_MEMORY = 4 << 30  # bytes
PHOTOGRAPHS = 4000  # crops to learn from
HELD_OUT_PHOTOGRAPHS = 500


@dataclass(frozen=True)
class Images:
    """Images as bytes; one part to learn from, one that only the evaluation sees."""

    name: str
    train: Tensor | Files  # [N, C, resolution, resolution], uint8
    held_out: Tensor  # [M, C, resolution, resolution], uint8
    train_labels: Tensor | None = None  # [N], int64
    held_out_labels: Tensor | None = None  # [M], int64
    names: tuple[str, ...] | None = None  # of files, as they lie in their folder
    summary: str = ""  # what was taken of a folder and what was not, in one line

    @property
    def channels(self) -> int:
        return self.held_out.shape[1]

    def fingerprint(self) -> str:
        """Which images these are, in which order: their names, or the numbers of those bundled."""
        if self.names is None:
            return f"{self.name}: {len(self.train)}"
        # Bytes of a name that are no UTF-8 are themselves; os.fsencode would depend on the locale
        names = "\n".join(self.names).encode("utf-8", sys.getfilesystemencodeerrors())
        digest = hashlib.sha256(names).hexdigest()
        return f"{len(self.names)} files, {digest[:16]}"


def load(
    data: str,
    resolution: int,
    workers: int = 0,
    background: str = "white",
    skip_broken: bool = False,
    world: World | None = None,
) -> Images:
    """``digits``, ``photographs``, or what :func:`load_files` finds in a folder or a zip archive.

    Raises:
        ValueError, OSError: as the functions below.
    """
    if not data:
        raise ValueError(
            "data must be digits, photographs or a folder of images, or a zip archive of them, "
            "got ''"
        )
    bundled = {"digits": load_digits, "photographs": load_photographs}
    if data in bundled:
        return bundled[data](resolution)
    return load_files(data, resolution, workers, background, skip_broken, world)


def to_pixels(images: Tensor) -> Tensor:
    """Bytes [..., H, W] to what the networks see: float32 in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1.0


def to_bytes(pixels: Tensor) -> Tensor:
    """The inverse of :func:`to_pixels`; what lies outside [-1, 1] is clamped."""
    return ((pixels.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


def load_digits(resolution: int) -> Images:
    """The 1,797 handwritten digits that come with scikit-learn, one channel of grey.

    1. Their 8x8 pixels are upsampled by 2, with cubic taps, until they have the resolution.
    2. A shuffle that is the same in every run sets 360 of them apart.
    """
    from sklearn import datasets

    check_resolution(resolution)
    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images).to(torch.float32)[:, None] / 16.0  # [N, 1, 8, 8]
    upsample = UpFirDnUpsample(NAMED_TAPS["cubic"], factor=2)
    while images.shape[-1] < resolution:
        images = upsample(images)
    images = to_bytes(images * 2.0 - 1.0)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    held_out, train = order[:HELD_OUT_DIGITS], order[HELD_OUT_DIGITS:]
    return Images("digits", images[train], images[held_out], labels[train], labels[held_out])


def load_photographs(resolution: int) -> Images:
    """Crops of six photographs that come with scikit-image and scikit-learn, RGB.

    Astronaut, cat, coffee and rocket (public domain, CC0), a temple and a flower (CC BY 2.0,
    danielbuechele and vultilion).

    1. The right fifth of each photograph is set apart.
    2. Squares at random places, a fifth of the photograph's height to all of it, are resized: 4,000
       of what is left, 500 of what is set apart; the same in every run.
    """
    from skimage import data
    from sklearn.datasets import load_sample_image

    check_resolution(resolution)
    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    photographs += [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    rng = np.random.default_rng(0)

    def crops(count: int, left: float, right: float) -> Tensor:
        found = []
        for number in range(count):
            photograph = photographs[number % len(photographs)]
            height, width = photograph.shape[:2]
            low, high = round(left * width), round(right * width)
            side = int(rng.integers(height // 5, min(height, high - low) + 1))
            y = int(rng.integers(0, height - side + 1))
            x = int(rng.integers(low, high - side + 1))
            found.append(_fit(photograph[y : y + side, x : x + side], resolution))
        return torch.stack(found)

    held_out = crops(HELD_OUT_PHOTOGRAPHS, 0.8, 1.0)
    return Images("photographs", crops(PHOTOGRAPHS, 0.0, 0.8), held_out)


def load_files(
    path: str | os.PathLike[str],
    resolution: int,
    workers: int = 0,
    background: str = "white",
    skip_broken: bool = False,
    world: World | None = None,
) -> Images:
    """All images in a folder and the folders in it, or in a zip archive; RGB.

    1. Every file with an image's extension is decoded once, so that one that cannot be is found
       before the first step. Without workers all images stay in memory, which takes
       ``3 * resolution ** 2`` bytes for each. With workers, these and all processes share the
       work, only those held out stay, and the others are decoded again when their turn comes.
    2. An image's shorter side is resized to the resolution, and its centre is cut out.
    3. A shuffle that is the same in every run sets a tenth apart, 1,000 at most, two at least.

    Args:
        path: the folder or archive.
        resolution: side of the images.
        workers: processes that decode images; 0 for none, with all images in memory.
        background: a colour, which is seen where images are transparent.
        skip_broken: leave images out that cannot be decoded, as if they were not there.
        world: this process among others that load the same images.

    Raises:
        FileNotFoundError: if ``path`` does not exist.
        OSError: if it cannot be read.
        ValueError: if it is neither folder nor archive, holds fewer than four images or more than
            fit in 4 GiB of memory, or one cannot be decoded (:class:`ImageError`).
    """
    check_resolution(resolution)
    colour = parse_colour(background)
    found = find_images(path)
    name = os.fspath(path)

    def check_count(count: int, summary: str) -> None:
        if count < SMALLEST_FOLDER:
            raise ValueError(
                f"the folder of images must hold at least {SMALLEST_FOLDER} images "
                f"({', '.join(EXTENSIONS)}), got {count} in {name!r}: {summary}"
            )

    check_count(len(found.names), found.describe())
    size = 3 * resolution**2 * len(found.names)
    if workers == 0 and size > IN_MEMORY:
        raise ValueError(
            f"images in memory must not exceed {IN_MEMORY >> 30} GiB, got {len(found.names):,} "
            f"images of {size / 2**30:.1f} GiB in {name!r}: with workers they are read when needed"
        )
    files = Files(found.source, found.names, resolution, colour)
    readings = files.examine(workers, world or World())
    broken = [reading.error for reading in readings if reading.error]
    if broken and not skip_broken:
        raise ImageError(
            f"every image must be readable, got {name_some(broken)} "
            "(mend or remove them, or leave them out with --skip-broken)"
        )
    summary = found.describe(broken)
    transparent = sum(reading.transparent for reading in readings)
    if transparent:
        summary += f"; transparent images {transparent:,}, shown on {background} (--background)"
    whole = [index for index, reading in enumerate(readings) if not reading.error]
    check_count(len(whole), summary)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0)).tolist()
    count = min(max(2, len(whole) // 10), MOST_HELD_OUT)
    held_out, train = ([whole[i] for i in part] for part in (order[:count], order[count:]))

    def pixels(indices: list[int]) -> Tensor:
        kept = ((i, readings[i].pixels) for i in indices)
        return torch.stack([files[i] if image is None else image for i, image in kept])

    return Images(
        name,
        files.subset(train) if workers else pixels(train),
        pixels(held_out),
        names=tuple(found.names[i] for i in whole),
        summary=summary,
    )


def _fit(rgb: np.ndarray, resolution: int) -> Tensor:
    """An image [H, W, 3] as bytes [3, resolution, resolution]: resized, and its centre."""
    height, width = rgb.shape[:2]
    longest = WIDEST * min(height, width)  # a line of pixels would be resized to gigabytes
    y, x = (max(side - longest, 0) // 2 for side in (height, width))
    rgb = rgb[y : y + longest, x : x + longest]
    pixels = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)
    pixels = transforms.resize(pixels, [resolution], v2.InterpolationMode.BICUBIC, antialias=True)
    return transforms.center_crop(pixels, [resolution, resolution])


class Reading(NamedTuple):
    """What came of an attempt to decode a file."""

    pixels: Tensor | None  # [3, resolution, resolution], uint8, where they are kept
    transparent: bool = False
    error: str = ""  # which file cannot be decoded, and why


class Files(Dataset[Tensor]):
    """Files of images, each decoded to bytes [3, resolution, resolution] when it is asked for."""

    def __init__(
        self,
        source: Source,
        names: tuple[str, ...],
        resolution: int,
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        self.source, self.names = source, names
        self.resolution, self.background = resolution, background

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        """One image.

        Raises:
            ImageError: if it cannot be decoded.
        """
        reading = self.read(index)
        if reading.pixels is None:
            raise ImageError(f"every image must be readable, got {reading.error}")
        return reading.pixels

    def subset(self, indices: list[int]) -> Files:
        names = tuple(self.names[i] for i in indices)
        return Files(self.source, names, self.resolution, self.background)

    def read(self, index: int) -> Reading:
        """Decode a file, whatever comes of it."""
        name = self.names[index]
        try:
            with self.source.open(name) as file:
                image = decode(file, self.background)
            return Reading(_fit(image.rgb, self.resolution), image.transparent)
        except MemoryError:  # which is no fault of the file
            raise
        except Exception as error:  # decoders raise what they like; the file is broken
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            path = f"{self.source.path.rstrip('/')}/{name}"
            return Reading(None, error=f"{path!r}: {reason}")

    def examine(self, workers: int, world: World) -> list[Reading]:
        """Decode all files once; without workers, their pixels are kept."""
        if workers == 0:
            return [self.read(i) for i in _progress(range(len(self)), len(self), world)]
        share = range(world.rank, len(self), world.size)
        loader = DataLoader(
            _Examined(self, share), None, num_workers=workers, worker_init_fn=worker_signals
        )
        readings: list[Reading] = [Reading(None)] * len(self)
        shares = world.gather(list(_progress(loader, len(share), world)))
        for rank, part in enumerate(shares):
            readings[rank :: world.size] = [Reading(None, *reading) for reading in part]
        return readings


class _Examined(Dataset[tuple[bool, str]]):
    """Files as :meth:`Files.read` finds them, without their pixels."""

    def __init__(self, files: Files, indices: range) -> None:
        self.files, self.indices = files, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[bool, str]:
        return self.files.read(self.indices[index])[1:]


T = TypeVar("T")


def _progress(steps: Iterable[T], count: int, world: World) -> Iterable[T]:
    shown = None if world.rank == 0 else True  # None: where somebody watches
    return tqdm(steps, "reading images", count, unit="image", disable=shown, leave=False)
