# SPDX-License-Identifier: BSD-3-Clause
"""Filtered activations beside our three calls, plain torch, NVIDIA's and BigVGAN's kernels.

``python -m benchmarks.gpu_filtered --out FOLDER [--stylegan3 CHECKOUT] [--bigvgan CHECKOUT]``
writes ``filtered.jsonl``, a line for each figure's row as it comes. The layers are those of
StyleGAN3-T and -R at 256 and 1024 pixels, and of BigVGAN's generator of 22 kHz. Times are medians
in milliseconds, forward and backward of the first order, taken as in gpu.py.

NVIDIA's ``filtered_lrelu`` and BigVGAN's fused kernel compile themselves at their first call.
BigVGAN's has a forward alone; at the ends of a signal it is not its own torch path, so the ends
are not compared. ``--self-check`` runs all of ours on the CPU with tiny shapes.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from resample_layers import ops
from resample_layers.filters import kaiser_lowpass
from resample_layers.ops import native

from .gpu import GAIN, SLOPE, Log, Timer, check, load_peer, provenance, relative_error

DTYPES = (torch.float32, torch.float16)  # NVIDIA's kernels know no bfloat16
CLAMP = 256.0  # as StyleGAN3 has it


class Layer(NamedTuple):
    """One filtered activation."""

    name: str
    shape: tuple[int, ...]  # [N, C, H, W], or [N, C, L]
    up: int
    radial: bool  # the second filter is 2-D (configuration R)


def stylegan3_layers(batch: int) -> Iterator[Layer]:
    """Kinds of layers: of the same rate and of twice the rate, at 256 and 1024 pixels.

    Planes are 20 samples larger than the image, and the convolution before has taken off none.
    """
    for config, width in (("T", 1), ("R", 2)):
        for side, channels in ((1024, 32), (512, 64), (256, 128), (128, 256), (64, 512)):
            for up in (2, 4):
                size = side // (up // 2) + 20
                shape = (batch, channels * width, size, size)
                yield Layer(f"StyleGAN3-{config}", shape, up, config == "R")


def bigvgan_layers(batch: int) -> Iterator[Layer]:
    """The stages of the generator for one second."""
    for channels, length in ((768, 344), (384, 1376), (192, 5504), (96, 11008), (48, 22016)):
        yield Layer("BigVGAN", (batch, channels, length), 2, False)


class Tensors:
    """What a layer's calls take, and the calls."""

    def __init__(self, layer: Layer, dtype: torch.dtype, device: torch.device) -> None:
        self.layer = layer
        self.signal = len(layer.shape) == 3
        self.x = torch.randn(layer.shape, device=device).to(dtype)
        c = layer.shape[1]
        self.bias = torch.randn(c, device=device).to(dtype)
        self.alpha, self.beta = torch.rand(2, c, device=device) + 0.5
        taps = 6 * layer.up
        self.first = torch.tensor(kaiser_lowpass(taps, 1 / layer.up, 4.0), device=device)
        self.second = torch.tensor(kaiser_lowpass(12, 0.5, 4.0), device=device)
        if layer.radial:
            self.second = torch.outer(self.second, self.second)
        if self.signal:
            self.pads = (6, 5), (5, 6)
        else:  # twice the rate gives planes of the same margin; else of the same size
            self.pads = ((taps + 10) // 2, (taps + 11) // 2), (0, 0)
        self.out = self.ours(*self.leaves)
        self.grad = torch.randn_like(self.out)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """What gradients are asked for."""
        return (self.x, self.alpha, self.beta) if self.signal else (self.x, self.bias)

    def ours(self, x: Tensor, *rest: Tensor) -> Tensor:
        """One call."""
        up, (pad, down_pad) = self.layer.up, self.pads
        if self.signal:
            call = {"up": up, "down": 2, "pad": pad, "down_pad": down_pad}
            return ops.filtered_snake(
                x, *rest, self.first * up, self.second, padding_mode="replicate", **call
            )
        call = {"up": up, "down": 2, "pad": pad, "clamp": CLAMP, "negative_slope": SLOPE}
        return ops.filtered_lrelu(x, self.first * up, self.second, *rest, gain=GAIN, **call)

    def three_calls(self, x: Tensor, *rest: Tensor) -> Tensor:
        """Upsampling, the activation and downsampling, each a call of ours."""
        if self.signal:
            return self._signal(_upfirdn1d, x, *rest)
        up, pad = self.layer.up, self.pads[0]
        middle = ops.upfirdn2d(x + rest[0][:, None, None], self.first * up, up, 1, pad)
        middle = ops.bias_act(middle, None, gain=GAIN, negative_slope=SLOPE, clamp=CLAMP)
        return ops.upfirdn2d(middle, self.second, 1, 2)

    def plain(self, x: Tensor, *rest: Tensor) -> Tensor:
        """The same in plain torch."""
        if self.signal:
            return self._signal(_native1d, x, *rest)
        up, pad = self.layer.up, self.pads[0]
        taps = (self.first * up).to(x.dtype)
        middle = native.resample(
            x + rest[0][:, None, None], taps, taps, (up, up), (1, 1), (*pad, *pad)
        )
        middle = (F.leaky_relu(middle, SLOPE) * GAIN).clamp(-CLAMP, CLAMP)
        second = self.second.to(x.dtype)
        along_y = None if self.layer.radial else second
        return native.resample(middle, second, along_y, (1, 1), (2, 2), (0, 0, 0, 0))

    def _signal(self, resample: Callable[..., Tensor], x: Tensor, *rest: Tensor) -> Tensor:
        alpha, beta = (t.to(x.dtype)[:, None] for t in rest)
        middle = resample(F.pad(x, (5, 5), mode="replicate"), 2 * self.first, 2, 1, (-4, -5))
        middle = middle + torch.sin(alpha * middle) ** 2 / (beta + 1e-9)
        return resample(F.pad(middle, (5, 6), mode="replicate"), self.second, 1, 2, (0, 0))

    def expected(self) -> Tensor:
        """The first sample's first four channels in float64."""
        part = Tensors.__new__(Tensors)
        part.__dict__.update(self.__dict__)
        part.first, part.second = self.first.double(), self.second.double()
        return part.ours(self.x[:1, :4].double(), *(t[:4].double() for t in self.leaves[1:]))

    def nvidia(self, filtered_lrelu: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """NVIDIA's op, which scales the first filter itself."""

        def call(x: Tensor, bias: Tensor) -> Tensor:
            padding = list(self.pads[0]) * 2
            options = {"padding": padding, "gain": GAIN, "slope": SLOPE, "clamp": CLAMP}
            return filtered_lrelu(x, self.first, self.second, bias, self.layer.up, 2, **options)

        return call


def _upfirdn1d(x: Tensor, taps: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    factors = {"up": (up, 1), "down": (down, 1), "pad": (*pad, 0, 0)}
    return ops.upfirdn2d(x.unsqueeze(2), (taps, taps.new_ones(1)), **factors).squeeze(2)


def _native1d(x: Tensor, taps: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    taps = taps.to(x.dtype)
    call = taps, taps.new_ones(1), (up, 1), (down, 1), (*pad, 0, 0)
    return native.resample(x.unsqueeze(2), *call).squeeze(2)


def bigvgan_fused(checkout: str) -> Any:
    """The module of BigVGAN's fused kernel, which it compiles when it is imported."""
    sys.path.insert(0, str(Path(checkout).resolve()))
    module = importlib.import_module("alias_free_activation.cuda.activation1d")
    return module.FusedAntiAliasActivation


def peers(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is given by path; where one cannot be loaded, a line says why not."""
    found: dict[str, Any] = {}
    for name in ("stylegan3", "bigvgan"):
        path = getattr(arguments, name)
        if not path:
            continue
        try:
            if name == "stylegan3":
                load_peer(path)
                module = importlib.import_module("torch_utils.ops.filtered_lrelu")
                found["nvidia"] = module.filtered_lrelu
            else:
                found["bigvgan"] = bigvgan_fused(path)
        except Exception as error:  # whatever a foreign build throws, our figures are worth having
            reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
            print(f"NOT RUN: comparison with {name}, {type(error).__name__}: {reason}")
    return found


def measure(tensors: Tensors, found: dict[str, Any], timer: Timer) -> Iterator[dict[str, Any]]:
    """Times of forward, and of forward and backward, of every call that there is."""
    x, dtype = tensors.x, tensors.x.dtype
    expected = tensors.expected()
    calls = {"ours": tensors.ours, "three calls": tensors.three_calls, "plain": tensors.plain}
    if not tensors.signal and "nvidia" in found:
        calls["nvidia"] = tensors.nvidia(found["nvidia"])
    yield {"bytes": x.nbytes + tensors.out.nbytes}
    for name, call in calls.items():
        with torch.no_grad():
            # Others round in between, and torch may multiply in TF32
            check(
                relative_error(call(*tensors.leaves), expected),
                dtype if name == "ours" else torch.bfloat16,
                name,
            )
            row = {name: timer.milliseconds(lambda call=call: call(*tensors.leaves))}  # type: ignore[misc]
        leaves = [t.detach().requires_grad_() for t in tensors.leaves]

        def step(call: Callable[..., Tensor] = call, leaves: Any = leaves) -> object:
            return torch.autograd.grad(call(*leaves), leaves, tensors.grad)

        row[f"{name} step"] = timer.milliseconds(step)
        yield row
    if tensors.signal and "bigvgan" in found:
        first, second = (t.to(dtype)[None, None] for t in (tensors.first, tensors.second))
        logs = [t.log().to(dtype) for t in (tensors.alpha, tensors.beta)]  # it takes exponentials

        def fused() -> Tensor:
            out: Tensor = found["bigvgan"].apply(x, first, second, *logs)
            return out

        with torch.no_grad():
            middle = fused()[:1, :4, 8:-8].double()
            error = (middle - expected[..., 8:-8]).norm() / expected[..., 8:-8].norm()
            check(float(error), torch.bfloat16, "BigVGAN's")
            yield {"bigvgan": timer.milliseconds(fused)}


def run(arguments: argparse.Namespace) -> None:
    """Layer by layer until the time is up."""
    deadline = time.monotonic() + 60 * arguments.minutes
    timer = Timer(torch.device("cpu" if arguments.self_check else "cuda"), arguments.rep)
    log = Log(arguments.out / "filtered.jsonl")
    one = torch.ones(1, 1, 1, 1, device=timer.device)
    ops.upfirdn2d(one, one[0, 0])  # loads the kernels
    log.write("device", **provenance(timer, arguments.self_check, False))
    layers = [*bigvgan_layers(8), *stylegan3_layers(8)]
    if arguments.self_check:
        layers = [Layer("BigVGAN", (1, 4, 40), 2, False)]
        layers += [Layer("StyleGAN3", (1, 4, 9, 12), up, up == 2) for up in (2, 4)]
    found, failures, done = peers(arguments), 0, 0
    rows = [(layer, dtype) for layer in layers for dtype in DTYPES]
    for layer, dtype in rows:
        if time.monotonic() > deadline:
            break
        labels = {**layer._asdict(), "dtype": str(dtype).removeprefix("torch.")}
        try:
            for figures in measure(Tensors(layer, dtype, timer.device), found, timer):
                log.write("filtered", **labels, **figures)
        except Exception as error:  # the other rows are worth having
            log.write("failed", **labels, error=f"{type(error).__name__}: {error}")
            print(f"FAILED: {labels}: {type(error).__name__}: {error}", flush=True)
            failures += 1
        done += 1
    if done < len(rows):
        print(f"NOT RUN: {len(rows) - done} rows, {arguments.minutes:g} minutes are over")
    if failures:
        raise SystemExit(f"{failures} rows failed")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_filtered", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for filtered.jsonl")
    parser.add_argument("--stylegan3", help="checkout of NVIDIA's stylegan3 to compare with")
    parser.add_argument("--bigvgan", help="checkout of NVIDIA's BigVGAN to compare with")
    parser.add_argument("--rep", type=float, default=20.0, help="time for each figure, in ms")
    parser.add_argument("--minutes", type=float, default=7.0, help="begin no row after so many")
    parser.add_argument("--self-check", action="store_true", help="tiny shapes on the CPU")
    run(parser.parse_args(argv))


if __name__ == "__main__":
    main()
