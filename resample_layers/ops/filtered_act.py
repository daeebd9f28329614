# SPDX-License-Identifier: BSD-3-Clause
"""Upsample, activate, downsample: nonlinearities that do not alias, as one op.

A nonlinearity makes frequencies that the samples cannot hold; they fold back as aliases. StyleGAN3
and BigVGAN therefore upsample before each activation and filter and downsample after it. With
``F`` the op :func:`upfirdn2d` and ``f`` one of nonlinearity.py::

    m   = F(input + bias, up_kernel, up, pad)
    a   = clamp(gain * f(m), -clamp, clamp)
    out = F(a, down_kernel, down, down_pad)

Compiled kernels keep ``m`` and ``a``, which are the large images, in cache or shared memory; those
of CUDA have run in the emulation of the tests, and not yet on a GPU. Without compiled kernels the
op is computed piece by piece, so that ``m`` and ``a`` of a piece fit a budget. With
``B`` the transpose of ``F``, ``g`` the gradient of ``out``, the gradients are::

    g_a     = B(g, down_kernel)        g_m = gain * f'(m) * g_a, and 0 where a was clamped
    g_input = B(g_m, up_kernel)        bias: the sum of g_input    alpha, beta: sums over m

The first order of those in input, bias, alpha and beta is an op of its own,
:data:`FILTERED_ACT_GRAD`, which computes ``m`` again from the input. Where a graph of the gradient
or a kernel's gradient is asked for, the same lines are written with :data:`UPFIRDN2D`, whose
gradients have every order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .. import geometry
from . import native
from .arguments import check_filtered_call, check_required
from .border import extend
from .epilogue import clamp_limit
from .nonlinearity import LEAKY_RELU, NONLINEARITIES, SNAKE
from .op import Grads, Op, call_by_call
from .upfirdn2d import (
    KERNEL_GRAD,
    UPFIRDN2D,
    Pads,
    Pair,
    check_one_device,
    keep_taps,
    split_kernel_grad,
)

Kernel = Tensor | tuple[Tensor, Tensor]


def filtered_lrelu(
    input: Tensor,  # [N, C, H, W]
    up_kernel: Kernel | None = None,  # [kh, kw], [taps] or ([kw], [kh])
    down_kernel: Kernel | None = None,
    bias: Tensor | None = None,  # [C]
    up: int | Sequence[int] = 1,  # (x, y)
    down: int | Sequence[int] = 1,  # (x, y)
    pad: Sequence[int] = (0, 0),  # (before, after) or (x0, x1, y0, y1)
    negative_slope: float = 0.2,
    gain: float = math.sqrt(2.0),
    clamp: float | None = None,
    down_pad: Sequence[int] = (0, 0),
    padding_mode: str = "zeros",
) -> Tensor:
    """Upsample, leaky ReLU, downsample: StyleGAN3's activation, as one operator.

    ::

        m   = upfirdn2d(input + bias, up_kernel, up=up, pad=pad)
        a   = clamp(gain * leaky_relu(m, negative_slope))
        out = upfirdn2d(a, down_kernel, down=down, pad=down_pad)

    Args:
        input: images, float16, bfloat16, float32 or float64, of any memory format.
        up_kernel, down_kernel: the filters, each a 2-D kernel, taps for both axes or a pair
            ``(taps_x, taps_y)``, as for :func:`upfirdn2d`; None: no filter. They are convolved
            (true convolution) and not scaled: inserted zeros lower the mean, so a low-pass
            ``up_kernel`` should sum to ``up_x * up_y`` (taps: to ``up``).
        bias: one number per channel, added to the samples and not to the padding; or None.
        up: zero-insertion factor before the first filter, an int or ``(x, y)``.
        down: decimation factor after the second, an int or ``(x, y)``.
        pad: samples before and after the zero-inserted input, ``(before, after)`` for both axes
            or ``(x0, x1, y0, y1)``; negative values crop.
        negative_slope: slope of the leaky ReLU for negative values, >= 0; 0 is ReLU, 1 is linear.
        gain: factor after the activation, > 0.
        clamp: largest magnitude of the activated signal, > 0; None: none.
        down_pad: as ``pad``, for the activated signal before the second filter.
        padding_mode: what continues the input, and the activated signal, beyond their ends:
            ``"zeros"``, or ``"replicate"``: their end samples.

    Returns:
        The result, of the input's dtype, device and memory format, rounded once; half types are
        computed in float32. Gradients of every order exist in all tensors; where the activated
        signal was clamped they are zero. With compiled kernels the upsampled signal is never
        stored: forward, and the first order in ``input`` and ``bias``, are one pass each. Only
        the arguments are saved for it.

    Shape:
        - input: ``[N, C, H, W]``, ``N`` and ``C`` may be 0; bias: ``[C]``
        - output: ``[N, C, out_h, out_w]`` with ``mid_h = H * up_y + pad_y0 + pad_y1 - kh + 1``
          of the first kernel and ``out_h = (mid_h + down_pad_y0 + down_pad_y1 - kh) // down_y + 1``
          of the second, ``out_w`` likewise

    Raises:
        TypeError: if a tensor is not a floating-point tensor, or another argument is of a wrong
            kind.
        ValueError: if a rank, a length, a device, a factor below 1, an empty kernel, a constant
            out of its range, the padding mode, or a side below 1 of the upsampled signal, the
            output or, with ``"replicate"``, the input is at fault.

    Example:
        >>> import torch
        >>> from resample_layers.ops import filtered_lrelu
        >>> x = torch.tensor([[[[1.0, -2.0, 3.0, 5.0]]]])
        >>> row = torch.ones(2), torch.ones(1)  # two taps along x
        >>> filtered_lrelu(x, down_kernel=row, down=(2, 1), negative_slope=0.5, gain=1.0)
        tensor([[[[0., 8.]]]])

    Note:
        ReLU is a slope of 0. The registered operator behind this function computes SiLU
        (``activation`` 2) and GELU (3) too. It takes all arguments by position, factors as
        ``(x, y)`` and pads as ``(x0, x1, y0, y1)``, and expects them to be valid:

        >>> taps = torch.tensor([0.25, 0.5, 0.25])
        >>> kernels = taps, taps, taps, taps  # up_kernel x and y, down_kernel x and y
        >>> rest = (1, 1), (1, 1), (1, 1, 1, 1), (1, 1, 1, 1), False  # up, down, pads, replicate
        >>> silu = 2, 0.0, 1.0, None  # activation, negative_slope, gain, clamp
        >>> op = torch.ops.resample_layers.filtered_act
        >>> op(x, None, None, None, *kernels, *rest, *silu).shape
        torch.Size([1, 1, 1, 4])

    Source of the formula: Karras et al., Alias-Free Generative Adversarial Networks, 2021.
    """
    operands = {"bias": bias}
    kernels = {"up_kernel": up_kernel, "down_kernel": down_kernel}
    tensors = _tensors(input, kernels, operands)
    if has_torch_function(tensors):
        return handle_torch_function(  # type: ignore[no-any-return]
            filtered_lrelu,
            tensors,
            input,
            up_kernel,
            down_kernel,
            bias,
            up=up,
            down=down,
            pad=pad,
            negative_slope=negative_slope,
            gain=gain,
            clamp=clamp,
            down_pad=down_pad,
            padding_mode=padding_mode,
        )
    pads = {"pad": pad, "down_pad": down_pad}
    constants = negative_slope, gain, clamp
    taps, *call, constants = check_filtered_call(
        2, input, kernels, operands, up, down, pads, padding_mode, constants
    )
    return FILTERED_ACT(  # type: ignore[no-any-return]
        input, bias, None, None, *taps, *call, LEAKY_RELU, *constants
    )


def filtered_snake(
    input: Tensor,  # [N, C, L]
    alpha: Tensor,  # [C]
    beta: Tensor | None = None,  # [C]
    up_kernel: Tensor | None = None,  # [taps]
    down_kernel: Tensor | None = None,  # [taps]
    bias: Tensor | None = None,  # [C]
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    pad: int | Sequence[int] = 0,  # both sides, or (before, after)
    down_pad: int | Sequence[int] = 0,
    padding_mode: str = "zeros",
) -> Tensor:
    """Upsample, Snake, downsample: BigVGAN's activation of signals, as one operator.

    ::

        m   = upfirdn1d(input + bias, up_kernel, up=up, pad=pad)
        a   = m + sin(alpha * m) ** 2 / (beta + 1e-9)
        out = upfirdn1d(a, down_kernel, down=down, pad=down_pad)

    BigVGAN's layer, with its 12 taps and ratio 2, is ``filtered_snake(x, alpha, beta, 2 * taps,
    taps, up=2, down=2, pad=(6, 5), down_pad=(5, 6), padding_mode="replicate")``.

    Args:
        input: signals, float16, bfloat16, float32 or float64, channels before or, as a transposed
            ``[N, L, C]``, after the samples in memory.
        alpha: the frequency of the sine, one number per channel.
        beta: what its square is divided by, one number per channel; None: ``alpha``.
        up_kernel, down_kernel: the taps of the filters; None: no filter. They are convolved and
            not scaled: inserted zeros lower the mean, so a low-pass ``up_kernel`` should sum to
            ``up``.
        bias: one number per channel, added to the samples and not to the padding; or None.
        up: zero-insertion factor before the first filter.
        down: decimation factor after the second.
        pad: samples before and after the zero-inserted input, an int for both or
            ``(before, after)``; negative values crop.
        down_pad: the same for the activated signal before the second filter.
        padding_mode: what continues the input, and the activated signal, beyond their ends:
            ``"zeros"``, or ``"replicate"``: their end samples.

    Returns:
        The result, of the input's dtype, device and order in memory, rounded once; half types are
        computed in float32. Gradients of every order exist in all tensors. With compiled kernels
        the upsampled signal is never stored: forward, and the first order in ``input``, ``alpha``,
        ``beta`` and ``bias``, are one pass each. Only the arguments are saved for it.

    Shape:
        - input: ``[N, C, L]``, ``N`` and ``C`` may be 0; alpha, beta, bias: ``[C]``
        - output: ``[N, C, (mid + down_before + down_after - taps) // down + 1]`` of the second
          filter, with ``mid = L * up + before + after - taps + 1`` of the first

    Raises:
        TypeError: if a tensor is not a floating-point tensor, or another argument is of a wrong
            kind.
        ValueError: if a rank, a length, a device, a factor below 1, empty taps, the padding mode,
            or an upsampled signal, an output or, with ``"replicate"``, an input of no sample is at
            fault.

    Example:
        >>> import torch
        >>> from resample_layers.ops import filtered_snake
        >>> x = torch.tensor([[[0.0, 1.0, 3.0]]])
        >>> filtered_snake(x, torch.tensor([torch.pi]), down_kernel=torch.ones(2)).round(decimals=4)
        tensor([[[1., 4.]]])

    Source of the formula: Lee et al., BigVGAN, 2023; Snake: Ziyin et al., 2020.
    """
    if beta is None:
        beta = alpha
    operands = {"bias": bias, "alpha": alpha, "beta": beta}
    kernels = {"up_kernel": up_kernel, "down_kernel": down_kernel}
    tensors = _tensors(input, kernels, operands)
    if has_torch_function(tensors):
        return handle_torch_function(  # type: ignore[no-any-return]
            filtered_snake,
            tensors,
            input,
            alpha,
            beta,
            up_kernel,
            down_kernel,
            bias,
            up=up,
            down=down,
            pad=pad,
            down_pad=down_pad,
            padding_mode=padding_mode,
        )
    check_required("alpha", alpha)
    pads = {"pad": pad, "down_pad": down_pad}
    taps, *call, constants = check_filtered_call(
        1, input, kernels, operands, up, down, pads, padding_mode, (1.0, 1.0, None)
    )
    out: Tensor = FILTERED_ACT(
        input.unsqueeze(2), bias, alpha, beta, *taps, *call, SNAKE, *constants
    )
    return out.squeeze(2)


def _tensors(input: Tensor, *groups: dict[str, Any]) -> tuple[Any, ...]:
    """What may be a subclass of a tensor: the values, and what a pair of taps holds."""
    values = [input]
    for group in groups:
        for value in group.values():
            values += value if isinstance(value, (tuple, list)) else [value]
    return tuple(value for value in values if value is not None)


# The formula in plain torch


class Call(NamedTuple):
    """What one call has beside its tensors: the last arguments of the operator, in their order."""

    up: Pair  # (x, y)
    down: Pair
    up_pad: Pads  # (x0, x1, y0, y1)
    down_pad: Pads
    replicate: bool
    activation: int
    slope: float
    gain: float
    clamp: float | None


class Filter(NamedTuple):
    """One application of upfirdn2d with the samples that continue what it reads."""

    kernel: Tensor
    taps_y: Tensor | None
    up: Pair
    down: Pair
    border: Pads  # samples (left, right, top, bottom) that continue the signal
    pad: Pads  # around the continued signal

    @classmethod
    def of(
        cls,
        kernel: Tensor,
        taps_y: Tensor | None,
        up: Pair,
        down: Pair,
        pad: Pads,
        replicate: bool,
    ) -> Filter:
        if not replicate:
            return cls(kernel, taps_y, up, down, (0, 0, 0, 0), pad)
        x0, x1 = geometry.border(pad[0], pad[1], up[0])
        y0, y1 = geometry.border(pad[2], pad[3], up[1])
        inner = pad[0] - x0 * up[0], pad[1] - x1 * up[0], pad[2] - y0 * up[1], pad[3] - y1 * up[1]
        return cls(kernel, taps_y, up, down, (x0, x1, y0, y1), inner)

    def continued(self, x: Tensor) -> Tensor:
        return extend(x, self.border, "replicate") if any(self.border) else x

    def apply(self, resample: Resample, x: Tensor) -> Tensor:
        return resample(
            self.continued(x), self.kernel, self.taps_y, self.up, self.down, self.pad, False
        )

    def transpose(self, resample: Resample, grad: Tensor, size: Sequence[int]) -> Tensor:
        """The gradient of what was read, of ``size`` (h, w), from that of what was computed."""
        x0, x1, y0, y1 = self.border
        whole = (size[0] + y0 + y1, size[1] + x0 + x1)
        pad = geometry.adjoint_pads(
            whole, grad.shape[2:], self.up, self.down, self.pad, self.kernel_size
        )
        out = resample(grad, self.kernel, self.taps_y, self.down, self.up, pad, True)
        return _fold(_fold(out, 3, x0, x1), 2, y0, y1)

    def kernel_grads(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        call = self.up, self.down, self.pad, self.kernel_size[::-1]
        w = KERNEL_GRAD(self.continued(x), grad, *call)
        return split_kernel_grad(w, self.kernel, self.taps_y)

    @property
    def kernel_size(self) -> Pair:
        return native.kernel_size(self.kernel, self.taps_y)


Resample = Callable[..., Tensor]  # UPFIRDN2D, or the same without a gradient


def _fold(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """The transpose of continuing a signal: its end samples get what their copies got."""
    if not (before or after):
        return x
    inner = x.narrow(dim, before, x.shape[dim] - before - after)
    size = inner.shape[dim]
    if before:
        first = inner.narrow(dim, 0, 1) + x.narrow(dim, 0, before).sum(dim, keepdim=True)
        inner = torch.cat([first, inner.narrow(dim, 1, size - 1)], dim)
    if after:
        end = x.narrow(dim, before + size, after).sum(dim, keepdim=True)
        last = inner.narrow(dim, size - 1, 1) + end
        inner = torch.cat([inner.narrow(dim, 0, size - 1), last], dim)
    return inner


class Formula(NamedTuple):
    """One call in the accumulate dtype. ``resample`` chooses what the lines are made of."""

    resample: Resample
    input: Tensor
    bias: Tensor | None  # each [C, 1, 1]
    alpha: Tensor | None
    beta: Tensor | None
    first: Filter
    second: Filter
    call: Call

    @classmethod
    def of(cls, resample: Resample, args: Sequence[Any]) -> Formula:
        """From the arguments of the operator."""
        call, wide = Call(*args[8:]), _accumulate_dtype(args)
        bias, alpha, beta = (None if t is None else t.to(wide)[:, None, None] for t in args[1:4])
        first = Filter.of(args[4], args[5], call.up, (1, 1), call.up_pad, call.replicate)
        second = Filter.of(args[6], args[7], (1, 1), call.down, call.down_pad, call.replicate)
        return cls(resample, args[0].to(wide), bias, alpha, beta, first, second, call)

    def biased(self) -> Tensor:
        return self.input if self.bias is None else self.input + self.bias

    def output(self) -> Tensor:
        _, activated, _ = self._activated()
        return self.second.apply(self.resample, activated)

    def _activated(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """``m``, ``a``, and where ``a`` was clamped."""
        m = self.first.apply(self.resample, self.biased())
        row, slope = NONLINEARITIES[self.call.activation], self.call.slope
        value = row.value(m, self.alpha, self.beta, slope) * self.call.gain
        if self.call.clamp is None:
            return m, value, None
        limit = clamp_limit(self.call.clamp, value.dtype)
        return m, value.clamp(-limit, limit), value.abs() > limit

    def grads(self, grad: Tensor, needs: Sequence[bool]) -> list[Tensor | None]:
        """Gradients of the eight tensors, in their order, where ``needs`` asks for them."""
        m, activated, clamped = self._activated()
        grad = grad.to(m.dtype)
        g = self.second.transpose(self.resample, grad, m.shape[2:]) * self.call.gain
        if clamped is not None:
            g = g.masked_fill(clamped, 0.0)
        row, rest = NONLINEARITIES[self.call.activation], (self.alpha, self.beta, self.call.slope)
        grad_m = row.grad(g, m, *rest)
        grads: list[Tensor | None] = [None] * 8
        if needs[0] or needs[1]:
            grads[0] = self.first.transpose(self.resample, grad_m, self.input.shape[2:])
        if needs[1] and grads[0] is not None:
            grads[1] = grads[0].sum((0, 2, 3))
        if (needs[2] or needs[3]) and row.operand_grads is not None:
            grads[2:4] = [t.sum((0, 2, 3)) for t in row.operand_grads(g, m, *rest)]
        if needs[4] or needs[5]:
            grads[4:6] = self.first.kernel_grads(self.biased(), grad_m)
        if needs[6] or needs[7]:
            grads[6:8] = self.second.kernel_grads(activated, grad)
        return [t if needed else None for t, needed in zip(grads, needs, strict=True)]


def _accumulate_dtype(args: Sequence[Any]) -> torch.dtype:
    """That of the input and the kernels, as for upfirdn2d."""
    return native.accumulate_dtype(*(t for t in (args[0], *args[4:8]) if t is not None))


def _native(*args: Any) -> Tensor:
    """The op, arguments trusted: piece by piece where only values are asked for."""
    if not native.is_plain(*(t for t in args[:8] if t is not None)):
        out = Formula.of(native.resample, args).output().to(args[0].dtype)
        return native.as_laid_out(out, args[0])
    out = _empty_output(*args)
    for piece, batch, channels in _pieces(args, out):
        out[batch, channels] = Formula.of(native.resample, piece).output()
    return out


def _native_grad(grad: Tensor, *args: Any) -> tuple[Tensor, ...]:
    needs = (True, *args[-1], *(False,) * 4)
    if not native.is_plain(grad, *(t for t in args[:8] if t is not None)):
        input, wide = args[0], _accumulate_dtype(args)
        of_input, *sums = Formula.of(native.resample, args[:-1]).grads(grad, needs)[:4]
        assert of_input is not None
        absent = [input.new_zeros(input.shape[1] if asked else 0, dtype=wide) for asked in args[-1]]
        return (
            native.as_laid_out(of_input.to(input.dtype), input),
            *(zero if total is None else total for total, zero in zip(sums, absent, strict=True)),
        )
    results = _empty_grads(grad, *args)
    for total in results[1:]:
        total.zero_()
    for piece, batch, channels in _pieces(args[:-1], grad):
        grads = Formula.of(native.resample, piece).grads(grad[batch, channels], needs)
        results[0][batch, channels] = grads[0]  # type: ignore[assignment]
        for total, part in zip(results[1:], grads[1:4], strict=True):
            if part is not None:
                total[channels] += part
    return results


def _pieces(args: Sequence[Any], out: Tensor) -> Any:
    """``(arguments, samples, channels)`` of pieces whose upsampled signal fits a budget."""
    input, *rest = args
    n, c = input.shape[:2]
    mid_h, mid_w = _middle_size(args)
    budget = native.PIECE_BYTES.get(input.device.type, native.PIECE_BYTES_ELSEWHERE)
    plane = 4 * (input[0, 0].numel() + mid_h * mid_w + out[0, 0].numel()) if n and c else 1
    planes = max(1, budget // plane)
    channels = min(max(c, 1), planes)
    samples = max(1, planes // channels)
    for i in range(0, n, samples):
        for j in range(0, c, channels):
            batch, chan = slice(i, i + samples), slice(j, j + channels)
            operands = [None if t is None else t[chan] for t in rest[:3]]
            yield (input[batch, chan], *operands, *rest[3:]), batch, chan


def _middle_size(args: Sequence[Any]) -> Pair:
    """(h, w) of ``m``, from the operator's arguments."""
    call = Call(*args[8:])
    size = native.kernel_size(args[4], args[5])
    return geometry.output_sizes(args[0].shape[2:], call.up, (1, 1), call.up_pad, size)


# What comes out, without computing it


def _empty_output(*args: Any) -> Tensor:
    input, call = args[0], Call(*args[8:])
    check_one_device(*args[:8])
    size = native.kernel_size(args[6], args[7])
    out_size = geometry.output_sizes(_middle_size(args), (1, 1), call.down, call.down_pad, size)
    return torch.empty(
        (*input.shape[:2], *out_size),
        dtype=input.dtype,
        device=input.device,
        memory_format=native.memory_format(input),
    )


def _empty_grads(grad: Tensor, *args: Any) -> tuple[Tensor, ...]:
    input, wide = args[0], _accumulate_dtype(args)
    check_one_device(grad, *args[:8])
    sums = (input.new_empty(input.shape[1] if asked else 0, dtype=wide) for asked in args[-1])
    return torch.empty_like(input, memory_format=native.memory_format(input)), *sums


# The gradient


def _setup(
    needs: Sequence[bool], inputs: tuple[Any, ...], output: Tensor
) -> tuple[tuple[Tensor | None, ...], Any]:
    tensors, call = inputs[:8], inputs[8:]
    is_tied = inputs[2] is inputs[3]  # Snake: one number per channel serves as alpha and beta
    saved = (*tensors[:4], *keep_taps(*tensors[4:6]), *keep_taps(*tensors[6:8]))
    return saved, (call, is_tied)


def _backward(needs: Sequence[bool], saved: Sequence[Any], constants: Any, grad: Tensor) -> Grads:
    call, is_tied = constants
    if torch.is_grad_enabled() or any(needs[4:8]):
        grads = Formula.of(UPFIRDN2D, (*saved, *call)).grads(grad, needs[:8])
    else:
        asked = [bool(needed) for needed in needs[1:4]]
        grads = [*FILTERED_ACT_GRAD(grad, *saved, *call, asked), *(None,) * 4]
    if is_tied and grads[2] is not None and grads[3] is not None:
        grads[2:4] = grads[2] + grads[3], None  # before they are rounded to its dtype
    return tuple(
        t.to(tensor.dtype) if needed and t is not None else None
        for t, tensor, needed in zip(grads, saved, needs, strict=False)
    )


def _vmap(
    op: Any, info: Any, in_dims: tuple[int | None, ...], input: Tensor, *rest: Any
) -> tuple[Tensor, int]:
    """With one set of operands for the whole batch, fold the batch into N; else call by call."""
    if in_dims[0] is not None and all(dim is None for dim in in_dims[1:8]):
        x = input.movedim(in_dims[0], 0)
        return op(x.flatten(0, 1), *rest).unflatten(0, x.shape[:2]), 0
    return call_by_call(op, info, in_dims, input, *rest)


# The ops

_ARGUMENTS = (
    "Tensor input, Tensor? bias, Tensor? alpha, Tensor? beta, Tensor up_kernel, "
    "Tensor? up_taps_y, Tensor down_kernel, Tensor? down_taps_y, int[2] up, int[2] down, "
    "SymInt[4] up_pad, SymInt[4] down_pad, bool replicate, int activation, "
    "float negative_slope, float gain, float? clamp"
)
FILTERED_ACT = Op(
    "filtered_act",
    f"({_ARGUMENTS}) -> Tensor",
    _native,
    _empty_output,
    _setup,
    _backward,
    _vmap,
)
FILTERED_ACT_GRAD = Op(
    "filtered_act_grad",
    f"(Tensor grad, {_ARGUMENTS}, bool[3] needs) -> (Tensor, Tensor, Tensor, Tensor)",
    _native_grad,
    _empty_grads,
)
