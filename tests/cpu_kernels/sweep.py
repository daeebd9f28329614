# SPDX-License-Identifier: BSD-3-Clause
"""Random configurations of the CPU kernels against the formula.

    python sweep.py LIBRARY [count] [seed]

Tells how many configurations each walk of the kernels served.

Run in a process of its own: RESAMPLE_LAYERS_CPU is read once, and the library
under AddressSanitizer wants its run-time loaded first.
"""

from __future__ import annotations

import collections
import ctypes
import sys
from pathlib import Path

import harness
import numpy as np

GUARD = 80  # elements


class Array:
    """An [N, C, H, W] array with given strides inside a buffer of exactly its extent."""

    def __init__(self, rng, shape, layout, dtype, values=None):
        _n, c, h, w = shape
        if layout == "contiguous":
            strides = [c * h * w, h * w, w, 1]
        elif layout == "channels_last":
            strides = [c * h * w, 1, w * c, c]
        else:  # permuted, with gaps, some axes expanded (stride 0)
            strides, step = [0] * 4, int(rng.integers(1, 3))
            for axis in rng.permutation(4):
                if rng.random() < 0.15 and layout != "output":
                    continue
                strides[axis] = step
                step *= shape[axis] + int(rng.integers(0, 3))
        extent = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False))
        storage = "uint16" if dtype == "bfloat16" else dtype
        # Outputs lie between guards, which must come back unchanged. Inputs have none:
        # AddressSanitizer sees what is read beside them.
        guard = GUARD if values is None else 0
        fill = 0x7FFF if dtype == "bfloat16" else np.nan
        self.buffer = np.full(extent + 2 * guard, fill, storage)
        self.strides, self.guards = strides, self.buffer.copy()
        inside = self.buffer[guard : guard + extent]
        if values is not None:
            inside[:] = harness.stored(rng.standard_normal(extent), dtype)
        bytes_ = [stride * inside.itemsize for stride in strides]
        self.view = np.lib.stride_tricks.as_strided(inside, shape, bytes_)

    @property
    def pointer(self) -> int:
        return self.view.ctypes.data

    def check_guards(self):
        for part in (slice(0, GUARD), slice(-GUARD, None)):
            assert self.buffer[part].tobytes() == self.guards[part].tobytes(), "guard overwritten"


def pick(rng, *choices):
    return choices[int(rng.integers(len(choices)))]


class Epilogue:
    """A random EpilogueParams, or none; it keeps what it points to alive."""

    def __init__(self, rng, shape, accumulate):
        n, c, h, w = shape
        self.pointer, self.what = None, "no epilogue"
        if rng.random() < 0.4:
            return
        self.bias = rng.standard_normal(c).astype(accumulate) if rng.random() < 0.7 else None
        self.strength = np.array(rng.standard_normal(), accumulate) if rng.random() < 0.7 else None
        self.noise, images = None, int(pick(rng, 1, n))
        if rng.random() < 0.7:
            self.noise = rng.standard_normal((images, h, w)).astype(accumulate)
            if rng.random() < 0.2:  # a NaN, which must reach its own outputs only
                self.noise[tuple(int(rng.integers(size)) for size in self.noise.shape)] = np.nan
        self.scale = rng.standard_normal((n, c)).astype(accumulate) if rng.random() < 0.5 else None
        slope = float(pick(rng, 0.0, 0.2, 1.0, 1.5))
        gain = float(pick(rng, 1.0, np.sqrt(2)))
        clamp = float(pick(rng, -1.0, 0.0, 1.25, 4.0, 1e300))
        self.numbers = (slope, gain, clamp)
        self.largest = float(np.finfo(accumulate).max)
        self.params = harness.Epilogue(
            *(None if a is None else a.ctypes.data for a in (self.bias, self.noise, self.strength)),
            h * w if images > 1 else 0,
            *self.numbers,
            None if self.scale is None else self.scale.ctypes.data,
            c,
        )
        self.pointer = ctypes.addressof(self.params)
        self.what = (
            f"slope, gain, clamp {self.numbers} bias {self.bias is not None} "
            f"strength {self.strength is not None} noise {self.noise is not None and images} "
            f"scale {self.scale is not None}"
        )

    def reference(self, sums):
        """The result, and how far the rounding of its addends may move it."""
        if self.pointer is None:
            return sums, 0.0, 1.0
        noise = np.zeros((1, 1, 1)) if self.noise is None else self.noise.astype(np.float64)
        bias = np.zeros(1) if self.bias is None else self.bias.astype(np.float64)
        strength = 1.0 if self.strength is None else float(self.strength)
        scale = np.ones((1, 1)) if self.scale is None else self.scale.astype(np.float64)
        wanted = harness.reference_epilogue(
            sums, scale, bias, noise, strength, *self.numbers, self.largest
        )
        added = (
            abs(scale[:, :, None, None] * sums)
            + abs(strength * noise[:, None])
            + abs(bias[:, None, None])
        )
        factor = max(1.0, self.numbers[0]) * self.numbers[1]
        return (
            wanted,
            4 * np.nan_to_num(added),
            factor * np.maximum(1, abs(scale))[:, :, None, None],
        )


def one(library, rng) -> tuple[str, str]:
    """Draws a configuration, runs it, raises where it is wrong: what it was, and its walk."""
    # Rates, taps, pads; a crop as often as a pad. Sizes from a point to several tiles.
    usual = rng.random() < 0.3  # what has walks of its own: few taps, long pixels, bfloat16
    dtype = pick(rng, *harness.DTYPES, *(["bfloat16"] * 2 if usual else []))
    common = usual or rng.random() < 0.5
    up = (int(pick(rng, 1, 1, 2)),) * 2 if common else tuple(int(v) for v in rng.integers(1, 7, 2))
    down = (
        (int(pick(rng, 1, 1, 2)),) * 2 if common else tuple(int(v) for v in rng.integers(1, 7, 2))
    )
    most = pick(rng, 4, 8, 12, 33)
    taps = tuple(int(v) for v in rng.integers(1, most + 1, 2))
    n, c = int(rng.integers(1, 4)), int(pick(rng, 1, 2, 3, 4, 5, 8, 16, 17, 40))
    h, w = (int(v) for v in rng.integers(1, 24, 2))
    if rng.random() < 0.1:
        n, c, w = 1, int(rng.integers(1, 4)), int(rng.integers(200, 3000))
    if rng.random() < 0.05:
        n, c, h, w = (
            1,
            int(rng.integers(200, 2500)),
            int(rng.integers(1, 6)),
            int(rng.integers(1, 9)),
        )
    if usual:
        taps, c = (int(pick(rng, 3, 4, 4, 6)),) * 2, int(pick(rng, 3, rng.integers(8, 140)))
    pad = tuple(int(v) for v in rng.integers(-6, 12, 2))
    if rng.random() < 0.05:
        pad = (int(rng.integers(-40, 90)), int(rng.integers(-40, 90)))
    full = (h * up[1] + pad[1] + taps[1], w * up[0] + pad[0] + taps[0])
    out_h = max(1, min(60, (full[0] - taps[1] + int(rng.integers(-3, 6))) // down[1] + 1))
    out_w = max(1, (full[1] - taps[0] + int(rng.integers(-3, 6))) // down[0] + 1)
    separable, flip = usual or bool(rng.random() < 0.6), bool(rng.random() < 0.5)
    in_layout = pick(rng, "contiguous", "channels_last", "strided")
    out_layout = in_layout if in_layout != "strided" else pick(rng, "contiguous", "channels_last")
    threads = int(pick(rng, 1, 2, 5))
    what = (
        f"{dtype} {in_layout}->{out_layout} in {(n, c, h, w)} out {(out_h, out_w)} taps {taps} "
        f"up {up} down {down} pad {pad} flip {flip} separable {separable} threads {threads}"
    )

    # The call.
    accumulate = "float64" if dtype == "float64" else "float32"
    taps_x = rng.standard_normal(taps[0]).astype(accumulate)
    taps_y = rng.standard_normal(taps[1]).astype(accumulate)
    kernel = rng.standard_normal((taps[1], taps[0])).astype(accumulate)
    product = rng.random() < 0.3  # a kernel that is an outer product, to the rounding of its taps
    if product:
        kernel = np.outer(taps_y.astype(np.float64), taps_x.astype(np.float64)).astype(accumulate)
    if rng.random() < 0.1:  # taps that are not finite, which no padding may be multiplied with
        for array in (taps_x, taps_y, kernel):
            array.flat[int(rng.integers(array.size))] = pick(rng, np.inf, -np.inf, np.nan)
    x = Array(rng, (n, c, h, w), in_layout, dtype, True)
    y = Array(rng, (n, c, out_h, out_w), out_layout, dtype)
    epilogue = Epilogue(rng, y.view.shape, accumulate)
    what += f" {epilogue.what}"
    values = harness.arguments(
        x.view.shape, x.strides, y.view.shape, y.strides, taps[::-1], up, down, pad, flip, dtype
    )
    pointers = (
        (0, taps_x.ctypes.data, taps_y.ctypes.data) if separable else (kernel.ctypes.data, 0, 0)
    )
    walk = library.resample_layers_cpu_walk(values, *pointers, epilogue.pointer).decode()
    what += f" product {product} walk {walk}"
    if product and walk == "planar":
        assert separable or kernel.size <= sum(taps), f"{what}: an outer product was not found"
    library.forward(x.pointer, y.pointer, *pointers, values, threads, epilogue.pointer)
    y.check_guards()
    bits = y.view.tobytes()
    library.forward(x.pointer, y.pointer, *pointers, values, threads % 5 + 1, epilogue.pointer)
    assert y.view.tobytes() == bits, f"{what}: the result depends on the number of threads"

    # Against the formula, within the rounding of the sums and of the result.
    if separable:
        kernel = np.outer(taps_y.astype(np.float64), taps_x.astype(np.float64))
    exact_x, exact_k = harness.to_float(x.view), kernel.astype(np.float64)
    sums = harness.reference(exact_x, exact_k, up, down, pad, (out_h, out_w), flip)
    if separable and not np.isfinite(exact_k).all():
        both = (taps_x.astype(np.float64), taps_y.astype(np.float64))
        sums = harness.reference_separable(exact_x, *both, up, down, pad, (out_h, out_w), flip)
    size = harness.reference(abs(exact_x), abs(exact_k), up, down, pad, (out_h, out_w), flip)
    wanted, added, factor = epilogue.reference(sums)
    bound = 2 * harness.EPSILON[accumulate] * ((sum(taps) + 2) * size + added) * factor
    # Rounded once, to nearest: by half a spacing, and a little for the sum's own error.
    bound += 0.51 * harness.EPSILON[dtype] * abs(wanted) + (1e-7 if dtype == "float16" else 1e-37)
    got = harness.to_float(y.view)
    error = abs(got - wanted)
    rounded = harness.to_float(harness.stored(wanted, dtype))
    same = (error <= bound) | (got == rounded) | (np.isnan(wanted) & np.isnan(got))
    if not same.all():
        worst = np.unravel_index(np.argmin(same), same.shape)
        raise AssertionError(
            f"{what}: at {worst} {harness.to_float(y.view)[worst]} is not {wanted[worst]}"
        )

    # The kernel's gradient, from any strides.
    g = Array(rng, y.view.shape, pick(rng, "contiguous", "channels_last", "strided"), dtype, True)
    result = np.full((taps[1], taps[0]), np.nan, accumulate)
    values = harness.arguments(
        x.view.shape, x.strides, g.view.shape, g.strides, taps[::-1], up, down, pad, False, dtype
    )
    library.kernel_grad(x.pointer, g.pointer, result.ctypes.data, values, threads)
    exact_g = harness.to_float(g.view)
    wanted = harness.reference_grad(exact_x, exact_g, taps[::-1], up, down, pad)
    size = harness.reference_grad(abs(exact_x), abs(exact_g), taps[::-1], up, down, pad)
    bound = 40 * harness.EPSILON[accumulate] * size + 1e-37
    if not (abs(result - wanted) <= bound).all():
        raise AssertionError(f"{what}: kernel gradient {result} is not {wanted}")
    again = np.empty_like(result)
    library.kernel_grad(x.pointer, g.pointer, again.ctypes.data, values, 3)
    assert again.tobytes() == result.tobytes(), f"{what}: kernel gradient depends on threads"
    return what, walk


def activation_gradient(library, rng) -> None:
    """One random call of the activation's gradient, its sums included, against the formula."""
    dtype, last = pick(rng, *harness.DTYPES), rng.random() < 0.5
    n, c = int(rng.integers(1, 4)), pick(rng, 1, 2, 3, 8, 17, 32, 70, 300)
    pixels = pick(rng, 1, 2, 4, 15, 16, 64, 513, 1100) if c < 300 else pick(rng, 1, 15, 64)
    what = f"activation {dtype} {n}x{c}x{pixels} channels_last {last}"
    layout = "channels_last" if last else "contiguous"
    grad = Array(rng, (n, c, 1, pixels), layout, dtype, True)
    output = Array(rng, (n, c, 1, pixels), layout, dtype, True)
    accumulate = "float64" if dtype == "float64" else "float32"
    scaled_dtype = pick(rng, dtype, "float32") if dtype == "float16" else dtype
    scaled = Array(rng, (n, c, 1, pixels), layout, scaled_dtype, True)
    if scaled_dtype != dtype:
        scaled.view *= 2.0**20  # more than float16 holds
    result = Array(rng, (n, c, 1, pixels), layout, dtype)
    samples, noises = pick(rng, 0, 1, n), pick(rng, 0, 1, n)
    tap, strength = rng.standard_normal((2, 2)).astype(accumulate)
    scale = rng.standard_normal((n, c)).astype(accumulate) if rng.random() < 0.5 else None
    noise = rng.standard_normal((max(noises, 1), pixels)).astype(accumulate)
    sums = [np.full(size, np.nan, accumulate) for size in (c, (samples, pixels), 1, (n, c))]
    wanted = (rng.random() < 0.7, samples > 0, noises > 0, rng.random() < 0.5)
    exact_g, exact_out = harness.to_float(grad.view), harness.to_float(output.view)
    clamp = float(abs(exact_out).ravel()[0]) if rng.random() < 0.5 else -1.0
    params = harness.BiasActGrad(
        grad.pointer, output.pointer, scaled.pointer if wanted[3] else None, result.pointer,
        tap.ctypes.data, None, None if scale is None else scale.ctypes.data,
        noise.ctypes.data if noises else None, strength.ctypes.data,
        *(a.ctypes.data if w else None for a, w in zip(sums, wanted, strict=True)),
        n, c, pixels, pixels if noises > 1 else 0, samples, last, 0.3, 1.5, clamp,
        harness.DTYPES.index(dtype), harness.DTYPES.index(scaled_dtype),
    )  # fmt: skip
    library.bias_act_grad(ctypes.addressof(params), int(rng.integers(1, 4)))
    result.check_guards()
    z = 1.5 * np.where(exact_out > 0, exact_g, 0.3 * exact_g)
    if clamp >= 0:
        z[abs(exact_out) >= clamp] = 0.0
    z = z[:, :, 0]
    expected = z * float(tap[0]) * (1.0 if scale is None else scale.astype(np.float64)[:, :, None])
    limit = 0.51 * harness.EPSILON[dtype] * abs(expected) + 4 * harness.EPSILON[accumulate] * abs(
        expected
    )
    error = abs(harness.to_float(result.view)[:, :, 0] - expected)
    assert (error <= limit + (1e-7 if dtype == "float16" else 1e-37)).all(), what
    factors = noise.astype(np.float64)[:, None]

    def of_noise(z):
        total = z.sum(1) * abs(float(strength[0]))
        return total.sum(0, keepdims=True) if samples == 1 else total

    products = harness.to_float(scaled.view)[:, :, 0] * float(tap[0])
    terms = [lambda z: z.sum((0, 2)), of_noise, lambda z: (z * factors).sum(),
             lambda z: (z * products).sum(2)]  # fmt: skip
    sizes = [lambda z: z.sum((0, 2)), of_noise, lambda z: (z * abs(factors)).sum(),
             lambda z: (z * abs(products)).sum(2)]  # fmt: skip
    for i, (total, term, size) in enumerate(zip(sums, terms, sizes, strict=True)):
        if not wanted[i]:
            continue
        exact = term(z) * (np.sign(float(strength[0])) if i == 1 else 1.0)
        bound = 40 * harness.EPSILON[accumulate] * size(abs(z)) + 1e-37
        assert (abs(total - exact) <= bound).all(), f"{what}: sum {i}"
    again = [a.copy() for a in sums]
    library.bias_act_grad(ctypes.addressof(params), 5)
    for a, b in zip(again, sums, strict=True):
        assert a.tobytes() == b.tobytes(), f"{what}: the sums depend on the number of threads"


def main() -> None:
    library = harness.load(Path(sys.argv[1]))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    failed, walks = 0, collections.Counter()
    for i in range(count):
        try:
            with np.errstate(all="ignore"):  # infinite and NaN taps
                _, walk = one(library, np.random.default_rng([seed, i]))
                activation_gradient(library, np.random.default_rng([seed, i, 1]))
            walks[walk] += 1
        except AssertionError as error:
            failed += 1
            print(f"FAILED [{seed}, {i}]: {error}")
            if failed > 10:
                break
    print(f"{library.capability().decode()}: {count - failed} of {count} configurations are right")
    for walk in library.resample_layers_cpu_walks().decode().split():
        print(f"walk {walk}: {walks[walk]}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
