# SPDX-License-Identifier: BSD-3-Clause
"""Builds csrc/cpu as a library without torch and calls it on NumPy arrays.

bfloat16 arrays are uint16 arrays of their bits. `reference` is the formula of
csrc/upfirdn2d.h in float64 loops; it shares nothing with the kernels.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "csrc"
LEVELS = ("baseline", "avx2", "avx512")
COUNT = int(os.environ.get("RESAMPLE_LAYERS_SWEEP", "400"))  # configurations of a sweep
SOURCES = [*sorted((CSRC / "cpu").glob("*.cpp")), HERE / "driver.cpp"]
DTYPES = ("float16", "bfloat16", "float32", "float64")
SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
# The spacing of numbers near 1, and that of the sums behind them.
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}


class Epilogue(ctypes.Structure):
    """EpilogueParams of csrc/upfirdn2d.h: pointers, and what does not point."""

    _fields_ = (
        ("bias", ctypes.c_void_p),
        ("noise", ctypes.c_void_p),
        ("noise_strength", ctypes.c_void_p),
        ("noise_stride_n", ctypes.c_int64),
        ("slope", ctypes.c_double),
        ("gain", ctypes.c_double),
        ("clamp", ctypes.c_double),
        ("scale", ctypes.c_void_p),
        ("scale_stride_n", ctypes.c_int64),
    )


class BiasActGrad(ctypes.Structure):
    """BiasActGradParams of csrc/upfirdn2d.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "grad", "output", "scaled", "result", "tap_x", "tap_y", "scale", "noise",
            "noise_strength", "bias_grad", "noise_grad", "strength_grad", "scale_grad",
        )),
        *((name, ctypes.c_int64) for name in ("n", "c", "pixels", "noise_stride_n")),
        ("noise_samples", ctypes.c_int64),
        ("channels_last", ctypes.c_bool),
        *((name, ctypes.c_double) for name in ("slope", "gain", "clamp")),
        ("dtype", ctypes.c_int32),
        ("scaled_dtype", ctypes.c_int32),
    )  # fmt: skip


def build(folder: Path, *flags: str, objects: Sequence[Path] = ()) -> Path:
    """Compiles the library into `folder`, all sources at the flags of the real build.

    `objects` are files that another build has compiled: their sources are not compiled again.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise FileNotFoundError("g++")
    folder.mkdir(parents=True, exist_ok=True)
    linked = [str(shutil.copy(path, folder)) for path in objects]
    running = []
    for source in SOURCES:
        if source.stem in {path.stem for path in objects}:
            continue
        linked.append(str(folder / f"{source.stem}.o"))
        command = [
            compiler,
            "-std=c++17",
            "-O3",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fPIC",
            "-fvisibility=default",
            *flags,
            "-c",
            str(source),
            "-o",
            linked[-1],
        ]
        running.append(subprocess.Popen(command))
    if any([process.wait() for process in running]):  # noqa: C419  # wait for all of them
        raise RuntimeError("the CPU kernels do not compile")
    library = folder / "libcpu_kernels.so"
    link = [compiler, "-shared", *flags, *linked, "-o", str(library), "-pthread"]
    subprocess.run(link, check=True)
    return library


def built_by_setup(root: Path = CSRC.parent) -> list[Path]:
    """Those objects of the kernels that setup.py has compiled, at its own flags, and that are new.

    All are of one build, with one torch: that which has most of them. An object is new where it is
    younger than its source and than every file that its source includes.
    """
    found: list[Path] = []
    for rules in root.glob("build/torch-*/upfirdn2d_cpu/build.ninja"):
        if set(re.findall(r"(?<= )-(?:O|fsanitize)\S*", rules.read_text())) != {"-O3"}:
            continue
        new = []
        for source in (root / "csrc" / "cpu").glob("*.cpp"):
            compiled = rules.parent / "csrc" / "cpu" / f"{source.stem}.o"
            if compiled.exists() and compiled.stat().st_mtime > last_change(source):
                new.append(compiled)
        found = max(found, new, key=len)
    return found


def last_change(source: Path) -> float:
    """When a source, or a file of the project that it includes, was last changed."""
    command = ["g++", "-std=c++17", "-MM", str(source)]
    rule = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    files = shlex.split(rule.partition(": ")[2].replace("\\\n", " "))
    return max(Path(file).stat().st_mtime for file in files)


def sweep(library: Path, count: int, seed: int, **environment: str) -> str:
    """Runs sweep.py in a process of its own and returns what it printed."""
    command = [sys.executable, str(HERE / "sweep.py"), str(library), str(count), str(seed)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def load(path: Path) -> ctypes.CDLL:
    """Loads a library made by `build`."""
    library = ctypes.CDLL(str(path))
    library.capability.restype = ctypes.c_char_p
    pointer, threads = ctypes.c_void_p, ctypes.c_int
    library.forward.argtypes = [pointer] * 6 + [threads, pointer]
    library.forward.restype = None
    library.kernel_grad.argtypes = [pointer] * 4 + [threads]
    library.kernel_grad.restype = None
    library.bias_act_grad.argtypes = [pointer, threads]
    library.bias_act_grad.restype = None
    library.resample_layers_cpu_walk.argtypes = [pointer] * 5
    library.resample_layers_cpu_walk.restype = ctypes.c_char_p
    library.resample_layers_cpu_walks.restype = ctypes.c_char_p
    library.use_torch_pool.argtypes = [pointer]
    library.use_torch_pool.restype = None
    return library


def arguments(
    in_shape, in_strides, out_shape, out_strides, kernel_size, up, down, pad, flip, dtype
) -> ctypes.Array:
    """The integers of one call; up, down and pad are (x, y), strides in elements."""
    values = [
        *in_shape,
        *in_strides,
        *out_shape,
        *out_strides,
        *kernel_size,
        *up,
        *down,
        *pad,
        int(flip),
        DTYPES.index(dtype),
    ]
    return (ctypes.c_int64 * len(values))(*values)


def to_bits(values: np.ndarray) -> np.ndarray:
    """float32 to bfloat16 bits, to nearest, ties to even."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)


def to_float(array: np.ndarray) -> np.ndarray:
    """Any storage array as float64; uint16 holds bfloat16 bits."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """float64 values in a storage type."""
    return to_bits(values) if dtype == "bfloat16" else values.astype(dtype)


def _read_at(x: np.ndarray, k: np.ndarray, up, down, pad, out_size):
    """For each tap in reading order: its place and the upsampled samples that meet it."""
    height, width = x.shape[2:]
    rows = np.arange(out_size[0]) * down[1] - pad[1]
    columns = np.arange(out_size[1]) * down[0] - pad[0]
    for s, t in np.ndindex(*k.shape):
        at_y, at_x = rows + s, columns + t
        there = np.ix_(
            (at_y % up[1] == 0) & (at_y >= 0) & (at_y < height * up[1]),
            (at_x % up[0] == 0) & (at_x >= 0) & (at_x < width * up[0]),
        )
        from_y = at_y[there[0].ravel()] // up[1]
        from_x = at_x[there[1].ravel()] // up[0]
        yield s, t, there, x[:, :, from_y[:, None], from_x[None, :]]


def reference(x: np.ndarray, kernel: np.ndarray, up, down, pad, out_size, flip) -> np.ndarray:
    """out[y, x] by the formula, tap by tap; up, down, pad are (x, y)."""
    k = kernel if flip else kernel[::-1, ::-1]
    out = np.zeros((*x.shape[:2], *out_size))
    for s, t, there, samples in _read_at(x, k, up, down, pad, out_size):
        out[(slice(None), slice(None), *there)] += k[s, t] * samples
    return out


def reference_separable(x: np.ndarray, taps_x, taps_y, up, down, pad, out_size, flip):
    """`reference` along y, then along x; an output that no sample reaches is 0.

    For taps that are not finite, which make another sum of the outer product.
    """
    columns = reference(
        x, taps_y[:, None], (1, up[1]), (1, down[1]), (0, pad[1]), (out_size[0], x.shape[3]), flip
    )
    out = reference(columns, taps_x[None, :], (up[0], 1), (down[0], 1), (pad[0], 0), out_size, flip)
    reached = reference(
        np.ones((1, 1, x.shape[2], 1)), np.ones((len(taps_y), 1)), (1, up[1]), (1, down[1]),
        (0, pad[1]), (out_size[0], 1), flip,
    )  # fmt: skip
    return np.where(reached > 0, out, 0.0)


def reference_epilogue(
    sums, scale, bias, noise, strength, slope, gain, clamp, largest
) -> np.ndarray:
    """The formula of EpilogueParams; scale [N, C], bias [C], noise [N or 1, H, W].

    A clamp is <= `largest`.
    """
    clamp = min(clamp, largest)
    value = scale[:, :, None, None] * sums + strength * noise[:, None] + bias[:, None, None]
    value = gain * np.where(value < 0, slope * value, value)
    return np.clip(value, -clamp, clamp) if clamp >= 0 else value


def reference_grad(x: np.ndarray, g: np.ndarray, kernel_size, up, down, pad) -> np.ndarray:
    """The kernel's gradient by its formula."""
    w = np.zeros(kernel_size)
    for s, t, there, samples in _read_at(x, w, up, down, pad, g.shape[2:]):
        w[s, t] = np.sum(g[(slice(None), slice(None), *there)] * samples)
    return w[::-1, ::-1]


def reference_loops(x: np.ndarray, kernel: np.ndarray, up, down, pad, out_size, flip):
    """`reference` by plain loops: neither padding nor an inserted zero is multiplied."""
    height, width = x.shape[2:]
    k = kernel if flip else kernel[::-1, ::-1]
    out = np.zeros((*x.shape[:2], *out_size))
    for oy, ox, s, t in np.ndindex(*out_size, *k.shape):
        row, rest_y = divmod(oy * down[1] + s - pad[1], up[1])
        column, rest_x = divmod(ox * down[0] + t - pad[0], up[0])
        if rest_y == rest_x == 0 and 0 <= row < height and 0 <= column < width:
            out[:, :, oy, ox] += k[s, t] * x[:, :, row, column]
    return out
