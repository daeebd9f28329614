# SPDX-License-Identifier: BSD-3-Clause
"""Ratios of the times of two builds of the CPU kernels, by turns in one process and one thread.

    python -c "import harness, pathlib; harness.build(pathlib.Path('FOLDER'))"
    python compare.py OLD NEW "bfloat16 channels_last 12 down2 2x64x96x96" ...

The first line, run in this folder of either commit, leaves `FOLDER/libcpu_kernels.so`. A call is
named by dtype, layout, taps, operation (up2, down2, down3, factor1) and the size of its input. Both
libraries write to the same output. 10th percentiles are compared, and below 1 NEW is faster; then
the ratio of medians. `BUDGET` is the seconds for each call.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

import harness
import numpy as np
import torch

BUDGET = float(os.environ.get("BUDGET", "5"))


def compare(old: ctypes.CDLL, new: ctypes.CDLL, name: str) -> str:
    dtype, layout, taps_, operation, size = name.split()
    taps, shape = int(taps_), [int(n) for n in size.split("x")]
    factor = int(operation.removeprefix("up").removeprefix("down").removeprefix("factor"))
    up, down = (factor, 1) if operation.startswith("up") else (1, factor)
    pad = taps // 2
    out_shape = [*shape[:2], *(n * up // down for n in shape[2:])]
    format_ = getattr(torch, "contiguous_format" if layout == "contiguous" else layout)
    kind = getattr(torch, dtype)
    x = torch.randn(shape).to(kind).contiguous(memory_format=format_)
    k = np.random.default_rng(0).random(taps)
    k = k if dtype == "float64" else k.astype(np.float32)
    out = torch.zeros(out_shape, dtype=kind).contiguous(memory_format=format_)
    call = harness.arguments(
        x.shape, x.stride(), out.shape, out.stride(), (taps, taps), (up, up), (down, down),
        (pad, pad), False, dtype,
    )  # fmt: skip
    at, pointers = ctypes.addressof(call), (0, k.ctypes.data, k.ctypes.data)
    times, results = ([], []), []
    end = time.perf_counter() + BUDGET
    while time.perf_counter() < end or len(times[0]) < 15:
        for library, own in zip((old, new), times, strict=True):
            begin = time.perf_counter()
            library.forward(x.data_ptr(), out.data_ptr(), *pointers, at, 1, None)
            own.append(time.perf_counter() - begin)
            if len(results) < 2:
                results.append(out.clone())
    low, middle = ([sorted(own)[len(own) * share // 100] for own in times] for share in (10, 50))
    walk = new.resample_layers_cpu_walk(at, *pointers, None).decode()
    same = "" if torch.equal(*results) else ", results differ"
    return (
        f"{name}: {low[1] / low[0]:.2f}, medians {middle[1] / middle[0]:.2f} "
        f"(before {low[0] * 1e6:.0f} us, {len(times[0])} rounds, {walk}{same})"
    )


def main() -> None:
    torch.set_num_threads(1)
    old, new = (harness.load(Path(path)) for path in sys.argv[1:3])
    print("vector units:", new.capability().decode())
    for name in sys.argv[3:]:
        print(compare(old, new, name), flush=True)


if __name__ == "__main__":
    main()
