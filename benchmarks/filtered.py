# SPDX-License-Identifier: BSD-3-Clause
"""Filtered activations beside three calls of this package, and beside plain torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from resample_layers.ops import (
    bias_act,
    filtered_lrelu,
    filtered_snake,
    upfirdn1d,
    upfirdn2d,
)

from .measure import (
    SPREAD,
    TURNS,
    Row,
    about,
    deviation,
    digits,
    grouped,
    interleaved,
    median,
    table,
    timing,
    widest,
    worst,
)

Pads = tuple[int, int]
# Layers of StyleGAN3: shape, up, down; 6 taps for each factor.
IMAGES = (
    ((4, 512, 36, 36), 2, 2),
    ((4, 512, 52, 52), 4, 2),
    ((2, 128, 148, 148), 2, 2),
    ((1, 64, 276, 276), 4, 2),
    ((1, 32, 532, 532), 2, 2),
)
# Layers of BigVGAN, all with 12 taps, up 2, down 2.
SIGNALS = ((1, 512, 800), (1, 256, 3200), (1, 96, 25600), (1, 24, 200000))
CLAMP, SLOPE, GAIN = 256.0, 0.2, 2**0.5


def image_pad(size: int, up: int, down: int, taps_up: int, taps_down: int) -> Pads:
    """The pads of StyleGAN3 for an output of the input's size."""
    total = (size - 1) * down + 1 - size * up + taps_up + taps_down - 2
    low = (total + up) // 2
    return low, total - low


def images_in_three(
    x: Tensor, bias: Tensor, fu: Tensor, fd: Tensor, up: int, down: int, pad: Pads
) -> Tensor:
    m = upfirdn2d(x + bias.to(x.dtype)[:, None, None], fu, up=up, pad=pad)
    a = bias_act(m, None, negative_slope=SLOPE, gain=GAIN, clamp=CLAMP)
    return upfirdn2d(a, fd, down=down)


def images_in_torch(
    x: Tensor, bias: Tensor, fu: Tensor, fd: Tensor, up: int, down: int, pad: Pads
) -> Tensor:
    """Zeros inserted, then one convolution for each axis, with channels as groups."""

    def along(x: Tensor, taps: Tensor) -> Tensor:
        weight = taps.flip(0).to(x.dtype).expand(x.shape[1], 1, 1, -1)
        x = F.conv2d(x, weight, groups=x.shape[1])
        return F.conv2d(x, weight.transpose(2, 3), groups=x.shape[1])

    n, c, h, w = x.shape
    x = (x + bias.to(x.dtype)[:, None, None]).reshape(n, c, h, 1, w, 1)
    x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1)).reshape(n, c, h * up, w * up)
    m = along(F.pad(x, (*pad, *pad)), fu)
    a = (F.leaky_relu(m, SLOPE) * GAIN).clamp(-CLAMP, CLAMP)
    return along(a, fd)[:, :, ::down, ::down]


def signals_in_three(x: Tensor, alpha: Tensor, beta: Tensor, taps: Tensor) -> Tensor:
    m = upfirdn1d(F.pad(x, (5, 5), mode="replicate"), 2 * taps, up=2, pad=(-4, -5))
    a = m + torch.sin(m * alpha[:, None]) ** 2 / (beta[:, None] + 1e-9)
    return upfirdn1d(F.pad(a.to(x.dtype), (5, 6), mode="replicate"), taps, down=2)


def signals_in_torch(x: Tensor, alpha: Tensor, beta: Tensor, taps: Tensor) -> Tensor:
    """A transposed and a strided convolution, with channels as groups."""
    c = x.shape[1]
    weight = taps.to(x.dtype).expand(c, 1, -1)
    m = F.conv_transpose1d(F.pad(x, (5, 5), mode="replicate"), 2 * weight, stride=2, groups=c)
    m = m[..., 15:-15]
    alpha, beta = alpha.to(x.dtype)[:, None], beta.to(x.dtype)[:, None]
    a = m + torch.sin(m * alpha) ** 2 / (beta + 1e-9)
    return F.conv1d(F.pad(a, (5, 6), mode="replicate"), weight.flip(2), stride=2, groups=c)


def gradient(call: Callable[..., Tensor], x: Tensor, *parameters: Tensor) -> object:
    x = x.detach().requires_grad_()
    out = call(x, *parameters)
    return torch.autograd.grad(out, (x, *parameters), torch.ones_like(out))


def assert_alike(results: Any, expected: Any, dtype: torch.dtype, name: str) -> None:
    """What is timed computes the same; in 16 bits the others round between their steps."""
    part = 1e-3 if dtype == torch.float32 else 0.1
    if isinstance(results, Tensor):
        results, expected = (results,), (expected,)
    for one, other in zip(results, expected, strict=True):
        torch.testing.assert_close(
            one, other, rtol=0.0, atol=part * other.abs().max().item(),
            msg=lambda text: f"{name}: {text}",
        )  # fmt: skip


EXACT_CHANNELS = 2


def calls_of(shape: tuple[int, ...], dtype: torch.dtype, up: int, down: int) -> dict[str, Callable]:
    """Closures of one call each, by name, and of its gradient as 'name gradient'.

    The calls 'exact' are plain torch in float64, of the first channels.
    """
    x = torch.randn(shape).to(dtype)
    channels = shape[1]
    if len(shape) == 3:
        taps = torch.rand(12)
        taps = (taps + taps.flip(0)) / (2 * taps.sum())
        parameters = tuple((torch.rand(channels) + 0.5).requires_grad_() for _ in range(2))
        functions = {
            "ours": lambda x, a, b: filtered_snake(
                x, a, b, 2 * taps, taps, up=2, down=2, pad=(6, 5), down_pad=(5, 6),
                padding_mode="replicate",
            ),
            "three": partial(signals_in_three, taps=taps),
            "torch": partial(signals_in_torch, taps=taps),
        }  # fmt: skip
        exact = partial(signals_in_torch, taps=taps.double())
    else:
        fu, fd = torch.rand(6 * up), torch.rand(6 * down)
        fu, fd = up * fu / fu.sum(), fd / fd.sum()
        pad = image_pad(shape[-1], up, down, len(fu), len(fd))
        parameters = (torch.randn(channels).requires_grad_(),)
        rest = {"fu": fu, "fd": fd, "up": up, "down": down, "pad": pad}
        functions = {
            "ours": lambda x, b: filtered_lrelu(
                x, fu, fd, b, up, down, pad, SLOPE, GAIN, clamp=CLAMP
            ),
            "three": partial(images_in_three, **rest),
            "torch": partial(images_in_torch, **rest),
        }
        exact = partial(images_in_torch, **rest | {"fu": fu.double(), "fd": fd.double()})
    few = (x[:, :EXACT_CHANNELS], *(part[:EXACT_CHANNELS] for part in parameters))
    wide = [part.detach().double().requires_grad_() for part in few]
    return (
        {"exact": partial(exact, *wide), "exact gradient": partial(gradient, exact, *wide)}
        | {name: partial(call, x, *parameters) for name, call in functions.items()}
        | {
            f"{name} gradient": partial(gradient, call, x, *parameters)
            for name, call in functions.items()
        }
    )


def few_channels(result: Any) -> list[Tensor]:
    """The first channels of a result, or of the gradients of input and parameters."""
    parts = (result,) if isinstance(result, Tensor) else result
    return [p[:EXACT_CHANNELS] if p.dim() == 1 else p[:, :EXACT_CHANNELS] for p in parts]


def worst_deviation(found: list[Tensor], exact: list[Tensor]) -> str:
    """The largest of the deviations of several tensors."""
    return max((deviation(*pair) for pair in zip(found, exact, strict=True)), key=float)


def measure(seconds: float) -> list[Row]:
    """Time every cell, forward alone and with backward."""
    rows: list[Row] = []
    cells = [*((shape, 2, 2) for shape in SIGNALS), *IMAGES]
    for (shape, up, down), dtype in itertools.product(cells, (torch.float32, torch.bfloat16)):
        calls = calls_of(shape, dtype, up, down)
        for kind, suffix in (("forward", ""), ("forward and backward", " gradient")):
            chosen = {name: calls[name + suffix] for name in ("ours", "three", "torch")}
            with torch.set_grad_enabled(suffix != ""):
                expected = chosen["ours"]()
                for name, other in chosen.items():
                    assert_alike(other(), expected, dtype, name + suffix)
                times = interleaved(chosen, seconds, subject=["ours", "three"])
                exact = few_channels(calls["exact" + suffix]())
            ours = median(times["ours"])
            rows.append(
                {
                    "shape": "x".join(map(str, shape)),
                    "up, down": f"{up}, {down}",
                    "dtype": str(dtype)[6:],
                    "kind": kind,
                    **timing("ours [ms]", times["ours"], 1e-3, *times.values()),
                    "three calls / ours": digits(median(times["three"]) / ours),
                    "plain torch / ours": digits(median(times["torch"]) / ours),
                    "deviation": worst_deviation(few_channels(expected), exact),
                }
            )
            print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


def report(rows: list[Row]) -> str:
    lines = []
    for labels, alike in grouped(rows, "shape", "up, down", "dtype"):
        cells = [
            row[name]
            for row in alike
            for name in ("ours [ms]", "three calls / ours", "plain torch / ours")
        ]
        lines.append([*labels, *cells, worst(alike, "deviation"), widest(alike)])
    head = ["shape", "up, down", "dtype"]
    for kind in ("forward", "forward and backward"):
        head += [f"{kind} [ms]", "three calls / ours", "plain torch / ours"]
    explained = (
        f"from plain torch in float64, outputs and gradients of {EXACT_CHANNELS} channels, each "
        "relative to its largest value; the largest is told"
    )
    return f"""\
`filtered_snake` (12 taps, the borders of BigVGAN) and `filtered_lrelu` (6 taps for each factor,
bias and clamp of StyleGAN3) beside the same in three calls of this package (a filter, the
activation, a filter) and in plain torch (grouped convolutions); medians of rounds. {TURNS}
Backward: the gradients of input, bias, alpha and beta. {about(rows, explained)}

{table([*head, "deviation", SPREAD], lines)}
"""
