# SPDX-License-Identifier: BSD-3-Clause
"""Our networks, from what a file holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..alias_free import KERNEL_SIZES, LAYERS, AliasFreeGenerator
from ..blocks import BINOMIAL
from ..discriminator import Discriminator
from ..files import explain_half_replaced, find_half_replaced
from ..generator import Generator
from .checks import CheckpointError, listed, naming, printable
from .contents import Contents, read
from .keys import (
    COLUMNS,
    OWNERS,
    Entry,
    State,
    alias_free_filters,
    alias_free_keys,
    alias_free_layers,
    discriminator_filters,
    discriminator_keys,
    generator_filters,
    generator_keys,
    is_alias_free,
    is_filter,
    sides_of,
)
from .nvidia import check_plans

MOST_PIXELS = 4096  # of a side: beyond, a key's number is no layer's
MOST_LAYERS = 100  # of a mapping network; all codes have 8 unless told otherwise
# The side of the largest images for which noise is drawn, 11 MB of it. The codes whose files lack
# their noise end here. More would let a small file ask for much memory.
MOST_PIXELS_WITHOUT_NOISE = 1024
Network = TypeVar("Network", bound=nn.Module)
NUMBER = r"(\d{1,15})"
NOISE_SEED = 0
NAMES = {"stylegan2": "StyleGAN2", "stylegan3-t": "StyleGAN3-T", "stylegan3-r": "StyleGAN3-R"}


@dataclass
class Checkpoint:
    """What a file holds.

    ``generator`` is the averaged one (EMA) where the file has it. ``latent_avg`` [style_dim] is
    the mean of ``w``, for :meth:`Generator.truncate`. ``configuration`` has the arguments that
    make the same networks: ``Generator(**configuration["generator"])``, or
    ``AliasFreeGenerator``. ``summary`` says in one line what was taken, from where in the file, and
    what was assumed or left out.
    """

    dialect: str
    generator: Generator | AliasFreeGenerator
    discriminator: Discriminator | None
    latent_avg: Tensor | None
    configuration: dict[str, dict[str, Any]]
    summary: str

    @property
    def network(self) -> str:
        """Which generator it is: "stylegan2", "stylegan3-t" or "stylegan3-r"."""
        return _network(self.configuration["generator"])


def load(path: str | Path, discriminator_path: str | Path | None = None) -> Checkpoint:
    """Read a checkpoint of any dialect; the file's content says which it is.

    A file may lack all of the generator's noise, as rosinality's first ones do: then it is drawn,
    the same at every load, from a seed. The file must hold the noise of images of more than 1024
    pixels. It may lack all of a network's filters: then they are the
    usual ones. :attr:`Checkpoint.summary` says so.

    Args:
        path: the file. Of BasicSR's two, the generator's.
        discriminator_path: BasicSR's file of the discriminator.

    Returns:
        The networks in float32 on the CPU, in evaluation mode.

    Raises:
        CheckpointError: if the file is no checkpoint, not a whole one, asks for anything to be
            executed, or holds a network that ours cannot be; missing, unexpected and misshapen
            keys are listed in one error. Also if saving both files was stopped between the two.
        OSError: if a file cannot be read.
    """
    if discriminator_path is not None and find_half_replaced(Path(path), Path(discriminator_path)):
        raise CheckpointError(explain_half_replaced(Path(path), Path(discriminator_path)))
    contents, names = read(path), str(path)
    if discriminator_path is not None:
        other, names = read(discriminator_path), f"{path} with {discriminator_path}"
        if other.discriminator is None or other.dialect != "basicsr":
            raise CheckpointError(
                f"{discriminator_path} must hold a discriminator of BasicSR's, got "
                f"{'none' if other.discriminator is None else f'one of {OWNERS[other.dialect]}'}"
            )
        if contents.dialect != "basicsr":
            raise CheckpointError(
                f"{path} must be BasicSR's where discriminator_path is given, got "
                f"{OWNERS[contents.dialect]}"
            )
        if contents.generator is not None:
            contents.discriminator = other.discriminator
            contents.places |= other.places
            contents.notes += [note for note in other.notes if note not in contents.notes]
    with naming(names, ValueError):  # of our networks too
        return _build(contents)


def _build(contents: Contents) -> Checkpoint:
    """Networks like the file's, with its weights; errors lack the file's name."""
    if contents.generator is None:
        raise CheckpointError(
            "must hold a generator, got only a discriminator, which load() takes as "
            "discriminator_path beside a generator's file"
        )
    dialect, problems = contents.dialect, list[str]()
    state, notes = contents.generator, contents.notes
    generator: Generator | AliasFreeGenerator
    if is_alias_free(state):
        options = _alias_free_options(contents, state)
        generator = _on_meta(AliasFreeGenerator, options)
        layers = alias_free_layers(dialect, generator.plans)
        keys = alias_free_keys(dialect, layers, options["mapping_layers"])
        filters, usual = alias_free_filters(dialect, generator), "the published ones"
        if contents.attributes:
            check_plans(contents.attributes, layers, generator.plans)
    else:
        options = _generator_options(contents, state)
        generator = _on_meta(Generator, options)
        keys = _generator_keys(dialect, options)
        filters, usual = generator_filters(dialect, options["resolution"]), str(list(BINOMIAL))
    configuration, discriminator = {"generator": options}, None
    network, resolution = _network(options), options["resolution"]
    _fill("generator", generator, state, keys, filters, usual, problems, notes)
    if contents.discriminator is not None:
        state = contents.discriminator
        options = _discriminator_options(contents, state)
        configuration["discriminator"] = options
        keys = discriminator_keys(dialect, options["resolution"])
        filters, usual = discriminator_filters(dialect, options["resolution"]), str(list(BINOMIAL))
        discriminator = _on_meta(Discriminator, options)
        _fill("discriminator", discriminator, state, keys, filters, usual, problems, notes)
    mean = contents.latent_avg
    if mean is not None:
        if mean.shape[-1:] != (generator.style_dim,) or not mean.numel():
            problems.append(f"misshapen: latent_avg {list(mean.shape)} for {generator.style_dim}")
        else:  # [style_dim], or the same for each layer, [L, style_dim]
            rows = mean.reshape(-1, generator.style_dim)
            mean = rows[0].float()
            if not rows.equal(rows[:1].expand_as(rows)):
                mean = None
                notes.append("left out: latent_avg, which is not the same for all layers")
    if problems:
        raise CheckpointError(
            f"must hold the keys and shapes of {OWNERS[dialect]} {NAMES[network]} of {resolution} "
            f"pixels, got {'; '.join(problems)}"
        )
    parts = [f"{kind} at {place}" for kind, place in contents.places.items()]
    if mean is not None:
        parts.append("mean style")
    summary = "; ".join(
        (f"{OWNERS[dialect]} {NAMES[network]} of {resolution} pixels: {', '.join(parts)}", *notes)
    )
    return Checkpoint(dialect, generator, discriminator, mean, configuration, printable(summary))


# Configuration


def _network(options: Mapping[str, Any]) -> str:
    """Which generator the options make."""
    return f"stylegan3-{options['kind']}" if "kind" in options else "stylegan2"


def _generator_keys(dialect: str, options: Mapping[str, Any]) -> dict[str, Entry]:
    depth = options["mapping_layers"]
    return generator_keys(dialect, options["resolution"], depth, options["input"])


def _generator_options(contents: Contents, theirs: State) -> dict[str, Any]:
    """Arguments of :class:`Generator`, from the keys and shapes of its state."""
    dialect = contents.dialect
    to_rgb = rf"to_rgbs\.{NUMBER}\."
    patterns = (to_rgb, to_rgb, rf"synthesis\.b{NUMBER}\.")
    resolution = _resolution(dialect, theirs, patterns, 3, "generator")
    depth = _mapping_layers(dialect, theirs)
    layers = {4: ["conv1.activate.bias", "to_rgb1.conv.modulation.bias"]}
    to_rgbs = ["to_rgb1"]
    for i, side in enumerate(sides_of(resolution)[1:]):
        to_rgbs.append(f"to_rgbs.{i}")
        convs = [f"convs.{2 * i}.activate.bias", f"convs.{2 * i + 1}.activate.bias"]
        layers[side] = [*convs, f"to_rgbs.{i}.conv.modulation.bias"]
    ours = COLUMNS[dialect] == 0  # rosinality's networks have the constant alone
    start = "fourier" if ours and "input.frequencies" in theirs else "constant"
    measure = _Measure(theirs, generator_keys(dialect, resolution, depth, start))
    return {
        "resolution": resolution,
        "style_dim": measure(-1, [f"{name}.conv.modulation.weight" for name in to_rgbs]),
        "mapping_layers": depth,
        "image_channels": measure(-4, [f"{name}.conv.weight" for name in to_rgbs]),
        "channels": {side: measure(0, keys) for side, keys in layers.items()},
        "clamp": None,
        "input": start,
        **contents.generator_options,
    }


def _mapping_layers(dialect: str, theirs: State) -> int:
    mapping = (rf"style\.{NUMBER}\.", rf"style_mlp\.{NUMBER}\.", rf"mapping\.fc{NUMBER}\.")
    numbers = _numbers(mapping[COLUMNS[dialect]], theirs)
    depth = max(numbers, default=0) + (dialect == "nvidia" and bool(numbers))
    if depth > MOST_LAYERS:
        raise CheckpointError(
            f"must hold a generator of at most {MOST_LAYERS} mapping layers, got one numbered "
            f"{max(numbers)}"
        )
    return depth


def _alias_free_options(contents: Contents, theirs: State) -> dict[str, Any]:
    """Arguments of :class:`AliasFreeGenerator`, from the keys and shapes of its state.

    NVIDIA's names of layers have the resolution. In ours it stands in the settings beside them.
    """
    dialect, depth = contents.dialect, _mapping_layers(contents.dialect, theirs)
    layers = {f"layers.{n}": f"layers.{n}" for n in range(LAYERS)} | {"to_rgb": "to_rgb"}
    resolution = contents.resolution
    if dialect == "nvidia":
        for n, ours in enumerate(layers):
            pattern = rf"(synthesis\.L{n}_{NUMBER}_{NUMBER})\."
            found = next(filter(None, (re.match(pattern, key) for key in theirs)), None)
            layers[ours] = found[1] if found else f"synthesis.L{n}"
            resolution = int(found[2]) if found else None  # the last layer's is the image's
    if resolution is None:
        where = (
            "in the name of its layer 14"
            if dialect == "nvidia"
            else "in settings beside it, as a run saves them"
        )
        raise CheckpointError(
            f"must tell the resolution of {OWNERS[dialect]} StyleGAN3 {where}, got none"
        )
    if not 8 <= resolution <= MOST_PIXELS or resolution & (resolution - 1):
        raise CheckpointError(
            f"must hold a generator of a power of two from 8 to {MOST_PIXELS} pixels, got "
            f"{resolution}"
        )
    measure = _Measure(theirs, alias_free_keys(dialect, layers, depth))
    kernel_size = measure(-1, [f"layers.{n}.conv.weight" for n in range(LAYERS)])
    kinds = [kind for kind, size in KERNEL_SIZES.items() if size == kernel_size]
    if not kinds:
        raise CheckpointError(
            f"must have convolutions of 3x3 (T) or 1x1 (R), got {kernel_size}x{kernel_size}"
        )
    names = list(layers)
    channels = [
        measure(0, [f"{name}.activate.bias", f"{following}.conv.modulation.bias"])
        for name, following in pairwise(names)
    ]
    return {
        "resolution": resolution,
        "style_dim": measure(-1, [f"{name}.conv.modulation.weight" for name in names]),
        "mapping_layers": depth,
        "image_channels": measure(-4, ["to_rgb.conv.weight"]),
        "kind": kinds[0],
        "channels": channels,
        "clamp": None,
        **contents.generator_options,
    }


def _discriminator_options(contents: Contents, theirs: State) -> dict[str, Any]:
    """Arguments of :class:`Discriminator`, from the keys and shapes of its state."""
    dialect = contents.dialect
    patterns = (rf"convs\.{NUMBER}\.", rf"conv_body\.{NUMBER}\.", rf"b{NUMBER}\.")
    resolution = _resolution(dialect, theirs, patterns, 2, "discriminator")
    layers = {resolution: ["convs.0.1.bias"]}
    for m, side in enumerate(sides_of(resolution)[:0:-1], 1):
        layers[side] += [f"convs.{m}.conv1.1.bias"]
        layers[side // 2] = [f"convs.{m}.conv2.2.bias"]
    layers[4] += ["final_conv.1.bias", "final_linear.0.bias"]
    measure = _Measure(theirs, discriminator_keys(dialect, resolution))
    return {
        "resolution": resolution,
        "image_channels": measure(1, ["convs.0.0.weight"]),
        "channels": {side: measure(0, keys) for side, keys in layers.items()},
        "clamp": None,
        **contents.discriminator_options,
    }


class _Measure:
    """Lengths that several tensors of a state should agree on: the most frequent one."""

    def __init__(self, theirs: State, table: Mapping[str, Entry]) -> None:
        self.theirs, self.table = theirs, table

    def __call__(self, dim: int, ours: list[str]) -> int:
        names = [self.table[key].key for key in ours]
        shapes = [self.theirs[name].shape for name in names if name in self.theirs]
        lengths = [shape[dim] for shape in shapes if -len(shape) <= dim < len(shape)]
        if not lengths:
            raise CheckpointError(f"must hold at least one of {listed(names)}, got none")
        length = Counter(lengths).most_common(1)[0][0]
        if length < 1:
            raise CheckpointError(f"must hold numbers in {listed(names)}, got an empty tensor")
        return length


def _resolution(
    dialect: str, theirs: State, patterns: tuple[str, str, str], first: int, network: str
) -> int:
    """The side of images, by the highest number that a pattern finds in the keys.

    NVIDIA's is the side itself, the others' counts its doublings from ``2 ** first``.
    """
    numbers = _numbers(patterns[COLUMNS[dialect]], theirs)
    largest = max(numbers, default=0)
    resolution = largest if dialect == "nvidia" else 2 ** min(largest + first, 99)
    if not numbers or resolution < 8 or resolution & (resolution - 1):
        some = listed(list(theirs)[:3])
        raise CheckpointError(
            f"must hold a {network} of {OWNERS[dialect]} StyleGAN2, of 8 pixels or more, got "
            f"{len(theirs)} keys such as {some or 'none'}"
        )
    if resolution > MOST_PIXELS:
        raise CheckpointError(
            f"must hold a {network} of at most {MOST_PIXELS} pixels, got keys numbered {largest}"
        )
    return resolution


def _numbers(pattern: str, keys: Iterable[str]) -> list[int]:
    return [int(found[1]) for key in keys if (found := re.match(pattern, key))]


# Weights


def _on_meta(kind: type[Network], options: dict[str, Any]) -> Network:
    """A network without numbers."""
    with torch.device("meta"):
        return kind(**options)


def _fill(
    name: str,
    network: nn.Module,
    theirs: State,
    table: Mapping[str, Entry],
    filters: Mapping[str, Tensor],
    usual: str,
    problems: list[str],
    notes: list[str],
) -> None:
    """Give a network the state of ``theirs``.

    ``usual`` says what ``filters`` are. What does not fit is added to ``problems``, what was
    assumed to ``notes``.
    """
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    noises = [key for key in table if key.startswith("noises.")]
    lacks_noise = noises and not any(table[key].key in theirs for key in noises)
    if lacks_noise and network.resolution <= MOST_PIXELS_WITHOUT_NOISE:
        table = {key: entry for key, entry in table.items() if key not in noises}
        notes.append("noise is not in the file: drawn from a fixed seed")
    if filters and not any(key in theirs for key in filters):
        filters = {}
        notes.append(f"filters of the {name} are not in the file: {usual} taken")
    wanted = {entry.key: shapes[key][entry.dims] for key, entry in table.items()}
    wanted |= {key: kernel.shape for key, kernel in filters.items()}
    missing = [key for key in wanted if key not in theirs]
    unexpected = [key for key in theirs if key not in wanted]
    misshapen = [
        f"{key} {list(theirs[key].shape)} instead of {list(shape)}"
        for key, shape in wanted.items()
        if key in theirs and theirs[key].shape != shape
    ]
    others = [
        key
        for key, kernel in filters.items()
        if key in theirs
        and theirs[key].shape == kernel.shape
        and not is_filter(theirs[key], kernel)
    ]
    found = {
        "missing": missing,
        "unexpected": unexpected,
        "misshapen": misshapen,
        f"filters other than {usual}": others,
    }
    problems += [f"{name}: {what}: {listed(keys)}" for what, keys in found.items() if keys]
    if problems:
        return
    rng = torch.Generator().manual_seed(NOISE_SEED)
    drawn = {key: torch.randn(shapes[key], generator=rng) for key in noises if key not in table}
    taken = {key: theirs[entry.key].reshape(shapes[key]) for key, entry in table.items()}
    network.to_empty(device="cpu")
    network.load_state_dict({**drawn, **{key: value.float() for key, value in taken.items()}})
    network.eval()
