# SPDX-License-Identifier: BSD-3-Clause
"""What decides the result of a training, and the files of such decisions in ``configs/``."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from .decode import parse_colour
from .generator import channel_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIGS = Path(__file__).parent / "configs"
DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
NETWORKS = ("stylegan2", "stylegan3-t", "stylegan3-r")
INPUTS = ("constant", "fourier")
BUNDLED = ("digits", "photographs")  # values of ``data`` that are no path
INTEGERS = 2**53  # integers of settings are smaller
MOST_BATCH = 2**20  # images whose numbers a step lists
MOST_LAYERS = 1000
MOST_BLUR = 100  # pixels; the published one is 10

# What the networks and the optimisers' state are made for
FIXED = (
    *("network", "input", "resolution", "style_dim", "mapping_layers", "mapping_lr"),
    *("channel_multiplier", "channel_max"),
)


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class Settings:
    """What decides the result of a run, each an option of the command line.

    The defaults suit five minutes of two cores; StyleGAN2's own are in ``configs/``.
    """

    data: str = option("digits", "digits, photographs, or a folder or zip archive of images")
    background: str = option("white", "colour seen where images are transparent")
    skip_broken: bool = option(False, "leave out images that cannot be decoded")
    network: str = option("stylegan2", "the generator; the discriminator is the same", NETWORKS)
    input: str = option(
        "constant", "what the generator starts from; StyleGAN3 needs fourier", INPUTS
    )
    resolution: int = option(32, "side of the images, a power of two >= 8")
    steps: int = option(2500, "steps to train for, those before a resume too")
    seed: int = option(0, "of weights, latents, noise and the order of the images")
    batch: int = option(16, "images in a step, over all processes and rounds")
    style_dim: int = option(64, "length of latents and styles")
    mapping_layers: int = option(2, "depth of the mapping network")
    mapping_lr: float = option(0.1, "learning-rate multiplier of the mapping network")
    channel_multiplier: float = option(1 / 64, "channels: min(MAX, 16384 * MULTIPLIER / side)")
    channel_max: int = option(64, "most channels of a layer")
    clamp: float = option(0.0, "limit of what a convolution gives, to both sides; 0: none")
    precision: str = option(
        "float32", "of the four largest sides; penalties are float32", tuple(DTYPES)
    )
    lr: float = option(0.012, "learning rate")
    generator_lr: float = option(0.0, "learning rate of the generator; 0: lr")
    r1_gamma: float = option(1.0, "weight of R1: gamma / 2 * the squared gradient; 0: none")
    r1_every: int = option(16, "steps from one R1 step to the next")
    path_weight: float = option(2.0, "weight of the path-length penalty; 0: none")
    path_every: int = option(4, "steps from one path-length step to the next")
    path_batch: int = option(8, "samples in a path-length step, over all processes")
    mixing: float = option(0.2, "share of samples with styles of two latents")
    blur_sigma: float = option(0.0, "blur of the first images, in pixels; 0: none")
    blur_images: float = option(2e5, "images over which the blur falls to none")
    ema_images: float = option(4000.0, "half-life of the generator's average, in images")
    mirror: bool = option(False, "show each image mirrored half of the time")
    augment: str = option(
        "none", "ada: change what the discriminator sees, as often as it needs", ("none", "ada")
    )
    augment_target: float = option(0.6, "ada: mean sign of real images' scores to keep to")
    augment_images: float = option(5e5, "ada: images in which the probability may go from 0 to 1")

    def check(self) -> None:
        """Raise a ValueError that names the first option out of its range."""
        rules = [
            (("steps", "batch", "style_dim", "r1_every", "path_every"), 1, math.inf),
            (("path_batch", "augment_images", "blur_images"), 1, math.inf),
            (("mapping_layers", "r1_gamma", "path_weight", "ema_images"), 0, math.inf),
            (("generator_lr",), 0, math.inf),
            (("blur_sigma",), 0, MOST_BLUR),
            (("seed",), 0, 2**32 - 1),
            (("clamp",), 0, torch.finfo(torch.float32).max),
            (("mixing", "augment_target"), 0, 1),
        ]
        for names, low, high in rules:
            for name in names:
                value = getattr(self, name)
                if not (low <= value <= high and math.isfinite(value)):
                    limit = f">= {low}" if high == math.inf else f"between {low} and {high}"
                    if isinstance(value, float) and high == math.inf:
                        limit = f"finite and {limit}"
                    raise ValueError(f"{name} must be {limit}, got {value}")
        for name in ("lr", "mapping_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and > 0, got {getattr(self, name)}")
        for f in fields(self):
            value, choices = getattr(self, f.name), f.metadata["choices"]
            if type(value) is int and value >= INTEGERS:
                raise ValueError(f"{f.name} must be < {INTEGERS:,}, got {value}")
            if choices and value not in choices:
                raise ValueError(f"{f.name} must be one of {', '.join(choices)}, got {value!r}")
        for name, most in (("batch", MOST_BATCH), ("mapping_layers", MOST_LAYERS)):
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be <= {most:,}, got {getattr(self, name)}")
        if self.network != "stylegan2" and self.input != "fourier":
            raise ValueError(
                f"input must be fourier for network {self.network}, got {self.input!r}"
            )
        if self.precision == "float16" and self.clamp == 0:
            raise ValueError(
                "clamp must be > 0 for precision float16, which ends at 65,504, got 0: "
                "256 is what NVIDIA's networks have"
            )
        parse_colour(self.background)
        self.channels()

    @classmethod
    def restore(cls, stored: Any) -> Settings:
        """The settings that a checkpoint holds.

        A setting that the checkpoint's version did not have yet gets its default. A path is made
        absolute here too, since earlier versions stored it as it was said.

        Raises:
            ValueError: if they are no dict, there is one that this version does not have, or one
                has a value of another type.
        """
        if not isinstance(stored, dict):
            raise ValueError(f"settings must be a dict, got {brief(stored)}")
        unknown = stored.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(
                f"a checkpoint must have no settings but those of this version, got "
                f"{', '.join(sorted(map(str, unknown)))}"
            )
        settings = cls(**{name: typed(name, value) for name, value in stored.items()})
        return replace(settings, data=absolute(settings.data))

    def channels(self) -> dict[int, int]:
        return channel_table(self.resolution, self.channel_multiplier, self.channel_max)


def typed(name: str, value: Any) -> Any:
    """A setting's value, of its type; an integer is taken where a float is due.

    Raises:
        ValueError: if it is of another type.
    """
    (kind,) = (type(f.default) for f in fields(Settings) if f.name == name)
    if kind is float and type(value) is int and abs(value) < INTEGERS:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{name} must be of type {kind.__name__}, got {brief(value)}")
    return value


def brief(value: Any) -> str:
    """A number or string as it is, and of anything else its type."""
    if isinstance(value, (bool, int, float, str)):
        return repr(value)
    return f"an object of type {type(value).__name__}"


def absolute(data: str) -> str:
    """The setting ``data``, its path made absolute, so that a run can go on from any folder."""
    return data if data in ("", *BUNDLED) else os.path.abspath(data)


def find_config(name: str) -> Path:
    """The file of a name in ``configs/``, or of a path.

    Raises:
        FileNotFoundError: if there is neither.
    """
    bundled = {path.stem: path for path in sorted(CONFIGS.glob("*.toml"))}
    path = bundled.get(name, Path(name))
    if not path.is_file():
        raise FileNotFoundError(
            f"config must be a file or one of {', '.join(bundled)}, got {name!r}"
        )
    return path


def load_config(name: str) -> dict[str, Any]:
    """Settings by name, from a file in TOML; what it leaves out has its default.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no TOML, names an unknown setting, or one has a value of another type.
    """
    path = find_config(name)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"config must be TOML, got {str(path)!r}: {error}") from error
    known = {f.name for f in fields(Settings)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"config must have settings only, got {key!r} in {str(path)!r}")
        try:
            values[key] = typed(key, value)
        except ValueError as error:
            raise ValueError(f"{error} in {str(path)!r}") from error
    return values
