# SPDX-License-Identifier: BSD-3-Clause
"""Our networks as the files of two other codes, where some arguments of theirs build the same."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..blocks import BINOMIAL
from ..discriminator import Discriminator
from ..files import collide, waiting, whole, write_pair
from ..generator import Generator
from ..inputs import ConstantInput
from .keys import (
    MAPPING_LR,
    OWNERS,
    State,
    binomial,
    discriminator_filters,
    discriminator_keys,
    generator_filters,
    generator_keys,
    is_filter,
)

MOST_PIXELS = 1024  # both codes' tables of widths end here
WIDTHS = {
    "rosinality": "512 channels up to 32 pixels, 256 * channel_multiplier at 64, and half as many "
    "at each next side",
    "basicsr": "as many channels at all sides up to 32 pixels, and from 64 on half as many, "
    "rounded down, at each next side",
}


def save_rosinality(
    path: str | Path,
    generator: Generator,
    discriminator: Discriminator | None = None,
    latent_avg: Tensor | None = None,  # [style_dim]
) -> None:
    """Write a ``.pt`` that rosinality's code loads: ``g_ema``, ``d``, ``latent_avg``.

    Its ``Generator(resolution, style_dim, mapping_layers, channel_multiplier)`` and
    ``Discriminator(resolution, channel_multiplier)`` load it, with ``channel_multiplier =
    channels[64] // 256``; below 64 pixels any will do.

    Raises:
        ValueError: if no ``channel_multiplier`` builds such networks, or they have another
            filter than the usual one, other groups than its, or not three image channels.
        OSError: if a file cannot be written; what was there stays as it was.

    Warns:
        UserWarning: if a network clamps, which rosinality's does not.
    """
    file: dict[str, Any] = {"g_ema": _export("rosinality", generator)}
    if discriminator is not None:
        file["d"] = _export("rosinality", discriminator)
    if latent_avg is not None:
        file["latent_avg"] = latent_avg.detach().cpu()
    _write(Path(path), file)


def save_basicsr(
    path: str | Path,
    generator: Generator,
    discriminator: Discriminator | None = None,
    latent_avg: Tensor | None = None,  # [style_dim]
    discriminator_path: str | Path | None = None,
) -> None:
    """Write the ``.pth`` files that BasicSR's code loads: ``params_ema`` and ``params``.

    Its ``StyleGAN2Generator`` and ``StyleGAN2Discriminator`` load them with ``narrow =
    channels[4] / 512`` and, from 64 pixels on, ``channel_multiplier = (2 * channels[64] + 1) /
    channels[4]``, which it rounds down to our widths; its default, 2, does where ``channels[64]``
    equals ``channels[4]``.

    One process at a time may write a pair of files: of two that do so at once, files of both could
    become a pair.

    Raises:
        ValueError: if no ``narrow`` and ``channel_multiplier`` build such networks, they have
            another filter than the usual one or not three image channels, or ``discriminator``
            and ``discriminator_path`` are not given together, or the two paths are one file, or
            one is a name that the other has while it is written (``.tmp``, ``.pair``, ``.pair2``).
        OSError: if a file cannot be written; what was there stays as it was. If the process ends
            after the discriminator's file has taken its place and before the generator's has,
            :func:`load` of both says so, and how to finish; the next save of both finishes it too.

    Warns:
        UserWarning: if a network clamps, which BasicSR's does not, or if the discriminator's
            ``group_size`` is not 4: it is no part of the file, but BasicSR's ``stddev_group``.
    """
    if (discriminator is None) != (discriminator_path is None):
        raise ValueError(
            "discriminator and discriminator_path must be given together, got "
            f"{'no' if discriminator is None else 'a'} discriminator and {discriminator_path}"
        )
    file: dict[str, Any] = {"params_ema": _export("basicsr", generator)}
    if latent_avg is not None:
        file["latent_avg"] = latent_avg.detach().cpu()
    if discriminator is None or discriminator_path is None:
        _write(Path(path), file)
        return
    if collide(Path(path), Path(discriminator_path)):
        raise ValueError(
            "discriminator_path must be another file than path, and neither the other with .tmp, "
            f".pair or .pair2 at its end, got {discriminator_path} and {path}"
        )
    second = {"params": _export("basicsr", discriminator)}
    write_pair(
        Path(path),
        lambda opened: torch.save(file, opened),
        Path(discriminator_path),
        lambda opened: torch.save(second, opened),
    )


def _write(path: Path, file: dict[str, Any]) -> None:
    """Write a file that is of no pair."""
    with whole(path, durable=True) as opened:
        torch.save(file, opened)
    # Of a pair that was not finished: it would replace this newer file
    waiting(path).unlink(missing_ok=True)


def _export(dialect: str, network: Generator | Discriminator) -> State:
    """A network's state by another code's keys, with its filters."""
    _check_buildable(dialect, network)
    ours = network.state_dict()
    if isinstance(network, Generator):
        depth = len(network.style) - 1
        table = generator_keys(dialect, network.resolution, depth)
        filters = generator_filters(dialect, network.resolution)
        for n in range(1, depth + 1):  # stored divided by the layer's learning rate
            for key in (f"style.{n}.weight", f"style.{n}.bias"):
                ours[key] = ours[key] * (network.style[n].lr_multiplier / MAPPING_LR)
    else:
        table = discriminator_keys(dialect, network.resolution)
        filters = discriminator_filters(dialect, network.resolution)
    theirs = {
        entry.key: ours[key].reshape(ours[key].shape[entry.dims]) for key, entry in table.items()
    }
    theirs |= {key: kernel.clone() for key, kernel in filters.items()}
    return {key: value.detach().float().cpu() for key, value in theirs.items()}


def _check_buildable(dialect: str, network: Generator | Discriminator) -> None:
    """Raise for a network that the other code has no arguments for; warn for what it lacks."""
    owner, kind = OWNERS[dialect], type(network).__name__.lower()
    if not isinstance(network, Discriminator) and not (
        isinstance(network, Generator) and isinstance(network.input, ConstantInput)
    ):
        raise ValueError(
            f"generator must be StyleGAN2's with a learned constant, as {owner} is, got "
            f"{type(network).__name__} with {type(network.input).__name__}"
        )
    wanted = widths(dialect, network.channels)
    wrong = [
        f"{width} at {side} instead of {wanted[side]}"
        for side, width in network.channels.items()
        if width != wanted[side]
    ]
    kernels = [module.kernel for module in network.modules() if hasattr(module, "taps")]
    usual = all(
        k.shape == (4, 4) and is_filter(k, binomial(round(float(k.sum()), 2))) for k in kernels
    )
    rules: list[tuple[bool, str, Any]] = [
        (network.image_channels == 3, "3 image channels", network.image_channels),
        (network.resolution <= MOST_PIXELS, f"{MOST_PIXELS} pixels or fewer", network.resolution),
        (not wrong, WIDTHS[dialect], ", ".join(wrong)),
        (usual, f"the filter {list(BINOMIAL)}", "another"),
    ]
    lost: list[str] = []
    if network.clamp is not None:
        lost.append(
            f"{owner} {kind} does not clamp: without the clamp of {network.clamp:g} its outputs "
            "differ where activations exceed that"
        )
    if isinstance(network, Discriminator):
        group, features = network.stddev.group_size, network.stddev.num_channels
        rules.append((features == 1, "stddev_channels 1", features))
        if dialect == "rosinality":
            rules.append((group == 4, "group_size 4", group))
        elif group != 4:
            lost.append(
                f"{owner} {kind} compares groups of 4 samples, not of {group}, unless made with "
                f"stddev_group={group}"
            )
    for kept, rule, value in rules:
        if not kept:
            raise ValueError(f"{kind} must have {rule}, as {owner} has, got {value}")
    for sentence in lost:
        warnings.warn(sentence, UserWarning, stacklevel=4)


def widths(dialect: str, channels: Mapping[int, int]) -> dict[int, int]:
    """The widths that the other code's arguments can give, of those the nearest by their scheme.

    Rosinality's are integers times ``channel_multiplier``. BasicSR rounds down ``512 * narrow`` and
    ``16384 * channel_multiplier * narrow / side``: the width at 64 pixels is free of that at 32,
    and each next one is half of the one before, for ``x / 2`` rounded down is ``x`` rounded down,
    halved, and rounded down again.
    """
    low = 512 if dialect == "rosinality" else channels[4]
    middle = channels.get(64, 0)
    if dialect == "rosinality":
        middle = 256 * max(middle // 256, 1)
    return {side: low if side <= 32 else middle * 64 // side for side in channels}
