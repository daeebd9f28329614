# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints of other StyleGAN2 codes: :func:`load` them, save as two of them.

``rosinality``        stylegan2-pytorch's ``.pt``
``basicsr``           BasicSR's ``.pth``, generator and discriminator in files of their own
``nvidia``            ``.pkl`` of stylegan2-ada-pytorch, and of the StyleGAN2 in stylegan3
``resample_layers``   ``checkpoint.pt`` of :mod:`examples.stylegan2.train`

Nothing in a file is executed. Torch's files are read with ``weights_only=True``; NVIDIA's pickles,
which carry the source text of their networks, with :class:`RestrictedUnpickler`, which knows the
few names that such files need and refuses all others.

The names of layers in each dialect stand in :func:`generator_keys` and :func:`discriminator_keys`,
which serve both ways; docs/checkpoints.md says what differs otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import pickle
import re
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .blocks import BINOMIAL
from .discriminator import Discriminator
from .generator import Generator

State = dict[str, Tensor]
MOST = 4096  # layers, or pixels where they are numbered so: beyond, a name is no layer's
MAPPING_LR = 0.01  # of every mapping network of rosinality's and BasicSR's
COLUMNS = {"resample_layers": 0, "rosinality": 0, "basicsr": 1, "nvidia": 2}
OWNERS = {
    "resample_layers": "our",
    "rosinality": "rosinality's",
    "basicsr": "BasicSR's",
    "nvidia": "NVIDIA's",
}


class CheckpointError(ValueError):
    """The file is no checkpoint that can be read, or must not be."""


@dataclass
class Checkpoint:
    """What a file holds.

    ``generator`` is the averaged one (EMA) where the file has it. ``latent_avg`` [style_dim] is
    the mean of ``w``, for :meth:`Generator.truncate`. ``configuration`` has the arguments that
    make the same networks: ``Generator(**configuration["generator"])``.
    """

    dialect: str
    generator: Generator
    discriminator: Discriminator | None
    latent_avg: Tensor | None
    configuration: dict[str, dict[str, Any]]


# Names


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
    for i, side in enumerate(_sides(resolution)[1:]):
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
    sides = _sides(resolution)[:0:-1]  # largest first, without 4
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
    sides = _sides(resolution)
    if dialect == "rosinality":  # with the gain of 2 for each axis
        convs = {f"convs.{2 * i}.conv.blur.kernel": 4.0 for i in range(len(sides) - 1)}
        return convs | {f"to_rgbs.{i}.upsample.kernel": 4.0 for i in range(len(sides) - 1)}
    if dialect == "nvidia":
        parts = [f"b{side}{part}" for side in sides for part in ("", ".conv0", ".conv1")]
        return {f"synthesis.{p}.resample_filter": 1.0 for p in parts if p != "b4.conv0"}
    return {}


def discriminator_filters(dialect: str, resolution: int) -> dict[str, float]:
    """Keys of the filters that ``dialect`` keeps with a discriminator, and what each sums to."""
    sides = _sides(resolution)[1:]
    if dialect == "rosinality":
        parts = [f"convs.{m}.{c}.0" for m in range(1, len(sides) + 1) for c in ("conv2", "skip")]
        return {f"{part}.kernel": 1.0 for part in parts}
    if dialect == "nvidia":
        layers = ("", ".conv0", ".conv1", ".skip")
        parts = [f"b{side}{layer}" for side in sides for layer in layers]
        return {f"{p}.resample_filter": 1.0 for p in (*parts, f"b{resolution}.fromrgb", "b4.conv")}
    return {}


def _sides(resolution: int) -> list[int]:
    return [2**level for level in range(2, int(math.log2(resolution)) + 1)]


def _under(prefixes: tuple[str, str, str], rows: Rows) -> Rows:
    ours, basicsr, nvidia = prefixes
    return [(f"{ours}.{a}", f"{basicsr}.{b}", f"{nvidia}.{c}", dims) for a, b, c, dims in rows]


def _column(dialect: str, rows: Rows) -> dict[str, Entry]:
    column = COLUMNS[dialect]
    return {row[0]: Entry(row[column], row[3] if dialect == "nvidia" else ALL) for row in rows}


# Loading


def load(path: str | Path, discriminator_path: str | Path | None = None) -> Checkpoint:
    """Read a checkpoint of any dialect; the file's content says which it is.

    Args:
        path: the file. Of BasicSR's two, the generator's.
        discriminator_path: BasicSR's file of the discriminator.

    Returns:
        The networks in float32 on the CPU, in evaluation mode.

    Raises:
        CheckpointError: if the file is no checkpoint, not a whole one, asks for anything to be
            executed, or holds a network that ours cannot be; missing, unexpected and misshapen
            keys are listed in one error.
        OSError: if a file cannot be read.
    """
    contents = _contents(path)
    if discriminator_path is not None:
        contents.discriminator = _contents(discriminator_path).discriminator
        if contents.discriminator is None:
            raise CheckpointError(f"{discriminator_path} must hold a discriminator, got none")
    with _naming(path, ValueError):  # of our networks too
        return _build(contents)


@contextlib.contextmanager
def _naming(path: str | Path, ours: type[ValueError]) -> Iterator[None]:
    """Errors name the file; a damaged one may raise anything, besides what is ``ours``."""
    try:
        yield
    except ours as error:
        raise CheckpointError(f"{path} {error}") from None
    except Exception as error:
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise CheckpointError(f"{path} must be a whole checkpoint, got {reason}") from error


def _build(contents: _Contents) -> Checkpoint:
    """Networks like the file's, with its weights; errors lack the file's name."""
    if contents.generator is None:
        raise CheckpointError(
            "must hold a generator, got a discriminator only: give this as discriminator_path"
        )
    dialect, problems = contents.dialect, list[str]()
    options = _generator_options(contents)
    configuration, discriminator = {"generator": options}, None
    resolution, depth = options["resolution"], options["mapping_layers"]
    keys = generator_keys(dialect, resolution, depth)
    filters = generator_filters(dialect, resolution)
    generator = _fill(Generator, options, contents.generator, keys, filters, problems)
    if contents.discriminator is not None:
        options = _discriminator_options(contents)
        configuration["discriminator"] = options
        keys = discriminator_keys(dialect, options["resolution"])
        filters = discriminator_filters(dialect, options["resolution"])
        state = contents.discriminator
        discriminator = _fill(Discriminator, options, state, keys, filters, problems)
    mean = contents.latent_avg
    if mean is not None and mean.numel() != generator.style_dim:
        problems.append(f"misshapen: latent_avg {list(mean.shape)} for {generator.style_dim}")
    if problems:
        raise CheckpointError(
            f"must hold the keys and shapes of {OWNERS[dialect]} StyleGAN2 of {resolution} "
            f"pixels, got {'; '.join(problems)}"
        )
    if mean is not None:
        mean = mean.detach().float().reshape(-1).clone()
    return Checkpoint(dialect, generator, discriminator, mean, configuration)


@dataclass
class _Contents:
    """A file as it is, sorted but not checked; options are what the weights do not show."""

    dialect: str
    generator: State | None
    discriminator: State | None = None
    latent_avg: Tensor | None = None
    generator_options: dict[str, Any] = field(default_factory=lambda: {"mapping_lr": MAPPING_LR})
    discriminator_options: dict[str, Any] = field(default_factory=dict)


def _recognise(file: Any) -> _Contents:
    """The dialect by the keys at the top."""
    keys = list(file) if isinstance(file, dict) else []
    if "g_ema" in keys or "g" in keys:
        states = (file.get("g_ema", file.get("g")), file.get("d"))
        contents = _Contents("rosinality", *states, file.get("latent_avg"))
        if "settings" in keys:  # of our own training
            contents.dialect = "resample_layers"
            contents.generator_options = {"mapping_lr": file["settings"]["mapping_lr"]}
    elif "params_ema" in keys or "params" in keys:
        state = file.get("params_ema", file.get("params"))
        contents = _Contents("basicsr", state, None, file.get("latent_avg"))
        if "final_linear.0.weight" in state:
            contents.generator, contents.discriminator = None, state
    elif isinstance(file, dict) and isinstance(file.get("G_ema"), _Module):
        contents = _nvidia(file["G_ema"], file.get("D"))
    else:
        raise CheckpointError(
            "must be a checkpoint of rosinality's (g_ema), BasicSR's (params_ema or params) or "
            f"NVIDIA's (G_ema), got {f'keys {keys}' if keys else type(file).__name__}"
        )
    mean = {} if contents.latent_avg is None else {"latent_avg": contents.latent_avg}
    for state in (contents.generator or {}, contents.discriminator or {}, mean):
        others = [
            k for k, v in state.items() if not torch.is_tensor(v) or not v.is_floating_point()
        ]
        if others:
            raise CheckpointError(f"must hold floating-point tensors, got others at {others}")
    return contents


def _generator_options(contents: _Contents) -> dict[str, Any]:
    """Arguments of :class:`Generator`, from the keys and shapes of its state."""
    theirs, dialect = contents.generator or {}, contents.dialect
    to_rgb = r"to_rgbs\.(\d+)\."
    largest = _largest(dialect, theirs, (to_rgb, to_rgb, r"synthesis\.b(\d+)\."), "generator")
    resolution = largest if dialect == "nvidia" else 2 ** (largest + 3)
    mapping = (r"style\.(\d+)\.", r"style_mlp\.(\d+)\.", r"mapping\.fc(\d+)\.")
    numbers = _numbers(mapping[COLUMNS[dialect]], theirs)
    depth = max(numbers, default=0) + (dialect == "nvidia" and bool(numbers))

    layers = {4: ["conv1.activate.bias", "to_rgb1.conv.modulation.bias"]}
    to_rgbs = ["to_rgb1"]
    for i, side in enumerate(_sides(resolution)[1:]):
        to_rgbs.append(f"to_rgbs.{i}")
        convs = [f"convs.{2 * i}.activate.bias", f"convs.{2 * i + 1}.activate.bias"]
        layers[side] = [*convs, f"to_rgbs.{i}.conv.modulation.bias"]
    measure = _Measure(theirs, generator_keys(dialect, resolution, depth))
    return {
        "resolution": resolution,
        "style_dim": measure(-1, [f"{name}.conv.modulation.weight" for name in to_rgbs]),
        "mapping_layers": depth,
        "image_channels": measure(-4, [f"{name}.conv.weight" for name in to_rgbs]),
        "channels": {side: measure(0, keys) for side, keys in layers.items()},
        "clamp": None,
        **contents.generator_options,
    }


def _discriminator_options(contents: _Contents) -> dict[str, Any]:
    """Arguments of :class:`Discriminator`, from the keys and shapes of its state."""
    theirs, dialect = contents.discriminator or {}, contents.dialect
    numbered = (r"convs\.(\d+)\.", r"conv_body\.(\d+)\.", r"b(\d+)\.")
    largest = _largest(dialect, theirs, numbered, "discriminator")
    resolution = largest if dialect == "nvidia" else 2 ** (largest + 2)
    layers = {resolution: ["convs.0.1.bias"]}
    for m, side in enumerate(_sides(resolution)[:0:-1], 1):
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
            raise CheckpointError(f"must hold at least one of {', '.join(names)}, got none")
        return Counter(lengths).most_common(1)[0][0]


def _largest(dialect: str, theirs: State, patterns: tuple[str, str, str], network: str) -> int:
    """The highest number that a pattern finds in the keys, which says the resolution."""
    numbers = _numbers(patterns[COLUMNS[dialect]], theirs)
    largest = max(numbers, default=0)
    if largest > MOST:
        raise CheckpointError(
            f"must number the layers and sides of its {network} up to {MOST}, got {largest}"
        )
    if not numbers or (dialect == "nvidia" and (largest < 8 or largest & (largest - 1))):
        some = ", ".join(list(theirs)[:3])
        raise CheckpointError(
            f"must hold a {network} of {OWNERS[dialect]} StyleGAN2, of 8 pixels or more, got "
            f"{len(theirs)} keys such as {some or 'none'}"
        )
    return largest


def _numbers(pattern: str, keys: Iterable[str]) -> list[int]:
    return [int(found[1]) for key in keys if (found := re.match(pattern, key))]


def _fill(
    kind: type[nn.Module],
    options: dict[str, Any],
    theirs: State,
    table: Mapping[str, Entry],
    filters: Mapping[str, float],
    problems: list[str],
) -> Any:
    """A network with the state of ``theirs``; what does not fit is added to ``problems``."""
    with torch.device("meta"):
        network = kind(**options)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    wanted = {entry.key: shapes[key][entry.dims] for key, entry in table.items()}
    wanted |= {key: torch.Size((len(BINOMIAL),) * 2) for key in filters}
    missing = [key for key in wanted if key not in theirs]
    unexpected = [key for key in theirs if key not in wanted]
    misshapen = [
        f"{key} {list(theirs[key].shape)} instead of {list(shape)}"
        for key, shape in wanted.items()
        if key in theirs and theirs[key].shape != shape
    ]
    others = [
        key
        for key, total in filters.items()
        if key in theirs
        and theirs[key].shape == wanted[key]
        and not _is_binomial(theirs[key], total)
    ]
    found = {
        "missing": missing,
        "unexpected": unexpected,
        "misshapen": misshapen,
        f"filters other than {list(BINOMIAL)}": others,
    }
    name = kind.__name__.lower()
    problems += [f"{name}: {what}: {', '.join(keys)}" for what, keys in found.items() if keys]
    if problems:
        return network
    network.to_empty(device="cpu")
    network.load_state_dict(
        {key: theirs[entry.key].reshape(shapes[key]).float() for key, entry in table.items()}
    )
    return network.eval()


def _binomial(total: float) -> Tensor:
    """The filter [4, 4] that all codes have unless told otherwise."""
    taps = torch.tensor(BINOMIAL, dtype=torch.float32)
    return torch.outer(taps, taps) * (total / taps.sum() ** 2)


def _is_binomial(kernel: Tensor, total: float) -> bool:
    return torch.allclose(kernel.cpu().float(), _binomial(total), rtol=1e-3)


# Files


def _contents(path: str | Path) -> _Contents:
    """What a file holds, read without executing anything from it."""
    data = Path(path).read_bytes()
    with _naming(path, CheckpointError):
        return _recognise(_parse(data))


def _parse(data: bytes) -> Any:
    """The file as plain Python, tensors and NVIDIA's modules."""
    legacy = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)  # before torch 1.6
    if data.startswith((b"PK\x03\x04", legacy)):
        return _torch_load(data)
    if data.startswith(pickle.PROTO):
        return RestrictedUnpickler(io.BytesIO(data)).load()
    raise CheckpointError(f"must be a whole checkpoint, got a file that starts with {data[:12]!r}")


def _torch_load(data: bytes) -> Any:
    """torch.load with ``weights_only``, and with the one type that rosinality's training adds."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is not None:
            raise _refused(refused[1]) from None
        reason = str(error).rpartition("WeightsUnpickler error:")[2]  # without torch's advice
        raise pickle.UnpicklingError(reason.strip()) from None


def _refused(name: str) -> CheckpointError:
    return CheckpointError(f"must hold data only, got one that asks for {name}, which is refused")


class _Module:
    """An object of NVIDIA's: its state, without the class whose source text the file has."""

    __slots__ = ("state",)

    def __init__(self, meta: dict[str, Any]) -> None:
        self.state = dict(meta["state"])

    def attributes(self, path: str = "") -> dict[str, dict[str, Any]]:
        """The attributes of this module and of all within, by path."""
        found = {path: self.state}
        for name, module in self.state["_modules"].items():
            if module is not None:
                found |= module.attributes(f"{path}.{name}" if path else name)
        return found

    def state_dict(self) -> State:
        """Parameters and buffers of this module and of all within, by key."""
        return {
            f"{path}.{name}" if path else name: tensor
            for path, state in self.attributes().items()
            for name, tensor in {**state["_parameters"], **state["_buffers"]}.items()
            if tensor is not None
        }


class _DType:
    """A number's type in NumPy's pickles, such as f8."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1].replace("|", "=")


def _scalar(dtype: _DType, data: bytes) -> Any:
    formats = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}
    return struct.unpack(dtype.order + formats[dtype.code], data)[0]


def _storage(data: bytes) -> Tensor:
    """A storage's numbers [n], from a file of torch's within the pickle."""
    storage = _torch_load(data)
    return torch.empty(0, dtype=storage.dtype).set_(storage)


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)  # which refuses what is out of bounds


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


class _Allowed:
    """A function that a pickle may call and, unlike the function itself, may not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} cannot be set")


class RestrictedUnpickler(pickle.Unpickler):
    """Reads NVIDIA's pickles; ``ALLOWED`` is all that they can name.

    None of it is the named object itself, but what does the same for data alone: modules come as
    their attributes, tensors without hooks, dictionaries of all kinds as dict.
    """

    ALLOWED: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Allowed(_Module),
        ("dnnlib.util", "EasyDict"): dict,
        ("collections", "OrderedDict"): dict,
        ("builtins", "set"): set,  # of files of pickle protocol 3, as Python 3.7 wrote them
        ("torch._utils", "_rebuild_parameter"): _Allowed(_parameter),
        ("torch._utils", "_rebuild_tensor_v2"): _Allowed(_tensor),
        ("torch.storage", "_load_from_bytes"): _Allowed(_storage),
        ("numpy", "dtype"): _Allowed(_DType),
        ("numpy._core.multiarray", "scalar"): _Allowed(_scalar),
        ("numpy.core.multiarray", "scalar"): _Allowed(_scalar),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise _refused(f"{module}.{name}")
        return self.ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _refused(f"the persistent object {pid!r}")


# NVIDIA's attributes


def _nvidia(generator: _Module, discriminator: Any) -> _Contents:
    """The networks of a pickle, and what their attributes say that their weights do not."""
    contents = _Contents("nvidia", generator.state_dict())
    contents.latent_avg = contents.generator.pop("mapping.w_avg", None)
    modules = generator.attributes()
    _check_nvidia("generator", modules, "skip")
    rates = {state["bias_gain"] for at, state in modules.items() if at.startswith("mapping.fc")}
    contents.generator_options = {
        "clamp": _only("conv_clamp", _clamps(modules)),
        "mapping_lr": float(_only("lr_multiplier", rates or {MAPPING_LR})),
    }
    if isinstance(discriminator, _Module):
        contents.discriminator = discriminator.state_dict()
        modules = discriminator.attributes()
        _check_nvidia("discriminator", modules, "resnet")
        stddev = modules.get("b4.mbstd", {})
        sizes = stddev.get("group_size"), stddev.get("num_channels")
        if None in sizes:
            raise CheckpointError(
                f"must have mbstd_group_size and mbstd_num_channels > 0, got "
                f"{sizes[0]} and {sizes[1]}"
            )
        contents.discriminator_options = {
            "clamp": _only("conv_clamp", _clamps(modules)),
            "group_size": sizes[0],
            "stddev_channels": sizes[1],
        }
    return contents


def _check_nvidia(network: str, modules: dict[str, dict[str, Any]], architecture: str) -> None:
    """Raise for a network that ours cannot be, naming the option."""
    if modules[""].get("c_dim", 0) > 0:
        raise CheckpointError(
            f"must have c_dim 0 in its {network}, got {modules['']['c_dim']}: class-conditional "
            "networks are not supported"
        )
    rules = {
        "architecture": (architecture,),
        "use_noise": (True,),
    }
    for path, state in modules.items():
        linear = path.rpartition(".")[2] in ("affine", "skip", "out")
        activations = ("linear" if linear else "lrelu",)
        for name, values in {**rules, "activation": activations}.items():
            if name in state and state[name] not in values:
                where = f"{path} of its {network}" if name == "activation" else f"its {network}"
                raise CheckpointError(
                    f"must have {name} {values[0]!r} in {where}, got {state[name]!r}"
                )


def _clamps(modules: dict[str, dict[str, Any]]) -> set[float | None]:
    """All values of conv_clamp; the discriminator's skips have none."""
    states = [state for at, state in modules.items() if not at.endswith(".skip")]
    return {state["conv_clamp"] for state in states if "conv_clamp" in state}


def _only(name: str, values: set[Any]) -> Any:
    if len(values) != 1:
        raise CheckpointError(f"must have the same {name} in all layers, got {values}")
    return next(iter(values))


# Saving


def save_rosinality(
    path: str | Path,
    generator: Generator,
    discriminator: Discriminator | None = None,
    latent_avg: Tensor | None = None,  # [style_dim]
) -> None:
    """Write a ``.pt`` that rosinality's code loads: ``g_ema``, ``d``, ``latent_avg``.

    Raises:
        ValueError: if rosinality's code cannot build the networks.

    Warns:
        UserWarning: if a network clamps, which rosinality's does not.
    """
    file: dict[str, Any] = {"g_ema": _export("rosinality", generator)}
    if discriminator is not None:
        file["d"] = _export("rosinality", discriminator)
    if latent_avg is not None:
        file["latent_avg"] = latent_avg.detach().cpu()
    torch.save(file, path)


def save_basicsr(
    path: str | Path,
    generator: Generator,
    discriminator: Discriminator | None = None,
    latent_avg: Tensor | None = None,  # [style_dim]
    discriminator_path: str | Path | None = None,
) -> None:
    """Write the ``.pth`` files that BasicSR's code loads: ``params_ema`` and ``params``.

    Raises:
        ValueError: if BasicSR's code cannot build the networks, or ``discriminator`` and
            ``discriminator_path`` are not given together.

    Warns:
        UserWarning: if a network clamps, which BasicSR's does not.
    """
    if (discriminator is None) != (discriminator_path is None):
        raise ValueError(
            "discriminator and discriminator_path must be given together, got "
            f"{'no' if discriminator is None else 'a'} discriminator and {discriminator_path}"
        )
    file: dict[str, Any] = {"params_ema": _export("basicsr", generator)}
    if latent_avg is not None:
        file["latent_avg"] = latent_avg.detach().cpu()
    if discriminator is not None and discriminator_path is not None:
        torch.save({"params": _export("basicsr", discriminator)}, discriminator_path)
    torch.save(file, path)


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
    theirs |= {key: _binomial(total) for key, total in filters.items()}
    return {key: value.detach().float().cpu() for key, value in theirs.items()}


def _check_buildable(dialect: str, network: Generator | Discriminator) -> None:
    """Raise for a network that the other code has no arguments for; warn for a clamp."""
    owner, kind = OWNERS[dialect], type(network).__name__.lower()
    low = {width for side, width in network.channels.items() if side <= 32}
    high = {width * side for side, width in network.channels.items() if side > 32}
    regular = len(low) == 1 and len(high) <= 1 and (dialect == "basicsr" or low == {512})
    widths = "512 channels" if dialect == "rosinality" else "as many channels at all sides"
    kernels = [module.kernel for module in network.modules() if hasattr(module, "taps")]
    binomial = all(k.shape == (4, 4) and _is_binomial(k, round(float(k.sum()), 2)) for k in kernels)
    rules: list[tuple[bool, str, Any]] = [
        (network.image_channels == 3, "3 image channels", network.image_channels),
        (
            regular,
            f"{widths} up to 32 pixels, half as many at each next side from 64",
            network.channels,
        ),
        (binomial, f"the filter {list(BINOMIAL)}", "another"),
    ]
    if isinstance(network, Discriminator):
        sizes = network.stddev.group_size, network.stddev.num_channels
        rules.append((sizes == (4, 1), "group_size 4 and stddev_channels 1", sizes))
    for kept, rule, value in rules:
        if not kept:
            raise ValueError(f"{kind} must have {rule}, as {owner} has, got {value}")
    if network.clamp is not None:
        warnings.warn(
            f"{owner} {kind} does not clamp: without the clamp of {network.clamp:g} its outputs "
            "differ where activations exceed that",
            UserWarning,
            stacklevel=4,
        )
