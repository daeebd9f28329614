# SPDX-License-Identifier: BSD-3-Clause
"""The op ``upfirdn2d`` and its kernel's gradient: schemas, results, gradients, the public function.

With ``F(x, k)`` the op, ``B(g, k)`` its transpose in ``x`` and ``W(x, g)`` its transpose in ``k``::

    F(x, k):  d/dx = B(g, k)    d/dk = W(x, g)
    B(g, k):  d/dg = F(v, k)    d/dk = W(v, g)        v: the gradient of B's output
    W(x, g):  d/dx = B(g, v)    d/dg = F(x, v)        v: the gradient of W's output

Each line uses only the three, so the family is closed and no order is cut off. ``B`` is ``F`` with
``up`` and ``down`` swapped, the kernel flipped and the pads of :func:`geometry.adjoint_pads`, so
that two ops are enough: :data:`UPFIRDN2D` with its flag ``flip``, and :data:`KERNEL_GRAD`. ``W``
is the gradient of a 2-D kernel; for ``outer(taps_y, taps_x)`` the chain rule contracts it with the
other taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .. import geometry
from . import native
from .arguments import check_call
from .op import Grads, Op, call_by_call

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def upfirdn2d(
    input: Tensor,  # [N, C, H, W]
    kernel: Tensor | tuple[Tensor, Tensor],  # [kh, kw], [taps] or ([kw], [kh])
    up: int | Sequence[int] = 1,  # (x, y)
    down: int | Sequence[int] = 1,  # (x, y)
    pad: Sequence[int] = (0, 0),  # (before, after) or (x0, x1, y0, y1)
) -> Tensor:
    """Upsample, pad, filter with an FIR kernel and downsample each channel of a batch of images.

    A ``pad`` of two numbers is *(before, after)* for both axes, as in rosinality's and BasicSR's
    code; it is not *(x, y)* as in NVIDIA's.

    1. Insert ``up - 1`` zeros after each sample, the last one too.
    2. Pad with zeros, or crop where ``pad`` is negative. Pads count upsampled samples.
    3. Convolve with the kernel (a true convolution: the kernel is flipped), where it fits wholly.
    4. Keep every ``down``-th sample, starting with the first.

    In one formula, with ``u`` the zero-inserted input and zeros outside::

        out[y, x] = sum_ij kernel[i, j] * u[y * down_y + (kh - 1 - i) - pad_y0,
                                            x * down_x + (kw - 1 - j) - pad_x0]

    Args:
        input: images, float16, bfloat16, float32 or float64, of any memory format.
        kernel: a 2-D kernel ``[kh, kw]``; or ``[taps]`` for the separable kernel
            ``outer(taps, taps)``; or a pair ``(taps_x, taps_y)`` for ``outer(taps_y, taps_x)``.
            Declaring a kernel separable makes it cheaper. On a GPU that is the only way, since
            looking at its values would make the host wait; the CPU kernels look at the values of a
            2-D kernel, and run an outer product as one. Any of the four dtypes; the kernel is never
            rounded to the input's.
        up: zero-insertion factor, an int or ``(x, y)``.
        down: decimation factor, an int or ``(x, y)``.
        pad: ``(before, after)`` for both axes, or ``(x0, x1, y0, y1)``.

    Returns:
        The result, of the input's dtype, device and memory format. Half types are summed in
        float32. Sums run over the samples that exist: neither padding nor inserted zeros are
        multiplied, so a tap that is NaN or infinite acts only where it meets a sample. Gradients
        of every order exist in ``input`` and in ``kernel``.

    Shape:
        - input: ``[N, C, H, W]``; ``N`` and ``C`` may be 0
        - output: ``[N, C, out_h, out_w]`` with
          ``out_h = (H * up_y + pad_y0 + pad_y1 - kh) // down_y + 1``, ``out_w`` likewise

    Raises:
        TypeError: if input or kernel is not a floating-point tensor, or a factor or pad is not
            made of ints.
        ValueError: if a rank, a length, a factor below 1, an empty kernel, the kernel's device or
            an output side below 1 is at fault.

    Example:
        scipy's 1-D :func:`scipy.signal.upfirdn` is the row below with pads ``(taps - 1,
        taps - up)``:

        >>> import torch
        >>> from resample_layers.ops import upfirdn2d
        >>> x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> taps_x, taps_y = torch.tensor([1.0, 2.0, 1.0]), torch.ones(1)
        >>> upfirdn2d(x, (taps_x, taps_y), up=(2, 1), pad=(2, 1, 0, 0))
        tensor([[[[1., 2., 3., 4., 5., 6., 3.]]]])

    Source of the formula: the definition of ``upfirdn`` (upsample, FIR filter, downsample) as in
    scipy.signal, on two axes; sizes and transposes are derived in
    :mod:`resample_layers.geometry`.
    """
    tensors = (input, *kernel) if isinstance(kernel, (tuple, list)) else (input, kernel)
    if has_torch_function(tensors):
        return handle_torch_function(  # type: ignore[no-any-return]
            upfirdn2d, tensors, input, kernel, up=up, down=down, pad=pad
        )
    taps, taps_y, up, down, pad = check_call(input, kernel, up, down, pad)
    return UPFIRDN2D(input, taps, taps_y, up, down, pad, False)  # type: ignore[no-any-return]


# What comes out, without computing it


def empty_output(
    input: Tensor,
    kernel: Tensor,
    taps_y: Tensor | None,
    up: Pair,
    down: Pair,
    pad: Pads,
    flip: bool = False,
) -> Tensor:
    """A tensor without values, of the result's shape, dtype, device and memory format."""
    check_one_device(input, kernel, taps_y)
    size = native.kernel_size(kernel, taps_y)
    return torch.empty(
        (*input.shape[:2], *geometry.output_sizes(input.shape[2:], up, down, pad, size)),
        dtype=input.dtype,
        device=input.device,
        memory_format=native.memory_format(input),
    )


def _empty_kernel_grad(
    input: Tensor, grad: Tensor, up: Pair, down: Pair, pad: Pads, kernel_size: Pair
) -> Tensor:
    check_one_device(input, grad)
    kw, kh = kernel_size
    return input.new_empty((kh, kw), dtype=native.accumulate_dtype(input, grad))


def check_one_device(input: Tensor, *operands: Tensor | None) -> None:
    """Refuse a meta operand among real ones: the call would end in a fake, and compute nothing."""
    for operand in operands:
        if operand is not None and operand.device != input.device:
            raise ValueError(
                f"all tensors must be on one device, got {input.device} and {operand.device}"
            )


# Gradients


def setup(
    needs: Sequence[bool], inputs: tuple[Any, ...], output: Tensor
) -> tuple[tuple[Tensor | None, ...], Any]:
    input, kernel, taps_y, up, down, pad, flip = inputs
    kernel, taps_y = keep_taps(kernel, taps_y)
    saved = input if needs[1] or needs[2] else None, kernel, taps_y
    return saved, (up, down, pad, flip, input.shape)


def backward(needs: Sequence[bool], saved: Sequence[Any], constants: Any, grad: Tensor) -> Grads:
    input, kernel, taps_y = saved
    up, down, pad, flip, in_shape = constants
    size = native.kernel_size(kernel, taps_y)
    g_pad = geometry.adjoint_pads(in_shape[2:], grad.shape[2:], up, down, pad, size)
    grad_input, grad_kernel, grad_taps_y = None, None, None
    if needs[0]:
        grad_input = UPFIRDN2D(grad, kernel, taps_y, down, up, g_pad, not flip)
    if needs[1] or needs[2]:
        # A flipped kernel belongs to B, whose W has the input and the gradient change places
        call = (grad, input, down, up, g_pad) if flip else (input, grad, up, down, pad)
        w = KERNEL_GRAD(*call, size[::-1])
        grad_kernel, grad_taps_y = split_kernel_grad(w, kernel, taps_y)
    return grad_input, grad_kernel, grad_taps_y


def _setup_kernel_grad(
    needs: Sequence[bool], inputs: tuple[Any, ...], output: Tensor
) -> tuple[tuple[Tensor | None, ...], Any]:
    input, grad, up, down, pad, _ = inputs
    saved = input if needs[1] else None, grad if needs[0] else None
    return saved, (up, down, pad, input.shape[2:], grad.shape[2:])


def _backward_kernel_grad(
    needs: Sequence[bool], saved: Sequence[Any], constants: Any, v: Tensor
) -> Grads:
    input, grad = saved
    up, down, pad, in_size, out_size = constants
    grad_input, grad_grad = None, None
    if needs[0]:
        g_pad = geometry.adjoint_pads(in_size, out_size, up, down, pad, v.shape)
        grad_input = UPFIRDN2D(grad, v, None, down, up, g_pad, True)
    if needs[1]:
        grad_grad = UPFIRDN2D(input, v, None, up, down, pad, False)
    return grad_input, grad_grad


def keep_taps(kernel: Tensor, taps_y: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The taps as a call saves them: as they are where gradients flow to them, else a copy.

    A layer's buffer may be written between forward and backward with the values that it has: DDP
    broadcasts the buffers before each forward. The copy has a version counter of its own.
    """
    kept = kernel if kernel.requires_grad else kernel.clone()
    if taps_y is None or taps_y is kernel:
        return kept, None if taps_y is None else kept
    return kept, taps_y if taps_y.requires_grad else taps_y.clone()


def split_kernel_grad(
    w: Tensor,  # [kh, kw], the gradient of the 2-D kernel
    kernel: Tensor,  # [kh, kw], or [kw]
    taps_y: Tensor | None,  # [kh], None: the kernel is 2-D
) -> tuple[Tensor, Tensor | None]:
    """The chain rule through ``outer(taps_y, taps_x)``; the identity for a 2-D kernel."""
    if taps_y is None:
        return w.to(kernel.dtype), None
    grad_x, grad_y = (w * taps_y[:, None]).sum(0), (w * kernel[None, :]).sum(1)
    return grad_x.to(kernel.dtype), grad_y.to(taps_y.dtype)


# The ops


def _vmap(
    op: Any,
    info: Any,
    in_dims: tuple[int | None, ...],
    input: Tensor,
    kernel: Tensor,
    taps_y: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, int]:
    """With one kernel for the whole batch, fold the batch into N; else compute call by call."""
    if in_dims[1] is None and in_dims[2] is None:
        assert in_dims[0] is not None
        x = input.movedim(in_dims[0], 0)
        return op(x.flatten(0, 1), kernel, taps_y, *rest).unflatten(0, x.shape[:2]), 0
    return call_by_call(op, info, in_dims, input, kernel, taps_y, *rest)


UPFIRDN2D = Op(
    "upfirdn2d",
    "(Tensor input, Tensor kernel, Tensor? taps_y, int[2] up, int[2] down, SymInt[4] pad, "
    "bool flip) -> Tensor",
    native.resample,
    empty_output,
    setup,
    backward,
    _vmap,
)
KERNEL_GRAD = Op(
    "upfirdn2d_kernel_grad",
    "(Tensor input, Tensor grad, int[2] up, int[2] down, SymInt[4] pad, SymInt[2] kernel_size) "
    "-> Tensor",
    native.kernel_grad,
    _empty_kernel_grad,
    _setup_kernel_grad,
    _backward_kernel_grad,
)
