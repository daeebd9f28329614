# SPDX-License-Identifier: BSD-3-Clause
"""Times of the CPU kernels as ratios to the floor, measured in the same run.

    python bench.py LIBRARY [substring of a cell's name ...]

Floor: torch.empty(out).fill_(0.) plus input.sum(), both as float32 of the same
number of bytes ("per byte": torch's own float16 sum is slower than memory).
Every measured call allocates its output, as the floor does. The samples of a
cell are interleaved with those of its floor; 3rd percentiles are compared,
since on a shared machine the medians are of its other users.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import time
from pathlib import Path

import harness
import numpy as np
import torch

# Channels and height of the smaller of both images, float32; half types take
# twice the channels, float64 half as many. Megabytes are of input and output.
SHAPES = {
    # name: (n, c, h, w) of the large side at up 2 / down 2; smoothing uses it too
    "0.5MB": (1, 26, 64, 64),
    "0.5MB32": (1, 104, 32, 32),
    "4MB": (1, 52, 128, 128),
    "5MB": (1, 64, 128, 128),
    "5MB3": (1, 4, 512, 512),
    "10MB": (4, 512, 32, 32),
    "21MB": (4, 64, 128, 128),
    "21MB1k": (1, 4, 1024, 1024),
    "84MB": (8, 128, 128, 128),
    "84MB256": (4, 64, 256, 256),
}
KERNELS = {"4": 4, "12": 12, "4x4": 4}
BUDGET = float(os.environ.get("BUDGET", "0.5"))  # seconds for a cell
SLOWEST = 9e9  # bytes per second and thread
OPS = {"up2": (2, 1), "down2": (1, 2), "smooth": (1, 1)}


def low(times: list[float]) -> float:
    """The 3rd percentile: a machine with other users only ever adds time."""
    return sorted(times)[len(times) * 3 // 100]


def strides_of(tensor: torch.Tensor) -> list[int]:
    return list(tensor.stride())


def cell(library, op, kernel, dtype, layout, shape, budget):
    """Seconds of the op and of its floor, the bytes moved, and the walk that serves it."""
    size = harness.SIZE[dtype]
    n, c, h, w = shape
    c = max(1, c * 4 // size)
    up, down = OPS[op]
    taps = KERNELS[kernel]
    if op == "up2":
        h, w = h // 2, w // 2
    out = (n, c, h * up // down, w * up // down)
    pad = {"up2": taps // 2, "down2": taps // 2 - 1, "smooth": taps // 2}[op]
    kind = getattr(torch, dtype)
    format_ = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    x = torch.randn(n, c, h, w).to(kind).contiguous(memory_format=format_)
    accumulate = np.float64 if dtype == "float64" else np.float32
    k = (
        np.random.default_rng(0)
        .random((taps, taps) if kernel == "4x4" else taps)
        .astype(accumulate)
    )
    pointers = (k.ctypes.data, 0, 0) if k.ndim == 2 else (0, k.ctypes.data, k.ctypes.data)
    y = torch.empty(out, dtype=kind, memory_format=format_)
    values = harness.arguments(
        x.shape,
        strides_of(x),
        out,
        strides_of(y),
        (taps, taps),
        (up, up),
        (down, down),
        (pad, pad),
        False,
        dtype,
    )
    where = ctypes.addressof(values)
    threads = torch.get_num_threads()
    del y

    def run():
        y = torch.empty(out, dtype=kind, memory_format=format_)
        library.forward(x.data_ptr(), y.data_ptr(), *pointers, where, threads, None)

    in_floats, out_floats = x.numel() * size // 4, int(np.prod(out)) * size // 4
    like_in = torch.zeros(in_floats)

    def fill():
        torch.empty(out_floats).fill_(0.0)

    def total():
        like_in.sum()

    samples = ([], [], [])
    for function in (run, fill, total):
        function()
    started = time.perf_counter()
    while time.perf_counter() - started < budget or len(samples[0]) < 7:
        for function, times in zip((run, fill, total), samples, strict=False):
            before = time.perf_counter()
            function()
            times.append(time.perf_counter() - before)
    op_time, fill_time, sum_time = (low(times) for times in samples)
    walk = library.resample_layers_cpu_walk(where, *pointers, None).decode()
    return op_time, fill_time + sum_time, (x.numel() + int(np.prod(out))) * size, walk


def main() -> None:
    library = harness.load(Path(sys.argv[1]))
    wanted = sys.argv[2:]
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    library.use_torch_pool(ctypes.cast(cpu.torch_parallel_for, ctypes.c_void_p))
    print("vector units:", library.capability().decode())
    ratios = {}
    for shape_name, shape in SHAPES.items():
        for kernel in KERNELS:
            for op in OPS:
                row, walks = [], []
                for dtype in ("float32", "float64", "bfloat16", "float16"):
                    for layout in ("contiguous", "channels_last"):
                        name = f"{shape_name} {kernel} {op} {dtype} {layout}"
                        if not all(part in name.split() for part in wanted):
                            continue
                        for _ in range(4):
                            taken, floor, moved, walk = cell(
                                library, op, kernel, dtype, layout, shape, BUDGET
                            )
                            # Below page-fault sizes, a floor this slow is another user's time.
                            busy = (
                                moved < 2**25 and moved / floor < SLOWEST * torch.get_num_threads()
                            )
                            if not busy:
                                break
                        row.append("  -  " if busy else f"{taken / floor:5.2f}")
                        walks.append(walk)
                        if not busy:
                            ratios[name] = taken / floor
                if row:
                    print(
                        f"{shape_name:8} {kernel:>3} {op:6}",
                        " ".join(row),
                        f"  ({moved / 2**20:.1f} MB, floor {floor * 1e6:.0f} us)",
                        *walks,
                        flush=True,
                    )
    for kernel in KERNELS:
        for small in (True, False):
            chosen = [
                r
                for name, r in ratios.items()
                if name.split()[1] == kernel and name.startswith("0.5") == small
            ]
            if chosen:
                print(
                    f"{'0.5 MB' if small else '4 MB and more'}, {kernel} taps: median "
                    f"{statistics.median(chosen):.2f}, worst {max(chosen):.2f} of {len(chosen)}"
                )


if __name__ == "__main__":
    main()
