# SPDX-License-Identifier: BSD-3-Clause
"""What there is to learn from: handwritten digits, photographs, or any folder of images."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from resample_layers import UpFirDnUpsample
from resample_layers.filters import NAMED_TAPS

from .generator import check_resolution
from .processes import World

HELD_OUT_DIGITS = 360  # a fifth
SMALLEST_FOLDER = 4
MOST_HELD_OUT = 1000
IN_MEMORY = 4 << 30  # bytes
PHOTOGRAPHS = 4000  # crops to learn from
HELD_OUT_PHOTOGRAPHS = 500


class ImageError(ValueError):
    """A file that is no image, or a damaged one."""


@dataclass(frozen=True)
class Images:
    """Images as bytes; one part to learn from, one that only the evaluation sees."""

    name: str
    train: Tensor | Files  # [N, C, resolution, resolution], uint8
    held_out: Tensor  # [M, C, resolution, resolution], uint8
    train_labels: Tensor | None = None  # [N], int64
    held_out_labels: Tensor | None = None  # [M], int64
    names: tuple[str, ...] | None = None  # of files, as they lie in their folder

    @property
    def channels(self) -> int:
        return self.held_out.shape[1]

    def fingerprint(self) -> str:
        """Which images these are, in which order: their names, or the numbers of those bundled."""
        if self.names is None:
            return f"{self.name}: {len(self.train)}"
        digest = hashlib.sha256("\n".join(self.names).encode()).hexdigest()
        return f"{len(self.names)} files, {digest[:16]}"


def load(data: str, resolution: int, workers: int = 0) -> Images:
    """``digits``, ``photographs`` or a folder; with workers, its images are read when needed.

    Raises:
        ValueError, OSError: as the functions below.
    """
    if not data:
        raise ValueError("data must be digits, photographs or a folder of images, got ''")
    bundled = {"digits": load_digits, "photographs": load_photographs}
    if data in bundled:
        return bundled[data](resolution)
    return load_folder(data, resolution, in_memory=workers == 0)


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


def load_folder(folder: str | Path, resolution: int, in_memory: bool = True) -> Images:
    """All images in a folder and the folders in it, RGB; a tenth, 1,000 at most, held out.

    1. In memory, every file with an image's extension is decoded at once, so that a broken one is
       found before the first step; this takes ``3 * resolution ** 2`` bytes for each. Otherwise
       only those held out are, and the others when their turn comes.
    2. Its shorter side is resized to the resolution, and the centre is cut out.
    3. A shuffle that is the same in every run sets a tenth apart, two images at least.

    Raises:
        FileNotFoundError: if ``folder`` does not exist.
        ValueError: if it is no folder, holds fewer than four images or more than fit in 4 GiB of
            memory, or one is broken (:class:`ImageError`).
    """
    check_resolution(resolution)
    paths = find_images(folder)
    size = 3 * resolution**2 * len(paths)
    if in_memory and size > IN_MEMORY:
        raise ValueError(
            f"images in memory must not exceed {IN_MEMORY >> 30} GiB, got {len(paths):,} images "
            f"of {size / 2**30:.1f} GiB in {str(folder)!r}: with workers they are read when needed"
        )
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0)).tolist()
    count = min(max(2, len(paths) // 10), MOST_HELD_OUT)
    held_out = Files([paths[i] for i in order[:count]], resolution)
    train = Files([paths[i] for i in order[count:]], resolution)
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    images = train.read() if in_memory else train
    return Images(str(folder), images, held_out.read(), names=names)


def find_images(folder: str | Path) -> list[Path]:
    """The files with an image's extension in a folder and the folders in it, in order of name."""
    if not os.path.exists(folder):
        raise FileNotFoundError(f"the folder of images must exist, got {str(folder)!r}")
    if not os.path.isdir(folder):
        raise ValueError(f"the folder of images must be a folder, got the file {str(folder)!r}")
    paths = sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in IMG_EXTENSIONS and path.is_file()
    )
    if len(paths) < SMALLEST_FOLDER:
        raise ValueError(
            f"the folder of images must hold at least {SMALLEST_FOLDER} images "
            f"({', '.join(IMG_EXTENSIONS)}), got {len(paths)} in {str(folder)!r}"
        )
    return paths


def load_image(path: Path, resolution: int) -> Tensor:
    """One file as bytes [3, resolution, resolution].

    Raises:
        ImageError: if it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            rgb = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # decoders raise what they like; whatever it is, the file is broken
        reason = str(error) or type(error).__name__
        raise ImageError(f"every image must be readable, got {str(path)!r}: {reason}") from error
    return _fit(rgb, resolution)


def _fit(rgb: np.ndarray, resolution: int) -> Tensor:
    """An image [H, W, 3] as bytes [3, resolution, resolution]: resized, and its centre."""
    pixels = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)
    pixels = transforms.resize(pixels, [resolution], v2.InterpolationMode.BICUBIC, antialias=True)
    return transforms.center_crop(pixels, [resolution, resolution])


class Files(Dataset[Tensor]):
    """Files of images, each decoded when it is asked for."""

    def __init__(self, paths: list[Path], resolution: int) -> None:
        self.paths, self.resolution = paths, resolution

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return load_image(self.paths[index], self.resolution)

    def read(self) -> Tensor:
        """All of them, [N, 3, resolution, resolution]."""
        shown = tqdm(range(len(self)), "reading images", unit="image", disable=None, leave=False)
        return torch.stack([self[index] for index in shown])


class Order:
    """Which images make up the batch of a step: epoch after epoch, each in an order of its own.

    The answer depends on the arguments alone, so that a resumed run needs no other state.

    Example:
        >>> order = Order(count=5, batch=4, seed=0)
        >>> sorted(torch.cat([order.batch(step) for step in range(5)]).tolist()) == sorted(
        ...     [0, 1, 2, 3, 4] * 4)
        True
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.size, self.seed = count, batch, seed
        self._epoch, self._order = -1, [0]

    def batch(self, step: int) -> Tensor:
        """Indices [batch] of the step's images."""
        first = step * self.size
        return torch.tensor([self._at(i) for i in range(first, first + self.size)])

    def _at(self, position: int) -> int:
        epoch, index = divmod(position, self.count)
        if epoch != self._epoch:
            rng = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch = epoch
            self._order = torch.randperm(self.count, generator=rng).tolist()
        return self._order[index]


class Shares(Sampler[list[int]]):
    """The indices of one process's share of the images, step after step without end."""

    def __init__(self, order: Order, first_step: int, world: World) -> None:
        self.order, self.first_step, self.world = order, first_step, world

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            yield self.world.share(self.order.batch(step))[0].tolist()
            step += 1


def worker_signals(_: int) -> None:
    """Leave Ctrl-C to the training, which lets the step under way end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
