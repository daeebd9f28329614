# SPDX-License-Identifier: BSD-3-Clause
"""``torch_utils.ops`` of NVIDIA's StyleGAN2-ADA and StyleGAN3, in one module.

A ``padding`` of two is *[x, y]*, each for both sides, where rosinality's and BasicSR's is
(before, after); ``up`` and ``down`` are an int or [x, y]. ``impl`` is accepted and chooses nothing.

What the original gets wrong, most of it without a word, and what happens here instead:

- ``setup_filter`` divides by a sum of zero, and writes into a float32 tensor or array that it was
  given. Here a sum of zero is an error, and nothing is written to.
- ``setup_filter(gain=g, separable=True)`` with ``g < 0`` is complex. Here it is an error.
- ``upfirdn2d`` with ``gain < 0`` and a separable filter returns nearly zero on the CPU. Here the
  result has that gain.
- ``bias_act`` ignores ``alpha`` unless ``act`` is 'lrelu'. Here that is an error.
- ``bias_act`` has no third derivative on CUDA. Here it has derivatives of every order.
- ``filtered_lrelu`` on CUDA knows float16 and float32 alone, fails on an empty batch, and takes a
  slow path with a warning for filters that are not in its table. Here no dtype, batch or filter is
  special.
- The filter has no gradient (an assertion). Here it has one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ..filters import normalise_taps
from ..ops.arguments import DTYPES
from ..values import shown
from . import resampling
from .activation import activation_funcs, biased_activation
from .arguments import as_device, as_flag, as_number, check_dense, check_device
from .conv2d_gradfix import conv2d, conv_transpose2d, no_weight_gradients
from .conv2d_resample import conv2d_resample
from .resampling import Call, Padding, Rate

__all__ = [
    "activation_funcs",
    "bias_act",
    "conv2d",
    "conv2d_resample",
    "conv_transpose2d",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "fma",
    "no_weight_gradients",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]

NUMBERS = (
    *DTYPES, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.complex32, torch.complex64, torch.complex128,
)  # fmt: skip
SEPARABLE = 8  # taps from which a 1-D filter stays so


def setup_filter(
    f: Any,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """Make a float32 filter of some taps.

    Args:
        f: ``[kh, kw]``, ``[taps]``, one number or None (one tap), as a list, array or tensor.
        device: where the result lives.
        normalize: divide by the sum.
        flip_filter: reverse every axis.
        gain: the gain of the filter in use: a 1-D result, which is applied once along each axis,
            is scaled by its square root.
        separable: return ``[taps]`` rather than ``[taps, taps]``; None: if ``f`` is 1-D and has 8
            taps or more.

    Raises:
        TypeError: if ``f`` is not made of numbers, or ``gain`` is not a number.
        ValueError: if ``f`` is ragged, empty, not finite, on the meta device, of another rank, of
            sum zero where it is normalised, or 2-D where separable is asked for; or a separable
            gain is negative; or there is no such device.

    Example:
        >>> setup_filter([1, 3, 3, 1])[0] * 64
        tensor([1., 3., 3., 1.])
        >>> setup_filter([1] * 8, gain=4).sum()
        tensor(2.)
    """
    where = as_device(device)
    normalize = as_flag("normalize", normalize)
    flip_filter = as_flag("flip_filter", flip_filter)
    separable = separable if separable is None else as_flag("separable", separable)
    taps = _as_taps(1.0 if f is None else f)
    if taps.dim() == 0:
        taps = taps[None]
    if taps.dim() > 2 or taps.numel() == 0:
        raise ValueError(
            "f must be [kh, kw], [taps], one number or None, with at least one tap, got shape "
            f"{tuple(taps.shape)}"
        )
    if separable is None:
        separable = taps.dim() == 1 and taps.numel() >= SEPARABLE
    if separable and taps.dim() == 2:
        raise ValueError(f"f must be [taps] for separable=True, got shape {tuple(taps.shape)}")
    gain = as_number("gain", gain)
    if separable and gain < 0:
        raise ValueError(f"gain must be >= 0 for a separable filter, got gain={gain!r}")
    if not isinstance(taps, FakeTensor):  # a fake tensor has no values to check
        if not bool(taps.isfinite().all()):
            raise ValueError(f"f must be finite, got {shown(f)}")
        if normalize:
            normalise_taps("f", taps)  # the check of the sum
    if taps.dim() == 1 and not separable:
        taps = torch.outer(taps, taps)
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(tuple(range(taps.dim())))
    taps = taps * float(gain ** (taps.dim() / 2))
    try:
        return taps.to(where)
    except (RuntimeError, AssertionError):  # torch's sentences name no argument
        raise ValueError(f"device must be one of this machine, got {shown(device)}") from None


def upfirdn2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor | None,  # [kh, kw] or [taps]
    up: Rate = 1,  # [x, y]
    down: Rate = 1,  # [x, y]
    padding: Padding = 0,  # [x, y] or [x0, x1, y0, y1]
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """Upsample, pad, filter and downsample; a ``padding`` of two is *[x, y]*.

    Args:
        x: images, of the four floating-point dtypes.
        f: a filter; ``[taps]`` is separable; None is the identity. Never rounded to the dtype
            of ``x``.
        up, down: an int or ``[x, y]``.
        padding: an int for all sides, ``[x, y]`` or ``[x0, x1, y0, y1]``; negative values crop.
        flip_filter: False: a convolution; True: a correlation.
        gain: scales the result.
        impl: 'cuda' or 'ref', which both mean ours.

    Raises:
        TypeError, ValueError: if an argument is at fault.

    Example:
        >>> x, f = torch.ones(1, 1, 4, 5), setup_filter([1, 3, 3, 1])
        >>> upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1], gain=4).shape
        torch.Size([1, 1, 8, 10])
        >>> upfirdn2d(x, f, padding=[2, 1]).shape
        torch.Size([1, 1, 3, 6])
    """
    _check_impl(impl)
    return Call(("x", "f"), x, f, padding, flip_filter, gain).plain(up, down)


def filter2d(
    x: Tensor,
    f: Tensor | None,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """:func:`upfirdn2d` without rates: ``[H, W] -> [H, W]``, and ``padding`` on top of that."""
    _check_impl(impl)
    return Call(("x", "f"), x, f, padding, flip_filter, gain).filter2d()


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: Rate = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """:func:`upfirdn2d` to ``[H * up_y, W * up_x]``, and ``padding`` on top of that.

    The gain ``up_x * up_y`` is on top of ``gain``.
    """
    _check_impl(impl)
    return Call(("x", "f"), x, f, padding, flip_filter, gain).upsample2d(up)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: Rate = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """:func:`upfirdn2d` to ``[H // down_y, W // down_x]``, and ``padding`` on top of that."""
    _check_impl(impl)
    return Call(("x", "f"), x, f, padding, flip_filter, gain).downsample2d(down)


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> Tensor:
    """``clamp(gain * act(x + b))`` with the bias along dimension ``dim``.

    Args:
        x: activations of any shape.
        b: ``[x.shape[dim]]``, or None.
        dim: the dimension of the bias; not used without one.
        act: 'linear', 'relu', 'lrelu', 'tanh', 'sigmoid', 'elu', 'selu', 'softplus' or 'swish'.
        alpha: the slope of 'lrelu', by default 0.2; None for all others.
        gain: None: sqrt(2) for 'relu', 'lrelu' and 'swish', 1 for all others.
        clamp: the largest magnitude of the result; None: none.
        impl: 'cuda' or 'ref', which both mean ours.

    Returns:
        The result, of the shape and dtype of ``x``.

    Raises:
        TypeError, ValueError: if an argument is at fault, or ``act`` has no use for ``alpha``.

    Example:
        >>> bias_act(torch.tensor([[1.0, -3.0]]), torch.ones(2), act="lrelu", alpha=0.5, gain=2)
        tensor([[ 4., -2.]])
    """
    _check_impl(impl)
    return biased_activation(("x", "b"), x, b, dim, act, alpha, gain, clamp)


def filtered_lrelu(
    x: Tensor,  # [N, C, H, W]
    fu: Tensor | None = None,  # [kh, kw] or [taps]
    fd: Tensor | None = None,  # [kh, kw] or [taps]
    b: Tensor | None = None,  # [C]
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,  # [x, y] or [x0, x1, y0, y1]
    gain: float = math.sqrt(2.0),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "cuda",
) -> Tensor:
    """Bias, upsample, leaky ReLU, gain, clamp, downsample: StyleGAN3's activation, as one operator.

    Args:
        x: images, of the four floating-point dtypes.
        fu: the filter after the upsampling; ``[taps]`` is separable; None is the identity. Scaled
            by ``up ** 2``.
        fd: the filter before the downsampling, likewise, and not scaled.
        b: the bias, which is added before zeros are inserted and padded; None: none.
        up: upsampling factor, one int for both axes.
        down: downsampling factor, one int for both axes.
        padding: of the upsampled image, an int for all sides, ``[x, y]`` or ``[x0, x1, y0, y1]``;
            negative values crop.
        gain: factor of the activation, > 0.
        slope: of the leaky ReLU for negative values, >= 0.
        clamp: largest magnitude of the activated image, > 0; None: none.
        flip_filter: False: convolutions; True: correlations.
        impl: 'cuda' or 'ref', which both mean ours.

    Raises:
        TypeError, ValueError: if an argument is at fault.

    Example:
        >>> x, f = torch.ones(1, 3, 8, 8), setup_filter([1, 3, 3, 1])
        >>> filtered_lrelu(x, f, f, torch.zeros(3), up=2, down=2, padding=[3, 2, 3, 2]).shape
        torch.Size([1, 3, 8, 8])
    """
    _check_impl(impl)
    names = "x", "fu", "fd", "b"
    return resampling.filtered_lrelu(
        names, x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter
    )


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a * b + c``, of three tensors of shapes that broadcast: :func:`torch.addcmul`.

    Tensors of no dimension that lie on the CPU serve every device.

    Raises:
        TypeError: if one is no tensor of real or complex numbers, or all are of bools.
        ValueError: if one is sparse or on another device, or the shapes do not fit.
    """
    placed: list[tuple[str, Tensor]] = []  # what asks for its device
    for name, t in (("a", a), ("b", b), ("c", c)):
        if not isinstance(t, Tensor) or t.dtype not in (*NUMBERS, torch.bool):
            kind = t.dtype if isinstance(t, Tensor) else type(t).__name__
            raise TypeError(f"{name} must be a tensor of numbers, got {kind}")
        check_dense(name, t)
        if t.dim() > 0 or t.device.type != "cpu":
            placed.append((name, t))
            (first_name, first), *_ = placed
            check_device((first_name, name), first, t)
    if all(t.dtype == torch.bool for t in (a, b, c)):
        raise TypeError("one of a, b and c must be of numbers, got bools alone")
    try:
        torch.broadcast_shapes(a.shape, b.shape, c.shape)
    except RuntimeError:
        shapes = ", ".join(str(tuple(t.shape)) for t in (a, b, c))
        raise ValueError(f"a, b and c must have shapes that broadcast, got {shapes}") from None
    return torch.addcmul(c, a, b)


def _as_taps(f: Any) -> Tensor:
    """The numbers in float32, where they are."""
    if getattr(f, "is_meta", False):
        raise ValueError("f must hold values, got a tensor on the meta device")
    try:
        dtype = getattr(f, "dtype", None)
        if dtype in (torch.complex64, torch.complex128) or getattr(dtype, "kind", "") == "c":
            raise TypeError  # torch drops the imaginary part
        # Without a device, a context such as torch.device("meta") would take the values away
        device = f.device if isinstance(f, Tensor) else "cpu"
        taps = torch.as_tensor(f, dtype=torch.float32, device=device)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        kind = TypeError if isinstance(error, (TypeError, RuntimeError)) else ValueError
        text = (
            "f must be [kh, kw], [taps], one number or None, as a list, array or tensor of real "
            f"numbers, got {shown(f)}"
        )
        raise kind(text) from None
    check_dense("f", taps)
    return taps


def _check_impl(impl: str) -> None:
    if not isinstance(impl, str) or impl not in ("ref", "cuda"):
        raise ValueError(f"impl must be 'ref' or 'cuda', got impl={shown(impl)}")
