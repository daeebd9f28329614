# SPDX-License-Identifier: BSD-3-Clause
"""What each code calls a layer: one table for a network, read in both directions.

A row has rosinality's key, which is ours too, BasicSR's and NVIDIA's, and which of our dimensions
NVIDIA's tensor has. Filters stand beside: two of the codes keep them with the weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..blocks import BINOMIAL

State = dict[str, Tensor]
MAPPING_LR = 0.01  # of every mapping network of rosinality's and BasicSR's
COLUMNS = {"resample_layers": 0, "rosinality": 0, "basicsr": 1, "nvidia": 2}
OWNERS = {
    "resample_layers": "our",
    "rosinality": "rosinality's",
    "basicsr": "BasicSR's",
    "nvidia": "NVIDIA's",
}
# How the keys of a network start. The rows are tried from first to last: the first row of which a
# network has a key says what kind of network it is, and whose.
SIGNS = {
    ("generator", "basicsr"): ("style_conv1.", "style_convs.", "style_mlp.", "constant_input."),
    ("generator", "nvidia"): ("synthesis.",),
    ("generator", "rosinality"): ("to_rgb1.", "to_rgbs.", "input."),
    ("discriminator", "basicsr"): ("conv_body.",),
    ("discriminator", "rosinality"): ("final_linear.", "final_conv."),
    ("discriminator", "nvidia"): ("b4.",),
}


class Entry(NamedTuple):
    """Where another code keeps a tensor: its key, and which of our dimensions it has there."""

    key: str
    dims: slice = slice(None)


Rows = list[tuple[str, str, str, slice]]  # rosinality's key and ours, BasicSR's, NVIDIA's
ALL, FROM_1, FROM_2, ONLY_1 = slice(None), slice(1, None), slice(2, None), slice(1, 2)
MODULATED: Rows = [
    ("conv.weight", "modulated_conv.weight", "weight", FROM_1),
    ("conv.modulation.weight", "modulated_conv.modulation.weight", "affine.weight", ALL),
    ("conv.modulation.bias", "modulated_conv.modulation.bias", "affine.bias", ALL),
]
STYLED_CONV: Rows = [
    *MODULATED,
    ("noise.weight", "weight", "noise_strength", FROM_1),
    ("activate.bias", "activate.bias", "bias", ALL),
]
TO_RGB: Rows = [*MODULATED, ("bias", "bias", "bias", ONLY_1)]


def generator_keys(dialect: str, resolution: int, mapping_layers: int) -> dict[str, Entry]:
    """Our keys of a generator's state, and where ``dialect`` keeps the same."""
    rows: Rows = [("input.input", "constant_input.weight", "synthesis.b4.const", FROM_1)]
    for n in range(1, mapping_layers + 1):
        for part in ("weight", "bias"):
            names = (f"style.{n}.{part}", f"style_mlp.{n}.{part}", f"mapping.fc{n - 1}.{part}")
            rows.append((*names, ALL))
    rows += _under(("conv1", "style_conv1", "synthesis.b4.conv1"), STYLED_CONV)
    rows += _under(("to_rgb1", "to_rgb1", "synthesis.b4.torgb"), TO_RGB)
    rows.append(("noises.noise_0", "noises.noise0", "synthesis.b4.conv1.noise_const", FROM_2))
    for i, side in enumerate(sides_of(resolution)[1:]):
        block = f"synthesis.b{side}"
        rows += _under((f"to_rgbs.{i}", f"to_rgbs.{i}", f"{block}.torgb"), TO_RGB)
        for k in (0, 1):
            n, conv = 2 * i + k, f"{block}.conv{k}"
            rows += _under((f"convs.{n}", f"style_convs.{n}", conv), STYLED_CONV)
            noises = (f"noises.noise_{n + 1}", f"noises.noise{n + 1}", f"{conv}.noise_const")
            rows.append((*noises, FROM_2))
    return _column(dialect, rows)


def discriminator_keys(dialect: str, resolution: int) -> dict[str, Entry]:
    """Our keys of a discriminator's state, and where ``dialect`` keeps the same."""
    sides = sides_of(resolution)[:0:-1]  # largest first, without 4
    names = {
        "0.0.weight": f"b{resolution}.fromrgb.weight",
        "0.1.bias": f"b{resolution}.fromrgb.bias",
    }
    for m, side in enumerate(sides, 1):
        names |= {
            f"{m}.conv1.0.weight": f"b{side}.conv0.weight",
            f"{m}.conv1.1.bias": f"b{side}.conv0.bias",
            f"{m}.conv2.1.weight": f"b{side}.conv1.weight",
            f"{m}.conv2.2.bias": f"b{side}.conv1.bias",
            f"{m}.skip.1.weight": f"b{side}.skip.weight",
        }
    rows: Rows = [(f"convs.{k}", f"conv_body.{k}", v, ALL) for k, v in names.items()]
    last = {"final_conv.0.weight": "b4.conv.weight", "final_conv.1.bias": "b4.conv.bias"}
    for n, layer in enumerate(("b4.fc", "b4.out")):
        for part in ("weight", "bias"):
            last[f"final_linear.{n}.{part}"] = f"{layer}.{part}"
    return _column(dialect, rows + [(k, k, v, ALL) for k, v in last.items()])


def generator_filters(dialect: str, resolution: int) -> dict[str, float]:
    """Keys of the filters that ``dialect`` keeps with a generator, and what each sums to."""
    sides = sides_of(resolution)
    if dialect == "rosinality":  # with the gain of 2 for each axis
        convs = {f"convs.{2 * i}.conv.blur.kernel": 4.0 for i in range(len(sides) - 1)}
        return convs | {f"to_rgbs.{i}.upsample.kernel": 4.0 for i in range(len(sides) - 1)}
    if dialect == "nvidia":
        parts = [f"b{side}{part}" for side in sides for part in ("", ".conv0", ".conv1")]
        return {f"synthesis.{p}.resample_filter": 1.0 for p in parts if p != "b4.conv0"}
    return {}


def discriminator_filters(dialect: str, resolution: int) -> dict[str, float]:
    """Keys of the filters that ``dialect`` keeps with a discriminator, and what each sums to."""
    sides = sides_of(resolution)[1:]
    if dialect == "rosinality":
        parts = [f"convs.{m}.{c}.0" for m in range(1, len(sides) + 1) for c in ("conv2", "skip")]
        return {f"{part}.kernel": 1.0 for part in parts}
    if dialect == "nvidia":
        layers = ("", ".conv0", ".conv1", ".skip")
        parts = [f"b{side}{layer}" for side in sides for layer in layers]
        return {f"{p}.resample_filter": 1.0 for p in (*parts, f"b{resolution}.fromrgb", "b4.conv")}
    return {}


def binomial(total: float) -> Tensor:
    """The filter [4, 4] that all codes have unless told otherwise."""
    taps = torch.tensor(BINOMIAL, dtype=torch.float32)
    return torch.outer(taps, taps) * (total / taps.sum() ** 2)


def is_binomial(kernel: Tensor, total: float) -> bool:
    return torch.allclose(kernel.cpu().float(), binomial(total), rtol=1e-3)


def sides_of(resolution: int) -> list[int]:
    return [2**level for level in range(2, int(math.log2(resolution)) + 1)]


def _under(prefixes: tuple[str, str, str], rows: Rows) -> Rows:
    ours, basicsr, nvidia = prefixes
    return [(f"{ours}.{a}", f"{basicsr}.{b}", f"{nvidia}.{c}", dims) for a, b, c, dims in rows]


def _column(dialect: str, rows: Rows) -> dict[str, Entry]:
    column = COLUMNS[dialect]
    return {row[0]: Entry(row[column], row[3] if dialect == "nvidia" else ALL) for row in rows}
