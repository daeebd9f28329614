# SPDX-License-Identifier: BSD-3-Clause
"""The CPU kernels and native beside the formulations one would write without them."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resample_layers import geometry
from resample_layers.ops import (
    extension,
    fused_leaky_relu,
    native,
    upfirdn2d,
    upfirdn2d_bias_act,
)

from . import formulations
from .measure import (
    SPREAD,
    TURNS,
    Row,
    about,
    deviation,
    digits,
    grouped,
    interleaved,
    layout_name,
    median,
    middle_and_worst,
    numbers,
    peak_memory,
    spreads,
    table,
    timing,
    widest,
    worst,
)

OPS = torch.ops.resample_layers

SHAPES = ((8, 64, 64, 64), (2, 64, 256, 256), (8, 512, 16, 16), (1, 3, 1024, 1024))
FLOOR_SHAPES = {"0.5 MB": (2, 16, 48, 48), "4 MB and more": (4, 64, 96, 96)}
EPILOGUE_SIZES = (16, 64, 256)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
OPERATIONS = {
    "up 2": (2, 1, geometry.upsample_pad),
    "down 2": (1, 2, geometry.downsample_pad),
    "smooth": (1, 1, lambda taps, _: geometry.smooth_pad(taps, 1, 1, 1, False)),
}
KERNELS = {
    "4 taps": ((1.0, 3.0, 3.0, 1.0), True),
    "4x4": ((1.0, 3.0, 3.0, 1.0), False),
    "12 taps": (tuple(range(1, 7)) + tuple(range(6, 0, -1)), True),
}


def cells(quick: bool):  # type: ignore[no-untyped-def]
    """Every row of the table: shape, layout, operation, kernel."""
    for shape in SHAPES[:1] if quick else SHAPES:
        for layout in LAYOUTS:
            for operation in OPERATIONS:
                for kernel in KERNELS:
                    yield shape, layout, operation, kernel


def exact(x: Tensor, kernel: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    """The op in float64, a few planes of it: zero-stuffed, tap by tap, in NumPy."""
    planes, taps = x[:1, :2].double().numpy(), kernel.double().numpy()
    _, _, h, w = planes.shape
    u = np.zeros((1, planes.shape[1], h * up, w * up))
    u[:, :, ::up, ::up] = planes
    u = np.pad(u, ((0, 0), (0, 0), pad, pad))
    size = len(taps)
    out_h, out_w = u.shape[2] - size + 1, u.shape[3] - size + 1
    out = np.zeros((1, planes.shape[1], out_h, out_w))
    for i in range(size):
        for j in range(size):
            shifted = u[:, :, size - 1 - i :, size - 1 - j :]
            out += taps[i, j] * shifted[:, :, :out_h, :out_w]
    return torch.from_numpy(out[:, :, ::down, ::down])


def walk_of(
    x: Tensor, out: Tensor, kernel: Tensor, up: int, down: int, pad: tuple[int, int]
) -> str:
    """The walk of the compiled kernels that serves a call (csrc/cpu/plan.h names them)."""
    walk = ctypes.CDLL(str(extension.library_path("cpu"))).resample_layers_cpu_walk
    walk.restype = ctypes.c_char_p
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    arrays = (*x.shape, *x.stride(), *out.shape, *out.stride())
    geometry_ = (kernel.shape[0], kernel.shape[-1], up, up, down, down, pad[0], pad[0])
    call = (ctypes.c_int64 * 26)(*arrays, *geometry_, 0, dtypes.index(x.dtype))
    data = ctypes.c_void_p(kernel.data_ptr())
    taps = (None, data, data) if kernel.dim() == 1 else (data, None, None)
    name: bytes = walk(call, *taps, None)
    return name.decode()


def measure_formulations(quick: bool, seconds: float) -> list[Row]:
    """Every cell, a row for each formulation."""
    others = formulations.available()
    compiled = extension.choices["cpu"].backend == "extension"
    rows: list[Row] = []
    for shape, layout, operation, kernel_name in cells(quick):
        up, down, pads = OPERATIONS[operation]
        taps, separable = KERNELS[kernel_name]
        taps_1d = torch.tensor(taps, dtype=torch.float32)
        taps_1d /= taps_1d.sum()
        kernel = torch.outer(taps_1d, taps_1d)
        pad = pads(len(taps), max(up, down))
        x = torch.randn(shape).contiguous(memory_format=layout)
        taps = (taps_1d, taps_1d) if separable else (kernel, None)
        rest = (*taps, (up, up), (down, down), (*pad, *pad))
        out = native.resample(x, *rest)
        calls: dict[str, Callable[[], object]] = {
            "fill": lambda size=out.shape: torch.empty(size).fill_(0.0),
            "sum": lambda x=x: x.sum(),
            "native": partial(native.resample, x, *rest),
        }
        if compiled:
            calls["compiled"] = partial(OPS._upfirdn2d.default, x, *rest, False)
        calls |= {
            name: partial(function, x, kernel, up, down, pad)  # type: ignore[arg-type]
            for name, function in others.items()
        }
        ours = "compiled" if compiled else "native"
        times = interleaved(calls, seconds, subject=["fill", "sum", ours])
        floor = median(times["fill"]) + median(times["sum"])
        truth = exact(x, kernel, up, down, pad)
        for name in [n for n in ("compiled", "native", *others) if n in calls]:
            result = calls[name]()
            assert isinstance(result, Tensor)
            rows.append(
                {
                    "shape": "x".join(map(str, shape)),
                    "layout": layout_name(layout),
                    "op": operation,
                    "kernel": kernel_name,
                    "walk": walk_of(x, out, rest[0], up, down, pad) if name == "compiled" else "",
                    "formulation": name,
                    **timing("time / floor", times[name], floor),
                    "deviation": deviation(result[:1, :2], truth),
                }
            )
            print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


def report_formulations(rows: list[Row]) -> str:
    names = [name for (name,), _ in grouped(rows, "formulation")]
    lines = []
    for labels, alike in grouped(rows, "op", "kernel", "layout"):
        by_name = {name: part for (name,), part in grouped(alike, "formulation")}
        cells = [middle_and_worst(by_name.get(name, []), "time / floor") for name in names]
        compiled = by_name.get("compiled", [])
        lines.append([*labels, *cells, worst(compiled, "deviation"), widest(alike)])
    explained = (
        "of the compiled kernels from the float64 definition, relative to the largest output"
    )
    return f"""\
Medians of rounds, as multiples of the floor `torch.empty(out).fill_(0.)` plus `input.sum()`:
median / worst of {len(grouped(rows, "shape"))} shapes. {TURNS} `interpolate` computes another
filter. {about(rows, explained)}

![Time over the floor](cpu.svg)

{table(["op", "kernel", "layout", *names, "deviation", SPREAD], lines)}
"""


def plot_formulations(rows: list[Row]) -> Any:
    """Every cell as a dot, a line for each formulation."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 3.4))
    groups = grouped(rows, "formulation")
    for at, (_, alike) in enumerate(groups):
        values = numbers(alike, "time / floor")
        # Dots of equal height would hide each other: each has a place of its own, by its rank
        places = [at - 0.3 + 0.6 * i / max(1, len(values) - 1) for i in range(len(values))]
        axis.scatter(values, places, s=9)
    axis.axvline(1.0, linewidth=0.8, linestyle="--", color="0.5")
    axis.set_yticks(range(len(groups)), [name for (name,), _ in groups])
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("time / floor (reading the input and writing the output once); each dot a cell")
    return figure


def measure_floors(quick: bool, seconds: float) -> list[Row]:
    """The compiled kernels in every dtype, forward and backward, as multiples of the floor."""
    extension_only()
    rows: list[Row] = []
    for (size, shape), dtype, layout, operation, kernel_name in itertools.product(
        FLOOR_SHAPES.items(),
        (torch.float32, torch.float64, torch.bfloat16, torch.float16),
        LAYOUTS,
        OPERATIONS,
        ("4 taps", "12 taps"),
    ):
        if quick and dtype != torch.float32:
            continue
        up, down, pads = OPERATIONS[operation]
        values = KERNELS[kernel_name][0]
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        taps = torch.tensor(values, dtype=wide)
        pad = pads(len(values), max(up, down))
        x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
        call = (taps, taps, (up, up), (down, down), (*pad, *pad), False)
        out = OPS._upfirdn2d.default(x, *call)
        kernel_size = (len(values),) * 2
        g_pad = geometry.adjoint_pads(
            x.shape[2:], out.shape[2:], (up, up), (down, down), (*pad, *pad), kernel_size
        )
        adjoint = (taps, taps, (down, down), (up, up), g_pad, True)
        grad = torch.randn_like(out)
        # The floor counts bytes: float32 arrays of as many
        source, target = torch.randn(x.nbytes // 4), torch.randn(out.nbytes // 4)
        times = interleaved(
            {
                "fill out": lambda t=target: torch.empty(t.numel()).fill_(0.0),
                "sum in": lambda s=source: s.sum(),
                "fill in": lambda s=source: torch.empty(s.numel()).fill_(0.0),
                "sum out": lambda t=target: t.sum(),
                "forward": partial(OPS._upfirdn2d.default, x, *call),
                "backward": partial(OPS._upfirdn2d.default, grad, *adjoint),
            },
            seconds,
        )
        kernel = torch.outer(taps, taps)
        deviations = {
            "forward": deviation(out[:1, :2], exact(x, kernel, up, down, pad)),
            "backward": deviation(
                OPS._upfirdn2d.default(grad, *adjoint)[:1, :2],
                exact(grad, kernel.flip(0, 1), down, up, g_pad[:2]),  # equal on both axes
            ),
        }
        for direction, parts in (
            ("forward", ("fill out", "sum in")),
            ("backward", ("fill in", "sum out")),
        ):
            floor = sum(median(times[part]) for part in parts)
            rows.append(
                {
                    "size": size,
                    "dtype": str(dtype).removeprefix("torch."),
                    "layout": layout_name(layout),
                    "op": operation,
                    "kernel": kernel_name,
                    "walk": walk_of(x, out, taps, up, down, pad),
                    "direction": direction,
                    **timing("time / floor", times[direction], floor),
                    "deviation": deviations[direction],
                }
            )
            print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


FLOOR_GOALS = {("4 MB and more", "4 taps"): (1.1, 1.5)}
"""Median and worst, as multiples of the floor; at most 2 for all others."""


def report_floors(rows: list[Row]) -> str:
    lines = []
    for labels, alike in grouped(rows, "size", "kernel", "dtype"):
        by_direction = [part for _, part in grouped(alike, "direction")]
        cells = [middle_and_worst(part, "time / floor") for part in by_direction]
        lines.append([*labels, *cells, worst(alike, "deviation"), widest(alike)])
    outcomes = []
    for (size, kernel), alike in grouped(rows, "size", "kernel"):
        middle, most = FLOOR_GOALS.get((size, kernel), (2.0, 2.0))
        times = numbers(alike, "time / floor")
        outcome = "met" if median(times) <= middle and times[-1] <= most else "missed"
        measured = middle_and_worst(alike, "time / floor")
        outcomes.append(f"{size}, {kernel}: {measured}, goal {middle:g} / {most:g} {outcome}")
    return f"""\
The floor counts bytes: `fill_` of as many bytes as the output and `sum` of as many as the input, in
float32. Median / worst of both layouts and three operations. In all, {"; ".join(outcomes)}.
{about(rows, "from the float64 definition, relative to the largest output")}

{table(["size", "kernel", "dtype", "forward", "backward", "deviation", SPREAD], lines)}
"""


def extension_only() -> None:
    """Some sections are of the compiled kernels alone."""
    if extension.choices["cpu"].backend != "extension":
        raise RuntimeError(f"no compiled kernels: {extension.choices['cpu'].reason}")


def measure_epilogue(seconds: float) -> list[Row]:
    """Smoothing with its epilogue, fused and as separate operations, forward and backward."""
    extension_only()
    rows: list[Row] = []
    for size, dtype, layout in itertools.product(
        EPILOGUE_SIZES, (torch.float32, torch.bfloat16), LAYOUTS
    ):
        shape = (4, 4096 // size, size + 1, size + 1)
        x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
        taps = torch.tensor((1.0, 3.0, 3.0, 1.0)) / 4
        bias, strength = torch.randn(shape[1]), torch.tensor([0.1])
        noise = torch.randn(4, 1, size, size).to(dtype)

        def fused(
            x: Tensor = x, taps: Tensor = taps, operands: Any = (bias, noise, strength)
        ) -> Any:
            return upfirdn2d_bias_act(x, taps, *operands, pad=(1, 1))

        def separate(
            x: Tensor = x, taps: Tensor = taps, operands: Any = (bias, noise, strength)
        ) -> Any:
            bias, noise, strength = operands
            out = upfirdn2d(x, taps, pad=(1, 1)) + strength.to(x.dtype) * noise
            return fused_leaky_relu(out, bias)

        def with_gradients(
            call: Callable[..., Tensor],
            x: Tensor = x,
            operands: Any = (bias, noise, strength),
        ) -> Any:
            leaf = x.detach().requires_grad_()
            bias, noise, strength = operands
            learned = (bias.detach().requires_grad_(), noise, strength.detach().requires_grad_())
            out = call(x=leaf, operands=learned)
            return torch.autograd.grad(out, (leaf, learned[0], learned[2]), out.detach())

        times = interleaved(
            {
                "plain": lambda x=x, taps=taps: upfirdn2d(x, taps, pad=(1, 1)),
                "fused": fused,
                "separate": separate,
                "fused, gradients": partial(with_gradients, fused),
                "separate, gradients": partial(with_gradients, separate),
            },
            seconds,
        )
        middle = {name: median(values) for name, values in times.items()}
        wide = [part.double() for part in (x, taps, bias, noise, strength)]
        truth = separate(wide[0], wide[1], wide[2:])
        rows.append(
            {
                "shape": "x".join(map(str, shape)),
                "dtype": str(dtype).removeprefix("torch."),
                "layout": layout_name(layout),
                "fused / upfirdn2d alone": digits(middle["fused"] / middle["plain"]),
                "separate / fused": digits(middle["separate"] / middle["fused"]),
                "separate / fused, forward and backward": digits(
                    middle["separate, gradients"] / middle["fused, gradients"]
                ),
                "deviation": deviation(fused(), truth),
                **spreads(*times.values()),
            }
        )
        print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


def report_epilogue(rows: list[Row]) -> str:
    names = (
        "fused / upfirdn2d alone",
        "separate / fused",
        "separate / fused, forward and backward",
    )
    lines = [
        [*labels, *(middle_and_worst(alike, name, least=name != names[0]) for name in names),
         worst(alike, "deviation"), widest(alike)]
        for labels, alike in grouped(rows, "dtype", "layout")
    ]  # fmt: skip
    explained = "of the fused op from the separate ones in float64, relative to the largest output"
    return f"""\
`upfirdn2d_bias_act` (fused) beside `upfirdn2d` alone, and beside `upfirdn2d`, addition of scaled
noise and `fused_leaky_relu` (separate); 4 taps; median / worst of three shapes.
{about(rows, explained)}

{table(["dtype", "layout", *names, "deviation", SPREAD], lines)}
"""


def measure_gradient_memory() -> list[Row]:
    """Peak memory of forward plus backward against input, output, their gradients and 1 MB."""
    extension_only()
    setup = """
from resample_layers.ops import upfirdn2d
def step(x):
    out = upfirdn2d(x, taps, {up}, {down}, {pad})
    grad = torch.full_like(out, 1.0)
    return torch.autograd.grad(out, x, grad)[0]
taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
x = torch.randn(4, 32, 512, 512).to(torch.{dtype}).contiguous(memory_format=torch.{layout})
x.requires_grad_()
step(x[:1, :4, :64, :64])
"""
    rows: list[Row] = []
    for dtype, layout, (operation, (up, down, pads)) in itertools.product(
        ("float32", "float64", "bfloat16", "float16"),
        ("contiguous_format", "channels_last"),
        OPERATIONS.items(),
    ):
        pad = pads(4, max(up, down))
        added, gradient = peak_memory(
            setup.format(dtype=dtype, layout=layout, up=up, down=down, pad=pad), "step(x)"
        )
        output = gradient * up**2 // down**2
        rows.append(
            {
                "dtype": dtype,
                "layout": layout.removesuffix("_format"),
                "op": operation,
                "input [MB]": f"{gradient / 2**20:.0f}",
                "output [MB]": f"{output / 2**20:.0f}",
                "beyond [MB]": f"{(added - gradient - 2 * output) / 2**20:.2f}",
            }
        )
        print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


def report_gradient_memory(rows: list[Row]) -> str:
    return f"""\
Peak resident memory of one forward and backward pass of the compiled kernels, 4 taps, in a process
of its own, *beyond* input, output and their gradients, each counted once: at most
{numbers(rows, "beyond [MB]")[-1]:.2f} MB in {len(rows)} cells of dtype, layout and operation.
Bound: 1 MB.
"""


def measure_memory() -> list[Row]:
    """Peak memory of native against its bound, 2 * (input + output), inputs included."""
    setup = """
from resample_layers.ops import native
x = torch.randn(4, 32, 512, 512).to(torch.{dtype}).contiguous(memory_format=torch.{layout})
taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
kernel = {kernel}
kernel = (kernel, kernel if kernel.dim() == 1 else None)
native.resample(x[:1, :1, :32, :32], *kernel, ({up},) * 2, ({down},) * 2, {pad})
"""
    rows: list[Row] = []
    for (dtype, size), layout, (operation, (up, down, pads)), (name, kernel) in itertools.product(
        (("float32", 4), ("float64", 8), ("bfloat16", 2)),
        ("contiguous_format", "channels_last"),
        OPERATIONS.items(),
        (("4 taps", "taps"), ("4x4", "torch.outer(taps, taps)")),
    ):
        pad = pads(4, max(up, down)) * 2
        source = 4 * 32 * 512 * 512 * size
        added, result = peak_memory(
            setup.format(dtype=dtype, layout=layout, kernel=kernel, up=up, down=down, pad=pad),
            f"native.resample(x, *kernel, ({up},) * 2, ({down},) * 2, {pad})",
        )
        rows.append(
            {
                "dtype": dtype,
                "layout": layout.removesuffix("_format"),
                "op": operation,
                "kernel": name,
                "input [MB]": f"{source / 2**20:.0f}",
                "output [MB]": f"{result / 2**20:.0f}",
                "beyond [MB]": f"{(added - result) / 2**20:.0f}",
                "peak / (input + output)": f"{(source + added) / (source + result):.2f}",
            }
        )
        print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


def report_memory(rows: list[Row]) -> str:
    parts = "; ".join(
        f"{dtype} {numbers(alike, 'peak / (input + output)')[-1]:.2f}"
        for (dtype,), alike in grouped(rows, "dtype")
    )
    return f"""\
Peak resident memory of one call, input included, in a process of its own, as a multiple of input
and output; the worst of {len(rows)} cells of layout, operation and kernel: {parts}. Bound: 2 for
float32 and float64; for half types that and 64 MB.
"""
