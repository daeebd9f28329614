# SPDX-License-Identifier: BSD-3-Clause
"""The CUDA kernels beside device copy bandwidth, native, compiled native and NVIDIA's kernel.

``python -m benchmarks.gpu --out FOLDER [--stylegan3 CHECKOUT]`` times every StyleGAN2 layer shape
at batch 8 and writes ``gpu.jsonl`` and ``gpu.md`` into the folder. ``--merge FOLDER`` copies such
a ``gpu.md`` into RESULTS.md, on any machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from resample_layers import geometry
from resample_layers.filters import kaiser_lowpass
from resample_layers.ops import native
from resample_layers.ops import registration as reg

from .measure import table, write_section

BATCH = 8
CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
TAPS = (4, 12, 24)
LARGE = 64 << 20  # bytes of input and output from which the goals count


class Cell(NamedTuple):
    """One layer: what goes in and how it is resampled."""

    operation: str
    resolution: int  # of the larger side, input or output
    taps: int
    shape: tuple[int, int, int, int]
    up: int
    down: int
    pad: tuple[int, int]


def cells() -> Iterator[Cell]:
    """StyleGAN2 config-f's layers at every resolution."""
    for (resolution, channels), taps in itertools.product(CHANNELS.items(), TAPS):
        half = resolution // 2

        def shape(side: int, channels: int = channels) -> tuple[int, int, int, int]:
            return (BATCH, channels, side, side)

        # After a transposed 3x3 convolution of stride 2: one sample more, taps - 4 more than 4 taps
        pad = geometry.smooth_pad(taps, 2, 1, 3, True)
        yield Cell("smooth", resolution, taps, shape(resolution + 1), 1, 1, pad)
        yield Cell("up 2", resolution, taps, shape(half), 2, 1, geometry.upsample_pad(taps, 2))
        yield Cell(
            "down 2", resolution, taps, shape(resolution), 1, 2, geometry.downsample_pad(taps, 2)
        )


def milliseconds(call: Callable[[], object], rep: int) -> float:
    """Median time on the device; the cache is overwritten before each call."""
    from triton.testing import do_bench  # type: ignore[import-not-found]

    return float(do_bench(call, warmup=max(2, rep // 4), rep=rep, return_mode="median"))


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of the device's own copy of 1 GiB."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (milliseconds(lambda: target.copy_(source), 100) * 1e-3)


def nvidia(checkout: str | None) -> Any:
    """NVIDIA's op from a stylegan3 checkout, or None."""
    if checkout is None:
        return None
    sys.path.insert(0, checkout)
    from torch_utils.ops import upfirdn2d  # type: ignore[import-not-found]

    if not upfirdn2d._init():
        raise RuntimeError(f"the kernels of {checkout} do not build")
    return upfirdn2d


def measure(
    cell: Cell, dtype: torch.dtype, layout: torch.memory_format, peer: Any, rep: int
) -> Any:
    """One row: times in milliseconds of forward and backward, and the error of the forward."""
    x = torch.randn(cell.shape, device="cuda").to(dtype).contiguous(memory_format=layout)
    taps_1d = torch.tensor(kaiser_lowpass(cell.taps, 0.5, 4.0), device="cuda") * cell.up
    up, down, pad = (cell.up,) * 2, (cell.down,) * 2, (*cell.pad, *cell.pad)
    out = reg.RAW(x, taps_1d, None, up, down, pad, False)
    grad = torch.randn_like(out)
    size = (cell.taps, cell.taps)
    g_pad = geometry.adjoint_pads(x.shape[2:], out.shape[2:], up, down, pad, size)
    expected = native.resample(x[:1, :4].double(), taps_1d.double(), None, up, down, pad)
    error = (out[:1, :4].double() - expected).norm() / expected.norm()
    row = {
        "operation": cell.operation,
        "resolution": cell.resolution,
        "taps": cell.taps,
        "dtype": str(dtype).removeprefix("torch."),
        "layout": "channels_last" if layout == torch.channels_last else "contiguous",
        "bytes": x.nbytes + out.nbytes,
        "error": float(error),
        "forward": milliseconds(lambda: reg.RAW(x, taps_1d, None, up, down, pad, False), rep),
        "backward": milliseconds(lambda: reg.RAW(grad, taps_1d, None, down, up, g_pad, True), rep),
    }
    if cell.taps == 4:
        kernel = torch.outer(taps_1d, taps_1d)
        row["4x4 forward"] = milliseconds(
            lambda: reg.RAW(x, kernel, None, up, down, pad, False), rep
        )
    if peer is not None:
        filter_ = taps_1d / cell.up
        if cell.taps < 8:  # as its set-up function does
            filter_ = torch.outer(filter_, filter_)
        settings = {"up": cell.up, "down": cell.down, "padding": list(pad), "gain": cell.up**2}
        with torch.no_grad():
            theirs: Tensor = peer.upfirdn2d(x, filter_, **settings)
            error = (theirs[:1, :4].double() - expected).norm() / expected.norm()
            assert float(error) < 1e-2, "the peer computes something else"
            row["nvidia forward"] = milliseconds(
                lambda: peer.upfirdn2d(x, filter_, **settings), rep
            )
            back = {"up": cell.down, "down": cell.up, "padding": list(g_pad), "gain": cell.up**2}
            row["nvidia backward"] = milliseconds(
                lambda: peer.upfirdn2d(grad, filter_, flip_filter=True, **back), rep
            )
    return row


def native_rows(rep: int) -> list[dict[str, Any]]:
    """Native and compiled native at one large shape of each operation, float32 and float16."""
    rows = []
    for cell in cells():
        if cell.resolution != 256 or cell.taps == 24:
            continue
        for dtype in (torch.float32, torch.float16):
            x = torch.randn(cell.shape, device="cuda").to(dtype)
            taps = torch.tensor(kaiser_lowpass(cell.taps, 0.5, 4.0), device="cuda")
            rest = (None, (cell.up,) * 2, (cell.down,) * 2, (*cell.pad, *cell.pad))

            def plain(x: Tensor = x, taps: Tensor = taps, rest: Any = rest) -> Tensor:
                return native.resample(x, taps, *rest)

            compiled = torch.compile(plain)
            rows.append(
                {
                    "operation": cell.operation,
                    "taps": cell.taps,
                    "dtype": str(dtype).removeprefix("torch."),
                    "compiled kernel": milliseconds(lambda: reg.RAW(x, taps, *rest, False), rep),  # noqa: B023
                    "native": milliseconds(plain, rep),
                    "torch.compile of native": milliseconds(compiled, rep),
                }
            )
    return rows


def report(rows: list[dict[str, Any]], slow: list[dict[str, Any]], copy: float, peer: bool) -> str:
    """The section of RESULTS.md."""
    lines = []
    for row in rows:
        line = [row[k] for k in ("operation", "resolution", "taps", "dtype", "layout")]
        line.append(f"{row['bytes'] / 2**20:.0f} MB")
        for direction in ("forward", "backward", "4x4 forward"):
            time = row.get(direction)
            line.append("" if time is None else f"{row['bytes'] / time / 1e-3 / copy:.2f}")
        if peer:
            line += [f"{row[f'nvidia {d}'] / row[d]:.2f}" for d in ("forward", "backward")]
        lines.append([*map(str, line), f"{row['error']:.0e}"])
    large = [r for r in rows if r["bytes"] >= LARGE]
    summary = []
    for taps in TAPS:
        part = [r for r in large if r["taps"] == taps]
        shares = [r["bytes"] / r[d] / 1e-3 / copy for r in part for d in ("forward", "backward")]
        text = f"{taps} taps: median {statistics.median(shares):.2f}, least {min(shares):.2f}"
        if peer:
            ratios = [r[f"nvidia {d}"] / r[d] for r in part for d in ("forward", "backward")]
            text += f"; NVIDIA's time / ours: median {statistics.median(ratios):.2f}"
            text += f", least {min(ratios):.2f}"
        summary.append(text)
    header = ["op", "px", "taps", "dtype", "layout", "bytes", "forward", "backward", "4x4 fwd"]
    header += ["NVIDIA fwd", "NVIDIA bwd"] if peer else []
    name = torch.cuda.get_device_name()
    keys = ["operation", "taps", "dtype", "compiled kernel", "native", "torch.compile of native"]
    slow_table = table(
        [*keys[:3], *(f"{key} [ms]" for key in keys[3:])],
        [[str(r[k]) if k in keys[:3] else f"{r[k]:.3f}" for k in keys] for r in slow],
    )
    return f"""## CUDA kernels

{name}; torch {torch.__version__}, CUDA {torch.version.cuda}; {date.today()}. Command:
`bash benchmarks/gpu.sh`. Device copy: {copy / 1e12:.2f} TB/s, read and written. Columns *forward*,
*backward*, *4x4 fwd* (the kernel given as 4x4): bytes of input and output over the time, as a
share of the copy's bandwidth; cache overwritten before each call, medians. *NVIDIA*: stylegan3's
time over ours, in the same run. *error*: relative to float64.

Shapes of 64 MB and more. {". ".join(summary)}.

{table([*header, "error"], lines)}

At 256 pixels, contiguous, forward:

{slow_table}
"""


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for gpu.jsonl and gpu.md")
    parser.add_argument("--merge", type=Path, help="folder whose gpu.md goes into RESULTS.md")
    parser.add_argument("--stylegan3", help="checkout of NVIDIA's stylegan3 to compare with")
    parser.add_argument("--rep", type=int, default=20, help="time for each figure, in ms")
    parser.add_argument("--quick", action="store_true", help="only 64, 256 and 1024 pixels")
    arguments = parser.parse_args()
    if arguments.merge:
        write_section("gpu", (arguments.merge / "gpu.md").read_text())
        return
    peer = nvidia(arguments.stylegan3)
    copy = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}: copy {copy / 1e12:.2f} TB/s")
    rows = []
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "gpu.jsonl").open("w") as log:
        for cell, dtype, layout in itertools.product(cells(), DTYPES, LAYOUTS):
            if arguments.quick and cell.resolution not in (64, 256, 1024):
                continue
            row = measure(cell, dtype, layout, peer, arguments.rep)
            rows.append(row)
            log.write(json.dumps({**row, "copy": copy}) + "\n")
    slow = native_rows(arguments.rep)
    (arguments.out / "gpu.md").write_text(report(rows, slow, copy, peer is not None))


if __name__ == "__main__":
    main()
