# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of every order, in the input and in the kernel, on every path."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from resample_layers.ops import upfirdn2d, upfirdn2d_native

from .calls import as_operands, assert_gradients_of_some_are_those_of_all
from .cases import CASES

OPS = torch.ops.resample_layers

SMALL = [
    case
    for case in CASES
    if 0 < case.shape[0] * case.shape[1] * case.shape[2] * case.shape[3] <= 130
    and case.kernel[0] * case.kernel[1] <= 35
]


def registered(x, kernel, up, down, pad):
    taps, taps_y = as_operands(kernel)
    return OPS.upfirdn2d.default(x, taps, taps_y, up, down, pad, False)


PATHS = [upfirdn2d, registered]


def arguments(case, device, separable):
    kh, kw = case.kernel
    double = {"dtype": torch.float64, "device": device}
    x = torch.randn(1, 1, *case.shape[2:], **double, requires_grad=True)
    if separable:
        kernel = [torch.randn(n, **double, requires_grad=True) for n in (kw, kh)]
    else:
        kernel = [torch.randn(kh, kw, **double, requires_grad=True)]
    return x, *kernel


def bind(path, case):
    def call(x, *kernel):
        kernel = kernel[0] if len(kernel) == 1 else kernel
        return path(x, kernel, case.up, case.down, case.pad)

    return call


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
@pytest.mark.parametrize("separable", [False, True], ids=["2-D", "separable"])
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_first_and_second_order(case, separable, path, device):
    args = arguments(case, device, separable)
    assert gradcheck(bind(path, case), args)
    assert gradgradcheck(bind(path, case), args)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
@pytest.mark.parametrize("separable", [False, True], ids=["2-D", "separable"])
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_third_order_equals_native(case, separable, path, device):
    """Nested gradients of a nonlinear function of the output, against plain torch throughout."""
    args = arguments(case, device, separable)

    def native(x, kernel, up, down, pad):
        return upfirdn2d_native(x, kernel, *up, *down, *pad)

    results = []
    for each in (path, native):
        total = bind(each, case)(*args).pow(4).sum()
        for _ in range(3):
            grads = torch.autograd.grad(total, args, create_graph=True)
            total = sum(g.pow(2).sum() for g in grads)
        results.append(grads)
    for ours, expected in zip(*results, strict=True):
        assert expected.detach().abs().max() > 0 or case.name in ("nothing", "deep crop")
        torch.testing.assert_close(
            ours, expected, rtol=1e-9, atol=1e-9 * float(expected.detach().abs().max())
        )


def test_third_order_in_the_input_alone(device):
    """The order that vendored copies cut off silently: sum(f(x) ** 4), three times."""
    x = torch.randn(1, 1, 5, 4, dtype=torch.float64, device=device, requires_grad=True)
    k = torch.randn(4, 3, dtype=torch.float64, device=device)

    def grad_of_grad(x):
        (g,) = torch.autograd.grad(upfirdn2d(x, k, 2, 1, (2, 1)).pow(4).sum(), x, create_graph=True)
        (gg,) = torch.autograd.grad(g.pow(2).sum(), x, create_graph=True)
        return gg

    assert gradcheck(grad_of_grad, (x,), rtol=1e-3)


def test_kernel_gradient_function(device):
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, device=device, requires_grad=True)
    grad = torch.randn(1, 2, 4, 2, dtype=torch.float64, device=device, requires_grad=True)
    k = torch.randn(3, 3, dtype=torch.float64, device=device, requires_grad=True)
    settings = ((1, 1), (2, 1), (1, 1, 0, 1))

    def by_function(x, grad):
        out = upfirdn2d(x, k, *settings)
        return torch.autograd.grad(out, k, grad, create_graph=True)[0]

    assert gradcheck(by_function, (x, grad))
    assert gradgradcheck(by_function, (x, grad))
    assert gradgradcheck(OPS.upfirdn2d_kernel_grad.default, (x, grad, *settings, (3, 3)))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_gradients_of_some_tensors_are_those_of_all(path, device):
    """Of input, taps_x and taps_y; and of input and gradient, which the kernel's gradient has."""
    double = {"dtype": torch.float64, "device": device}
    x, grad = torch.randn(1, 2, 5, 4, **double), torch.randn(1, 2, 4, 2, **double)
    taps_x, taps_y = torch.randn(3, **double), torch.randn(2, **double)
    settings = ((1, 1), (2, 1), (1, 1, 0, 0))

    def op(x, taps_x, taps_y):
        return path(x, (taps_x, taps_y), *settings)

    def kernel_grad(x, grad):
        kernel = torch.ones(2, 3, **double, requires_grad=True)
        return torch.autograd.grad(path(x, kernel, *settings), kernel, grad, create_graph=True)[0]

    assert_gradients_of_some_are_those_of_all(op, (x, taps_x, taps_y))
    assert_gradients_of_some_are_those_of_all(kernel_grad, (x, grad))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_adjoint_identity(case, device):
    """<F(x), g> = <x, B(g)> = <k, W(x, g)>."""
    x = torch.randn(case.shape, dtype=torch.float64, device=device, requires_grad=True)
    k = torch.randn(case.kernel, dtype=torch.float64, device=device, requires_grad=True)
    out = upfirdn2d(x, k, case.up, case.down, case.pad)
    g = torch.randn_like(out)
    grad_x, grad_k = torch.autograd.grad(out, (x, k), g)
    assert grad_x.shape == x.shape
    assert grad_k.shape == k.shape
    product = (out * g).sum()
    torch.testing.assert_close((x * grad_x).sum(), product)
    torch.testing.assert_close((k * grad_k).sum(), product)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_gradients_have_the_dtypes_of_their_tensors(dtype, device):
    x = torch.randn(1, 2, 6, 5, device=device).to(dtype).requires_grad_()
    wide = torch.randn(3, 4, device=device, requires_grad=True)
    half = wide.detach().to(dtype).requires_grad_()
    for k in (wide, half):
        gx, gk = torch.autograd.grad(upfirdn2d(x, k, 2).float().pow(2).sum(), (x, k))
        assert gx.dtype == x.dtype
        assert gk.dtype == k.dtype


def test_only_what_is_asked_for_is_saved(device):
    """Without a kernel that learns, the input is not kept alive for backward."""
    x = torch.randn(1, 1, 8, 8, device=device, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        upfirdn2d(x, torch.randn(4, device=device))
    assert [tuple(t.shape) for t in saved] == [(4,), (4,)]  # the taps of each axis


def test_the_kernel_may_be_rewritten_between_forward_and_backward(device):
    """DDP broadcasts buffers in place before each forward: rosinality#236, BasicSR#541."""
    x = torch.randn(1, 1, 8, 8, device=device, requires_grad=True)
    k = torch.randn(4, device=device)
    out = upfirdn2d(x, k)
    (expected,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
    k.mul_(2)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(grad, expected)

    taps_x, taps_y = torch.randn(3, device=device), torch.randn(2, device=device)
    out = upfirdn2d(x, (taps_x, taps_y))
    (expected,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
    taps_x.mul_(2)
    taps_y.mul_(3)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(grad, expected)


def test_gradients_through_empty_batches(device):
    x = torch.randn(0, 3, 8, 8, device=device, requires_grad=True)
    k = torch.randn(4, device=device, requires_grad=True)
    upfirdn2d(x, k, 2, 1, (2, 1)).sum().backward()
    assert x.grad.shape == x.shape
    assert torch.equal(k.grad, torch.zeros_like(k))


def test_expanded_gradients(device):
    """sum().backward() passes a gradient of stride 0."""
    x = torch.randn(2, 3, 8, 8, device=device, requires_grad=True)
    k = torch.randn(4, device=device)
    out = upfirdn2d(x, k, 2)
    (a,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
    (b,) = torch.autograd.grad(out, x, torch.ones_like(out))
    torch.testing.assert_close(a, b)


# Graphs of Functions, differentiated under a transform that was not there when they were made


@pytest.mark.parametrize("wrt", [0, 1], ids=["input", "kernel"])
@pytest.mark.parametrize("separable", [False, True], ids=["2-D", "separable"])
def test_gradients_of_batched_jacobians(wrt, separable, device):
    """is_grads_batched is the legacy vmap, under which Functions lose their graph silently."""
    x = torch.randn(1, 1, 4, 3, dtype=torch.float64, device=device)
    k = torch.randn((3,) if separable else (2, 3), dtype=torch.float64, device=device)
    results = []
    for vectorize in (False, True):
        args = [x, k]
        args[wrt] = args[wrt].clone().requires_grad_()

        def call(a):
            pair = [*args]  # noqa: B023
            pair[wrt] = torch.tanh(a)
            return upfirdn2d(*pair, 2, 1, (2, 1)).pow(2)

        jacobian = torch.autograd.functional.jacobian(
            call, args[wrt], create_graph=True, vectorize=vectorize
        )
        (grad,) = torch.autograd.grad(jacobian.pow(2).sum(), args[wrt])
        results.append((jacobian.detach(), grad))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("wrt", [0, 1], ids=["input", "kernel"])
def test_vmap_over_the_backward_of_an_eager_graph(wrt, device):
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, device=device, requires_grad=True)
    k = torch.randn(3, 2, dtype=torch.float64, device=device, requires_grad=True)
    out = upfirdn2d(x, k, 2)
    vs = torch.randn(3, *out.shape, dtype=torch.float64, device=device)

    def pull(v):
        return torch.autograd.grad(out, (x, k)[wrt], v, retain_graph=True)[0]

    torch.testing.assert_close(torch.func.vmap(pull)(vs), torch.stack([pull(v) for v in vs]))


@pytest.mark.parametrize("wrt", [0, 1], ids=["input", "kernel"])
def test_dual_gradients_through_an_eager_graph(wrt, device):
    from torch.autograd import forward_ad

    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, device=device, requires_grad=True)
    k = torch.randn(3, 2, dtype=torch.float64, device=device, requires_grad=True)
    out = upfirdn2d(x, k, 2)
    v, dv = torch.randn_like(out), torch.randn_like(out)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(v, dv)
        (grad,) = torch.autograd.grad(out, (x, k)[wrt], dual, retain_graph=True)
        tangent = forward_ad.unpack_dual(grad).tangent
    (expected,) = torch.autograd.grad(out, (x, k)[wrt], dv)
    torch.testing.assert_close(tangent, expected)
