# SPDX-License-Identifier: BSD-3-Clause
"""torch.compile: one graph, for all sizes, forward, backward and twice backward."""

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch.func import grad, jvp

from resample_layers import UpFirDnDownsample, UpFirDnSmooth, UpFirDnUpsample
from resample_layers.ops import UpFirDn2d, upfirdn2d, upfirdn2d_bias_act

from .calls import call
from .tools import require_compiler_of

OPS = torch.ops.resample_layers


def test_a_backward_pass_that_is_compiled_as_it_runs(device):
    """Compiled autograd traces the Functions of an eager graph."""
    from torch._dynamo import compiled_autograd

    x = torch.randn(1, 2, 5, 6, device=device, requires_grad=True)
    k, bias = torch.randn(4, device=device), torch.randn(2, device=device)
    made = (
        lambda: upfirdn2d(x, k, 2, 1, (2, 1)),
        lambda: upfirdn2d_bias_act(x, k, bias, pad=(2, 1)),
        lambda: UpFirDn2d.apply(x, k, (2, 2), (1, 1), (2, 1, 2, 1)),
    )
    for output in made:
        (expected,) = torch.autograd.grad(output().pow(2).sum(), x)
        with compiled_autograd._enable(torch.compile(backend="eager")):
            output().pow(2).sum().backward()
        torch.testing.assert_close(x.grad, expected)
        x.grad = None


def loss(x, k):
    return call(x, k).pow(3).sum()


@pytest.mark.parametrize("separable", [False, True], ids=["2-D", "separable"])
def test_compiled_forward_and_backward_with_one_graph_for_all_sizes(separable, device):
    kernel = torch.randn(4, device=device) if separable else torch.randn(3, 4, device=device)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def step(x, k):
        y = upfirdn2d(x, k, 2, 1, (2, 1))
        return upfirdn2d(y, k, 1, 2, (1, 1))

    compiled = torch.compile(step, backend=counter, fullgraph=True, dynamic=True)
    # The first sizes all differ: Dynamo takes equal ones for one symbol
    for size in ((2, 5, 9, 8), (3, 2, 8, 9), (5, 4, 10, 7), (4, 6, 13, 13)):
        x = torch.randn(size, device=device)
        a, b = (x.clone().requires_grad_() for _ in range(2))
        k, m = (kernel.clone().requires_grad_() for _ in range(2))
        ours, expected = compiled(a, k), step(b, m)
        torch.testing.assert_close(ours, expected)
        ours.pow(2).sum().backward()
        expected.pow(2).sum().backward()
        torch.testing.assert_close(a.grad, b.grad)
        torch.testing.assert_close(k.grad, m.grad, rtol=1e-4, atol=1e-3)
    assert counter.frame_count == 1
    targets = {str(node.target) for graph in counter.graphs for node in graph.graph.nodes}
    assert "resample_layers.upfirdn2d.default" in targets  # door 3: opaque, not taken apart


class Layers(nn.Module):
    """Every layer and both functions, with a learned filter. No convolution: on torch 2.11
    Inductor compiles one anew for each size, without our help."""

    def __init__(self, mode):
        super().__init__()
        self.up = UpFirDnUpsample(padding_mode=mode)
        self.smooth = UpFirDnSmooth(downsample_factor=2, kernel_size=3, padding_mode=mode)
        self.down = UpFirDnDownsample([[1, 2], [3, 4]], padding_mode=mode)
        self.taps = nn.Parameter(torch.randn(3))
        self.bias = nn.Parameter(torch.randn(2))
        self.scale = nn.Parameter(torch.randn(2))

    def forward(self, x):
        x = self.down(x)  # at once: what follows an upsampling layer is of one parity
        scale = self.scale.expand(x.shape[0], -1)
        x = self.smooth.bias_act(self.up(x), self.bias, scale=scale)
        return upfirdn2d(x, self.taps, 1, 1, (1, 1))


@pytest.mark.parametrize(("backend", "mode"), [("inductor", "zeros"), ("aot_eager", "reflect")])
def test_layers_compile_once_for_all_sizes(backend, mode, device):
    """Batch, height and width of any parity, forward and backward."""
    require_compiler_of(backend)
    model = Layers(mode).to(device)
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)

    def check(*size):
        results = []
        x = torch.randn(size, device=device)
        for each in (compiled, model):
            leaf = x.clone().requires_grad_()
            out = each(leaf)
            leaves = (leaf, *model.parameters())
            results.append((out, *torch.autograd.grad(out.pow(2).sum(), leaves)))
        for ours, expected in zip(*results, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)

    # They all differ: Dynamo takes equal ones for one symbol. Small: Inductor sums more than 4096
    # numbers by other code
    check(3, 2, 6, 9)
    with torch.compiler.set_stance("fail_on_recompile"):
        for size in ((4, 2, 7, 8), (5, 2, 11, 11), (6, 2, 6, 10)):
            check(*size)


@pytest.mark.parametrize(
    ("backend", "whole"), [("aot_eager", True), ("aot_eager", False), ("inductor", True)]
)
def test_r1_inside_one_compiled_function(whole, backend, device):
    """``torch.autograd.grad`` in a graph is behind a switch of Dynamo's, on every torch so far.

    The images must require a gradient before the call: torch 2.11 does not trace the change.
    With ``whole`` the backward pass is traced too; without, it runs the graph's own.
    """
    require_compiler_of(backend)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Tanh(), UpFirDnDownsample(), nn.Conv2d(2, 1, 1),
                          nn.Tanh(), UpFirDnUpsample((1, 2, 1))).to(device)  # fmt: skip

    def penalty(x):
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        total = slope.pow(2).sum()
        if not whole:
            return total
        total.backward()
        return total.detach()

    results = []
    x = torch.randn(2, 2, 6, 7, device=device)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        for each in (penalty, torch.compile(penalty, backend=backend, fullgraph=True)):
            model.zero_grad(set_to_none=True)
            total = each(x.clone().requires_grad_())
            if not whole:
                total.backward()
            slopes = [p.grad for p in model.parameters() if p.grad is not None]
            results.append((total.detach(), *slopes))
    assert len(results[0]) == 5
    for expected, ours in zip(*results, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(ours, expected)


def test_compiled_transforms_equal_eager(args):
    """A registered op would lose the tangent silently: door 2 stands before door 3."""
    x, k = args
    dx = torch.randn_like(x)
    compiled = torch.compile(
        lambda x, dx: jvp(lambda x: call(x, k), (x,), (dx,)), backend="aot_eager", fullgraph=True
    )
    for ours, expected in zip(compiled(x, dx), (call(x, k), call(dx, k)), strict=True):
        torch.testing.assert_close(ours, expected)
    compiled = torch.compile(grad(loss), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, k), grad(loss)(x, k))


@pytest.mark.parametrize(  # the raw operator has no autograd of its own
    ("op", "learn"),
    [
        (OPS.upfirdn2d.default, False),
        (OPS.upfirdn2d.default, True),
        (OPS._upfirdn2d.default, False),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_opcheck(op, learn, layout, device):
    x = torch.randn(2, 3, 5, 6, device=device).contiguous(memory_format=layout)
    x.requires_grad_(learn)
    taps = torch.randn(4, device=device, requires_grad=learn)
    k = torch.randn(3, 2, device=device, requires_grad=learn)
    torch.library.opcheck(op, (x, k, None, (2, 1), (1, 3), (1, 2, 0, 2), False))
    torch.library.opcheck(op, (x, taps, taps, (2, 1), (1, 3), (1, 2, 0, 2), True))
    torch.library.opcheck(op, (x, taps, taps[:2], (2, 1), (1, 3), (1, 2, 0, 2), True))


def test_opcheck_of_the_kernel_gradient(device):
    x = torch.randn(2, 3, 5, 6, device=device)
    g = torch.randn(2, 3, 4, 3, device=device)
    rest = ((1, 1), (1, 2), (1, 0, 1, 2), (5, 2))
    torch.library.opcheck(OPS._upfirdn2d_kernel_grad.default, (x, g, *rest))
    torch.library.opcheck(
        OPS.upfirdn2d_kernel_grad.default, (x.requires_grad_(), g.requires_grad_(), *rest)
    )
