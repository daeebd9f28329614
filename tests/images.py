# SPDX-License-Identifier: BSD-3-Clause
"""Folders of images for tests."""

import numpy as np
from PIL import Image


def make_folder(folder, count=8):
    rng = np.random.default_rng(0)
    for i in range(count):
        sub = folder / "deep" / "er" if i % 2 else folder
        sub.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(sub / f"{i}.{'png' if i % 3 else 'JPG'}")
    return folder
