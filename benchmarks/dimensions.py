# SPDX-License-Identifier: BSD-3-Clause
"""Signals and volumes beside the depthwise convolutions that one would write for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from resample_layers import geometry
from resample_layers.ops import upfirdn1d, upfirdn3d

from .measure import (
    SPREAD,
    Row,
    about,
    deviation,
    digits,
    grouped,
    interleaved,
    median,
    middle_and_worst,
    table,
    timing,
    widest,
    worst,
)

SHAPES = ((8, 64, 16384), (2, 16, 32, 32, 32))
RATES = {
    "up 2": (2, 1, geometry.upsample_pad),
    "down 2": (1, 2, geometry.downsample_pad),
    "smooth": (1, 1, lambda taps, _: geometry.smooth_pad(taps, 1, 1, 1, False)),
}
CONV = {1: (F.conv1d, F.conv_transpose1d), 3: (F.conv3d, F.conv_transpose3d)}


def depthwise(
    x: Tensor, taps: Tensor, axes: list[int], up: int, down: int, pad: tuple[int, int]
) -> Tensor:
    """One strided or transposed depthwise convolution, at this rate along ``axes`` alone."""
    dims, c = x.dim() - 2, x.shape[1]
    conv, transposed = CONV[dims]
    weight = torch.ones((), dtype=x.dtype)
    for axis in axes:
        weight = weight * taps.to(x.dtype).reshape([-1 if i == axis else 1 for i in range(dims)])
    weight = weight.reshape(1, 1, *weight.shape or [1] * dims).expand(c, 1, *weight.shape)
    stride = [max(up, down) if i in axes else 1 for i in range(dims)]
    if up > 1:
        crop = len(taps) - 1 - pad[0]
        out = transposed(x, weight, stride=stride, groups=c)
        for axis in axes:
            out = out.narrow(2 + axis, crop, x.shape[2 + axis] * up)
        return out
    sides = [pad if i in axes else (0, 0) for i in reversed(range(dims))]
    wide = F.pad(x, [side for pair in sides for side in pair])
    return conv(wide, weight.flip(*range(2, 2 + dims)), stride=stride, groups=c)


def axis_by_axis(x: Tensor, taps: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    for axis in range(x.dim() - 2):
        x = depthwise(x, taps, [axis], up, down, pad)
    return x


def measure(seconds: float) -> list[Row]:
    """Time every cell."""
    rows: list[Row] = []
    for shape, dtype, length, (rate, (up, down, pads)) in itertools.product(
        SHAPES, (torch.float32, torch.bfloat16), (12, 4), RATES.items()
    ):
        dims = len(shape) - 2
        op: Callable[..., Tensor] = upfirdn1d if dims == 1 else upfirdn3d
        x, taps = torch.randn(shape).to(dtype), torch.rand(length)
        call = up, down, pads(length, max(up, down))
        calls: dict[str, Callable[[], Tensor]] = {
            "ours": lambda x=x, call=(taps, *call), op=op: op(x, *call),
            "depthwise": lambda x=x, t=taps, call=call, d=dims: depthwise(
                x, t, list(range(d)), *call
            ),
            "axis by axis": lambda x=x, call=(taps, *call): axis_by_axis(x, *call),
        }
        if dims == 1:
            del calls["axis by axis"]
        expected = calls["ours"]()
        for name, other in calls.items():
            torch.testing.assert_close(
                other(), expected, rtol=0.05, atol=0.05 * expected.abs().max().item(),
                msg=lambda text, name=name: f"{name}: {text}",
            )  # fmt: skip
        times = interleaved(calls, seconds, subject=["ours"])  # type: ignore[arg-type]
        ours = median(times["ours"])
        rows.append(
            {
                "shape": "x".join(map(str, shape)),
                "dtype": str(dtype)[6:],
                "taps": length,
                "rate": rate,
                **timing("ours [ms]", times["ours"], 1e-3, *times.values()),
                **{
                    f"{name} / ours": digits(median(times[name]) / ours) if name in times else ""
                    for name in ("depthwise", "axis by axis")
                },
                "deviation": deviation(
                    expected[:1, :2], axis_by_axis(x[:1, :2].double(), taps.double(), *call)
                ),
            }
        )
        print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


def report(rows: list[Row]) -> str:
    names = ("depthwise / ours", "axis by axis / ours")
    lines = [
        [*labels, *(middle_and_worst(alike, name, least=True) for name in names),
         worst(alike, "deviation"), widest(alike)]
        for labels, alike in grouped(rows, "shape", "dtype", "taps")
    ]  # fmt: skip
    return f"""\
`upfirdn1d` and `upfirdn3d` beside `F.pad` with a strided or a transposed depthwise convolution of
all axes, or of one axis after the other; median / least of three rates.
{about(rows, "from the convolutions in float64, relative to the largest output")}

{table(["shape", "dtype", "taps", *names, "deviation", SPREAD], lines)}
"""
