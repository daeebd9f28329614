# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: E501
"""Named configurations, each with its reason; read by tests and benchmarks. Nothing is square."""

from typing import NamedTuple


class Case(NamedTuple):
    name: str
    reason: str
    shape: tuple[int, int, int, int]  # [N, C, H, W]
    kernel: tuple[int, int]  # (kh, kw)
    up: tuple[int, int] = (1, 1)  # (x, y)
    down: tuple[int, int] = (1, 1)  # (x, y)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)  # (x0, x1, y0, y1)


CASES = (
    Case("copy", "one tap, no rate: the identity times a number", (1, 2, 3, 5), (1, 1)),
    Case("up", "StyleGAN2's upsampling", (2, 3, 4, 7), (4, 4), up=(2, 2), pad=(2, 1, 2, 1)),
    Case("down", "StyleGAN2's downsampling", (2, 3, 8, 6), (4, 4), down=(2, 2), pad=(1, 1, 1, 1)),
    Case("smooth", "StyleGAN2's blur after a convolution", (2, 3, 9, 7), (4, 4), pad=(1, 1, 1, 1)),
    Case("odd down", "odd sizes: the floor", (1, 2, 7, 9), (4, 4), down=(2, 2), pad=(1, 1, 1, 1)),
    Case("axes", "all differ by axis", (1, 2, 6, 5), (3, 5), (3, 2), (2, 1), (1, 3, 2, 0)),
    Case("up x only", "one axis untouched", (1, 2, 5, 4), (1, 4), up=(2, 1), pad=(2, 1, 0, 0)),
    Case("down y only", "one axis untouched", (1, 2, 9, 4), (4, 1), down=(1, 2), pad=(0, 0, 1, 1)),
    Case("crop", "negative pads remove input", (1, 2, 9, 8), (3, 2), pad=(-2, -1, -1, -3)),
    Case("deep crop", "a crop deeper than the input", (1, 1, 4, 3), (2, 3), pad=(-5, 12, -6, 9)),
    Case("crop of zeros", "crops end between samples", (1, 2, 5, 6), (3, 3), (4, 3), pad=(-3, -2, -1, -4)),
    Case("wide pad", "outputs that see no input", (1, 1, 3, 2), (2, 2), pad=(7, 8, 5, 9)),
    Case("no phase", "outputs that no sample reaches", (1, 2, 3, 4), (1, 2), up=(5, 4)),
    Case("rates meet", "up and down share a factor", (1, 2, 7, 8), (5, 6), (4, 6), (6, 4), (3, 2, 4, 1)),
    Case("rates equal", "only some taps are ever used", (1, 2, 5, 7), (4, 3), (2, 3), (2, 3), (1, 2, 2, 2)),
    Case("nothing", "up and down meet between samples", (1, 1, 3, 4), (1, 1), (2, 2), (2, 2), (1, 1, 1, 1)),
    Case("coprime", "rational rates", (1, 2, 8, 7), (7, 5), (3, 5), (5, 3), (4, 2, 3, 3)),
    Case("big factor", "down beyond the kernel", (1, 1, 17, 19), (2, 3), down=(6, 5)),
    Case("pixel", "a single sample", (2, 2, 1, 1), (4, 3), up=(2, 2), pad=(2, 2, 2, 2)),
    Case("column", "one sample wide", (1, 3, 7, 1), (3, 1), down=(1, 2), pad=(0, 0, 1, 1)),
    Case("long", "33 taps on a short image", (1, 1, 6, 5), (33, 31), (2, 2), pad=(16, 15, 16, 16)),
    Case("twelve", "a 12-tap filter, upsampling", (1, 2, 9, 8), (12, 12), up=(2, 2), pad=(6, 5, 6, 5)),
    Case("channels", "more channels than a vector holds", (1, 37, 3, 4), (4, 4), pad=(2, 1, 2, 1)),
    Case("empty batch", "N = 0", (0, 3, 5, 4), (2, 2), up=(2, 1)),
    Case("no channels", "C = 0", (2, 0, 5, 4), (2, 2), down=(2, 1)),
)  # fmt: skip
