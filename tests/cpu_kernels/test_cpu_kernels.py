# SPDX-License-Identifier: BSD-3-Clause
"""The CPU kernels by themselves, without torch: csrc/cpu compiled with g++.

Every vector unit of this processor, the plain code of other processors, and a
build under ThreadSanitizer run the same random sweep (sweep.py). The sweep
under AddressSanitizer and UBSan stands in ../test_build.py, which compiles the
whole library with these. A few named cases hold what a sweep would not meet by
chance.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import harness
import numpy as np
import pytest
from harness import COUNT, LEVELS, sweep

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="NOT RUN: CPU kernels, g++ is not installed"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The library at the flags of the real build; compiled only where that has not done it."""
    return harness.build(tmp_path_factory.mktemp("release"), objects=harness.built_by_setup())


def test_only_what_changed_is_compiled_again(tmp_path):
    sources = tmp_path / "csrc" / "cpu"
    objects = tmp_path / "build" / "torch-2.11" / "upfirdn2d_cpu" / "csrc" / "cpu"
    for folder in (sources, objects):
        folder.mkdir(parents=True)
    (sources / "both.h").touch()
    (sources / "one.h").write_text('#include "both.h"\n')
    (sources / "first.cpp").write_text('#include "one.h"\n#include <cstdint>\n')
    (sources / "second.cpp").write_text('#include "both.h"\n')
    rules = objects.parent.parent / "build.ninja"
    rules.write_text("flags = -fPIC -O3\n")
    first, second = objects / "first.o", objects / "second.o"
    first.touch()
    second.touch()

    def found_after(changed: Path | None) -> set[Path]:
        for path in tmp_path.rglob("*"):
            os.utime(path, (1000, 2000 if path.suffix == ".o" else 1000))
        if changed:
            os.utime(changed, (3000, 3000))
        return set(harness.built_by_setup(tmp_path))

    assert found_after(None) == {first, second}
    assert found_after(sources / "one.h") == {second}
    assert found_after(sources / "second.cpp") == {first}
    assert found_after(sources / "both.h") == set()
    second.unlink()
    assert found_after(None) == {first}
    rules.write_text("flags = -fPIC -O3 -fsanitize=address\n")
    assert found_after(None) == set()


def test_no_warnings():
    """Of those that the compiler gives before it optimises."""
    command = ["g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    for flags in ([], ["-DRESAMPLE_LAYERS_CPU_PLAIN"]):
        subprocess.run([*command, *flags, *map(str, harness.SOURCES)], check=True)


@pytest.fixture(scope="module")
def library(built):
    return harness.load(built)


@pytest.mark.parametrize("level", LEVELS)
def test_sweep(built, level):
    said = sweep(built, COUNT, 1, RESAMPLE_LAYERS_CPU=level)
    if said.startswith("error: "):
        pytest.skip(f"NOT RUN: sweep on {level}, this processor lacks it")
    assert said.startswith(f"{level}: {COUNT} of {COUNT}")
    # Every walk is reached; the sliding one needs more registers than the baseline has
    unreached = re.findall(r"walk (\S+): 0$", said, re.MULTILINE)
    assert unreached == (["sliding"] if level == "baseline" else [])


@pytest.mark.parametrize(
    ("walk", "dtype", "layout", "channels", "taps", "up", "down", "fused"),
    [
        ("single", "float32", "contiguous", 8, 4, 5000, 1, False),
        ("planar", "float32", "contiguous", 8, "4x4", 2, 1, False),
        ("planar", "bfloat16", "channels_last", 64, "4x4", 1, 1, True),
        ("sliding", "float16", "channels_last", 64, 4, 1, 2, False),
        ("sliding", "bfloat16", "channels_last", 64, 4, 1, 1, True),
        ("stream", "bfloat16", "channels_last", 3, 8, 1, 1, False),
        ("stream", "float16", "contiguous", 8, 4, 1, 1, False),
        ("stream", "bfloat16", "contiguous", 8, 4, 2, 1, False),
        ("rows-direct", "float32", "contiguous", 8, 12, 2, 1, False),
        ("rows-direct", "float64", "channels_last", 3, 4, 1, 2, True),
        ("rows", "bfloat16", "contiguous", 8, 4, 1, 1, True),
        ("rows", "float16", "channels_last", 3, 4, 1, 2, False),
        ("rows", "float16", "contiguous", 8, 12, 1, 2, False),
        ("rows", "bfloat16", "channels_last", 64, 12, 2, 1, False),
    ],
)
def test_the_walk_of_a_call(library, walk, dtype, layout, channels, taps, up, down, fused):
    if walk == "sliding" and library.capability() == b"baseline":
        pytest.skip("NOT RUN: the sliding walk, this processor has 16-byte vectors only")
    size, out = 32, 32 * up // down
    shapes = [(2, channels, side, side) for side in (size, out)]
    arrays = []
    for n, c, h, w in shapes:
        last = (c * h * w, 1, w * c, c)
        arrays += [(n, c, h, w), last if layout == "channels_last" else (c * h * w, h * w, w, 1)]
    count = 4 if taps == "4x4" else taps
    values = harness.arguments(
        *arrays, (count, count), (up, up), (down, down), (count // 2,) * 2, False, dtype
    )
    k = np.random.default_rng(0).random((count, count) if taps == "4x4" else count)
    k = k.astype("float64" if dtype == "float64" else "float32")
    pointers = (k.ctypes.data, 0, 0) if k.ndim == 2 else (0, k.ctypes.data, k.ctypes.data)
    epilogue = harness.Epilogue(None, None, None, 0, 0.2, 1.0, -1.0)
    where = ctypes.addressof(epilogue) if fused else None
    assert library.resample_layers_cpu_walk(values, *pointers, where).decode() == walk


def test_tiles_of_signals_lie_in_their_rows(built, tmp_path):
    """Of any padding and crop: what the kernels touch, and how large scratch is; see the source."""
    names = {path.stem: path for path in built.parent.glob("*.o")}
    # The source includes filtered_act_signals.cpp, to see its tiles
    objects = [
        path for name, path in names.items() if name not in ("driver", "filtered_act_signals")
    ]
    program = tmp_path / "signal_tiles"
    flags = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-pthread"]
    source = harness.HERE / "signal_tiles.cpp"
    subprocess.run(["g++", *flags, source, *objects, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(r"\d{5,} tiles, 0 failures\n", done.stdout)


def test_sweep_under_the_thread_sanitizer(built, tmp_path):
    """Threads of one call share their tiles, their scratch memory and their sums as they should."""
    asked = subprocess.run(["g++", "-print-file-name=libtsan.so"], capture_output=True, text=True)
    runtime = asked.stdout.strip()
    if not os.path.isabs(runtime):
        pytest.skip("NOT RUN: CPU kernels under the thread sanitizer, libtsan.so is not installed")
    # The sweep takes the best vector units, so the other ones are not compiled again
    best = harness.load(built).capability().decode()
    others = [built.parent / f"kernels_{level}.o" for level in LEVELS if level != best]
    flags = ["-O0", "-g1", "-fsanitize=thread"]
    library = harness.build(tmp_path, *flags, objects=others)
    options = {"LD_PRELOAD": runtime, "TSAN_OPTIONS": "halt_on_error=1:exitcode=66"}
    # Numpy's own threads are none of ours
    said = sweep(library, max(50, COUNT // 5), 4, **options, OPENBLAS_NUM_THREADS="1")
    assert re.match(rf"{best}: (\d+) of \1 ", said)
    # A library whose threads write to one place is seen to do so
    source = tmp_path / "race.cpp"
    source.write_text(RACE)
    flags += ["-fPIC", "-shared", "-pthread"]
    subprocess.run(["g++", *flags, str(source), "-o", str(tmp_path / "race.so")], check=True)
    code = f"import ctypes; ctypes.CDLL({str(tmp_path / 'race.so')!r}).race()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **options}, capture_output=True, text=True
    )
    assert done.returncode == 66
    assert "WARNING: ThreadSanitizer: data race" in done.stderr


RACE = """
#include <thread>
int shared = 0;
extern "C" void race() {
  std::thread first([] { ++shared; }), second([] { ++shared; });
  first.join();
  second.join();
}
"""


def test_plain_code_of_other_processors(tmp_path):
    """At -O1, which compiles in half of the time that -O3 takes."""
    flags = ["-DRESAMPLE_LAYERS_CPU_PLAIN", "-O1"]
    assert sweep(harness.build(tmp_path, *flags), 100, 3).startswith("baseline: 100 of")


def test_unknown_vector_units_are_an_error(built):
    assert sweep(built, 1, 0, RESAMPLE_LAYERS_CPU="avx1024").startswith(
        "error: RESAMPLE_LAYERS_CPU=avx1024 is not one of the vector units of this processor: base"
    )


def test_no_wide_code_leaks(built):
    """Nothing compiled for wide vectors has a name that a narrow processor could reach."""
    if shutil.which("objdump") is None:
        pytest.skip("NOT RUN: leak of wide code, objdump is not installed")
    for name in ("kernels_baseline", "upfirdn2d_cpu", "choose", "driver"):
        code = subprocess.run(
            ["objdump", "-d", str(built.parent / f"{name}.o")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert not re.search(r"%[yz]mm", code), name
    for name in ("kernels_avx2", "kernels_avx512"):
        symbols = subprocess.run(
            ["nm", "-C", str(built.parent / f"{name}.o")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert not re.search(r" [WVu] ", symbols), symbols


def call(library, x, kernel, up, down, pad, out_size, separable=None, threads=1, epilogue=None):
    """The op on a contiguous float32 array; up, down and pad are (x, y)."""
    x = np.ascontiguousarray(x, np.float32)
    out = np.full((*x.shape[:2], *out_size), np.nan, np.float32)
    strides = [[stride // 4 for stride in array.strides] for array in (x, out)]
    k = np.ascontiguousarray(kernel, np.float32)
    taps = [np.ascontiguousarray(t, np.float32) for t in separable or ()]
    pointers = (0, *(t.ctypes.data for t in taps)) if taps else (k.ctypes.data, 0, 0)
    values = harness.arguments(
        x.shape, strides[0], out.shape, strides[1], k.shape, up, down, pad, False, "float32"
    )
    library.forward(x.ctypes.data, out.ctypes.data, *pointers, values, threads, epilogue)
    return out


def test_the_references_agree():
    rng = np.random.default_rng(0)
    x, k = rng.standard_normal((2, 2, 5, 6)), rng.standard_normal((3, 4))
    arguments = ((2, 3), (3, 1), (2, -1), (7, 5), True)
    np.testing.assert_allclose(
        harness.reference(x, k, *arguments),
        harness.reference_loops(x, k, *arguments),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_non_finite_taps_and_samples_propagate(library, up, down):
    """A zero tap is multiplied with an infinite sample; an infinite tap not with padding."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 2, 9, 40))
    x[0, 0, 4, 7], x[0, 1, 2, 3] = np.inf, np.nan
    kernel = rng.standard_normal((4, 4))
    kernel[1, 2], kernel[3, 0] = 0.0, np.inf
    size = (9 * up // down, 40 * up // down)
    rates = ((up, up), (down, down), (2, 2), size)
    with np.errstate(invalid="ignore"):
        wanted = harness.reference_loops(x, kernel, *rates, False)
    got = call(library, x, kernel, *rates)
    assert (np.isnan(got) == np.isnan(wanted)).all()
    finite = np.isfinite(wanted)
    np.testing.assert_allclose(got[finite], wanted[finite], rtol=1e-4, atol=1e-4)
    assert (got[np.isinf(wanted)] == wanted[np.isinf(wanted)]).all()

    # Separable, finite taps with a zero: columns first, then rows, as two exact passes.
    taps = np.array([1.0, 0.0, 3.0, 1.0])
    with np.errstate(invalid="ignore"):
        wanted = harness.reference_loops(x, np.outer(taps, taps), *rates, False)
    got = call(library, x, np.outer(taps, taps), *rates, separable=(taps, taps))
    assert (np.isnan(got) == np.isnan(wanted)).all()
    np.testing.assert_allclose(got[~np.isnan(wanted)], wanted[~np.isnan(wanted)], rtol=1e-4)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_a_nan_pixel_reaches_the_outputs_whose_window_covers_it(
    library, up, down, separable, layout
):
    """Those through zero taps included, in every dtype; and no others."""
    taps = np.array([1.0, 0.0, 3.0, 1.0])
    channels, h, w = 64, 9, 11
    rates = ((up, up), (down, down), (2, 2), (h * up // down, w * up // down))
    pixel = np.zeros((1, channels, h, w))
    pixel[0, 5, 4, 7] = 1
    covered = harness.reference(pixel, np.ones((4, 4)), *rates, False) > 0
    for dtype in harness.DTYPES:
        x = harness.stored(np.where(pixel > 0, np.nan, 1.0), dtype)
        out = np.zeros((1, channels, *rates[3]), x.dtype)
        if layout == "channels_last":
            x, out = (
                np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
                for a in (x, out)
            )
        k = taps.astype("float64" if dtype == "float64" else "float32")
        kernel = np.outer(k, k)
        pointers = (0, k.ctypes.data, k.ctypes.data) if separable else (kernel.ctypes.data, 0, 0)
        strides = [[stride // a.itemsize for stride in a.strides] for a in (x, out)]
        values = harness.arguments(
            x.shape, strides[0], out.shape, strides[1], (4, 4), *rates[:3], False, dtype
        )
        library.forward(x.ctypes.data, out.ctypes.data, *pointers, values, 1, None)
        assert (np.isnan(harness.to_float(out)) == covered).all(), dtype


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5)])
def test_empty(library, shape):
    out = call(library, np.zeros(shape), np.ones((2, 2)), (2, 2), (1, 1), (1, 1), (8, 10))
    assert out.shape == (*shape[:2], 8, 10)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_outer_product_is_found_to_the_rounding_of_its_taps(library, dtype, flip):
    """Within 4 spacings of each tap, which moves no sum by more than that of |tap * sample|."""
    rng = np.random.default_rng(6)
    spacing = np.finfo(dtype).eps
    taps_x, taps_y = rng.uniform(0.5, 1, 6), rng.uniform(0.5, 1, 5) * [1, -1, 0, 1, 1]
    exact = np.outer(taps_y, taps_x)
    x = rng.standard_normal((1, 2, 12, 40)).astype(dtype)
    size = (12, 41)

    def run(kernel):
        kernel = np.ascontiguousarray(kernel, dtype)
        out = np.full((1, 2, *size), np.nan, dtype)
        strides = [[stride // a.itemsize for stride in a.strides] for a in (x, out)]
        values = harness.arguments(
            x.shape, strides[0], out.shape, strides[1], (5, 6), (1, 1), (1, 1), (3, 2), flip, dtype
        )
        pointers = (kernel.ctypes.data, 0, 0)
        library.forward(x.ctypes.data, out.ctypes.data, *pointers, values, 1, None)
        rates = ((1, 1), (1, 1), (3, 2), size, flip)
        wanted = harness.reference(x.astype(np.float64), kernel.astype(np.float64), *rates)
        most = harness.reference(abs(x.astype(np.float64)), abs(kernel.astype(np.float64)), *rates)
        # 4 of the factors, and the rounding of two passes of 6 and 5 taps
        assert (abs(out - wanted) <= (4 + 6) * spacing * most).all()
        return library.resample_layers_cpu_walk(values, *pointers, None).decode()

    rounded = exact.astype(dtype).astype(np.float64)
    assert run(rounded) == "rows-direct"
    assert run((exact / exact.sum()).astype(dtype)) == "rows-direct"
    off = rounded.copy()
    off[3, 4] *= 1 + 16 * spacing
    assert run(off) == "planar"
    off = rounded.copy()
    off[2, 4] = 1e-30  # where the product is 0
    assert run(off) == "planar"
    off = rounded.copy()
    off[0, 0] = -off[0, 0]
    assert run(off) == "planar"


@pytest.mark.parametrize("channels", range(2, 10))
@pytest.mark.parametrize("walk", ["separable", "planar"])
@pytest.mark.parametrize(("up", "down"), [(2, 1), (1, 2), (2, 3), (3, 2)])
def test_pixels_of_a_few_channels(library, up, down, walk, channels):
    """channels_last: rows are joined and split by patterns that depend on the channels.

    Two images, so that one tile follows another; wide rows, so that there are several tiles.
    """
    rng = np.random.default_rng(channels)
    for dtype, width in ((d, w) for d in ("bfloat16", "float32", "float64") for w in (37, 1400)):
        n, h = (2, 7) if width == 37 else (1, 3)
        accumulate = "float64" if dtype == "float64" else "float32"
        x = harness.stored(rng.standard_normal((n, h, width, channels)), dtype)
        out = np.zeros((n, h * up // down, width * up // down, channels), x.dtype)
        taps = rng.standard_normal(4).astype(accumulate)
        kernel = rng.standard_normal((4, 4)).astype(accumulate)
        pointers = (0, taps.ctypes.data, taps.ctypes.data)
        if walk == "planar":
            pointers = (kernel.ctypes.data, 0, 0)
        else:
            kernel = np.outer(taps.astype(np.float64), taps)
        rates = ((up, up), (down, down), (1, 2))
        arrays = []
        for a in (x, out):
            rows, columns = a.shape[1:3]
            strides = (rows * columns * channels, 1, columns * channels, channels)
            arrays += [(a.shape[0], channels, rows, columns), strides]
        values = harness.arguments(*arrays, (4, 4), *rates, False, dtype)
        library.forward(x.ctypes.data, out.ctypes.data, *pointers, values, 1, None)
        planes = harness.to_float(x).transpose(0, 3, 1, 2)
        size = out.shape[1:3]
        wanted = harness.reference(planes, kernel.astype(np.float64), *rates, size, False)
        most = harness.reference(abs(planes), abs(kernel.astype(np.float64)), *rates, size, False)
        error = abs(harness.to_float(out).transpose(0, 3, 1, 2) - wanted)
        spacing = harness.EPSILON[accumulate]
        assert (error <= 20 * spacing * most + 0.51 * harness.EPSILON[dtype] * abs(wanted)).all()


# Rows of two and of three vectors of AVX-512 with a rest, and such that leave the L1 cache
@pytest.mark.parametrize("width", [45, 56, 720])
@pytest.mark.parametrize("taps", [9, 12, 24])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (1, 3)])
def test_rows_that_are_summed_together_are_those_of_single_rows(library, up, down, taps, width):
    """To the last bit, zeros of both signs included: where a block ends must not matter."""
    rng = np.random.default_rng(taps)
    x = rng.standard_normal((1, 2, 40, width)).astype(np.float32)
    x[:, 0, 10:20] = -0.0
    x[:, 1, :, 20:30] = 0.0
    k = tuple(rng.standard_normal((2, taps)))
    rates = ((up, up), (down, down))
    out_w = width * up // down
    whole = call(
        library, x, np.outer(k[1], k[0]), *rates, (5, 4), (37 * up // down, out_w), separable=k
    )
    for row in range(whole.shape[2]):
        alone = call(
            library,
            x,
            np.outer(k[1], k[0]),
            *rates,
            (5, 4 - row * down),
            (1, out_w),
            separable=k,
        )
        assert alone.tobytes() == whole[:, :, row : row + 1].tobytes(), row


def test_long_kernels_use_the_heap(library):
    rng = np.random.default_rng(2)
    x, taps = rng.standard_normal((1, 1, 300, 40)), rng.standard_normal((2, 500))
    rates = ((1, 1), (3, 3), (250, 249), (99, 13))
    kernel = np.outer(taps[1], taps[0])
    wanted = harness.reference(x.astype(np.float32), kernel, *rates, False)
    size = harness.reference(abs(x), abs(kernel), *rates, False).max()
    got = call(library, x, kernel, *rates, separable=(taps[0], taps[1]))
    assert abs(got - wanted).max() < 1e-5 * size
    assert abs(call(library, x, kernel, *rates) - wanted).max() < 1e-5 * size


def test_more_than_2_to_the_31_elements(library):
    """Only the last rows are read: the pages before them are never touched."""
    height, width = 70_000, 33_000
    x = np.zeros((1, 1, height, width), np.uint16)
    rng = np.random.default_rng(3)
    x[..., -8:, -8:] = harness.to_bits(rng.standard_normal((8, 8)).astype(np.float32))
    out = np.zeros((1, 1, 6, 6), np.uint16)
    taps = np.array([1, 3, 3, 1], np.float32)
    values = harness.arguments(
        x.shape,
        (height * width, height * width, width, 1),
        out.shape,
        (36, 36, 6, 1),
        (4, 4),
        (1, 1),
        (1, 1),
        (7 - width, 7 - height),
        False,
        "bfloat16",
    )
    library.forward(
        x.ctypes.data, out.ctypes.data, 0, taps.ctypes.data, taps.ctypes.data, values, 2, None
    )
    corner = harness.to_float(x[..., -8:, -8:])
    wanted = harness.reference(
        corner, np.outer(taps, taps), (1, 1), (1, 1), (-1, -1), (6, 6), False
    )
    np.testing.assert_allclose(harness.to_float(out), wanted, rtol=2**-8, atol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # signalling NaNs, in NumPy
@pytest.mark.parametrize("dtype", harness.DTYPES)
def test_rounding_to_the_storage_type(library, dtype):
    """One tap of 1: every bit pattern comes back, every NaN as a NaN; ties go to even."""
    words = np.arange(65536, dtype=np.uint16)
    if dtype in ("float16", "bfloat16"):
        x = words if dtype == "bfloat16" else words.view(np.float16)
    else:
        x = np.concatenate([words.view(np.float16).astype(dtype), np.array([1e-45, 3e38], dtype)])
    x = x[: len(x) // 2 * 2].reshape(1, 1, 2, -1)
    one = np.ones(2, np.float64 if dtype == "float64" else np.float32)
    out = np.zeros_like(x)
    strides = (x.size, x.size, x.shape[3], 1)
    values = harness.arguments(
        x.shape, strides, x.shape, strides, (1, 1), (1, 1), (1, 1), (0, 0), False, dtype
    )
    library.forward(
        x.ctypes.data, out.ctypes.data, 0, one.ctypes.data, one.ctypes.data, values, 1, None
    )
    nan = np.isnan(harness.to_float(x))
    assert (np.isnan(harness.to_float(out)) == nan).all()
    assert out[~nan].tobytes() == x[~nan].tobytes()

    # Halves of every finite value: exact ties in the 16-bit types' subnormal range.
    half = one / 2
    library.forward(
        x.ctypes.data, out.ctypes.data, 0, half.ctypes.data, one.ctypes.data, values, 1, None
    )
    wanted = harness.stored(harness.to_float(x) / 2, dtype)
    assert out[~nan].tobytes() == wanted[~nan].tobytes()


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("images", [1, 2])
def test_nan_in_noise_reaches_its_outputs_only(library, images, separable):
    """Past the activation and the clamp; in every channel, and every image that shares it."""
    rng = np.random.default_rng(4)
    x, taps = rng.standard_normal((2, 3, 20, 70)), np.ones(4, np.float32)
    noise = rng.standard_normal((images, 20, 70)).astype(np.float32)
    noise[images - 1, 7, 68] = np.nan
    epilogue = harness.Epilogue(
        None, noise.ctypes.data, None, 1400 if images > 1 else 0, 0.2, 2.0, 0.5
    )
    got = call(
        library,
        x,
        np.outer(taps, taps),
        (1, 1),
        (1, 1),
        (2, 2),
        (20, 70),
        separable=(taps, taps) if separable else None,
        epilogue=ctypes.addressof(epilogue),
    )
    wanted = np.zeros(got.shape, bool)
    wanted[images - 1 :, :, 7, 68] = True
    assert (np.isnan(got) == wanted).all()
    assert np.nanmax(abs(got)) == 0.5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_epilogue_comes_before_rounding(library, dtype):
    """1 + half a spacing would round to 1, and with a quarter more still does, if rounded twice."""
    spacing = harness.EPSILON[dtype]
    x = harness.stored(np.ones((1, 1, 5, 37)), dtype)
    out = np.zeros_like(x)
    taps, one = np.array([1 + spacing / 2], np.float32), np.ones(1, np.float32)
    bias = np.array([spacing / 4], np.float32)
    epilogue = harness.Epilogue(bias.ctypes.data, None, None, 0, 0.2, 1.0, -1.0)
    strides = (x.size, x.size, 37, 1)
    values = harness.arguments(
        x.shape, strides, x.shape, strides, (1, 1), (1, 1), (1, 1), (0, 0), False, dtype
    )
    library.forward(
        x.ctypes.data,
        out.ctypes.data,
        0,
        taps.ctypes.data,
        one.ctypes.data,
        values,
        1,
        ctypes.addressof(epilogue),
    )
    assert (harness.to_float(out) == 1 + spacing).all()


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_expanded_columns_of_long_pixels(library, up, down):
    """An input of stride 0 in x: one column, read for all."""
    rng = np.random.default_rng(5)
    column = rng.standard_normal((1, 10, 1, 64)).astype(np.float32)  # N, H, W, C
    size = (10 * up // down, 12 * up // down)
    out = np.full((1, *size, 64), np.nan, np.float32)
    taps = np.array([1, 3, 3, 1], np.float32)
    rates = ((up, up), (down, down), (2, 2))
    values = harness.arguments(
        (1, 64, 10, 12),
        (640, 1, 64, 0),
        (1, 64, *size),
        (out.size, 1, size[1] * 64, 64),
        (4, 4),
        *rates,
        False,
        "float32",
    )
    pointers = (0, taps.ctypes.data, taps.ctypes.data)
    library.forward(column.ctypes.data, out.ctypes.data, *pointers, values, 1, None)
    x = np.broadcast_to(column, (1, 10, 12, 64)).transpose(0, 3, 1, 2)
    wanted = harness.reference(x, np.outer(taps, taps), *rates, size, False)
    np.testing.assert_allclose(out.transpose(0, 3, 1, 2), wanted, rtol=1e-5, atol=1e-4)
