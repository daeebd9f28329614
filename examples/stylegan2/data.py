# SPDX-License-Identifier: BSD-3-Clause
"""What there is to learn from: the handwritten digits, or any folder of images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from resample_layers import UpFirDnUpsample
from resample_layers.filters import NAMED_TAPS

from .generator import check_resolution

HELD_OUT_DIGITS = 360  # a fifth
SMALLEST_FOLDER = 4


@dataclass(frozen=True)
class Images:
    """Images as bytes, in memory; one part to learn from, one that only the evaluation sees."""

    name: str
    train: Tensor  # [N, C, resolution, resolution], uint8
    held_out: Tensor  # [M, C, resolution, resolution], uint8
    train_labels: Tensor | None = None  # [N], int64
    held_out_labels: Tensor | None = None  # [M], int64

    @property
    def channels(self) -> int:
        return self.train.shape[1]


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


def load_folder(folder: str | Path, resolution: int) -> Images:
    """All images in a folder and the folders in it, RGB, one tenth of them held out.

    1. Every file with an image's extension is decoded at once, so that a broken one is found
       before the first step; this takes ``3 * resolution ** 2`` bytes of memory for each.
    2. Its shorter side is resized to the resolution, and the centre is cut out.
    3. A shuffle that is the same in every run sets a tenth apart, two images at least.

    Raises:
        FileNotFoundError: if ``folder`` does not exist.
        ValueError: if it is no folder, holds fewer than four images, or one is broken.
    """
    check_resolution(resolution)
    paths = find_images(folder)
    progress = tqdm(paths, desc="reading images", unit="image", disable=None, leave=False)
    images = torch.stack([load_image(path, resolution) for path in progress])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    count = max(2, len(images) // 10)
    return Images(str(folder), images[order[count:]], images[order[:count]])


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
    """One file as bytes [3, resolution, resolution]."""
    try:
        with Image.open(path) as image:
            rgb = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # decoders raise what they like; whatever it is, the file is broken
        reason = str(error) or type(error).__name__
        raise ValueError(f"every image must be readable, got {str(path)!r}: {reason}") from error
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)
    pixels = transforms.resize(pixels, [resolution], v2.InterpolationMode.BICUBIC, antialias=True)
    return transforms.center_crop(pixels, [resolution, resolution])


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
