# SPDX-License-Identifier: BSD-3-Clause
"""The CUDA kernels beside device copy bandwidth, native, compiled native and NVIDIA's ops.

``python -m benchmarks.gpu --out FOLDER [--stylegan3 CHECKOUT]`` writes ``gpu.jsonl``, lines as
the figures come (a row's of ours before NVIDIA's), so that a run that is cut off keeps what it
has. gpu_report.py makes tables of it. ``--parts native`` writes ``native.jsonl`` instead.
``--self-check`` runs all of it on the CPU with tiny shapes: it shows that the benchmark works,
and its times mean nothing.

How long it takes, in seconds on an H100 with NVIDIA's ops; *native* is an estimate. A figure is
timed for ``--rep`` = 20 ms after a fourth of that and 8 calls.

================  ====  =====================================================  =====
part              rows  a row                                                  s
================  ====  =====================================================  =====
copy                 1  1 figure                                               1
fused epilogue      18  9 or 12 figures, compilations of three functions       60
layers             486  2 or 4 figures, one more for 4 taps; the errors        22
NVIDIA's kernels        compiled before the first row                          52
native, compiled    48  6 figures, two compilations of 2 to 4 s; its own run   ~400
================  ====  =====================================================  =====

After ``--minutes`` no further row is begun, and those left are written down as not run; the
largest resolutions come first, and of native the smoothing. ``--quick``: 64, 256 and 1024
pixels, a third of the layers.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from resample_layers import geometry, ops
from resample_layers.filters import kaiser_lowpass
from resample_layers.ops import extension, native

OPS = torch.ops.resample_layers

BATCH = 8
CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
TAPS = (4, 12, 24)
QUICK = (64, 256, 1024)
FUSED = (256, 512, 1024)  # the largest: what the goals of the fused epilogue speak of
NATIVE, NATIVE_TAPS = (256, 1024), (4, 12)
CACHE = 256 << 20  # bytes, more than any GPU's cache
PEER_DTYPES = (torch.float32, torch.float16)  # NVIDIA's kernels know no bfloat16
GAIN, SLOPE = math.sqrt(2.0), 0.2
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}  # of relative errors


class Cell(NamedTuple):
    """One layer: what goes in and how it is resampled."""

    operation: str
    resolution: int  # of the larger side, input or output
    taps: int
    shape: tuple[int, int, int, int]
    up: int
    down: int
    pad: tuple[int, int]


class Peer(NamedTuple):
    """NVIDIA's ops, of a stylegan3 checkout."""

    upfirdn2d: Callable[..., Tensor]
    bias_act: Callable[..., Tensor]


class Timer:
    """Times calls on one device."""

    def __init__(self, device: torch.device, rep: float) -> None:
        self.device, self.rep = device, rep  # [ms] for each figure
        self.cache = torch.empty(CACHE if device.type == "cuda" else 0, dtype=torch.int8).to(device)

    def milliseconds(self, call: Callable[[], object]) -> float:
        """Median time of a call on the device; the cache is overwritten before each."""
        for _ in range(3):
            call()
        estimate = statistics.median(self._times(call, 5))
        self._times(call, self._count(estimate, self.rep / 4))
        return statistics.median(self._times(call, self._count(estimate, self.rep)))

    def _count(self, estimate: float, budget: float) -> int:
        flush = 0.2 if self.device.type == "cuda" else 0.0  # [ms]
        return max(3, min(1000, int(budget / (estimate + flush + 1e-3))))

    def _times(self, call: Callable[[], object], count: int) -> list[float]:
        if self.device.type != "cuda":
            times = []
            for _ in range(count):
                start = time.perf_counter()
                call()
                times.append(1e3 * (time.perf_counter() - start))
            return times
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        for start_event, end_event in pairs:
            self.cache.zero_()
            start_event.record()
            call()
            end_event.record()
        torch.cuda.synchronize()
        return [start_event.elapsed_time(end_event) for start_event, end_event in pairs]


def cells(channels: dict[int, int], batch: int) -> Iterator[Cell]:
    """StyleGAN2 config-f's layers, the largest resolution first."""
    for (resolution, count), taps in itertools.product(sorted(channels.items())[::-1], TAPS):

        def shape(side: int, count: int = count) -> tuple[int, int, int, int]:
            return (batch, count, side, side)

        # After a transposed 3x3 convolution of stride 2: one sample more, taps - 4 more than 4 taps
        pad = geometry.smooth_pad(taps, 2, 1, 3, True)
        yield Cell("smooth", resolution, taps, shape(resolution + 1), 1, 1, pad)
        pad = geometry.upsample_pad(taps, 2)
        yield Cell("up 2", resolution, taps, shape(resolution // 2), 2, 1, pad)
        pad = geometry.downsample_pad(taps, 2)
        yield Cell("down 2", resolution, taps, shape(resolution), 1, 2, pad)


def multiply_adds(cell: Cell, out: Tensor) -> float:
    """What a separable filter in one pass needs: the vertical sums of each column, then across."""
    n, c, height, width = out.shape
    each = cell.taps / cell.up  # taps that do not meet an inserted zero
    return n * c * height * each * (cell.shape[3] + width)


def peak_multiply_adds() -> float | None:
    """Multiply-adds a second of the GPU's float32 units: their number times the highest clock.

    None where nvidia-smi does not tell the clock.
    """
    query = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, check=True).stdout.split()
        megahertz = float(found[0])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
        print(f"NOT RUN: share of the multiply-add rate, no clock from nvidia-smi: {error}")
        return None
    return torch.cuda.get_device_properties(0).multi_processor_count * 128 * megahertz * 1e6


def load_peer(checkout: str) -> Peer:
    """NVIDIA's ops. On a GPU their kernels are compiled by the first call of each."""
    if not (Path(checkout) / "training" / "networks_stylegan2.py").exists():  # of no older one
        raise ValueError(f"{checkout} is no checkout of stylegan3")
    sys.path.insert(0, str(Path(checkout).resolve()))
    absent = "pkg_resources" not in sys.modules
    if (
        absent and importlib.util.find_spec("pkg_resources") is None
    ):  # no longer a part of setuptools
        stand_in = types.ModuleType("pkg_resources")
        stand_in.parse_version = torch.torch_version.TorchVersion  # type: ignore[attr-defined]
        sys.modules["pkg_resources"] = stand_in
    import torch.utils.cpp_extension as builder

    if not hasattr(builder.load, "registers"):
        builder.load = _registering(builder.load)
    from torch_utils.ops import bias_act, upfirdn2d  # type: ignore[import-not-found]

    return Peer(upfirdn2d.upfirdn2d, bias_act.bias_act)


def _registering(load: Callable[..., Any]) -> Callable[..., Any]:
    """``load``, whose module can then be imported by its name, as NVIDIA's code does.

    Modules of pybind11 3 are initialised in two phases, which leave nothing in sys.modules.
    """

    @functools.wraps(load)
    def call(name: str, *arguments: Any, **options: Any) -> Any:
        module = load(name, *arguments, **options)
        if isinstance(module, types.ModuleType):
            sys.modules[name] = module
        return module

    call.registers = True  # type: ignore[attr-defined]
    return call


def usable_peer(checkout: str | None, device: torch.device) -> Peer | None:
    """NVIDIA's ops once each has run on the device; where one fails, a line says why not."""
    if not checkout:
        return None
    try:
        peer = load_peer(checkout)
        x = torch.randn(2, 3, 16, 16, device=device)
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device) / 8
        resampled = peer.upfirdn2d(x, torch.outer(taps, taps), 2, 1, [2, 1, 2, 1], gain=4)
        expected = native.resample(x, taps * 2, taps * 2, (2, 2), (1, 1), (2, 1, 2, 1))
        torch.testing.assert_close(resampled, expected, rtol=1e-4, atol=1e-4)
        activated = peer.bias_act(x, x[0, :, 0, 0].clone(), act="lrelu", alpha=SLOPE, gain=GAIN)
        expected = F.leaky_relu(x + x[0, :, 0, 0, None, None], SLOPE) * GAIN
        torch.testing.assert_close(activated, expected, rtol=1e-4, atol=1e-4)
    except Exception as error:  # whatever a foreign build throws, our figures are worth having
        traceback.print_exc()
        reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
        print(f"NOT RUN: comparison with NVIDIA's kernels, {type(error).__name__}: {reason}")
        return None
    return peer


def relative_error(out: Tensor, expected: Tensor) -> float:
    """``|out - expected| / |expected|`` of the first sample's first four channels."""
    difference = out[:1, :4].double() - expected
    return float(difference.norm() / expected.norm())


def labels(cell: Cell, dtype: torch.dtype, layout: torch.memory_format) -> dict[str, Any]:
    return {
        "operation": cell.operation,
        "resolution": cell.resolution,
        "taps": cell.taps,
        "dtype": str(dtype).removeprefix("torch."),
        "layout": "channels_last" if layout == torch.channels_last else "contiguous",
    }


class Layer:
    """One row of the benchmark: its tensors, and ours and NVIDIA's calls on them."""

    def __init__(
        self, cell: Cell, dtype: torch.dtype, layout: torch.memory_format, device: torch.device
    ) -> None:
        self.cell = cell
        x = torch.randn(cell.shape, device=device).to(dtype)
        self.x = x.contiguous(memory_format=layout)
        self.taps = torch.tensor(kaiser_lowpass(cell.taps, 0.5, 4.0), device=device) * cell.up
        self.up, self.down, self.pad = (cell.up,) * 2, (cell.down,) * 2, (*cell.pad, *cell.pad)
        self.out = self.forward()
        self.grad = torch.randn_like(self.out)
        size = (cell.taps, cell.taps)
        shapes = self.x.shape[2:], self.out.shape[2:]
        self.g_pad = geometry.adjoint_pads(*shapes, self.up, self.down, self.pad, size)
        # As NVIDIA's setup_filter does: separable from 8 taps on, the gain apart
        self.filter = self.taps / cell.up
        if cell.taps < 8:
            self.filter = torch.outer(self.filter, self.filter)
        self.bytes = self.x.nbytes + self.out.nbytes

    def forward(self) -> Tensor:
        out: Tensor = OPS._upfirdn2d.default(
            self.x, self.taps, self.taps, self.up, self.down, self.pad, False
        )
        return out

    def backward(self) -> Tensor:
        out: Tensor = OPS._upfirdn2d.default(
            self.grad, self.taps, self.taps, self.down, self.up, self.g_pad, True
        )
        return out

    def expected(self) -> Tensor:
        """The first sample's first four channels in float64."""
        x = self.x[:1, :4].double()
        return native.resample(
            x, self.taps.double(), self.taps.double(), self.up, self.down, self.pad
        )

    def expected_backward(self) -> Tensor:
        """The same of the gradient."""
        grad, taps = self.grad[:1, :4].double(), self.taps.double()
        return native.resample(grad, taps, taps, self.down, self.up, self.g_pad, True)

    def peer_forward(self, peer: Peer) -> Tensor:
        up, down, gain = self.cell.up, self.cell.down, self.cell.up**2
        return peer.upfirdn2d(self.x, self.filter, up, down, list(self.pad), gain=gain)

    def peer_backward(self, peer: Peer) -> Tensor:
        up, down, gain = self.cell.down, self.cell.up, self.cell.up**2
        pad = list(self.g_pad)
        return peer.upfirdn2d(self.grad, self.filter, up, down, pad, flip_filter=True, gain=gain)


@torch.no_grad()
def measure_layer(layer: Layer, peer: Peer | None, timer: Timer) -> Iterator[dict[str, Any]]:
    """Times in milliseconds of forward and backward, and the error of the forward."""
    expected, expected_backward = layer.expected(), layer.expected_backward()
    dtype = layer.x.dtype
    row = {
        "bytes": layer.bytes,
        "multiply_adds": multiply_adds(layer.cell, layer.out),
        "error": relative_error(layer.out, expected),
        "backward error": relative_error(layer.backward(), expected_backward),
    }
    check(row["error"], dtype, "ours")
    check(row["backward error"], dtype, "our backward")
    row["forward"] = timer.milliseconds(layer.forward)
    row["backward"] = timer.milliseconds(layer.backward)
    if layer.cell.taps == 4:
        kernel = torch.outer(layer.taps, layer.taps)
        settings = (None, layer.up, layer.down, layer.pad, False)
        check(
            relative_error(OPS._upfirdn2d.default(layer.x, kernel, *settings), expected),
            dtype,
            "our 4x4",
        )
        row["4x4 forward"] = timer.milliseconds(
            lambda: OPS._upfirdn2d.default(layer.x, kernel, *settings)
        )
    yield row
    if peer is not None and dtype in PEER_DTYPES:
        check(relative_error(layer.peer_forward(peer), expected), torch.bfloat16, "NVIDIA's")
        error = relative_error(layer.peer_backward(peer), expected_backward)
        check(error, torch.bfloat16, "NVIDIA's backward")
        yield {
            "nvidia forward": timer.milliseconds(lambda: layer.peer_forward(peer)),
            "nvidia backward": timer.milliseconds(lambda: layer.peer_backward(peer)),
        }


def check(error: float, dtype: torch.dtype, whose: str) -> None:
    """A time counts only where the result is right."""
    if not error <= TOLERANCE[dtype]:
        raise RuntimeError(f"{whose} result is wrong: its relative error is {error:.1e}")


def activate(
    x: Tensor,  # [N, C, H, W]
    bias: Tensor,  # [C]
    noise: Tensor,  # [N, 1, H, W]
    strength: Tensor,  # [1]
) -> Tensor:
    """Noise, bias, leaky ReLU and gain as StyleGAN2's blocks apply them, in eager torch."""
    noise, bias = (strength * noise).to(x.dtype), bias.to(x.dtype)  # x keeps its dtype
    return F.leaky_relu(x + noise + bias[:, None, None], SLOPE) * GAIN


def measure_fused(layer: Layer, peer: Peer | None, timer: Timer) -> Iterator[dict[str, Any]]:
    """Smoothing with its epilogue in one pass, beside smoothing and then passes of their own.

    ``step`` is forward and backward, gradients of the input, bias and noise strength.
    ``activation`` is the epilogue alone, with a kernel of one tap, and its step likewise. Bias,
    noise and its strength are float32 whatever the images are, as the example passes them.
    """
    x, n = layer.x, layer.x.shape[0]
    bias = torch.randn(x.shape[1], device=x.device)
    noise = torch.randn(n, 1, *layer.out.shape[2:], device=x.device)
    strength = torch.full((1,), 0.1, device=x.device)
    torch._dynamo.reset()
    compiled = torch.compile(activate)

    def fused(x: Tensor, bias: Tensor, strength: Tensor) -> Tensor:
        return ops.upfirdn2d_bias_act(x, layer.taps, bias, noise, strength, pad=layer.cell.pad)

    def composed(activation: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, bias: Tensor, strength: Tensor) -> Tensor:
            smoothed = ops.upfirdn2d(x, layer.taps, pad=layer.cell.pad)
            return activation(smoothed, bias, noise, strength)

        return call

    def step(call: Callable[..., Tensor], x: Tensor = x) -> Callable[[], object]:
        leaves = [t.detach().requires_grad_() for t in (x, bias, strength)]
        return lambda: torch.autograd.grad(call(*leaves), leaves, layer.grad)

    calls = {
        "fused": fused,
        "smoothing, compiled": composed(compiled),
        "smoothing, eager": composed(activate),
    }
    row: dict[str, Any] = {"bytes": layer.bytes}
    with torch.no_grad():
        small = tuple(t.double() for t in (bias[:4], noise[:1], strength))
        expected = activate(layer.expected(), *small)
        for name, call in calls.items():
            out = call(x, bias, strength)
            check(relative_error(out, expected), x.dtype, name)
            row[name] = timer.milliseconds(lambda call=call: call(x, bias, strength))  # type: ignore[misc]
        one, y = torch.ones(1, device=x.device), layer.out
        row["activation"] = timer.milliseconds(
            lambda: ops.upfirdn2d_bias_act(y, one, bias, noise, strength)
        )
        row["activation, compiled"] = timer.milliseconds(lambda: compiled(y, bias, noise, strength))
        # Bias and activation alone, since NVIDIA's pass knows no noise
        act = {"act": "lrelu", "alpha": SLOPE, "gain": GAIN}
        rest = (layer.taps, bias, None, None)
        row["fused, no noise"] = timer.milliseconds(
            lambda: ops.upfirdn2d_bias_act(x, *rest, pad=layer.cell.pad)
        )
    for name, call in calls.items():
        row[f"{name} step"] = timer.milliseconds(step(call))
    alone = {
        "activation": lambda y, bias, strength: ops.bias_act(y, bias, noise, strength),
        "activation, compiled": lambda y, bias, strength: compiled(y, bias, noise, strength),
    }
    for name, call in alone.items():
        row[f"{name} step"] = timer.milliseconds(step(call, layer.out))
    yield row
    if peer is None or x.dtype not in PEER_DTYPES:
        return
    with torch.no_grad():
        own = bias.to(x.dtype)  # NVIDIA's takes no other
        expected = F.leaky_relu(layer.expected() + small[0][:, None, None], SLOPE) * GAIN
        out = peer.bias_act(layer.peer_forward(peer), own, **act)
        check(relative_error(out, expected), torch.bfloat16, "NVIDIA's")
        smoothed = {
            "smoothing, nvidia bias_act": lambda: peer.bias_act(layer.forward(), own, **act),
            "nvidia bias_act": lambda: peer.bias_act(y, own, **act),
            "nvidia": lambda: peer.bias_act(layer.peer_forward(peer), own, **act),
        }
        yield {name: timer.milliseconds(call) for name, call in smoothed.items()}


@torch.no_grad()
def measure_native(layer: Layer, timer: Timer) -> Iterator[dict[str, Any]]:
    """Forward and backward: the compiled kernel, native, and torch.compile of native."""
    forward = (layer.x, layer.taps, layer.taps, layer.up, layer.down, layer.pad, False)
    backward = (layer.grad, layer.taps, layer.taps, layer.down, layer.up, layer.g_pad, True)
    row: dict[str, Any] = {"bytes": layer.bytes}
    for direction, arguments, ours, expected in (
        ("forward", forward, layer.forward, layer.expected()),
        ("backward", backward, layer.backward, layer.expected_backward()),
    ):
        torch._dynamo.reset()
        calls = {
            "compiled kernel": ours,
            "native": functools.partial(native.resample, *arguments),
            "torch.compile of native": functools.partial(
                torch.compile(native.resample), *arguments
            ),
        }
        for name, call in calls.items():
            error = relative_error(call(), expected)
            check(error, torch.bfloat16, f"{name}'s {direction}")  # native may use TF32
            row[f"{name}, {direction}"] = timer.milliseconds(call)
    yield row


class Log:
    """gpu.jsonl: one object a line, written at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("w")

    def write(self, part: str, **values: Any) -> None:
        self.file.write(json.dumps({"part": part, **values}) + "\n")
        self.file.flush()


def copy_bandwidth(timer: Timer, bytes: int) -> float:
    """Bytes a second, read and written, of the device's own copy of ``bytes`` bytes."""
    source = torch.randn(bytes // 4, device=timer.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / (timer.milliseconds(lambda: target.copy_(source)) * 1e-3)


def provenance(timer: Timer, self_check: bool, quick: bool) -> dict[str, Any]:
    """What stands at the head of the tables; the copy bandwidth is measured here."""
    if not self_check and extension.choices["cuda"].backend != "extension":
        raise RuntimeError(f"no compiled kernels: {extension.choices['cuda'].reason}")
    return {
        "self_check": self_check,
        "quick": quick,
        "device": "none: a self-check" if self_check else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "kernels": extension.choices[timer.device.type].reason,
        "date": str(date.today()),
        "copy": copy_bandwidth(timer, 1 << (20 if self_check else 30)),
        "multiply_adds": None if self_check else peak_multiply_adds(),
    }


class Part(NamedTuple):
    """One table of the benchmark."""

    cells: list[Cell]
    dtypes: Sequence[torch.dtype]
    layouts: Sequence[torch.memory_format]
    measure: Callable[[Layer], Iterator[dict[str, Any]]]

    def rows(self) -> list[tuple[Cell, torch.dtype, torch.memory_format]]:
        return list(itertools.product(self.cells, self.dtypes, self.layouts))


def run_part(name: str, part: Part, timer: Timer, log: Log, deadline: float, minutes: float) -> int:
    """Measure row by row until the deadline; returns how many rows failed."""
    rows, begin, done, failures = part.rows(), time.monotonic(), 0, 0
    for row in rows:
        if time.monotonic() > deadline:
            break
        try:
            for figures in part.measure(Layer(*row, device=timer.device)):
                log.write(name, **labels(*row), **figures)
        except Exception as error:  # the other rows are worth having
            what = f"{type(error).__name__}: {error}"
            log.write("failed", what=name, **labels(*row), error=what)
            print(f"FAILED: {name} {labels(*row)}: {what}", flush=True)
            failures += 1
        done += 1
    print(f"{name}: {done} rows, {time.monotonic() - begin:.0f} s", flush=True)
    if done < len(rows):
        log.write("not run", what=name, rows=len(rows) - done, minutes=minutes)
        print(f"NOT RUN: {len(rows) - done} rows of {name}, {minutes:g} minutes are over")
    return failures


def run(arguments: argparse.Namespace) -> None:
    """Measure part by part until the time is up."""
    deadline = time.monotonic() + 60 * arguments.minutes
    channels, batch = CHANNELS, BATCH
    fused_at: Sequence[int] = FUSED
    native_at: Sequence[int] = NATIVE
    if arguments.self_check:  # every kind of row, in seconds on a CPU
        channels, batch, fused_at, native_at = {8: 3, 16: 4}, 2, (16,), (16,)
    elif arguments.quick:
        channels = {side: CHANNELS[side] for side in QUICK}
    log = Log(arguments.out / ("native.jsonl" if arguments.parts == ["native"] else "gpu.jsonl"))
    timer = Timer(torch.device("cpu" if arguments.self_check else "cuda"), arguments.rep)
    one = torch.ones(1, 1, 1, 1, device=timer.device)
    ops.upfirdn2d(one, one[0, 0])  # loads the kernels
    head = provenance(timer, arguments.self_check, arguments.quick)
    log.write("device", **head)
    peer = None
    if arguments.parts != ["native"]:
        peer = usable_peer(arguments.stylegan3, timer.device)
    print(f"{head['device']}: copy {head['copy'] / 1e12:.3f} TB/s", flush=True)

    layers = list(cells(channels, batch))
    smoothing = [c for c in layers if c.operation == "smooth" and c.taps == 4]
    parts = {
        "fused": Part(
            [cell for cell in smoothing if cell.resolution in fused_at],
            DTYPES,
            LAYOUTS,
            lambda layer: measure_fused(layer, peer, timer),
        ),
        "layer": Part(layers, DTYPES, LAYOUTS, lambda layer: measure_layer(layer, peer, timer)),
        "native": Part(
            sorted(  # smoothing first
                (c for c in layers if c.resolution in native_at and c.taps in NATIVE_TAPS),
                key=lambda cell: cell.operation != "smooth",
            ),
            PEER_DTYPES,
            LAYOUTS,
            lambda layer: measure_native(layer, timer),
        ),
    }
    parts = {name: part for name, part in parts.items() if name in arguments.parts}
    log.write("plan", **{name: len(part.rows()) for name, part in parts.items()})
    failures = sum(
        run_part(name, part, timer, log, deadline, arguments.minutes)
        for name, part in parts.items()
    )
    if failures:
        raise SystemExit(f"{failures} rows failed")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.jsonl")
    parser.add_argument("--stylegan3", help="checkout of NVIDIA's stylegan3 to compare with")
    parser.add_argument("--rep", type=float, default=20.0, help="time for each figure, in ms")
    parser.add_argument("--minutes", type=float, default=7.0, help="begin no row after so many")
    parser.add_argument(
        "--parts",
        type=lambda names: names.split(","),
        default=["fused", "layer"],
        help="of fused, layer, native",
    )
    parser.add_argument("--quick", action="store_true", help="64, 256 and 1024 pixels alone")
    parser.add_argument("--self-check", action="store_true", help="tiny shapes on the CPU")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - {"fused", "layer", "native"}:
        parser.error(f"no such parts: {', '.join(sorted(unknown))}")
    run(arguments)


if __name__ == "__main__":
    main()
