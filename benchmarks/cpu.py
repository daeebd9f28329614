# SPDX-License-Identifier: BSD-3-Clause
"""Native on the CPU beside the formulations one would write without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from resample_layers import geometry
from resample_layers.ops import native

from . import formulations
from .measure import interleaved, median, peak_memory, provenance, spread, table, write_section

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


def run(quick: bool, seconds: float) -> None:
    """Time every cell and write the sections ``cpu`` and ``memory``."""
    others = formulations.available()
    rows, worst = [], {name: float("inf") for name in others}
    for shape, layout, operation, kernel_name in cells(quick):
        up, down, pads = OPERATIONS[operation]
        taps, separable = KERNELS[kernel_name]
        taps_1d = torch.tensor(taps, dtype=torch.float32)
        taps_1d /= taps_1d.sum()
        kernel = torch.outer(taps_1d, taps_1d)
        pad = pads(len(taps), max(up, down))
        x = torch.randn(shape).contiguous(memory_format=layout)
        ours = partial(
            native.resample,
            x,
            taps_1d if separable else kernel,
            None,
            (up, up),
            (down, down),
            (*pad, *pad),
        )
        out = ours()
        calls: dict[str, Callable[[], object]] = {
            "fill": lambda size=out.shape: torch.empty(size).fill_(0.0),
            "sum": lambda x=x: x.sum(),
            "native": ours,
        }
        calls |= {
            name: partial(function, x, kernel, up, down, pad)  # type: ignore[arg-type]
            for name, function in others.items()
        }
        times = interleaved(calls, seconds)
        floor = median(times["fill"]) + median(times["sum"])
        mine = median(times["native"])
        truth = exact(x, kernel, up, down, pad)
        deviations = {}
        for name in ("native", *others):
            result = calls[name]()
            assert isinstance(result, Tensor)
            part = result[:1, :2].double().numpy()
            deviations[name] = (
                abs(part - truth).max() / abs(truth).max() if part.shape == truth.shape else np.nan
            )
        for name in others:
            worst[name] = min(worst[name], median(times[name]) / mine)
        rows.append(
            [
                "x".join(map(str, shape)),
                "channels_last" if layout == torch.channels_last else "contiguous",
                operation,
                kernel_name,
                f"{1e3 * mine:.2f} ms",
                spread(times["native"]),
                f"{mine / floor:.1f}",
                f"{deviations['native']:.1e}",
                *(f"{median(times[name]) / mine:.1f} ({deviations[name]:.0e})" for name in others),
            ]
        )
        print(*rows[-1], sep=" | ", flush=True)
    header = ["shape", "layout", "op", "kernel", "native", "spread", "/ floor", "error", *others]
    write_section(
        "cpu",
        f"""## Native on the CPU, float32

{provenance()}. Command: `make bench`. Medians of rounds in which all columns take turns; spread:
20th and 80th percentile. *floor*: `torch.empty(out).fill_(0.)` plus `input.sum()`. A formulation's
column tells how many times as long as native it takes and, in brackets, its largest deviation from
the float64 definition relative to the largest output (`interpolate` computes another filter).
Smallest ratio in the table: {", ".join(f"{n} {v:.1f}" for n, v in worst.items())}.

{table(header, rows)}
""",
    )
    memory()


def memory() -> None:
    """Peak memory of native against its bound, 2 * (input + output), inputs included."""
    setup = """
from resample_layers.ops import native
x = torch.randn(4, 32, 512, 512).to(torch.{dtype}).contiguous(memory_format=torch.{layout})
taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
kernel = {kernel}
native.resample(x[:1, :1, :32, :32], kernel, None, ({up},) * 2, ({down},) * 2, {pad})
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
                        f"native.resample(x, kernel, None, ({up},) * 2, ({down},) * 2, {pad})",
                    )
                    ratio = (source + added) / (source + result)
                    megabytes = [f"{b / 2**20:.0f} MB" for b in (source, result, added - result)]
                    rows.append([dtype, layout, operation, name, *megabytes, f"{ratio:.2f}"])
                    print(*rows[-1], sep=" | ", flush=True)
    write_section(
        "memory",
        f"""## Peak memory of native

{provenance()}. Command: `make bench`. Peak resident memory of one call in a process of its own.
Bound: (input + peak) / (input + output) at most 2 for float32 and float64; for half types at
most that and 64 MB.

{table(["dtype", "layout", "op", "kernel", "input", "output", "beyond", "ratio"], rows)}
""",
    )
