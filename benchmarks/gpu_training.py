# SPDX-License-Identifier: BSD-3-Clause
"""The StyleGAN2 of the examples, its training step with our ops and with others.

``python -m benchmarks.gpu_training --out FOLDER [--stylegan3 CHECKOUT]`` trains config-f at 256
pixels, batch 16, float32 (convolutions in TF32, as torch allows by default), on random images.
The same networks and the same inputs run with each set of ops, in turns. A set is put in place of
ours wherever the package and the examples hold a reference to ours, and before anything is timed a
profile of each set must show that our operators ran with ours and with no other. Timed are the
parts of a step, each with its own backward pass and optimiser, as examples.stylegan2.train runs
them:

plain step      one update of the discriminator and one of the generator, and the average
amortised step  the plain step, 1/16 of an R1 update and 1/4 of a path-length update

It writes ``training.json`` and, of the plain step's parts, ``profile.txt``: the kernels that take
the most time; of another ``--precision``, ``training-float16.json`` and so on. ``--self-check``
runs it with tiny networks, on the CPU where there is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.stylegan2.data import Images, to_pixels
from examples.stylegan2.settings import DTYPES, Settings
from examples.stylegan2.training import Training
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
ROUNDS = 12
TOLERANCE = 2e-2  # of images and scores: TF32, and sums in another order

Ops = dict[str, Callable[..., Any]]


def native_ops() -> Ops:
    """Ours in plain torch: what runs where nothing is compiled."""

    def upfirdn2d(
        input: Tensor, kernel: Any, up: Any = 1, down: Any = 1, pad: Any = (0, 0)
    ) -> Tensor:
        both = (kernel, kernel if kernel.dim() == 1 else None)
        taps, taps_y = kernel if isinstance(kernel, tuple) else both
        (up, down), pad = _pairs(up, down), _pads(pad)
        return native.resample(input, taps, taps_y, up, down, pad)

    def fused_leaky_relu(
        input: Tensor, bias: Tensor | None = None, slope: float = 0.2, scale: float = 2**0.5
    ) -> Tensor:
        if bias is not None:
            input = input + bias.reshape(1, -1, *(1,) * (input.dim() - 2))
        return F.leaky_relu(input, slope) * scale

    return _with_epilogue(upfirdn2d, fused_leaky_relu)


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
    ) -> Tensor:
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
    ) -> Tensor:
        out = upfirdn2d(input, kernel, up, down, pad)
        return bias_act(out, bias, noise, noise_strength, negative_slope, gain, clamp)

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


def check_which_ran(ran: list[str], name: str) -> None:
    """Our operators ran with ours, and with no other set of ops.

    ``ran``: the names in a profile.
    """
    found = any(OPERATORS in key for key in ran)
    if found != (name == "ours"):
        raise RuntimeError(f"with {name} ops, our operators {'ran' if found else 'did not run'}")


@contextlib.contextmanager
def dropped_if_failing(sets: dict[str, Ops], name: str) -> Iterator[None]:
    """Go on without a set of ops that fails, unless it is ours."""
    try:
        yield
    except Exception as error:
        if name == "ours":
            raise
        traceback.print_exc()
        reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
        print(f"NOT RUN: training with {name} ops, {type(error).__name__}: {reason}")
        del sets[name]


class Benchmark:
    """One training, whose parts can be run with any set of ops."""

    def __init__(self, settings: Settings, device: torch.device, compile: bool = False) -> None:
        self.device = device
        side, batch = settings.resolution, settings.batch
        pixels = torch.randint(0, 256, (2 * batch, 3, side, side), dtype=torch.uint8)
        self.training = Training(
            settings, Images("noise", pixels, pixels[:2]), device, compile=compile
        )
        self.real = to_pixels(pixels[:batch].to(device))
        self.parts: dict[str, Callable[[], None]] = {
            "discriminator": lambda: self.training.discriminator_step([self.real]),
            "r1": lambda: self.training.r1_step([self.real]),
            "generator": self.generator_step,
            "path length": self.training.path_length_step,
            "average": self.training.average,
        }

    def generator_step(self) -> None:
        """As in Training.step: the discriminator's weights need no gradient."""
        self.training.discriminator.requires_grad_(False)
        try:
            self.training.generator_step()
        finally:
            self.training.discriminator.requires_grad_(True)

    @torch.no_grad()
    def outputs(self) -> list[Tensor]:
        """Images of fixed latents and noise, and the scores of fixed images."""
        generator = self.training.generator
        rng = torch.Generator().manual_seed(1)
        z = torch.randn(2, generator.style_dim, generator=rng).to(self.device)
        images = generator(z, generator.fixed_noise())
        return [images, self.training.discriminator(self.real)]

    def milliseconds(self, part: str) -> float:
        """Wall time of one run of a part, all of it on the device."""
        self._wait()
        start = time.perf_counter()
        self.parts[part]()
        self._wait()
        return 1e3 * (time.perf_counter() - start)

    def profile(self, parts: Sequence[str]) -> tuple[str, list[str]]:
        """Where the time of these parts goes, and the names of what ran."""
        cuda = self.device.type == "cuda"
        activities = [torch.profiler.ProfilerActivity.CPU]
        if cuda:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profiler:
            for part in parts:
                self.parts[part]()
            self._wait()
        averages = profiler.key_averages()
        order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
        table = averages.table(sort_by=order, row_limit=30, max_name_column_width=70)
        return table, [event.key for event in averages]

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


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
    sets: dict[str, Ops] = {"ours": {}}
    if not arguments.compile:  # a compiled network would not see the others
        sets["native"] = native_ops()
        peer = usable_peer(arguments.stylegan3, device)
        if peer is not None:
            sets["nvidia"] = nvidia_ops(peer)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    benchmark = Benchmark(settings, device, arguments.compile)
    expected = benchmark.outputs()
    for name in list(sets):
        with dropped_if_failing(sets, name), in_place(sets[name]):
            check_equal(expected, benchmark.outputs(), name)
    for name in list(sets):  # after all comparisons, since this trains
        with dropped_if_failing(sets, name), in_place(sets[name]):
            check_which_ran(benchmark.profile(PARTS)[1], name)

    rounds = 2 if arguments.self_check else ROUNDS
    times: dict[str, dict[str, list[float]]] = {name: {p: [] for p in PARTS} for name in sets}
    for turn in range(rounds + 2):  # two to warm up: convolutions choose their algorithms
        if turn > 4 and time.monotonic() - start > 60 * arguments.minutes:
            print(f"NOT RUN: {rounds + 2 - turn} of {rounds} rounds, the minutes are over")
            break
        for name in list(sets):
            with dropped_if_failing(sets, name), in_place(sets[name]):
                for part in PARTS:
                    elapsed = benchmark.milliseconds(part)
                    if turn >= 2:
                        times[name][part].append(elapsed)

    medians = {
        name: {part: statistics.median(values) for part, values in parts.items()}
        for name, parts in times.items()
        if name in sets
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
    (arguments.out / f"training{suffix}.json").write_text(json.dumps(result, indent=1) + "\n")
    for name, steps in result["steps"].items():
        print(f"{name}: plain {steps['plain']:.1f} ms, amortised {steps['amortised']:.1f} ms")

    with (arguments.out / f"profile{suffix}.txt").open("w") as file:
        for name in list(sets):
            with dropped_if_failing(sets, name), in_place(sets[name]):
                table, ran = benchmark.profile(("discriminator", "generator"))
                file.write(f"{name}\n{table}\n")
                check_which_ran(ran, name)
    if unfit := [name for name in medians if name not in sets]:
        raise SystemExit(f"training.json is not to be trusted: {', '.join(unfit)} failed later")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_training", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for training.json")
    parser.add_argument("--stylegan3", help="checkout of NVIDIA's stylegan3 to compare with")
    parser.add_argument("--minutes", type=float, default=3.0, help="begin no round after so many")
    parser.add_argument("--precision", choices=DTYPES, default="float32", help="as in training")
    parser.add_argument("--compile", action="store_true", help="compile the networks; our ops only")
    parser.add_argument("--self-check", action="store_true", help="tiny networks, any device")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
