# SPDX-License-Identifier: BSD-3-Clause
"""Compile the CUDA kernels; refuse a specialised variant that spills or has a stack frame.

    python tests/cuda_host/check_resources.py [--arch sm_90 ...] [--all]

Reads the resource report of ptxas (-Xptxas -v); needs nvcc, no GPU.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

CUDA = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
# Every kind of specialised kernel once; the tests compile these, the script all
SOURCES = (
    "upfirdn2d_cuda.cu",
    "bias_act_grad.cu",
    "upfirdn2d_bfloat16.cu",
    "filtered_act_float32.cu",
)
OTHER_TYPES = (
    "upfirdn2d_float16.cu",
    "upfirdn2d_float32.cu",
    "filtered_act_float16.cu",
    "filtered_act_bfloat16.cu",
)

# As readable() names them: these may not spill
SPECIALISED = ("tile", "pointwise", "activation", "filtered")
# The filtered ones call a function where taps are not finite: around it, registers are kept
AROUND_CALLS = {"filtered": 128}  # bytes


class Resources(NamedTuple):
    """What one kernel takes, as ptxas reports it."""

    kernel: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int


def find_nvcc() -> str | None:
    """The CUDA compiler, or None."""
    home = os.environ.get("CUDA_HOME")
    for candidate in ([f"{home}/bin/nvcc"] if home else []) + [
        "/usr/local/cuda/bin/nvcc",
        shutil.which("nvcc") or "",
    ]:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    return None


def read_report(text: str, source: str) -> list[Resources]:
    """The kernels of one compile, from what ptxas printed."""
    kernels: list[Resources] = []
    name, memory = "", (0, 0, 0)
    for line in text.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)' for '(\w+)'", line):
            name = readable(match[1], source)
        elif match := re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line
        ):
            memory = (int(match[1]), int(match[2]), int(match[3]))
        elif (match := re.search(r"Used (\d+) registers", line)) and name:
            kernels.append(Resources(name, int(match[1]), *memory))
            name, memory = "", (0, 0, 0)
    return kernels


def type_of(symbol: str) -> str:
    """The dtype that stands in a mangled name."""
    types = {"f": "float32", "d": "float64"}
    return types.get(symbol, "bfloat16" if "BFloat16" in symbol else "float16")


def readable(symbol: str, source: str) -> str:
    """A short name for a mangled one."""
    dtype = source.removesuffix(".cu").rpartition("_")[2]
    if match := re.search(r"filtered_(planes|lines)(_grad)?_kernel.*?Li(\d+)E", symbol):
        return f"filtered {match[1]} up {match[3]} {dtype}{' gradient' if match[2] else ''}"
    if match := re.search(r"filtered_act_\w*kernel", symbol):
        return f"generic {symbol[match.start() :]}"
    if match := re.search(r"tile_kernelI.*?Li(\d+)E", symbol):
        fused = " fused" if "BiasAct" in symbol else ""
        return f"tile row {match[1]} {dtype}{fused}"
    if match := re.search(r"pointwise_kernelI(\w+?)Li(\d+)ELb(\d)E", symbol):
        of = type_of(match[1])
        layout = " channels_last" if match[3] == "1" else ""
        fused = " fused" if "BiasAct" in symbol else ""
        return f"pointwise vector {match[2]} {of}{layout}{fused}"
    if match := re.search(
        r"bias_act_grad_kernelI(\w+?)(f|d|S\d*_)Li(\d+)ELb(\d)ELb(\d)E\w*?ScaleOfE(\d)E", symbol
    ):
        sums = {"00": "no sums", "10": "sums along", "01": "sums across", "11": "both sums"}
        scale = ("", ", scale of a line", ", scale of an element")[int(match[6])]
        of = f"vector {match[3]} {type_of(match[1])}"
        wide = " of float32" if match[2] == "f" and match[1] != "f" else ""
        return f"activation {of} {sums[match[4] + match[5]]}{scale}{wide}"
    for kernel in (
        "bias_act_sum_kernel",
        "generic_kernel",
        "kernel_grad_partial",
        "kernel_grad_final",
    ):
        if kernel in symbol:
            return symbol[symbol.index(kernel) :]
    return symbol


def compile_one(nvcc: str, source: str, arch: str, folder: str) -> list[Resources]:
    """Compile one file for one architecture; its kernels' resources."""
    result = subprocess.run(
        [
            nvcc,
            "-std=c++17",
            "-O3",
            f"-arch={arch}",
            "-Xptxas",
            "-v",
            "-c",
            str(CUDA / source),
            "-o",
            f"{folder}/{arch}-{source}.o",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    report = result.stdout + result.stderr
    if result.returncode != 0:
        raise RuntimeError(f"nvcc failed on {source} for {arch}:\n{report[-4000:]}")
    return read_report(report, source)


def spills(kernel: Resources) -> bool:
    """Whether a specialised kernel keeps more in local memory than it may."""
    allowed = AROUND_CALLS.get(kernel.kernel.split()[0])
    if allowed is None:
        return bool(kernel.stack or kernel.spill_stores or kernel.spill_loads)
    return max(kernel.spill_stores, kernel.spill_loads) > allowed


def check(
    nvcc: str, arch: str, sources: tuple[str, ...] = SOURCES, jobs: int = 2
) -> tuple[list[Resources], list[Resources]]:
    """All kernels of the sources for one architecture, and the specialised ones that spill."""
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ThreadPoolExecutor(jobs) as pool,
    ):
        parts = pool.map(lambda source: compile_one(nvcc, source, arch, folder), sources)
        kernels = [kernel for part in parts for kernel in part]
    bad = [k for k in kernels if k.kernel.startswith(SPECIALISED) and spills(k)]
    return kernels, bad


def main() -> int:
    """Entry of the script; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="+", default=["sm_90"])
    parser.add_argument("--all", action="store_true", help="print every kernel")
    arguments = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        required = "nvcc" in os.environ.get("RESAMPLE_LAYERS_REQUIRE", "").split(",")
        print("NOT RUN: resource report, nvcc is missing")
        return 1 if required else 0
    status = 0
    for arch in arguments.arch:
        kernels, bad = check(nvcc, arch, SOURCES + OTHER_TYPES)
        for kind in SPECIALISED:
            found = [k for k in kernels if k.kernel.startswith(kind)]
            if not found:
                print(f"{arch}: no {kind} kernel in the report")
                status = 1
                continue
            most = max(k.registers for k in found)
            spills = sum(k in bad for k in found)
            print(f"{arch}: {len(found)} {kind} kernels, at most {most} registers, {spills} spill")
        for kernel in kernels if arguments.all else bad:
            print(f"{arch}: {kernel}")
        status |= bool(bad)
    return status


if __name__ == "__main__":
    sys.exit(main())
