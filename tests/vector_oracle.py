# SPDX-License-Identifier: BSD-3-Clause
"""The definition once more, fast enough for a fuzzer: NumPy float64, by matrices.

Along an axis, tap ``i`` reads the samples that a matrix ``[out, size]`` of zeros and ones picks, so
that the op and its gradients are products of matrices. ``tests/test_fuzz.py`` holds the values
against the loops of ``oracle.py``, and the gradients against the values.

One formula covers ``upfirdn2d`` on any number of axes, ``upfirdn2d_bias_act`` and the filtered
activations; what a call lacks is left out::

    m   = F(input + bias_before, first)
    z   = scale * m + noise_strength * noise + bias
    a   = clamp(gain * f(z))
    out = F(a, second)

Every function takes complex arguments and continues the formula analytically, so that one imaginary
step gives a derivative without a difference: see :func:`second_order`.

Tensors are a dict of tuples of arrays: ``"input"`` holds ``(x,)``, and ``"first"`` holds
``(kernel [kh, kw],)`` or the taps of each axis, x first. Gradients come in the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

SNAKE_EPSILON = 1e-9  # BigVGAN's, which keeps the division by beta finite
STEP = 1e-30  # of the imaginary part; nothing is subtracted, so it may be as small as it likes

Arrays = dict[str, tuple[np.ndarray, ...]]


class Filter(NamedTuple):
    """One application of the op, arguments by axis, x first."""

    up: tuple[int, ...]
    down: tuple[int, ...]
    pad: tuple[int, ...]  # (x0, x1, y0, y1, ...)
    replicate: bool = False


class Call(NamedTuple):
    """What a call has beside its tensors."""

    first: Filter
    second: Filter | None = None
    activation: str | None = None  # "leaky", "snake"
    slope: float = 1.0
    gain: float = 1.0
    clamp: float | None = None
    is_bound: bool = False  # see `bound_of`


class Branches(NamedTuple):
    """Which branch each value of ``z`` takes: a derivative there is that of the branch."""

    positive: np.ndarray
    inside: np.ndarray  # not clamped


# The linear op


@lru_cache(maxsize=64)  # forward, the gradients and their bounds ask alike
def reads(
    size: int, taps: int, up: int, down: int, pad: tuple[int, int], replicate: bool
) -> np.ndarray:
    """``[taps, out, size]``: 1 where the tap of an output reads the sample."""
    places = np.arange(0, size * up + sum(pad) - taps + 1, down)  # where the kernel fits wholly
    at = places + (taps - 1 - np.arange(taps))[:, None] - pad[0]
    sample, there = at // up, at % up == 0
    if replicate:
        sample = sample.clip(0, size - 1)
    there &= (sample >= 0) & (sample < size)
    matrices = np.zeros((taps, len(places), size))
    i, y = np.nonzero(there)
    matrices[i, y, sample[i, y]] = 1.0
    return matrices


def reads_of(shape: tuple[int, ...], kernel: tuple[np.ndarray, ...], f: Filter) -> list[np.ndarray]:
    """:func:`reads` of each axis, x first."""
    lengths = kernel[0].shape[::-1] if kernel[0].ndim == 2 else [len(t) for t in kernel]
    return [
        reads(shape[-1 - a], taps, f.up[a], f.down[a], tuple(f.pad[2 * a : 2 * a + 2]), f.replicate)
        for a, taps in enumerate(lengths)
    ]


def on_axis(matrix: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(np.tensordot(matrix, x, (1, x.ndim - 1 - axis)), 0, -1 - axis)


def resample(x: np.ndarray, kernel: tuple[np.ndarray, ...], f: Filter) -> np.ndarray:
    """The op, or for taps of each axis the op along one after the other."""
    matrices = reads_of(x.shape, kernel, f)
    if kernel[0].ndim == 2:
        rows = [np.tensordot(row, matrices[0], 1) for row in kernel[0]]
        return sum(
            on_axis(row, on_axis(read, x, 1), 0)
            for row, read in zip(rows, matrices[1], strict=True)
        )
    for axis, (taps, read) in enumerate(zip(kernel, matrices, strict=True)):
        x = on_axis(np.tensordot(taps, read, 1), x, axis)
    return x


def transpose(
    grad: np.ndarray, shape: tuple[int, ...], kernel: tuple[np.ndarray, ...], f: Filter
) -> np.ndarray:
    """The gradient of the input of ``shape``."""
    matrices = reads_of(shape, kernel, f)
    if kernel[0].ndim == 2:
        rows = [np.tensordot(row, matrices[0], 1).T for row in kernel[0]]
        return sum(
            on_axis(read.T, on_axis(row, grad, 0), 1)
            for row, read in zip(rows, matrices[1], strict=True)
        )
    for axis, (taps, read) in enumerate(zip(kernel, matrices, strict=True)):
        grad = on_axis(np.tensordot(taps, read, 1).T, grad, axis)
    return grad


def kernel_grad(
    x: np.ndarray, grad: np.ndarray, kernel: tuple[np.ndarray, ...], f: Filter
) -> tuple[np.ndarray, ...]:
    """The gradient of the kernel, or of the taps of each axis."""
    matrices = reads_of(x.shape, kernel, f)

    def of_axis(x: np.ndarray, axis: int) -> np.ndarray:
        """Of the taps of an axis, from what is filtered along the others already."""
        dim = x.ndim - 1 - axis
        others = [d for d in range(x.ndim) if d != dim]
        return np.tensordot(matrices[axis], np.tensordot(grad, x, (others, others)), 2)

    if kernel[0].ndim == 2:
        return (np.stack([of_axis(on_axis(read, x, 1), 0) for read in matrices[1]]),)
    grads = []
    for axis in range(len(kernel)):
        y = x
        for other, (taps, read) in enumerate(zip(kernel, matrices, strict=True)):
            if other != axis:
                y = on_axis(np.tensordot(taps, read, 1), y, other)
        grads.append(of_axis(y, axis))
    return tuple(grads)


# The nonlinearity, and what bounds it


def _shaped(t: Arrays, name: str, like: np.ndarray) -> np.ndarray | None:
    """Numbers of the channels, for broadcasting."""
    return t[name][0].reshape(like.shape[1], *[1] * (like.ndim - 2)) if name in t else None


def _inverse(call: Call, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``1 / beta`` and its derivative; of a bound, what has the same derivatives above zero."""
    if call.is_bound:
        value = 1 / (2 * beta.real - beta + SNAKE_EPSILON)
        return value, value * value
    value = 1 / (beta + SNAKE_EPSILON)
    return value, -value * value


def _value(call: Call, t: Arrays, z: np.ndarray, positive: np.ndarray) -> np.ndarray:
    if call.activation == "snake":
        alpha, (inverse, _) = _shaped(t, "alpha", z), _inverse(call, _shaped(t, "beta", z))
        wave = alpha * z if call.is_bound else np.sin(alpha * z)
        return z + wave * wave * inverse
    return np.where(positive, z, call.slope * z)


def _grad(call: Call, t: Arrays, z: np.ndarray, positive: np.ndarray) -> np.ndarray:
    if call.activation == "snake":
        alpha, (inverse, _) = _shaped(t, "alpha", z), _inverse(call, _shaped(t, "beta", z))
        twice = 2 * alpha * z
        return 1 + alpha * (twice if call.is_bound else np.sin(twice)) * inverse
    return np.where(positive, 1.0, call.slope)


def _snake_operand_grads(call: Call, t: Arrays, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    alpha, (inverse, derivative) = _shaped(t, "alpha", z), _inverse(call, _shaped(t, "beta", z))
    twice, wave = 2 * alpha * z, alpha * z
    if not call.is_bound:
        twice, wave = np.sin(twice), np.sin(wave)
    return z * twice * inverse, wave * wave * derivative


def bound_of(call: Call) -> Call:
    """A call that bounds every term of ``call`` and its derivatives, for tensors made positive.

    Its terms are all positive: slopes are the steepest, nothing is clamped, and ``sin(s)`` is
    ``s``, whose derivatives of both orders bound those of the sine's square. So its results are the
    scale of rounding errors.
    """
    return call._replace(is_bound=True, slope=max(1.0, call.slope))


# The whole


def before_activation(call: Call, t: Arrays) -> np.ndarray:
    """``z``."""
    x = t["input"][0]
    if (before := _shaped(t, "bias_before", x)) is not None:
        x = x + before
    z = resample(x, t["first"], call.first)
    if "scale" in t:
        z = z * t["scale"][0][:, :, None, None]
    if "noise" in t:
        noise = t["noise"][0]
        z = z + (noise * t["noise_strength"][0].reshape(()) if "noise_strength" in t else noise)
    if (after := _shaped(t, "bias", z)) is not None:
        z = z + after
    return z


def branches_of(call: Call, t: Arrays, z: np.ndarray | None = None) -> Branches:
    z = before_activation(call, t) if z is None else z
    positive = (z.real > 0) & (not call.is_bound)  # the other branch has the steepest slope
    if call.is_bound or call.clamp is None:
        return Branches(positive, np.ones(z.shape, bool))
    return Branches(positive, abs(call.gain * _value(call, t, z, positive).real) <= call.clamp)


def _activated(call: Call, t: Arrays, z: np.ndarray, branches: Branches) -> np.ndarray:
    a = call.gain * _value(call, t, z, branches.positive)
    if call.clamp is None:
        return a
    return np.where(branches.inside, a, np.sign(a.real) * call.clamp)


def value(call: Call, t: Arrays, branches: Branches | None = None) -> np.ndarray:
    """``out``. ``branches``: those that are taken, where a caller knows better than ``z``."""
    z = before_activation(call, t)
    if call.activation is None:
        return z
    a = _activated(call, t, z, branches or branches_of(call, t, z))
    return a if call.second is None else resample(a, t["second"], call.second)


def gradients(call: Call, t: Arrays, grad: np.ndarray, branches: Branches | None = None) -> Arrays:
    """Those of ``sum(out * grad)`` in every tensor."""
    grads, z = {}, before_activation(call, t)
    if call.activation is not None:
        branches = branches or branches_of(call, t, z)
        if call.second is not None:
            a = _activated(call, t, z, branches)
            grads["second"] = kernel_grad(a, grad, t["second"], call.second)
            grad = transpose(grad, z.shape, t["second"], call.second)
        grad = np.where(branches.inside, call.gain * grad, 0.0)
        if call.activation == "snake":
            sums = [_channels(grad * term) for term in _snake_operand_grads(call, t, z)]
            grads["alpha"], grads["beta"] = ((total,) for total in sums)
        grad = grad * _grad(call, t, z, branches.positive)
    if "bias" in t:
        grads["bias"] = (_channels(grad),)
    if "noise" in t:
        noise = t["noise"][0]
        pixels = grad.sum(1, keepdims=True)
        if noise.shape[0] == 1:
            pixels = pixels.sum(0, keepdims=True)
        strength = t["noise_strength"][0].reshape(()) if "noise_strength" in t else 1.0
        grads["noise"] = (pixels * strength,)
        if "noise_strength" in t:
            total = (pixels * noise).sum()
            grads["noise_strength"] = (total.reshape(t["noise_strength"][0].shape),)
    x = t["input"][0]
    if "bias_before" in t:
        x = x + _shaped(t, "bias_before", x)
    if "scale" in t:
        grads["scale"] = ((grad * resample(x, t["first"], call.first)).sum((2, 3)),)
        grad = grad * t["scale"][0][:, :, None, None]
    grads["first"] = kernel_grad(x, grad, t["first"], call.first)
    grads["input"] = (transpose(grad, x.shape, t["first"], call.first),)
    if "bias_before" in t:
        grads["bias_before"] = (_channels(grads["input"][0]),)
    return grads


def _channels(x: np.ndarray) -> np.ndarray:
    return x.sum(tuple(axis for axis in range(x.ndim) if axis != 1))


def each(function: Callable[..., np.ndarray], *trees: Arrays) -> Arrays:
    """``function`` of the arrays of the same name and place, in the first one's shape."""
    return {
        name: tuple(
            function(*arrays) for arrays in zip(*(tree[name] for tree in trees), strict=True)
        )
        for name in trees[0]
    }


def second_order(
    call: Call, t: Arrays, v: Arrays, grad: np.ndarray, branches: Branches | None = None
) -> tuple[Arrays, np.ndarray]:
    """The gradients of ``sum(gradients * v)`` in every tensor, and that in ``grad``.

    The matrix of second derivatives is symmetric, so the first are the derivative of
    :func:`gradients` in the direction ``v``, and the other is that of :func:`value`: the imaginary
    part of each at ``t + 1j * STEP * v``, divided by ``STEP``.
    """
    branches = branches or branches_of(call, t)
    moved = each(lambda a, b: a + 1j * STEP * b, t, v)
    grads = gradients(call, moved, grad, branches)
    return each(lambda g: g.imag / STEP, grads), value(call, moved, branches).imag / STEP
