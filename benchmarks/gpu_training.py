# SPDX-License-Identifier: BSD-3-Clause
"""The training step of the StyleGAN2 example, beside others that do the same work.

``python -m benchmarks.gpu_training --out FOLDER [--stylegan3 CHECKOUT]`` trains config-f at 256
pixels, batch 16, float32 (convolutions in TF32, as torch allows by default), on random images. The
columns take turns:

ours                 the example's networks and loss
ours in CUDA graphs  the same, with ``--cuda-graphs`` of the example
native               the example's networks with every op of ours in plain torch
nvidia               the same with NVIDIA's upfirdn2d and bias_act in place of every op of ours
nvidia networks      NVIDIA's own networks and loss, of the checkout, with the settings, images,
                     optimiser and check of the gradients that the example has; in float16 with the
                     setting that its training has, penalties in float16 too

Before anything is timed, every call of an op is counted while each column runs all parts of a step:
the ops of that column must have run, and no others. Networks of different ops must compute the
same; NVIDIA's networks must have as many parameters as ours. Timed are the parts of a step, each
with its own backward pass and optimiser, as examples.stylegan.train runs them:

plain step      one update of the discriminator and one of the generator, and the average
amortised step  the plain step, 1/16 of an R1 update and 1/4 of a path-length update

It writes ``training.json`` and, of the plain step's parts, ``profile.txt``: the kernels that take
the most time; of another ``--precision``, ``training-float16.json`` and so on. ``--self-check``
runs it with tiny networks, on the CPU where there is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import importlib
import importlib.util
import json
import math
import statistics
import sys
import time
import traceback
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Adam

from examples.stylegan.data import Images, to_pixels
from examples.stylegan.settings import DTYPES, Settings
from examples.stylegan.training import Training, lazy_adam
from resample_layers import ops
from resample_layers.ops import native

from .gpu import Peer, usable_peer

SETTINGS = Settings(
    resolution=256,
    batch=16,
    style_dim=512,
    mapping_layers=8,
    mapping_lr=0.01,
    channel_multiplier=2.0,
    channel_max=512,
    lr=0.002,
    r1_gamma=1.0,
    mixing=0.9,
)
TINY = Settings(resolution=16, batch=4, style_dim=8, channel_max=4, path_batch=2)
PACKAGES = ("resample_layers", "examples")  # where a network may hold a reference to an op
OPERATORS = "resample_layers::"  # how the profiler names ours, whatever function called them
PARTS = ("discriminator", "r1", "generator", "path length", "average")
ROUNDS = 8
TOLERANCE = 2e-2  # of images and scores: TF32, and sums in another order

Ops = dict[str, Callable[..., Any]]
CALLS: Counter[tuple[str, str]] = Counter()  # of whose ops, and of which op


def counted(whose: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, whose calls are counted in CALLS."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        CALLS[whose, name] += 1
        return function(*arguments, **options)

    return call


def native_ops() -> Ops:
    """Ours in plain torch: what runs where nothing is compiled."""

    def upfirdn2d(
        input: Tensor, kernel: Any, up: Any = 1, down: Any = 1, pad: Any = (0, 0)
    ) -> Tensor:
        taps, taps_y = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        if taps.dim() == 2:
            taps_y = None
        (up, down), pad = _pairs(up, down), _pads(pad)
        return native.resample(input, taps, taps_y, up, down, pad)

    def fused_leaky_relu(
        input: Tensor, bias: Tensor | None = None, slope: float = 0.2, scale: float = 2**0.5
    ) -> Tensor:
        if bias is not None:
            input = input + bias.reshape(1, -1, *(1,) * (input.dim() - 2))
        return F.leaky_relu(input, slope) * scale

    pair = (("upfirdn2d", upfirdn2d), ("bias_act", fused_leaky_relu))
    return _with_epilogue(*(counted("native", *both) for both in pair))


def counted_peer(peer: Peer) -> Peer:
    """NVIDIA's ops, whoever calls them: its own networks find them as attributes of two modules."""
    for name in Peer._fields:
        module = importlib.import_module(f"torch_utils.ops.{name}")
        setattr(module, name, counted("nvidia", name, getattr(peer, name)))
    return Peer(*(getattr(sys.modules[f"torch_utils.ops.{n}"], n) for n in Peer._fields))


def nvidia_ops(peer: Peer) -> Ops:
    """NVIDIA's, called as its networks call them: filters of 4 taps as 4x4."""

    def upfirdn2d(
        input: Tensor, kernel: Any, up: Any = 1, down: Any = 1, pad: Any = (0, 0)
    ) -> Tensor:
        (up, down), pad = _pairs(up, down), _pads(pad)
        return peer.upfirdn2d(input, _filter(kernel), list(up), list(down), list(pad))

    def fused_leaky_relu(
        input: Tensor, bias: Tensor | None = None, slope: float = 0.2, scale: float = 2**0.5
    ) -> Tensor:
        bias = None if bias is None else bias.to(input.dtype)
        return peer.bias_act(input, bias, act="lrelu", alpha=slope, gain=scale)

    return _with_epilogue(upfirdn2d, fused_leaky_relu)


def _with_epilogue(
    upfirdn2d: Callable[..., Tensor], fused_leaky_relu: Callable[..., Tensor]
) -> Ops:
    """All ops that the networks may use, composed of two."""

    def bias_act(
        input: Tensor,
        bias: Tensor | None = None,
        noise: Tensor | None = None,
        noise_strength: Tensor | None = None,
        negative_slope: float = 0.2,
        gain: float = 2**0.5,
        clamp: float | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        if scale is not None:
            input = input * scale.to(input.dtype)[:, :, None, None]
        if noise is not None:
            input = input + (noise if noise_strength is None else noise * noise_strength)
        out = fused_leaky_relu(input, bias, negative_slope, gain)
        return out if clamp is None else out.clamp(-clamp, clamp)

    def upfirdn2d_bias_act(
        input: Tensor,
        kernel: Any,
        bias: Tensor | None = None,
        noise: Tensor | None = None,
        noise_strength: Tensor | None = None,
        up: Any = 1,
        down: Any = 1,
        pad: Any = (0, 0),
        negative_slope: float = 0.2,
        gain: float = 2**0.5,
        clamp: float | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        out = upfirdn2d(input, kernel, up, down, pad)
        return bias_act(out, bias, noise, noise_strength, negative_slope, gain, clamp, scale)

    return {
        "upfirdn2d": upfirdn2d,
        "fused_leaky_relu": fused_leaky_relu,
        "bias_act": bias_act,
        "upfirdn2d_bias_act": upfirdn2d_bias_act,
    }


def _pairs(*factors: Any) -> list[tuple[int, int]]:
    return [(f, f) if isinstance(f, int) else tuple(f) for f in factors]


def _pads(pad: Any) -> tuple[int, int, int, int]:
    return (*pad, *pad) if len(pad) == 2 else tuple(pad)


_filters: dict[tuple[int, ...], Tensor] = {}


def _filter(kernel: Any) -> Tensor:
    """NVIDIA's filter of our kernel: made once, as its networks do."""
    taps: Tensor
    taps, taps_y = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    if taps.dim() == 2:
        return taps
    key = (taps.data_ptr(), taps_y.data_ptr())
    if key not in _filters:
        _filters[key] = torch.outer(taps_y, taps)
    return _filters[key]


@contextlib.contextmanager
def in_place(replacements: Ops) -> Iterator[None]:
    """Let the networks find other ops than ours.

    ``replacements`` are named as in :mod:`resample_layers.ops`. Every module of PACKAGES is
    searched, and every dict that it holds (the layers look their op up in one).
    """
    theirs = {id(getattr(ops, name)): function for name, function in replacements.items()}
    before: list[tuple[dict[Any, Any], Any, Any]] = []
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").split(".")[0] not in PACKAGES:
            continue
        names = vars(module)
        tables = [names, *(value for value in names.values() if isinstance(value, dict))]
        before += [(t, key, t[key]) for t in tables for key in t if id(t[key]) in theirs]
    for table, key, function in before:
        table[key] = theirs[id(function)]
    try:
        yield
    finally:
        for table, key, function in before:
            table[key] = function


def check_which_ran(ran: list[str], whose: str) -> None:
    """The ops of one column ran, and no others.

    ``ran``: the names in a profile, where ours are found; calls of the others are in CALLS.
    ``whose``: ours, native or nvidia.
    """
    found = {"ours"} if any(OPERATORS in key for key in ran) else set()
    found |= {family for family, _ in CALLS}
    if found != {whose}:
        listed = " and ".join(sorted(found)) or "no"
        raise RuntimeError(f"where {whose} ops had to run, {listed} ops ran")
    missing = {"upfirdn2d", "bias_act"} - {name for _, name in CALLS}
    if whose != "ours" and missing:
        raise RuntimeError(f"{whose} {' and '.join(sorted(missing))} did not run")


class Column(NamedTuple):
    """One way to run the parts of a step."""

    whose: str  # ops: ours, native or nvidia
    ops: Ops  # in place of ours
    step: Benchmark | NvidiaStep


Columns = dict[str, Column]


@contextlib.contextmanager
def dropped_if_failing(columns: Columns, name: str) -> Iterator[None]:
    """Go on without a column that fails, unless it is ours; within, it finds its ops."""
    try:
        with in_place(columns[name].ops):
            yield
    except Exception as error:
        if name == "ours":
            raise
        not_run(name, error)
        del columns[name]


def not_run(name: str, error: Exception) -> None:
    """Say why a column is missing."""
    traceback.print_exception(error)
    reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
    print(f"NOT RUN: training of the column {name}, {type(error).__name__}: {reason}")


class Benchmark:
    """One training of the example, whose parts can be run with any set of ops."""

    def __init__(
        self, settings: Settings, device: torch.device, pixels: Tensor, **how: bool
    ) -> None:
        self.device = device
        self.training = Training(settings, Images("noise", pixels, pixels[:2]), device, **how)
        self.real = to_pixels(pixels[: settings.batch].to(device))
        self.parts: dict[str, Callable[[], None]] = {
            "discriminator": lambda: self.training.discriminator_step([self.real]),
            "r1": lambda: self.training.r1_step([self.real]),
            "generator": self.training.generator_step,
            "path length": self.training.path_length_step,
            "average": self.training.average,
        }

    @torch.no_grad()
    def outputs(self) -> list[Tensor]:
        """Images of fixed latents and noise, and the scores of fixed images."""
        generator = self.training.generator
        rng = torch.Generator().manual_seed(1)
        z = torch.randn(2, generator.style_dim, generator=rng).to(self.device)
        images = generator(z, generator.fixed_noise())
        return [images, self.training.discriminator(self.real)]


class NvidiaStep:
    """NVIDIA's own networks and loss, with the parts that the example's step has.

    Facts about the checkout that this rests on: the names, arguments and phases of
    ``training.networks_stylegan2`` and ``training.loss``.

    Args:
        settings: as ours.
        device: where it computes.
        real: images of a batch.
        ours: networks that must have as many parameters.
    """

    def __init__(
        self, settings: Settings, device: torch.device, real: Tensor, ours: Training
    ) -> None:
        if settings.precision == "bfloat16":
            raise ValueError("NVIDIA's networks have no bfloat16")
        self.settings, self.device, self.real = settings, device, real
        half = settings.precision == "float16"
        common = {"c_dim": 0, "img_resolution": settings.resolution, "img_channels": 3}
        common |= {
            "channel_base": int(16384 * settings.channel_multiplier),
            "channel_max": settings.channel_max,
            "num_fp16_res": 4 if half else 0,
            "conv_clamp": settings.clamp if half else None,
        }
        mapping = {"num_layers": settings.mapping_layers, "lr_multiplier": settings.mapping_lr}
        dims = {"z_dim": settings.style_dim, "w_dim": settings.style_dim}
        # Scaled activations in training, as its configuration of StyleGAN2 has it
        self.generator: nn.Module = member("training.networks_stylegan2", "Generator")(
            **common, **dims, mapping_kwargs=mapping, fused_modconv_default="inference_only"
        ).to(device)
        self.discriminator: nn.Module = member("training.networks_stylegan2", "Discriminator")(
            **common, epilogue_kwargs={"mbstd_group_size": 4}
        ).to(device)
        for name in ("generator", "discriminator"):
            counts = [sum(p.numel() for p in getattr(n, name).parameters()) for n in (self, ours)]
            if counts[0] != counts[1]:
                raise RuntimeError(
                    f"NVIDIA's {name} must have as many parameters as ours, {counts[1]:,}, got "
                    f"{counts[0]:,}"
                )
        self.ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        member("torch_utils.ops.conv2d_gradfix", "enabled")
        sys.modules["torch_utils.ops.conv2d_gradfix"].enabled = True  # type: ignore[attr-defined]
        s = settings
        self.loss = member("training.loss", "StyleGAN2Loss")(
            device=device,
            G=self.generator,
            D=self.discriminator,
            r1_gamma=s.r1_gamma,
            style_mixing_prob=s.mixing,
            pl_weight=s.path_weight,
            pl_batch_shrink=s.batch // s.path_batch,
            pl_no_weight_grad=True,
        )
        self.optimizers = {
            self.generator: lazy_adam(self.generator, s.lr, s.path_weight, s.path_every),
            self.discriminator: lazy_adam(self.discriminator, s.lr, s.r1_gamma, s.r1_every),
        }
        self.parts: dict[str, Callable[[], None]] = {
            "discriminator": lambda: self.phase("Dmain", self.discriminator, 1),
            "r1": lambda: self.phase("Dreg", self.discriminator, s.r1_every),
            "generator": lambda: self.phase("Gmain", self.generator, 1),
            "path length": lambda: self.phase("Greg", self.generator, s.path_every),
            "average": self.average,
        }

    def phase(self, name: str, network: nn.Module, gain: int) -> None:
        """One update of one network; the other's weights need no gradient."""
        optimizer: Adam = self.optimizers[network]
        batch = len(self.real)
        labels = torch.empty(batch, 0, device=self.device)
        latents = torch.randn(batch, self.settings.style_dim, device=self.device)
        for each in self.optimizers:
            each.requires_grad_(each is network)
        optimizer.zero_grad(set_to_none=True)
        self.loss.accumulate_gradients(
            phase=name,
            real_img=self.real,
            real_c=labels,
            gen_z=latents,
            gen_c=labels,
            gain=gain,
            cur_nimg=0,
        )
        # As ours, in place of the replacement of what is not finite
        norm = get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
        if not math.isfinite(norm.item()):
            raise FloatingPointError(f"the gradient of {name} must stay finite, got {norm}")
        optimizer.step()

    @torch.no_grad()
    def average(self) -> None:
        """Move the averaged generator towards the generator."""
        means, news = (list(network.parameters()) for network in (self.ema, self.generator))
        torch._foreach_lerp_(means, news, 0.01)


def member(module: str, name: str) -> Any:
    """What NVIDIA's module has by a name.

    Raises:
        RuntimeError: if the checkout has no such module, or the module nothing of that name.
    """
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"the checkout must have {module}.{name}, as NVIDIA's stylegan3 has, got: {error}"
        ) from error


def stand_in_for_absent_packages() -> None:
    """Let NVIDIA's code import what it does not use in a training step."""
    for absent in ("requests", "distutils.util"):
        package = absent.partition(".")[0]
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            sys.modules[package] = sys.modules[absent] = types.ModuleType(absent)
            sys.modules[absent].strtobool = bool  # type: ignore[attr-defined]


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(call: Callable[[], None], device: torch.device) -> float:
    """Wall time of one call, all of it on the device."""
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return 1e3 * (time.perf_counter() - start)


def profile(
    step: Benchmark | NvidiaStep, parts: Sequence[str], device: torch.device
) -> tuple[str, list[str]]:
    """Where the time of these parts goes, and the names of what ran; CALLS are theirs alone."""
    cuda = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    CALLS.clear()
    with torch.profiler.profile(activities=activities) as profiler:
        for part in parts:
            step.parts[part]()
        wait(device)
    averages = profiler.key_averages()
    order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    table = averages.table(sort_by=order, row_limit=30, max_name_column_width=70)
    return table, [event.key for event in averages]


def step_times(parts: dict[str, float], settings: Settings) -> dict[str, float]:
    """Plain and amortised step, from the times of the parts."""
    plain = parts["discriminator"] + parts["generator"] + parts["average"]
    penalties = parts["r1"] / settings.r1_every + parts["path length"] / settings.path_every
    return {"plain": plain, "amortised": plain + penalties}


def check_equal(ours: list[Tensor], theirs: list[Tensor], name: str) -> None:
    """Both sets of ops compute the same networks."""
    for a, b in zip(ours, theirs, strict=True):
        error = float((a - b).norm() / a.norm())
        if not error <= TOLERANCE:
            raise RuntimeError(f"with {name} ops the networks differ by {error:.1e}")


def run(arguments: argparse.Namespace) -> None:
    """Time all sets of ops in turns, then profile each."""
    start = time.monotonic()
    clamp = 0.0 if arguments.precision == "float32" else 256.0
    settings = replace(
        TINY if arguments.self_check else SETTINGS, precision=arguments.precision, clamp=clamp
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.self_check:
        raise SystemExit("the training step is measured on a GPU; --self-check runs anywhere")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    columns = make_columns(arguments, settings, device)
    benchmark = columns["ours"].step
    assert isinstance(benchmark, Benchmark)
    expected = benchmark.outputs()
    for name in list(columns):
        with dropped_if_failing(columns, name):
            if columns[name].step is benchmark:
                check_equal(expected, benchmark.outputs(), name)
    for name in list(columns):  # after all comparisons, since this trains
        with dropped_if_failing(columns, name):
            check_which_ran(profile(columns[name].step, PARTS, device)[1], columns[name].whose)

    rounds = 2 if arguments.self_check else ROUNDS
    times: dict[str, dict[str, list[float]]] = {n: {p: [] for p in PARTS} for n in columns}
    for turn in range(rounds + 2):  # two to warm up: algorithms are chosen, graphs recorded
        if turn > 4 and time.monotonic() - start > 60 * arguments.minutes:
            print(f"NOT RUN: {rounds + 2 - turn} of {rounds} rounds, the minutes are over")
            break
        for name in list(columns):
            with dropped_if_failing(columns, name):
                for part in PARTS:
                    elapsed = milliseconds(columns[name].step.parts[part], device)
                    if turn >= 2:
                        times[name][part].append(elapsed)

    medians = {
        name: {part: statistics.median(values) for part, values in parts.items()}
        for name, parts in times.items()
        if name in columns
    }
    result = {
        "self_check": arguments.self_check,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "date": str(date.today()),
        "resolution": settings.resolution,
        "batch": settings.batch,
        "precision": settings.precision,
        "compiled": arguments.compile,
        "rounds": len(times["ours"]["r1"]),
        "planned rounds": rounds,
        "parts": medians,
        "steps": {name: step_times(parts, settings) for name, parts in medians.items()},
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    suffix = "" if settings.precision == "float32" else f"-{settings.precision}"
    suffix += "-compiled" if arguments.compile else ""
    (arguments.out / f"training{suffix}.json").write_text(json.dumps(result, indent=1) + "\n")
    for name, steps in result["steps"].items():
        print(f"{name}: plain {steps['plain']:.1f} ms, amortised {steps['amortised']:.1f} ms")

    with (arguments.out / f"profile{suffix}.txt").open("w") as file:
        for name in list(columns):
            with dropped_if_failing(columns, name):
                parts = ("discriminator", "generator")
                table, ran = profile(columns[name].step, parts, device)
                file.write(f"{name}\n{table}\n")
                check_which_ran(ran, columns[name].whose)
    if unfit := [name for name in medians if name not in columns]:
        raise SystemExit(f"training.json is not to be trusted: {', '.join(unfit)} failed later")


def make_columns(
    arguments: argparse.Namespace, settings: Settings, device: torch.device
) -> Columns:
    """All columns that can be made here; a line says which cannot, and why."""
    side, batch = settings.resolution, settings.batch
    pixels = torch.randint(0, 256, (2 * batch, 3, side, side), dtype=torch.uint8)
    ours = Benchmark(settings, device, pixels, compile=arguments.compile)
    columns = {"ours": Column("ours", {}, ours)}
    try:
        graphs = Benchmark(settings, device, pixels, compile=arguments.compile, cuda_graphs=True)
        columns["ours in CUDA graphs"] = Column("ours", {}, graphs)
    except Exception as error:  # without a GPU, or what a graph may not hold
        not_run("ours in CUDA graphs", error)
    if not arguments.compile:  # a compiled network would not see other ops
        columns["native"] = Column("native", native_ops(), ours)
    stand_in_for_absent_packages()
    peer = usable_peer(arguments.stylegan3, device)
    if peer is None:
        return columns
    peer = counted_peer(peer)
    if not arguments.compile:
        columns["nvidia"] = Column("nvidia", nvidia_ops(peer), ours)
    try:
        theirs = NvidiaStep(settings, device, ours.real, ours.training)
        columns["nvidia networks"] = Column("nvidia", {}, theirs)
    except Exception as error:
        not_run("nvidia networks", error)
    return columns


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_training", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for training.json")
    parser.add_argument("--stylegan3", help="checkout of NVIDIA's stylegan3 to compare with")
    parser.add_argument("--minutes", type=float, default=3.0, help="begin no round after so many")
    parser.add_argument("--precision", choices=DTYPES, default="float32", help="as in training")
    parser.add_argument(
        "--compile", action="store_true", help="compile our networks; other columns go"
    )
    parser.add_argument("--self-check", action="store_true", help="tiny networks, any device")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
