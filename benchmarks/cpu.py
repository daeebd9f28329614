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
    command,
    interleaved,
    median,
    peak_memory,
    provenance,
    spread,
    table,
    write_section,
)

OPS = torch.ops.resample_layers

SHAPES = ((8, 64, 64, 64), (2, 64, 256, 256), (8, 512, 16, 16), (1, 3, 1024, 1024))
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


def exact(x: Tensor, kernel: Tensor, up: int, down: int, pad: tuple[int, int]) -> np.ndarray:
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
    return out[:, :, ::down, ::down]


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


def formulations_side_by_side(quick: bool, seconds: float) -> None:
    """Time every cell and write the section ``cpu``."""
    others = formulations.available()
    compiled = extension.choices["cpu"].backend == "extension"
    rows: list[list[str]] = []
    ratios: dict[str, list[float]] = {}
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
        times = interleaved(calls, seconds)
        floor = median(times["fill"]) + median(times["sum"])
        truth = exact(x, kernel, up, down, pad)
        row = [
            "x".join(map(str, shape)),
            "channels_last" if layout == torch.channels_last else "contiguous",
            operation,
            kernel_name,
        ]
        if compiled:
            row.append(walk_of(x, out, rest[0], up, down, pad))
        for name in [n for n in ("compiled", "native", *others) if n in calls]:
            result = calls[name]()
            assert isinstance(result, Tensor)
            part = result[:1, :2].double().numpy()
            same = part.shape == truth.shape
            error = abs(part - truth).max() / abs(truth).max() if same else np.nan
            ratio = median(times[name]) / floor
            row.append(f"{ratio:.1f} ({spread(times[name])}; {error:.0e})")
            if shape[1] == 64:
                ratios.setdefault(name, []).append(ratio)
        rows.append(row)
        print(*row, sep=" | ", flush=True)
    against = [
        f"{name} / native at 64 channels: "
        f"{min(a / b for a, b in zip(ratios[name], ratios['native'], strict=True)):.1f} and more"
        for name in ("zero-stuffing", "diffusers")
        if name in ratios
    ]
    names = [*(["walk", "compiled"] if compiled else []), "native", *others]
    write_section(
        "cpu",
        f"""## On the CPU, float32, forward

{provenance()}. Command: `{command()}`. Medians of rounds in which all columns take turns, as
multiples of the floor `torch.empty(out).fill_(0.)` plus `input.sum()`; in brackets the spread (20th
and 80th percentile) and the largest deviation from the float64 definition, relative to the largest
output (`interpolate` computes another filter). `walk` names the way through memory that the
compiled kernels take (`csrc/cpu/plan.h`). {"; ".join(against)}.

{table(["shape", "layout", "op", "kernel", *names], rows)}
""",
    )


def floors(quick: bool, seconds: float) -> None:
    """The compiled kernels in every dtype, forward and backward, as multiples of the floor."""
    extension_only()
    sizes = {"0.5 MB": (2, 16, 48, 48), "4 MB and more": (4, 64, 96, 96)}
    rows: list[list[str]] = []
    found: dict[str, list[float]] = {}
    for (size, shape), dtype, layout, operation, kernel_name in itertools.product(
        sizes.items(),
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
        pad = (*pads(len(values), max(up, down)),) * 2
        x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
        out = OPS._upfirdn2d.default(x, taps, taps, (up, up), (down, down), pad, False)
        kernel_size = (len(values),) * 2
        g_pad = geometry.adjoint_pads(
            x.shape[2:], out.shape[2:], (up, up), (down, down), pad, kernel_size
        )
        # The floor counts bytes: float32 arrays of as many
        source, target = torch.randn(x.nbytes // 4), torch.randn(out.nbytes // 4)
        times = interleaved(
            {
                "fill out": lambda t=target: torch.empty(t.numel()).fill_(0.0),
                "sum in": lambda s=source: s.sum(),
                "fill in": lambda s=source: torch.empty(s.numel()).fill_(0.0),
                "sum out": lambda t=target: t.sum(),
                "forward": partial(
                    OPS._upfirdn2d.default, x, taps, taps, (up, up), (down, down), pad, False
                ),
                "backward": partial(
                    OPS._upfirdn2d.default,
                    torch.randn_like(out),
                    taps,
                    None,
                    (down, down),
                    (up, up),
                    g_pad,
                    True,
                ),
            },
            seconds,
        )
        row = [size, str(dtype).removeprefix("torch.")]
        row += ["channels_last" if layout == torch.channels_last else "contiguous"]
        row += [operation, kernel_name, walk_of(x, out, taps, up, down, pad)]
        for direction, parts in (
            ("forward", ("fill out", "sum in")),
            ("backward", ("fill in", "sum out")),
        ):
            ratio = median(times[direction]) / sum(median(times[part]) for part in parts)
            row.append(f"{ratio:.2f} ({spread(times[direction])})")
            found.setdefault(f"{size}, {kernel_name}", []).append(ratio)
        rows.append(row)
        print(*row, sep=" | ", flush=True)
    summary = "; ".join(
        f"{name}: median {median(sorted(r)):.2f}, worst {max(r):.2f}" for name, r in found.items()
    )
    write_section(
        "floor",
        f"""## Compiled CPU kernels as multiples of the floor

{provenance()}. Command: `{command()}`. The floor counts bytes: `fill_` of as many bytes as the
output and `sum` of as many as the input, in float32. {summary}.
Goals: at 4 MB and more the
median cell of 4 taps at most 1.1, the worst 1.5, 12 taps at most 2; at 0.5 MB at most 2.

{table(["size", "dtype", "layout", "op", "kernel", "walk", "forward", "backward"], rows)}
""",
    )


def extension_only() -> None:
    """Some sections are of the compiled kernels alone."""
    if extension.choices["cpu"].backend != "extension":
        raise RuntimeError(f"no compiled kernels: {extension.choices['cpu'].reason}")


def epilogue(seconds: float) -> None:
    """Smoothing with its epilogue, fused and as separate operations, forward and backward."""
    extension_only()
    rows = []
    for size, dtype, layout in itertools.product(
        (16, 64, 256), (torch.float32, torch.bfloat16), LAYOUTS
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
        rows.append(
            [
                "x".join(map(str, shape)),
                str(dtype).removeprefix("torch."),
                "channels_last" if layout == torch.channels_last else "contiguous",
                f"{middle['fused'] / middle['plain']:.2f}",
                f"{middle['separate'] / middle['fused']:.2f}",
                f"{middle['separate, gradients'] / middle['fused, gradients']:.2f}",
            ]
        )
        print(*rows[-1], sep=" | ", flush=True)
    write_section(
        "epilogue",
        f"""## Smoothing with noise, bias, leaky ReLU and gain

{provenance()}. Command: `{command()}`. `upfirdn2d_bias_act` (fused) beside `upfirdn2d` alone, and
beside `upfirdn2d`, addition of scaled noise and `fused_leaky_relu` (separate); 4 taps, medians.

{
            table(
                [
                    "shape",
                    "dtype",
                    "layout",
                    "fused / upfirdn2d alone",
                    "separate / fused",
                    "the same, forward and backward",
                ],
                rows,
            )
        }
""",
    )


def gradient_memory() -> None:
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
    rows = []
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
        beyond = (added - gradient - 2 * output) / 2**20
        sizes = [f"{b / 2**20:.0f} MB" for b in (gradient, output)]
        rows.append([dtype, layout, operation, *sizes, f"{beyond:.2f} MB"])
        print(*rows[-1], sep=" | ", flush=True)
    write_section(
        "memory-gradient",
        f"""## Peak memory of forward plus backward

{provenance()}. Command: `{command()}`. Peak resident memory of one forward and backward pass of the
compiled kernels, 4 taps, in a process of its own; *beyond* input, output and their gradients, each
counted once. Bound: 1 MB.

{table(["dtype", "layout", "op", "input", "output", "beyond"], rows)}
""",
    )


def memory() -> None:
    """Peak memory of native against its bound, 2 * (input + output), inputs included."""
    setup = """
from resample_layers.ops import native
x = torch.randn(4, 32, 512, 512).to(torch.{dtype}).contiguous(memory_format=torch.{layout})
taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
kernel = {kernel}
kernel = (kernel, kernel if kernel.dim() == 1 else None)
native.resample(x[:1, :1, :32, :32], *kernel, ({up},) * 2, ({down},) * 2, {pad})
"""
    rows = []
    for dtype, size in (("float32", 4), ("float64", 8), ("bfloat16", 2)):
        for layout in ("contiguous_format", "channels_last"):
            for operation, (up, down, pads) in OPERATIONS.items():
                for name, kernel in (("4 taps", "taps"), ("4x4", "torch.outer(taps, taps)")):
                    pad = pads(4, max(up, down)) * 2
                    source = 4 * 32 * 512 * 512 * size
                    added, result = peak_memory(
                        setup.format(
                            dtype=dtype, layout=layout, kernel=kernel, up=up, down=down, pad=pad
                        ),
                        f"native.resample(x, *kernel, ({up},) * 2, ({down},) * 2, {pad})",
                    )
                    ratio = (source + added) / (source + result)
                    megabytes = [f"{b / 2**20:.0f} MB" for b in (source, result, added - result)]
                    rows.append([dtype, layout, operation, name, *megabytes, f"{ratio:.2f}"])
                    print(*rows[-1], sep=" | ", flush=True)
    write_section(
        "memory",
        f"""## Peak memory of native

{provenance()}. Command: `{command()}`. Peak resident memory of one call in a process of its own.
Bound: (input + peak) / (input + output) at most 2 for float32 and float64; for half types at
most that and 64 MB.

{table(["dtype", "layout", "op", "kernel", "input", "output", "beyond", "ratio"], rows)}
""",
    )
