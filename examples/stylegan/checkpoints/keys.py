# SPDX-License-Identifier: BSD-3-Clause
"""What each code calls a layer: one table for a network, read in both directions.

A row has rosinality's key, which is ours too, BasicSR's and NVIDIA's, and which of our dimensions
NVIDIA's tensor has. Filters stand beside: two of the codes keep them with the weights. StyleGAN3
has tables of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..alias_free import AliasFreeGenerator, LayerPlan
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
    ("generator", "resample_layers"): ("layers.0.conv.", "layers.13.conv."),  # StyleGAN3's
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

CONSTANT: Rows = [("input.input", "constant_input.weight", "synthesis.b4.const", FROM_1)]
FOURIER: Rows = [  # NVIDIA's StyleGAN3 has them, and so may our StyleGAN2
    ("input.frequencies", "", "synthesis.input.freqs", ALL),
    *((f"input.{k}", "", f"synthesis.input.{k}", ALL) for k in ("phases", "transform", "weight")),
]


def is_alias_free(keys: Iterable[str]) -> bool:
    """Whether the keys of a generator, ours or NVIDIA's, are those of StyleGAN3."""
    return any(key.startswith(("layers.", "synthesis.input.", "synthesis.L")) for key in keys)


def generator_keys(
    dialect: str, resolution: int, mapping_layers: int, input: str = "constant"
) -> dict[str, Entry]:
    """Our keys of StyleGAN2's generator's state, and where ``dialect`` keeps the same."""
    rows: Rows = _mapping(mapping_layers) + (CONSTANT if input == "constant" else FOURIER)
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


def alias_free_layers(dialect: str, plans: Sequence[LayerPlan]) -> dict[str, str]:
    """Our names of StyleGAN3's layers, and those of ``dialect``, ours or NVIDIA's.

    NVIDIA's have the number, the side and the channels.
    """
    names = [*(f"layers.{n}" for n in range(len(plans) - 1)), "to_rgb"]
    if dialect != "nvidia":
        return {name: name for name in names}
    return {
        name: f"synthesis.L{n}_{plan.out_size}_{plan.out_channels}"
        for n, (name, plan) in enumerate(zip(names, plans, strict=True))
    }


def alias_free_keys(
    dialect: str, layers: Mapping[str, str], mapping_layers: int
) -> dict[str, Entry]:
    """Our keys of StyleGAN3's generator's state, and where ``dialect`` has the same.

    ``layers`` are from :func:`alias_free_layers`.
    """
    rows: Rows = _mapping(mapping_layers) + FOURIER
    for part in ("weight", "bias"):
        rows.append((f"input.affine.{part}", "", f"synthesis.input.affine.{part}", ALL))
    for ours, theirs in layers.items():
        rows += [(f"{ours}.{a}", "", f"{theirs}.{c}", dims) for a, _, c, dims in MODULATED]
        rows.append((f"{ours}.activate.bias", "", f"{theirs}.bias", ALL))
        rows.append((f"{ours}.magnitude", "", f"{theirs}.magnitude_ema", ALL))
    return _column(dialect, rows)


def alias_free_filters(dialect: str, generator: AliasFreeGenerator) -> dict[str, Tensor]:
    """Keys of the filters that ``dialect`` keeps with StyleGAN3's generator, and their values."""
    filters: dict[str, Tensor] = {}
    if dialect == "nvidia":
        for ours, theirs in alias_free_layers(dialect, generator.plans).items():
            activate = generator.get_submodule(ours).activate
            for side, taps in (("up", activate.up_taps), ("down", activate.down_taps)):
                if taps is not None:
                    filters[f"{theirs}.{side}_filter"] = torch.tensor(taps, dtype=torch.float32)
    return filters


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


def generator_filters(dialect: str, resolution: int) -> dict[str, Tensor]:
    """Keys of the filters that ``dialect`` keeps with StyleGAN2's generator, and their values."""
    sides = sides_of(resolution)
    if dialect == "rosinality":  # with the gain of 2 for each axis
        convs = [f"convs.{2 * i}.conv.blur.kernel" for i in range(len(sides) - 1)]
        rgbs = [f"to_rgbs.{i}.upsample.kernel" for i in range(len(sides) - 1)]
        return dict.fromkeys((*convs, *rgbs), binomial(4.0))
    if dialect == "nvidia":
        parts = [f"b{side}{part}" for side in sides for part in ("", ".conv0", ".conv1")]
        keys = [f"synthesis.{part}.resample_filter" for part in parts if part != "b4.conv0"]
        return dict.fromkeys(keys, binomial(1.0))
    return {}


def discriminator_filters(dialect: str, resolution: int) -> dict[str, Tensor]:
    """Keys of the filters that ``dialect`` keeps with a discriminator, and their values."""
    sides = sides_of(resolution)[1:]
    keys: list[str] = []
    if dialect == "rosinality":
        parts = [f"convs.{m}.{c}.0" for m in range(1, len(sides) + 1) for c in ("conv2", "skip")]
        keys = [f"{part}.kernel" for part in parts]
    elif dialect == "nvidia":
        layers = ("", ".conv0", ".conv1", ".skip")
        parts = [f"b{side}{layer}" for side in sides for layer in layers]
        parts += [f"b{resolution}.fromrgb", "b4.conv"]
        keys = [f"{part}.resample_filter" for part in parts]
    return dict.fromkeys(keys, binomial(1.0))


def binomial(total: float) -> Tensor:
    """The filter [4, 4] that all codes have unless told otherwise."""
    taps = torch.tensor(BINOMIAL, dtype=torch.float32)
    return torch.outer(taps, taps) * (total / taps.sum() ** 2)


def is_filter(kernel: Tensor, wanted: Tensor) -> bool:
    """Whether a filter is the ``wanted`` one, but for what rounding does to it."""
    largest = float(wanted.abs().max())
    return torch.allclose(kernel.cpu().float(), wanted, rtol=1e-3, atol=1e-6 * largest)


def sides_of(resolution: int) -> list[int]:
    return [2**level for level in range(2, int(math.log2(resolution)) + 1)]


def _mapping(layers: int) -> Rows:
    rows: Rows = []
    for n in range(1, layers + 1):
        for part in ("weight", "bias"):
            names = (f"style.{n}.{part}", f"style_mlp.{n}.{part}", f"mapping.fc{n - 1}.{part}")
            rows.append((*names, ALL))
    return rows


def _under(prefixes: tuple[str, str, str], rows: Rows) -> Rows:
    ours, basicsr, nvidia = prefixes
    return [(f"{ours}.{a}", f"{basicsr}.{b}", f"{nvidia}.{c}", dims) for a, b, c, dims in rows]


def _column(dialect: str, rows: Rows) -> dict[str, Entry]:
    column = COLUMNS[dialect]
    return {row[0]: Entry(row[column], row[3] if dialect == "nvidia" else ALL) for row in rows}
