# SPDX-License-Identifier: BSD-3-Clause
"""The op and its kernel's gradient in plain torch: any device, differentiable to any order.

Every output is a sum over the taps of its phase, ``acc += input[shifted, strided slice] * tap``.
No inserted zero is multiplied. Slices, multiplications and additions only: no convolution, so
that no cuDNN algorithm, TF32 flag, autocast mode or 2^31 limit has a say in the result, it is
the same from run to run, and a compiler can fuse all of it into one kernel.

Each sum is written twice. ``_pass`` and ``_kernel_grad`` are functional, hence traceable and
differentiable; they pad with zeros, since a tracer must not look at sizes, and mask the taps over
the padding, except in exported graphs, which multiply its zeros. Where nothing is traced
or differentiated, ``_pass_in_place`` and ``_kernel_grad_in_place`` read the samples that exist and
no padding, so that memory follows what is computed and a tap that is not finite is multiplied with
samples only. They run piece by piece (``_pieces``) so that temporaries stay in cache on a CPU and
below 64 MB elsewhere; a piece is never less than a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import geometry
from .arguments import check_call
from .epilogue import Epilogue, activation_grad
from .modes import is_differentiated_elsewhere, is_tracing

PIECE_BYTES = {"cpu": 2 << 20}  # input and output of one piece: the size of a core's L2 cache
PIECE_BYTES_ELSEWHERE = 16 << 20  # few launches, and all temporaries together below 64 MB


def upfirdn2d_native(
    input: Tensor,  # [N, C, H, W]
    kernel: Tensor | tuple[Tensor, Tensor],  # [kh, kw], [taps] or ([kw], [kh])
    up_x: int,
    up_y: int,
    down_x: int,
    down_y: int,
    pad_x0: int,
    pad_x1: int,
    pad_y0: int,
    pad_y1: int,
) -> Tensor:
    """Upsample, pad, filter and downsample in plain torch: :func:`upfirdn2d` for every device.

    Differentiable to any order in ``input`` and ``kernel``, forward and reverse; works under
    ``torch.func`` transforms, ``torch.compile``, ``torch.export``, ``torch.onnx.export`` and
    ``torch.jit.trace``. The arguments are those of :func:`resample_layers.ops.upfirdn2d`, one by
    one, and are checked in the same way.

    Shape:
        - input: ``[N, C, H, W]``, float16, bfloat16, float32 or float64
        - output: ``[N, C, (H * up_y + pad_y0 + pad_y1 - kh) // down_y + 1,
          (W * up_x + pad_x0 + pad_x1 - kw) // down_x + 1]``, of the input's dtype

    Raises:
        TypeError, ValueError: as :func:`resample_layers.ops.upfirdn2d`.

    Memory: where no gradient is recorded, input, output and at most 64 MB, or what one row takes.

    Example:
        >>> import torch
        >>> from resample_layers.ops import upfirdn2d_native
        >>> x = torch.ones(1, 1, 4, 4)
        >>> upfirdn2d_native(x, torch.ones(2, 2), 1, 1, 2, 2, 0, 0, 0, 0)
        tensor([[[[4., 4.],
                  [4., 4.]]]])

    Source of the formula: the definition in :mod:`resample_layers.geometry`.
    """
    pad = (pad_x0, pad_x1, pad_y0, pad_y1)
    taps, taps_y, up, down, pad = check_call(input, kernel, (up_x, up_y), (down_x, down_y), pad)
    return resample(input, taps, taps_y, up, down, pad)


def resample(
    input: Tensor,  # [N, C, H, W]
    kernel: Tensor,  # [kh, kw], or [kw]: separable
    taps_y: Tensor | None,  # [kh] of a separable kernel; None: the kernel is 2-D
    up: tuple[int, int],  # (x, y)
    down: tuple[int, int],
    pad: tuple[int, int, int, int],  # (x0, x1, y0, y1)
    flip: bool = False,  # True: read the taps backwards
    epilogue: Epilogue | None = None,
) -> Tensor:
    """The op, arguments trusted. This is what the registered ops run where no library serves.

    The epilogue acts on sums of the accumulate dtype, before they are rounded.
    """
    size = kernel_size(kernel, taps_y)
    factors = [kernel] if taps_y is None else [taps_y[:, None], kernel[None, :]]
    dtype = accumulate_dtype(input, *factors)
    factors = [(k.flip(0, 1) if flip else k).to(dtype) for k in factors]
    operands = [] if epilogue is None else epilogue.tensors()
    if not is_plain(input, *factors, *operands):
        onnx = torch.onnx.is_in_onnx_export()
        exported = is_tracing() or onnx
        one_pass: Callable[..., Tensor] = _pass if exported else partial(_pass, masked=True)
        if onnx and dtype == torch.float32:  # onnxruntime has no convolution of float64 on a CPU
            one_pass = _pass_as_convolution
        out = _resample(input.to(dtype), factors, up, down, pad, one_pass)
        if len(factors) == 2 and not exported:
            out = _without_unreached(out, input.shape[2], up[1], down[1], pad[2:], size[0])
        out = (out if epilogue is None else epilogue.apply(out)).to(input.dtype)
        return as_laid_out(out, input)

    # Piece by piece into one allocation
    out = torch.empty(
        (*input.shape[:2], *geometry.output_sizes(input.shape[2:], up, down, pad, size)),
        dtype=input.dtype,
        device=input.device,
        memory_format=memory_format(input),
    )
    for batch, chan, first, last in _pieces(input, out, dtype):
        a, b, y0, y1 = geometry.row_range(
            input.shape[2], first, last, up[1], down[1], pad[2], size[0]
        )
        piece = input[batch, chan, a:b].to(dtype)
        pads = (*pad[:2], y0, y1)
        sums = _resample(piece, factors, up, down, pads, _pass_in_place)
        if len(factors) == 2:
            _clear_unreached(sums, piece.shape[2], up[1], down[1], y0, size[0])
        if epilogue is not None:
            sums = epilogue.part(batch, chan, slice(first, last)).apply(sums)
        out[batch, chan, first:last] = sums
    return out


def resample_bias_act(
    input: Tensor,  # [N, C, H, W]
    kernel: Tensor,  # [kh, kw], or [kw]: separable
    taps_y: Tensor | None,  # [kh] of a separable kernel; None: the kernel is 2-D
    bias: Tensor | None,  # [C]
    noise: Tensor | None,  # [N or 1, 1, out_h, out_w]
    noise_strength: Tensor | None,  # one element
    scale: Tensor | None,  # [N, C]
    up: tuple[int, int],  # (x, y)
    down: tuple[int, int],
    pad: tuple[int, int, int, int],  # (x0, x1, y0, y1)
    negative_slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """The op and its epilogue, arguments trusted."""
    epilogue = Epilogue(bias, noise, noise_strength, scale, negative_slope, gain, clamp)
    return resample(input, kernel, taps_y, up, down, pad, False, epilogue)


def kernel_grad(
    input: Tensor,  # [N, C, H, W]
    grad: Tensor,  # [N, C, out_h, out_w]
    up: tuple[int, int],  # (x, y)
    down: tuple[int, int],
    pad: tuple[int, int, int, int],  # (x0, x1, y0, y1)
    kernel_size: tuple[int, int],  # (kw, kh)
) -> Tensor:
    """``w[i, j] = sum(grad * (what tap i, j reads))``: [kh, kw] of the accumulate dtype."""
    dtype = accumulate_dtype(input, grad)
    if not is_plain(input, grad):
        return _kernel_grad(input.to(dtype), grad.to(dtype), up, down, pad, kernel_size)
    total = torch.zeros(kernel_size[::-1], dtype=dtype, device=input.device)
    for batch, chan, first, last in _pieces(input, grad, dtype):
        a, b, y0, y1 = geometry.row_range(
            input.shape[2], first, last, up[1], down[1], pad[2], kernel_size[1]
        )
        total += _kernel_grad_in_place(
            input[batch, chan, a:b].to(dtype),
            grad[batch, chan, first:last].to(dtype),
            up,
            down,
            (*pad[:2], y0, y1),
            kernel_size,
        )
    return total


# The dtype of what is scaled, beside a dtype whose range the sums over taps may leave. The compiled
# kernels have it as `may_be_wide` in csrc/upfirdn2d_ops.cpp and as their two `WideScaled`
WIDE = {torch.float16: torch.float32}


def check_gradient_dtypes(grad: Tensor, output: Tensor, scaled: Tensor | None) -> None:
    """Those that :func:`bias_act_grad` takes, and the compiled kernels with it."""
    if grad.dtype != output.dtype:
        raise ValueError(f"grad must have output's dtype, {output.dtype}, got {grad.dtype}")
    wide = WIDE.get(output.dtype)
    if scaled is not None and scaled.dtype not in (output.dtype, wide):
        other = "" if wide is None else f", or {wide}"
        raise ValueError(
            f"scaled must have output's dtype, {output.dtype}{other}, got {scaled.dtype}"
        )


def bias_act_grad(
    grad: Tensor,  # [N, C, out_h, out_w], of output
    output: Tensor,  # [N, C, out_h, out_w]
    scaled: Tensor | None,  # [N, C, out_h, out_w]; None: no gradient of the scale
    tap_x: Tensor | None,  # one element; None: 1
    tap_y: Tensor | None,
    scale: Tensor | None,  # [N, C]; None: 1
    noise: Tensor | None,  # [N or 1, 1, out_h, out_w]; None: no gradient of the strength
    noise_strength: Tensor | None,  # one element; None: 1
    with_bias: bool,
    noise_samples: int,  # of the noise's gradient: N, 1, or 0 for none
    negative_slope: float,
    gain: float,
    clamp: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What activation_grad.py states, piece by piece where only values are asked for."""
    check_gradient_dtypes(grad, output, scaled)
    dtype = accumulate_dtype(output)
    taps = [tap.reshape(()).to(dtype) for tap in (tap_x, tap_y) if tap is not None]
    samples, channels, height, width = output.shape
    shapes = (
        (channels,) if with_bias else (0,),
        (noise_samples, 1, height, width) if noise_samples else (0,),
        (0,) if noise is None else (1,),
        (0,) if scaled is None else (samples, channels),
    )
    totals = [output.new_zeros(shape, dtype=dtype) for shape in shapes]

    def gradients(batch: slice, chan: slice, rows: slice) -> tuple[Tensor, list[Tensor | None]]:
        """The result of a piece, and what it adds to the totals; None: nothing."""
        piece = batch, chan, rows
        u = activation_grad(grad[piece].to(dtype), output[piece], negative_slope, clamp)
        z = u * gain
        parts: list[Tensor | None] = [z.sum((0, 2, 3)) if with_bias else None, None, None, None]
        if noise_samples or noise is not None:
            pixels = z.sum(1, keepdim=True)
            if noise is not None:
                factors = noise if noise.shape[0] == 1 else noise[batch]
                parts[2] = (pixels * factors[:, :, rows].to(dtype)).sum().reshape(1)
            if noise_samples:
                parts[1] = pixels.sum(0, keepdim=True) if noise_samples == 1 else pixels
        if scaled is not None:
            parts[3] = (z * scaled[piece].to(dtype)).sum((2, 3))
        for tap in taps:
            z = z * tap
        if scale is not None:
            z = z * scale[batch, chan, None, None].to(dtype)
        return u if not taps and scale is None else z, parts

    tensors = (grad, output, scaled, tap_x, tap_y, scale, noise, noise_strength)
    if is_plain(*(t for t in tensors if t is not None)):
        result = torch.empty(
            output.shape,
            dtype=output.dtype,
            device=output.device,
            memory_format=memory_format(output),
        )
        for batch, chan, first, last in _pieces(output, result, dtype):
            rows = slice(first, last)
            result[batch, chan, rows], parts = gradients(batch, chan, rows)
            noisy = batch if noise_samples > 1 else slice(None)
            places: tuple[Any, ...] = chan, (noisy, slice(None), rows), slice(None), (batch, chan)
            for total, place, part in zip(totals, places, parts, strict=True):
                if part is not None:
                    total[place] += part
    else:  # nothing is written in place
        whole = slice(None)
        result, parts = gradients(whole, whole, whole)
        result = as_laid_out(result.to(output.dtype), output)
        totals = [t if part is None else part for t, part in zip(totals, parts, strict=True)]
    of_bias, of_noise, of_strength, of_scale = totals
    if noise_strength is not None:
        of_noise = of_noise * noise_strength.reshape(()).to(dtype)
    for tap in taps:
        of_scale = of_scale * tap
    return result, of_bias, of_noise, of_strength, of_scale


def kernel_size(kernel: Tensor, taps_y: Tensor | None) -> tuple[int, int]:
    """(kh, kw) of a kernel [kh, kw], or of the outer product of ``taps_y`` [kh] and taps [kw].

    Raises:
        ValueError: if taps come without ``taps_y``, or a 2-D kernel with it.
    """
    if kernel.dim() != (2 if taps_y is None else 1):
        raise ValueError(
            "taps_y must come with a kernel of 1 dimension and not with one of 2, got a kernel of "
            f"{kernel.dim()} {'without' if taps_y is None else 'with'} taps_y"
        )
    if taps_y is None:
        return kernel.shape[0], kernel.shape[1]
    return taps_y.shape[0], kernel.shape[0]


def accumulate_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where any operand is, else float32: sums of half types are never kept in half."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def is_channels_last(x: Tensor) -> bool:
    """Whether results of ``x`` are laid out as channels_last: it is, and is not contiguous too.

    Of any number of dimensions: a transposed ``[N, L, C]`` and channels_last_3d count as well.
    By strides alone, so that slices of channels_last tensors count and vmap does not object. The
    stride of a dimension of one sample says nothing.
    """
    if is_tracing() or x.is_contiguous() or x.shape[1] == 1 or x.stride(1) != 1:
        return False
    least = x.shape[1]
    for dim in (*range(x.dim() - 1, 1, -1), 0):
        if x.shape[dim] > 1:
            if x.stride(dim) < least:
                return False
            least = x.stride(dim) * x.shape[dim]
    return True


def memory_format(x: Tensor) -> torch.memory_format:
    """That of results of ``x`` [N, C, H, W]."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def as_laid_out(out: Tensor, input: Tensor) -> Tensor:
    """``out`` [N, C, H, W] in the memory format of results of ``input``."""
    if not is_channels_last(input) or torch._C._are_functorch_transforms_active():
        return out
    return out.contiguous(memory_format=torch.channels_last)


def _resample(
    x: Tensor,  # [N, C, H, W], accumulate dtype
    factors: list[Tensor],  # the kernel as a product: [kh, kw], or [kh, 1] and [1, kw]
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int, int, int],
    one_pass: Callable[..., Tensor],
) -> Tensor:
    if len(factors) == 1:
        return one_pass(x, factors[0], up, down, pad)
    x = one_pass(x, factors[0], (1, up[1]), (1, down[1]), (0, 0, *pad[2:]))
    return one_pass(x, factors[1], (up[0], 1), (down[0], 1), (*pad[:2], 0, 0))


def _pass(
    x: Tensor,
    kernel: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int, int, int],
    masked: bool = False,  # whether taps may be NaN or infinite: they must not meet the padding
) -> Tensor:
    """One sum over the taps of a 2-D kernel, phase by phase; then the phases interleaved."""
    taps = [row.unbind() for row in kernel.unbind()]  # lengths are ints here even to a tracer
    kh, kw = len(taps), len(taps[0])
    plan_x = geometry.polyphase(up[0], down[0], pad[0], pad[1], kw)
    plan_y = geometry.polyphase(up[1], down[1], pad[2], pad[3], kh)
    out_h, out_w = geometry.output_sizes(x.shape[2:], up, down, pad, (kh, kw))
    exists_y, exists_x = (
        _mask(x, dim, plan) if masked else None for dim, plan in ((2, plan_y), (3, plan_x))
    )
    x = _pad(x, plan_x, plan_y)
    steps_y, steps_x = plan_y.steps(out_h), plan_x.steps(out_w)
    rows = []
    for phase_y in plan_y.taps:
        columns = []
        for phase_x in plan_x.taps:
            acc: Tensor | None = None
            for i, offset_y in phase_y:
                strip = _take(x, 2, offset_y + plan_y.before, plan_y.stride, steps_y)
                for j, offset_x in phase_x:
                    read = _take(strip, 3, offset_x + plan_x.before, plan_x.stride, steps_x)
                    tap = taps[i][j]
                    for exists, dim, start, plan, steps in (
                        (exists_y, 2, offset_y, plan_y, steps_y),
                        (exists_x, 3, offset_x, plan_x, steps_x),
                    ):
                        if exists is not None:
                            part = _take(exists, dim, start + plan.before, plan.stride, steps)
                            tap = torch.where(part, tap, torch.zeros_like(tap))
                    acc = read * tap if acc is None else torch.addcmul(acc, read, tap)
            columns.append(_zeros(x, kernel, steps_y, steps_x) if acc is None else acc)
        rows.append(_interleave(columns, 3, out_w))
    return _interleave(rows, 2, out_h)


def _pass_as_convolution(
    x: Tensor,
    kernel: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int, int, int],
) -> Tensor:
    """:func:`_pass` for ONNX graphs: a few nodes, whatever the number of taps.

    A node for each tap makes thousands of a generator with long filters, for which the exporter's
    optimiser took more than six minutes. All planes go through one convolution of one channel.
    """
    n, c, h, w = x.shape
    x = x.reshape(n * c, 1, h, w)
    if up != (1, 1):  # zeros after each sample
        x = x.reshape(n * c, h, 1, w, 1)
        x = F.pad(x, (0, up[0] - 1, 0, 0, 0, up[1] - 1))
        x = x.reshape(n * c, 1, h * up[1], w * up[0])
    if any(pad):
        x = F.pad(x, pad)
    out = F.conv2d(x, kernel.flip(0, 1)[None, None], stride=down[::-1])
    out_h, out_w = geometry.output_sizes((h, w), up, down, pad, (kernel.shape[0], kernel.shape[1]))
    return out.reshape(n, c, out_h, out_w)


def _pass_in_place(
    x: Tensor,
    kernel: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int, int, int],
) -> Tensor:
    """:func:`_pass` from the samples that exist, where only values are asked for."""
    taps = [row.unbind() for row in kernel.unbind()]
    kh, kw = len(taps), len(taps[0])
    plan_x = geometry.polyphase(up[0], down[0], pad[0], pad[1], kw)
    plan_y = geometry.polyphase(up[1], down[1], pad[2], pad[3], kh)
    out_h, out_w = geometry.output_sizes(x.shape[2:], up, down, pad, (kh, kw))
    out = torch.empty(
        (*x.shape[:2], out_h, out_w),
        dtype=x.dtype,
        device=x.device,
        memory_format=memory_format(x),
    ).zero_()
    for part, phase_y, phase_x in _phases(out, plan_y, plan_x):
        # Sums of neighbours are faster than those of every second element
        acc = part if plan_y.phases == plan_x.phases == 1 else torch.zeros_like(part)
        for tap_y in phase_y:
            for tap_x in phase_x:
                read, steps = _existing(x, plan_y, plan_x, tap_y, tap_x, acc)
                acc[steps].addcmul_(read, taps[tap_y.position][tap_x.position])
        if acc is not part:
            part.copy_(acc)
    return out


def _without_unreached(
    out: Tensor,
    height: int,  # of the input
    up: int,
    down: int,
    pad: Sequence[int],  # (y0, y1)
    taps: int,
) -> Tensor:
    """:func:`_clear_unreached` for tracers and transforms, which allow no writing."""
    if not geometry.may_miss(up, pad[0], pad[1], taps):
        return out
    column, ones = out.new_ones((1, 1, height, 1)), out.new_ones((taps, 1))
    reached = _pass(column, ones, (1, up), (1, down), (0, 0, pad[0], pad[1])) > 0
    return torch.where(reached, out, out.new_zeros(()))


def _phases(
    out: Tensor, plan_y: geometry.Polyphase, plan_x: geometry.Polyphase
) -> Iterator[tuple[Tensor, tuple[geometry.Tap, ...], tuple[geometry.Tap, ...]]]:
    """The outputs of each pair of phases that have taps, a view, and these taps."""
    for first_y, phase_y in enumerate(plan_y.taps[: out.shape[2]]):
        rows = out[:, :, first_y :: plan_y.phases]
        for first_x, phase_x in enumerate(plan_x.taps[: out.shape[3]] if phase_y else ()):
            if phase_x:
                yield rows[:, :, :, first_x :: plan_x.phases], phase_y, phase_x


def _existing(
    x: Tensor,
    plan_y: geometry.Polyphase,
    plan_x: geometry.Polyphase,
    tap_y: geometry.Tap,
    tap_x: geometry.Tap,
    part: Tensor,  # outputs of the phases of both taps
) -> tuple[Tensor, tuple[slice, ...]]:
    """The samples that the taps read, and the index of the outputs that they belong to."""
    read, steps = x, [slice(None), slice(None)]
    for dim, plan, tap in ((2, plan_y, tap_y), (3, plan_x, tap_x)):
        first, last = plan.reach(tap, x.shape[dim], part.shape[dim])
        start = max(0, tap.offset + plan.stride * first)
        read = _take(read, dim, start, plan.stride, last - first)
        steps.append(slice(first, last))
    return read, tuple(steps)


def _clear_unreached(out: Tensor, size: int, up: int, down: int, pad0: int, taps: int) -> None:
    """Set rows that no sample reaches to 0, where a pass along x made other values of zeros."""
    plan = geometry.polyphase(up, down, pad0, 0, taps)
    for phase, phase_taps in enumerate(plan.taps[: out.shape[2]]):
        rows = out[:, :, phase :: plan.phases]
        reaches = [plan.reach(tap, size, rows.shape[2]) for tap in phase_taps]
        reaches = [(first, last) for first, last in reaches if first < last] or [(0, 0)]
        first, last = min(r[0] for r in reaches), max(r[1] for r in reaches)
        if (first, last) != (0, rows.shape[2]):
            rows[:, :, :first] = 0
            rows[:, :, last:] = 0


def _kernel_grad_in_place(
    x: Tensor,
    grad: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int, int, int],
    kernel_size: tuple[int, int],
) -> Tensor:
    """:func:`_kernel_grad` from the samples that exist, where only values are asked for."""
    kw, kh = kernel_size
    plan_x = geometry.polyphase(up[0], down[0], pad[0], pad[1], kw)
    plan_y = geometry.polyphase(up[1], down[1], pad[2], pad[3], kh)
    sums = torch.zeros((kh, kw), dtype=x.dtype, device=x.device)
    for part, phase_y, phase_x in _phases(grad, plan_y, plan_x):
        for tap_y in phase_y:
            for tap_x in phase_x:
                read, steps = _existing(x, plan_y, plan_x, tap_y, tap_x, part)
                sums[tap_y.position, tap_x.position] = (read * part[steps]).sum()
    return sums


def _kernel_grad(
    x: Tensor,
    grad: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int, int, int],
    kernel_size: tuple[int, int],
) -> Tensor:
    """The same walk over phases and taps; what a tap reads meets the gradient of its phase."""
    kw, kh = kernel_size
    plan_x = geometry.polyphase(up[0], down[0], pad[0], pad[1], kw)
    plan_y = geometry.polyphase(up[1], down[1], pad[2], pad[3], kh)
    x = _pad(x, plan_x, plan_y)
    untouched = x[:, :, :0].sum() + grad[:, :, :0].sum()  # 0, found by autograd
    sums = [untouched] * (kh * kw)
    for phase, phase_y in enumerate(plan_y.taps):
        grad_y = grad[:, :, phase :: plan_y.phases]
        for phase2, phase_x in enumerate(plan_x.taps):
            grad_yx = grad_y[:, :, :, phase2 :: plan_x.phases]
            steps_y, steps_x = grad_yx.shape[2], grad_yx.shape[3]
            for i, offset_y in phase_y:
                strip = _take(x, 2, offset_y + plan_y.before, plan_y.stride, steps_y)
                for j, offset_x in phase_x:
                    read = _take(strip, 3, offset_x + plan_x.before, plan_x.stride, steps_x)
                    sums[i * kw + j] = (read * grad_yx).sum()
    return torch.stack(sums).reshape(kh, kw)


def _pad(x: Tensor, plan_x: geometry.Polyphase, plan_y: geometry.Polyphase) -> Tensor:
    sides = [plan_x.before, plan_x.after, plan_y.before, plan_y.after]
    return F.pad(x, sides) if any(sides) else x


def _mask(x: Tensor, dim: int, plan: geometry.Polyphase) -> Tensor | None:
    """Which samples along ``dim`` of the padded input exist: [1, 1, H', 1] or [1, 1, 1, W'].

    None where there is no padding.
    """
    if not (plan.before or plan.after):
        return None
    exists = F.pad(x.new_ones(x.shape[dim]), [plan.before, plan.after]) > 0
    return exists[None, None, :, None] if dim == 2 else exists[None, None, None, :]


def _take(x: Tensor, dim: int, start: int, stride: int, steps: int) -> Tensor:
    """``steps`` samples along ``dim``, from ``start``, every ``stride``-th: a view."""
    part = slice(start, start + stride * steps, stride)
    return x[:, :, part] if dim == 2 else x[:, :, :, part]


def _zeros(x: Tensor, kernel: Tensor, height: int, width: int) -> Tensor:
    """[N, C, height, width] of zeros that depend on both arguments, so that autograd finds them."""
    return F.pad(x[:, :, :0, :0], [width, 0, height, 0]) + kernel[:0].sum()


def _interleave(phases: list[Tensor], dim: int, size: int) -> Tensor:
    """``out[r + len(phases) * t] = phases[r][t]`` along ``dim``, cut to ``size``."""
    if len(phases) == 1:
        return phases[0]
    return torch.stack(phases, dim + 1).flatten(dim, dim + 1).narrow(dim, 0, size)


def is_plain(*tensors: Tensor) -> bool:
    """Whether only values are asked for: no graph, no transform, no tracer, no fake tensor."""
    return (
        not torch.compiler.is_compiling()
        and not is_tracing()
        and not is_differentiated_elsewhere()
        and all(type(t) in (Tensor, torch.nn.Parameter) and not t.is_meta for t in tensors)
        and not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
    )


def _pieces(
    input: Tensor, out: Tensor, dtype: torch.dtype
) -> Iterator[tuple[slice, slice, int, int]]:
    """Cut the work into (samples, channels, first row, last row) that fit a budget of bytes.

    Whole samples where several fit; else one sample at a time, cut into channels where these lie
    apart in memory and into rows of the output where one plane, or a channels_last image, is
    still too large.
    """
    n, c, out_h, out_w = out.shape
    if 0 in out.shape:
        return
    budget = PIECE_BYTES.get(input.device.type, PIECE_BYTES_ELSEWHERE) // dtype.itemsize
    plane = input.shape[2] * input.shape[3] + out_h * out_w  # [elements]
    samples = max(1, min(n, budget // (c * plane)))
    channels = c if is_channels_last(out) else max(1, min(c, budget // plane))
    rows = max(1, min(out_h, budget * out_h // (channels * plane)))
    for i in range(0, n, samples):
        for j in range(0, c, channels):
            for first in range(0, out_h, rows):
                last = min(first + rows, out_h)
                yield slice(i, i + samples), slice(j, j + channels), first, last
