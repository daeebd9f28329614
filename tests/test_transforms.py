# SPDX-License-Identifier: BSD-3-Clause
"""torch.func, forward mode, and the modes, hooks, workers and threads that a call may meet."""

import sys
import threading

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from resample_layers import (
    FilteredLeakyReLU,
    UpFirDnDownsample,
    UpFirDnSmooth,
    UpFirDnUpsample,
)
from resample_layers.layers import PADDING_MODES
from resample_layers.ops import (
    bias_act,
    filtered_lrelu,
    filtered_snake,
    upfirdn2d,
    upfirdn2d_bias_act,
)
from resample_layers.ops.op import OPS as ALL

from .calls import DOWN, PAD, UP, call
from .tools import require

OPS = torch.ops.resample_layers


def loss(x, k):
    return call(x, k).pow(3).sum()


class Model(nn.Module):
    """Every layer, a learned filter, and both functions with an epilogue."""

    def __init__(self, mode="zeros"):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            UpFirDnUpsample(padding_mode=mode),
            nn.Tanh(),
            UpFirDnSmooth(downsample_factor=2, kernel_size=3, padding_mode=mode),
            nn.Conv2d(4, 4, 3, stride=2),
            UpFirDnDownsample([[1, 2], [3, 4]], padding_mode=mode),
        )
        self.blur = UpFirDnSmooth((1, 3, 3, 1), padding_mode=mode)
        self.taps = nn.Parameter(torch.randn(3))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x):
        x = upfirdn2d(self.layers(x), self.taps, 1, 1, (1, 1))
        return self.blur.bias_act(x, self.bias)


def gradients(model, x, run=None):
    """Of the squared output, in the input and in all parameters."""
    x = x.detach().requires_grad_()
    out = model(x) if run is None else run(x)
    return torch.autograd.grad(out.pow(2).sum(), (x, *model.parameters()))


def assert_equal(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        assert b.abs().max() > 0
        assert torch.equal(a, b)


# torch.func and forward mode


def test_jvp(args):
    x, k = args
    dx, dk = torch.randn_like(x), torch.randn_like(k)
    out, tangent = jvp(call, (x, k), (dx, dk))
    torch.testing.assert_close(out, call(x, k))
    torch.testing.assert_close(tangent, call(dx, k) + call(x, dk))


def test_dual_numbers(args):
    x, k = args
    dx = torch.randn_like(x)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(call(forward_ad.make_dual(x, dx), k)).tangent
    torch.testing.assert_close(tangent, call(dx, k))


@pytest.mark.parametrize("wrt", [0, 1], ids=["input", "kernel"])
def test_dual_numbers_that_require_grad(wrt, args):
    """Forward over reverse: door 2 stands before the Functions, which have no tangent."""
    primal = args[wrt].clone().requires_grad_()
    tangent = torch.randn_like(primal)
    pair = [*args]
    with forward_ad.dual_level():
        pair[wrt] = forward_ad.make_dual(primal, tangent)
        out = call(*pair)
        ours = forward_ad.unpack_dual(out).tangent
    pair[wrt] = tangent
    torch.testing.assert_close(ours, call(*pair))


def arguments_of(name):
    """``(tensors, call)`` of an operator: what has a derivative, and how it is called with that."""
    kind = {"dtype": torch.float64}
    x, g, k = torch.randn(2, 3, 4, 5, **kind), torch.randn(2, 3, 3, 3, **kind), (2, 3)
    kernel, one = torch.randn(k, **kind), torch.randn(1, **kind)
    row, noise, scale = (torch.rand(s, **kind) + 0.5 for s in (3, (2, 1, 3, 3), (2, 3)))
    plain = (1, 1), (1, 1), (0,) * 4
    silu = (1, 1), (1, 1), (0,) * 4, (0,) * 4, False, 2, 0.0, 1.0, None
    snake = (1, 1), (1, 1), (0,) * 4, (0,) * 4, False, 1, 0.0, 1.0, 1.5
    bias_act_tensors = (g, g * 2, torch.randn_like(g), one, one, scale, noise, one)
    return {
        "upfirdn2d": ((x, kernel), lambda op, x, k: op(x, k, None, *plain, False)),
        "upfirdn2d_kernel_grad": ((x, g), lambda op, x, g: op(x, g, *plain, k[::-1])),
        "upfirdn2d_bias_act": (
            (x, kernel, row, noise, one, scale),
            lambda op, x, k, *rest: op(x, k, None, *rest, *plain, 0.2, 1.5, 3.0),
        ),
        "upfirdn2d_bias_act_grad": (
            bias_act_tensors,
            lambda op, *tensors: op(*tensors, True, 2, 0.2, 1.5, 3.0),
        ),
        "filtered_act": (
            (x, row, kernel, row),
            lambda op, x, bias, k, taps: op(x, bias, None, None, k, None, taps, taps, *silu),
        ),
        "filtered_act_grad": (
            (torch.randn(2, 3, 1, 1, **kind), x, row, row, row + 1, kernel, row),
            lambda op, *tensors: op(*tensors[:-1], None, *tensors[-1:] * 2, *snake, [True] * 3),
        ),
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("kind", ["registered", "raw"])
def test_operators_that_are_called_directly(kind, name):
    """As exported programs call them: eager mode loses no derivative, in torch.func or in duals."""
    op = getattr(ALL[name], kind)
    tensors, of = arguments_of(name)
    tangents = tuple(torch.randn_like(t) for t in tensors)
    weights = None

    def total(*tensors):
        nonlocal weights
        results = of(op, *tensors)
        results = [results] if isinstance(results, torch.Tensor) else [*results]
        weights = weights or [torch.randn_like(r) for r in results]
        return sum((r * w).sum() for r, w in zip(results, weights, strict=True))

    step = 1e-6
    ends = [total(*(t + s * d for t, d in zip(tensors, tangents, strict=True)))
            for s in (step, -step)]  # fmt: skip
    expected = (ends[0] - ends[1]) / (2 * step)
    assert expected.abs() > 1e-3

    def check(found):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)

    check(jvp(total, tensors, tangents)[1])
    with forward_ad.dual_level():
        pairs = zip(tensors, tangents, strict=True)
        check(forward_ad.unpack_dual(total(*(forward_ad.make_dual(*p) for p in pairs))).tangent)
    slopes = grad(total, tuple(range(len(tensors))))(*tensors)
    check(sum((s * d).sum() for s, d in zip(slopes, tangents, strict=True)))
    both = vmap(grad(total), (0, *(None,) * (len(tensors) - 1)))
    each = both(torch.stack([tensors[0], 2 * tensors[0]]), *tensors[1:])
    torch.testing.assert_close(each[0], slopes[0])
    if kind == "registered":  # and, with a rule for autograd, an eager graph
        leaves = [t.clone().requires_grad_() for t in tensors]
        slopes = torch.autograd.grad(total(*leaves), leaves)
        check(sum((s * d).sum() for s, d in zip(slopes, tangents, strict=True)))


@pytest.mark.parametrize(
    "make", [UpFirDnUpsample, lambda: FilteredLeakyReLU(3)], ids=["upsample", "with a parameter"]
)
def test_exported_programs(make):
    layer, x = make().double(), torch.randn(1, 3, 6, 6, dtype=torch.float64)
    program = torch.export.export(layer, (x,)).module()
    d = torch.randn_like(x)
    torch.testing.assert_close(jvp(program, (x,), (d,)), jvp(layer, (x,), (d,)))
    ours, theirs = (
        torch.autograd.functional.jacobian(f, x, vectorize=True, strategy="forward-mode")
        for f in (program, layer)
    )
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours, theirs)
    ours, theirs = (grad(lambda x: f(x).pow(3).sum())(x) for f in (program, layer))  # noqa: B023
    torch.testing.assert_close(ours, theirs)


def test_grad_and_vjp(args):
    x, k = args
    leaves = x.clone().requires_grad_(), k.clone().requires_grad_()
    expected = torch.autograd.grad(loss(*leaves), leaves)
    for ours, theirs in zip(grad(loss, (0, 1))(x, k), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    _, pull = vjp(loss, x, k)
    for ours, theirs in zip(pull(x.new_ones(())), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_jacobians(args):
    x, k = args[0][:1, :1], args[1]
    for argnums in (0, 1):
        forward, reverse = (jac(call, argnums)(x, k) for jac in (jacfwd, jacrev))
        torch.testing.assert_close(forward, reverse)
        basis = torch.eye((x, k)[argnums].numel(), dtype=x.dtype, device=x.device)
        columns = [call(e.view_as(x), k) if argnums == 0 else call(x, e.view_as(k)) for e in basis]
        expected = torch.stack(columns, -1).reshape(forward.shape)
        torch.testing.assert_close(forward, expected)


def test_hessian(args):
    x, k = args[0][:1, :1, :3, :3], args[1]
    expected = torch.autograd.functional.hessian(loss, (x, k))
    for i, row in enumerate(hessian(loss, (0, 1))(x, k)):
        for j, block in enumerate(row):
            assert block.abs().max() > 0
            torch.testing.assert_close(block, expected[i][j])


@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0), (1, None), (2, 1)])
def test_vmap(in_dims, args, recwarn):
    x, k = torch.randn(5, *args[0].shape, dtype=torch.float64), torch.randn(5, *args[1].shape)
    x, k = x.to(args[0]), k.to(args[1])
    xs, ks = (x if in_dims[0] is not None else x[0]), (k if in_dims[1] is not None else k[0])
    moved = (
        xs.movedim(0, in_dims[0]) if in_dims[0] else xs,
        ks.movedim(0, in_dims[1]) if in_dims[1] else ks,
    )
    expected = torch.stack(
        [call(x[i] if in_dims[0] is not None else xs, k[i] if in_dims[1] is not None else ks)
         for i in range(5)]
    )  # fmt: skip
    torch.testing.assert_close(vmap(call, in_dims)(*moved), expected)
    for op in (OPS.upfirdn2d.default, OPS._upfirdn2d.default):
        ours = vmap(lambda x, k: op(x, k, None, UP, DOWN, PAD, False), in_dims)(*moved)  # noqa: B023
        torch.testing.assert_close(ours, expected)
    assert not recwarn.list


@pytest.mark.parametrize(
    "name",
    ["upfirdn2d", "upfirdn2d_bias_act", "one tap", "bias_act", "lrelu", "lrelu, kernels", "snake"],
)
def test_vmap_of_the_gradient_of_an_eager_graph(name, device):
    """torch.vmap over torch.autograd.grad: a batch of gradients, each of every tensor."""
    kind = {"device": device, "dtype": torch.float64}
    x, k, b = torch.randn(2, 3, 4, 5, **kind), torch.randn(2, 2, **kind), torch.rand(3, **kind)
    noise, one, scale = (torch.randn(s, **kind) for s in ((2, 1, 3, 4), 1, (2, 3)))
    whole = torch.randn(1, 1, 4, 5, **kind)

    def fused(x, k, b, noise, one, scale):
        return upfirdn2d_bias_act(x, k, b, noise, one, scale=scale, clamp=1.0)

    call, tensors = {
        "upfirdn2d": (upfirdn2d, (x, k)),
        "upfirdn2d_bias_act": (fused, (x, k, b, noise, one, scale)),
        "one tap": (lambda x, *rest: fused(x, one.detach(), *rest), (x, b, whole, one, scale)),
        "bias_act": (lambda *t: bias_act(*t[:4], scale=t[4]), (x, b, whole, one, scale)),
        "lrelu": (lambda x, b: filtered_lrelu(x, bias=b, clamp=1.0), (x, b)),
        "lrelu, kernels": (filtered_lrelu, (x, k, k.T, b)),
        "snake": (filtered_snake, (x[:, :, 0], b)),
    }[name]
    leaves = [t.clone().requires_grad_() for t in tensors]
    out = call(*leaves)
    v = torch.randn(3, *out.shape, **kind)

    def slopes(v):
        return torch.autograd.grad(out, leaves, v, retain_graph=True)

    for ours, *singly in zip(vmap(slopes)(v), *map(slopes, v), strict=True):
        assert ours.abs().max() > 0
        torch.testing.assert_close(ours, torch.stack(singly))


def test_vmap_of_the_input_alone_is_one_call(args, monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode

    calls = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(func)
            return func(*args, **(kwargs or {}))

    x, k = args
    with Watch():
        vmap(lambda x: OPS.upfirdn2d.default(x, k, None, UP, DOWN, PAD, False))(
            torch.stack([x, x, x])
        )
    assert calls.count(OPS._upfirdn2d.default) == 1  # what the registered operator calls


def test_vmap_of_separable_taps(device):
    x = torch.randn(4, 1, 2, 5, 6, device=device)
    taps = torch.randn(4, 3, device=device)
    expected = torch.stack([upfirdn2d(x[i], taps[i], 2) for i in range(4)])
    torch.testing.assert_close(vmap(lambda x, t: upfirdn2d(x, t, 2))(x, taps), expected)
    ours = vmap(lambda x, t: OPS.upfirdn2d.default(x, t, t, (2, 2), (1, 1), (0,) * 4, False))(
        x, taps
    )
    torch.testing.assert_close(ours, expected)
    expected = torch.stack([upfirdn2d(x[0], (taps[0], t), 2) for t in taps])
    rest = ((2, 2), (1, 1), (0,) * 4, False)
    ours = vmap(lambda t: OPS.upfirdn2d.default(x[0], taps[0], t, *rest))(taps)  # taps_y alone
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("in_dims", [((0, None), (0, 0)), ((None, 0), (1, None)), ((2, 1), (0, 0))])
def test_nested_vmap(in_dims, args):
    """Each level batches what its in_dims say: 4 outside, 5 inside."""
    operands, expected = [], []
    outer, inner = in_dims
    for i, each in enumerate(args):
        if inner[i] is not None:
            each = torch.stack([each * (1 + s) for s in range(5)], inner[i])
        if outer[i] is not None:
            each = torch.stack([each * (2 - s) for s in range(4)], outer[i])
        operands.append(each)
    for a in range(4):
        once = [t if d is None else t.select(d, a) for t, d in zip(operands, outer, strict=True)]
        for b in range(5):
            pair = [t if d is None else t.select(d, b) for t, d in zip(once, inner, strict=True)]
            expected.append(call(*pair))
    ours = vmap(vmap(call, inner), outer)(*operands)
    torch.testing.assert_close(ours.flatten(0, 1), torch.stack(expected))


def test_vmap_of_the_kernel_gradient(args):
    x = torch.stack([args[0], args[0].flip(0)])
    g = torch.randn(2, *call(*args).shape, dtype=torch.float64, device=x.device)
    expected = torch.stack(
        [
            OPS._upfirdn2d_kernel_grad.default(a, b, UP, DOWN, PAD, (4, 3))
            for a, b in zip(x, g, strict=True)
        ]
    )
    for op in (OPS.upfirdn2d_kernel_grad.default, OPS._upfirdn2d_kernel_grad.default):
        ours = vmap(lambda a, b: op(a, b, UP, DOWN, PAD, (4, 3)))(x, g)  # noqa: B023
        torch.testing.assert_close(ours, expected)


def test_per_sample_gradients(args):
    x, k = args
    ours = vmap(grad(lambda k, x: loss(x[None], k)), (None, 0))(k, x)
    expected = torch.stack([grad(lambda k: loss(x[i : i + 1], k))(k) for i in range(2)])  # noqa: B023
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_per_sample_gradients_of_a_model(mode, device):
    """Of every parameter and, in forward mode over reverse, their directional derivatives."""
    model = Model(mode).double().to(device)
    x = torch.randn(3, 3, 12, 14, dtype=torch.float64, device=device)
    parameters = dict(model.named_parameters())

    def total(parameters, x):
        return functional_call(model, parameters, (x[None],)).pow(2).sum()

    ours = vmap(grad(total), (None, 0))(parameters, x)
    _, tangents = jvp(lambda p: vmap(grad(total), (None, 0))(p, x), (parameters,), (parameters,))
    step = 1e-6
    near = [
        vmap(grad(total), (None, 0))({n: p * (1 + s) for n, p in parameters.items()}, x)
        for s in (step, -step)
    ]
    for i in range(3):
        expected = torch.autograd.grad(total(parameters, x[i]), parameters.values())
        for name, each in zip(parameters, expected, strict=True):
            assert each.abs().max() > 0
            torch.testing.assert_close(ours[name][i], each)
    for name in parameters:
        difference = (near[0][name] - near[1][name]) / (2 * step)
        torch.testing.assert_close(tangents[name], difference, rtol=1e-5, atol=1e-5)


# Modes and hooks


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(reentrant, device):
    model, x = Model().to(device), torch.randn(2, 3, 12, 14, device=device)
    expected = gradients(model, x)
    x = x.requires_grad_()
    out = checkpoint(model, x, use_reentrant=reentrant)
    out.pow(2).sum().backward()
    assert_equal((x.grad, *(p.grad for p in model.parameters())), expected)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_autocast(mode, device):
    """The output follows the input's dtype; the kernel is float32, and is used unrounded."""
    layer = UpFirDnUpsample((1, 2.1, 3.3, 2.2), padding_mode=mode).to(device)
    learned = torch.randn(3, device=device, requires_grad=True)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layer).to(device)
    x = torch.randn(2, 3, 8, 10, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
        wide, half = layer(x), layer(x.bfloat16())
        out = upfirdn2d(x.bfloat16(), learned)
    assert wide.dtype == torch.float32
    assert half.dtype == out.dtype == torch.bfloat16
    assert layer.kernel_x.dtype == torch.float32
    assert torch.equal(wide, layer(x))
    exact = layer(x.bfloat16().float())
    assert ((half - exact).abs() <= 1.001 * 2**-8 * exact.abs() + 1e-6).all()  # rounded once
    (slope,) = torch.autograd.grad(out.float().sum(), learned)
    assert slope.dtype == torch.float32


def test_inference_mode(device):
    """What is made there can be used and, moved out, differentiated outside."""
    model, x = Model().to(device), torch.randn(2, 3, 12, 14, device=device)
    expected, slopes = model(x).detach(), gradients(model, x)
    with torch.inference_mode():
        out, made = model(x), UpFirDnUpsample().to(device)
    assert out.is_inference()
    assert torch.equal(out, expected)
    assert_equal(gradients(model, x), slopes)
    y = torch.randn(1, 2, 4, 5, device=device, requires_grad=True)
    (ours,) = torch.autograd.grad(made(y).sum(), y)
    (theirs,) = torch.autograd.grad(UpFirDnUpsample().to(device)(y).sum(), y)
    assert torch.equal(ours, theirs)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)  # an error where torch has none
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_deterministic_algorithms(mode, device, deterministic):
    model, x = Model(mode).to(device), torch.randn(2, 3, 12, 14, device=device)
    first = gradients(model, x)
    assert_equal(gradients(model, x), first)


def test_saved_tensors_may_go_elsewhere(device):
    """To the host, to NumPy and back, or through a file, while forward and backward lie apart."""
    model, x = Model().to(device), torch.randn(2, 3, 12, 14, device=device)
    expected = gradients(model, x)

    def offloaded(x):
        with torch.autograd.graph.save_on_cpu():
            return model(x)

    assert_equal(gradients(model, x, offloaded), expected)
    packed = []

    def pack(tensor):
        packed.append(tensor.detach().cpu().numpy().copy())
        return len(packed) - 1

    def hooked(x):
        with torch.autograd.graph.saved_tensors_hooks(
            pack, lambda index: torch.from_numpy(packed[index]).to(device)
        ):
            return model(x)

    assert_equal(gradients(model, x, hooked), expected)
    assert len(packed) > 10


# Workers and threads


class Blurred(Dataset):
    """Images that a worker resamples; with ``learn``, their slopes."""

    def __init__(self, learn):
        self.layer, self.learn = UpFirDnDownsample(), learn

    def __len__(self):
        return 6

    def __getitem__(self, index):
        x = torch.full((1, 2, 40, 50), float(index + 1), requires_grad=self.learn)
        out = self.layer(x).pow(2)
        return torch.autograd.grad(out.sum(), x)[0][0] if self.learn else out[0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on forks
def test_workers_of_a_loader(method):
    """Backward by spawn alone: torch has none in a fork of a process that used its threads."""
    # Windows has no fork, and macOS may end a fork of a process that has threads
    require("fork beside threads", found=method == "spawn" or sys.platform == "linux")
    images = Blurred(learn=method == "spawn")
    UpFirDnUpsample()(torch.randn(4, 16, 128, 128))  # torch's threads are there when it forks
    loader = DataLoader(images, 3, num_workers=1, multiprocessing_context=method)
    assert_equal(torch.cat(list(loader)), [images[i] for i in range(6)])


def test_threads_forward_and_backward(device):
    """Graphs of their own, and one graph for all, whose gradients add up in shared parameters."""
    model = Model().double().to(device)
    inputs = [torch.randn(2, 3, 12, 14, dtype=torch.float64, device=device) for _ in range(6)]
    expected = [gradients(model, x) for x in inputs]
    results, together = [None] * len(inputs), threading.Barrier(len(inputs))

    def work(i):
        together.wait()
        for _ in range(10):
            results[i] = gradients(model, inputs[i])
        model(inputs[i]).pow(2).sum().backward()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(results, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)
    sums = [sum(each) for each in zip(*(e[1:] for e in expected), strict=True)]
    for parameter, total in zip(model.parameters(), sums, strict=True):
        torch.testing.assert_close(parameter.grad, total)
