# SPDX-License-Identifier: BSD-3-Clause
"""The autograd Functions, called as their documentation spells it, optional arguments left out."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from resample_layers import geometry
from resample_layers.ops import UpFirDn2d, UpFirDn2dBackward, upfirdn2d

from .calls import assert_gradients_of_some_are_those_of_all

UP, DOWN, PAD = (2, 1), (1, 2), (2, 1, 1, 2)
KERNELS = {"2-D": (3, 4), "taps": (3,)}


def draw(*shape, device):
    return torch.randn(*shape, dtype=torch.float64, device=device, requires_grad=True)


@pytest.fixture(params=KERNELS.values(), ids=KERNELS)
def tensors(request, device):
    return draw(1, 2, 5, 4, device=device), draw(*request.param, device=device)


def flipped(kernel):
    return kernel.flip(tuple(range(kernel.dim())))


def backward_arguments(x, out, kernel_size):
    g_pad = geometry.adjoint_pads(x.shape[2:], out.shape[2:], UP, DOWN, PAD, kernel_size)
    return UP, DOWN, PAD, g_pad, x.shape, tuple(out.shape[2:])


def calls(device):
    """Both Functions, with a 2-D kernel, with taps for both axes and with other taps in y."""
    x = draw(1, 2, 5, 4, device=device)
    kernel, taps, taps_y = (draw(*size, device=device) for size in ((2, 3), (3,), (2,)))
    for kernels in ((kernel,), (taps,), (taps, taps_y)):
        size = kernel.shape if kernels[0] is kernel else (kernels[-1].shape[0], 3)
        out = upfirdn2d(x, kernels if len(kernels) == 2 else kernels[0], UP, DOWN, PAD)
        rest = backward_arguments(x, out, size)

        def forward(x, kernel, *taps_y):
            return UpFirDn2d.apply(x, kernel, UP, DOWN, PAD, *taps_y)

        def backward(grad, kernel, *taps_y):
            return UpFirDn2dBackward.apply(grad, kernel, None, *rest, *taps_y)  # noqa: B023

        yield forward, (x, *kernels)
        yield backward, (torch.randn_like(out), *kernels)


def test_gradients_of_some_tensors_are_those_of_all(device):
    for call, tensors in calls(device):
        assert_gradients_of_some_are_those_of_all(call, tensors)


def test_only_what_is_asked_for_is_saved(device):
    """Without taps that learn, the first argument is not kept alive for backward."""
    for call, (first, *taps) in calls(device):
        taps = [t.detach() for t in taps]
        out = call(first.detach().requires_grad_(), *taps)
        saved = out.grad_fn.saved_tensors
        assert saved[0] is None
        assert [t.dim() for t in saved[1:] if t is not None] == [t.dim() for t in taps] * (
            2 if len(taps) == 1 and taps[0].dim() == 1 else 1
        )


@pytest.mark.parametrize("kind", ["cpu", "meta"])
def test_operators_ask_for_the_taps_of_both_axes(kind):
    x, taps = torch.ones(1, 1, 4, 4, device=kind), torch.ones(2, device=kind)
    rest = (1, 1), (1, 1), (0, 0, 0, 0), False
    operators = torch.ops.resample_layers
    for op in (operators.upfirdn2d.default, operators._upfirdn2d.default):
        assert op(x, taps, taps, *rest).shape == (1, 1, 3, 3)
        for wrong in ((taps, None), (taps[None], taps)):
            sentence = r"taps_y must |must come with(out)? taps_y"  # in Python, in C++
            with pytest.raises((ValueError, RuntimeError), match=sentence):
                op(x, *wrong, *rest)


def test_forward_function(tensors):
    """``UpFirDn2d.apply(input, kernel, up, down, pad)``."""
    input, kernel = tensors
    expected = upfirdn2d(input, kernel, UP, DOWN, PAD)
    out = UpFirDn2d.apply(input, kernel, UP, DOWN, PAD)
    assert torch.equal(out, expected)
    for ours, theirs in zip(
        torch.autograd.grad(out.pow(2).sum(), (input, kernel)),
        torch.autograd.grad(expected.pow(2).sum(), (input, kernel)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)

    def call(input, kernel):
        return UpFirDn2d.apply(input, kernel, UP, DOWN, PAD)

    assert gradcheck(call, (input, kernel))
    assert gradgradcheck(call, (input, kernel))


def test_forward_function_with_other_taps_in_y(device):
    input, kernel, taps_y = (draw(*size, device=device) for size in ((1, 2, 5, 4), (3,), (2,)))
    expected = upfirdn2d(input, (kernel, taps_y), UP, DOWN, PAD)
    assert torch.equal(UpFirDn2d.apply(input, kernel, UP, DOWN, PAD, taps_y), expected)

    def call(input, kernel, taps_y):
        return UpFirDn2d.apply(input, kernel, UP, DOWN, PAD, taps_y)

    assert gradcheck(call, (input, kernel, taps_y))
    assert gradgradcheck(call, (input, kernel, taps_y))


@pytest.mark.parametrize("given", [True, False], ids=["flipped kernel", "None"])
def test_backward_function(tensors, given):
    """``UpFirDn2dBackward.apply`` with its nine arguments; the kernel counts once."""
    x, kernel = tensors
    out = upfirdn2d(x, kernel, UP, DOWN, PAD)
    grad_output = torch.randn_like(out).requires_grad_()
    (expected,) = torch.autograd.grad(out, x, grad_output, retain_graph=True)
    size = kernel.shape if kernel.dim() == 2 else kernel.shape * 2
    rest = backward_arguments(x, out, size)

    def call(grad_output, kernel):
        grad_kernel = flipped(kernel).detach() if given else None
        return UpFirDn2dBackward.apply(grad_output, kernel, grad_kernel, *rest)

    torch.testing.assert_close(call(grad_output, kernel), expected)
    assert gradcheck(lambda grad: call(grad, kernel), (grad_output,))
    if not given:  # numerical gradients move the kernel alone, not its flipped copy
        assert gradcheck(call, (grad_output, kernel))
        assert gradgradcheck(call, (grad_output, kernel))
    weight = torch.randn_like(expected)
    ours = torch.autograd.grad((call(grad_output, kernel) * weight).sum(), (grad_output, kernel))
    (grad,) = torch.autograd.grad(out, x, grad_output, create_graph=True)
    theirs = torch.autograd.grad((grad * weight).sum(), (grad_output, kernel))
    torch.testing.assert_close(ours, theirs)


def test_backward_function_reads_the_flipped_kernel_that_it_is_given(tensors):
    x, kernel = tensors
    out = upfirdn2d(x, kernel, UP, DOWN, PAD)
    size = kernel.shape if kernel.dim() == 2 else kernel.shape * 2
    rest = backward_arguments(x, out, size)
    once, twice = (
        UpFirDn2dBackward.apply(torch.ones_like(out), kernel, scale * flipped(kernel), *rest)
        for scale in (1, 2)
    )
    power = 2 if kernel.dim() == 2 else 4  # taps serve both axes
    torch.testing.assert_close(twice, once * power)


def test_backward_function_with_other_taps_in_y(device):
    x, kernel, taps_y = (draw(*size, device=device) for size in ((1, 2, 5, 4), (3,), (2,)))
    out = upfirdn2d(x, (kernel, taps_y), UP, DOWN, PAD)
    grad_output = torch.randn_like(out).requires_grad_()
    (expected,) = torch.autograd.grad(out, x, grad_output)
    rest = backward_arguments(x, out, (2, 3))

    def call(grad_output, kernel, taps_y):
        return UpFirDn2dBackward.apply(grad_output, kernel, None, *rest, taps_y)

    torch.testing.assert_close(call(grad_output, kernel, taps_y), expected)
    assert gradcheck(call, (grad_output, kernel, taps_y))
    assert gradgradcheck(call, (grad_output, kernel, taps_y))
    with pytest.raises(ValueError, match="grad_kernel must be None where taps_y is given"):
        UpFirDn2dBackward.apply(grad_output, kernel, flipped(kernel), *rest, taps_y)


def test_backward_function_gives_a_gradient_of_the_shape_that_it_was_passed(device):
    """Vendored copies hand over ``[N * C, out_h, out_w, 1]``."""
    x, kernel = draw(2, 3, 5, 4, device=device), draw(3, 4, device=device)
    out = upfirdn2d(x, kernel, UP, DOWN, PAD)
    grad = torch.randn_like(out).reshape(6, *out.shape[2:], 1).requires_grad_()
    rest = backward_arguments(x, out, kernel.shape)
    (v,) = torch.autograd.grad(UpFirDn2dBackward.apply(grad, kernel, None, *rest).sum(), grad)
    assert v.shape == grad.shape


class Between(torch.nn.Module):
    """A factor before and after ``UpFirDn2d``, and after that ``UpFirDn2dBackward``."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))
        self.register_buffer("kernel", torch.rand(3, 4))

    def forward(self, x):
        out = UpFirDn2d.apply(x * self.factor, self.kernel, UP, DOWN, PAD)
        rest = backward_arguments(x, out, (3, 4))
        return UpFirDn2dBackward.apply(out * self.factor, self.kernel, None, *rest) * self.factor


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # Dynamo of torch 2.11
@pytest.mark.parametrize("how", ["compiled", "strict", "not strict", "traced"])
def test_graphs_of_the_functions_have_gradients(how):
    """The raw operator, which Dynamo cannot trace and which has no gradient, is in no graph."""
    net, x = Between(), torch.randn(2, 3, 6, 5)
    (expected,) = torch.autograd.grad(net(x).sum(), net.factor)
    factor = net.factor
    if how == "compiled":
        out = torch.compile(net, backend="aot_eager", fullgraph=True)(x)
    elif how == "traced":
        graph = make_fx(lambda x, factor: functional_call(net, {"factor": factor}, (x,)))
        out = graph(x, factor)(x, factor)
    else:
        module = torch.export.export(net, (x,), strict=how == "strict").module()
        out, factor = module(x), module.factor
    torch.testing.assert_close(out, net(x))
    if how != "strict":  # torch drops the gradients of all Functions there
        (found,) = torch.autograd.grad(out.sum(), factor)
        torch.testing.assert_close(found, expected)
