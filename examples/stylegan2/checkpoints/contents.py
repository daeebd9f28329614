# SPDX-License-Identifier: BSD-3-Clause
"""What a file holds, by its own keys: its dialect, state dicts, and options they do not show."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checks import CLAMP, POSITIVE, CheckpointError, check, naming, shown
from .keys import MAPPING_LR, State
from .nvidia import unpack
from .pickles import Module, parse


@dataclass
class Contents:
    """A file as it is, sorted; whether its keys and shapes fit is not checked yet.

    The options are arguments of our networks that keys and shapes do not show.
    """

    dialect: str
    generator: State | None = None
    discriminator: State | None = None
    latent_avg: Tensor | None = None
    generator_options: dict[str, Any] = field(default_factory=lambda: {"mapping_lr": MAPPING_LR})
    discriminator_options: dict[str, Any] = field(default_factory=dict)


def read(path: str | Path) -> Contents:
    """What a file holds, read without executing anything from it.

    Raises:
        CheckpointError: if it is no checkpoint, not a whole one, or asks for execution.
        OSError: if it cannot be read.
    """
    data = Path(path).read_bytes()
    with naming(path, CheckpointError):
        return _sort(parse(data), len(data))


def _sort(file: Any, size: int) -> Contents:
    """The dialect by the keys at the top."""
    keys = set(file) if isinstance(file, dict) else set()
    if keys & {"G_ema", "D"}:
        contents = _nvidia(file)
    elif keys & {"g_ema", "g", "d"}:
        contents = Contents("rosinality", latent_avg=file.get("latent_avg"))
        if "settings" in keys:  # of our own training
            settings = _dict("settings", file["settings"])
            rate, clamp = settings.get("mapping_lr"), settings.get("clamp")
            contents.dialect = "resample_layers"
            options = {"clamp": check("clamp", CLAMP, clamp, "its settings") or None}
            contents.discriminator_options = options
            contents.generator_options = {
                **options,
                "mapping_lr": check("mapping_lr", POSITIVE, rate, "its settings"),
            }
        if keys & {"g_ema", "g"}:
            name = "g_ema" if "g_ema" in keys else "g"
            contents.generator = _dict(name, file[name])
        if file.get("d") is not None:
            contents.discriminator = _dict("d", file["d"])
    elif keys & {"params_ema", "params"}:
        contents = Contents("basicsr", latent_avg=file.get("latent_avg"))
        name = "params_ema" if "params_ema" in keys else "params"
        state = _dict(name, file[name])
        if "final_linear.0.weight" in state:
            contents.discriminator = state
        else:
            contents.generator = state
    else:
        raise CheckpointError(
            "must be a checkpoint of rosinality's (g_ema), BasicSR's (params_ema or params) or "
            f"NVIDIA's (G_ema), got {f'keys {shown(list(file))}' if keys else type(file).__name__}"
        )
    mean = {} if contents.latent_avg is None else {"latent_avg": contents.latent_avg}
    for state in (contents.generator, contents.discriminator, mean):
        _check_tensors(state or {}, size)
    return contents


def _nvidia(file: dict[str, Any]) -> Contents:
    for name in ("G_ema", "D"):
        no_network = file.get(name) is None and name == "D"
        if name in file and not (no_network or isinstance(file[name], Module)):
            raise CheckpointError(f"must hold a network at {name}, got {shown(file[name])}")
    contents = Contents("nvidia")
    if "G_ema" in file:
        contents.generator, contents.generator_options = unpack("generator", file["G_ema"])
        contents.latent_avg = contents.generator.pop("mapping.w_avg", None)
    if file.get("D") is not None:
        options = unpack("discriminator", file["D"])
        contents.discriminator, contents.discriminator_options = options
    return contents


def _dict(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"must hold a dict at {name}, got {shown(value)}")
    return value


def _check_tensors(state: dict[Any, Any], size: int) -> None:
    """Raise for what is no state dict, or for more numbers than a file of ``size`` bytes has."""
    names = [key for key in state if not isinstance(key, str)]
    if names:
        raise CheckpointError(f"must name tensors by strings, got {shown(names)}")
    others = [key for key, value in state.items() if not _is_plain(value)]
    if others:
        raise CheckpointError(f"must hold floating-point tensors, got others at {shown(others)}")
    total = sum(value.numel() * value.element_size() for value in state.values())
    if total > size:  # views that share their numbers, or numbers that torch made up
        raise CheckpointError(
            f"must be a whole checkpoint, got {total:,} bytes of tensors in {size:,} bytes"
        )


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.layout == torch.strided
        and value.device.type == "cpu"
    )
