# SPDX-License-Identifier: BSD-3-Clause
"""Every public callable, called with its optional arguments left out, forward and backward.

A case gives what is required, and the documented default of all the rest. A name or an argument
that is new has no case, and fails.
"""

import inspect
import math
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import resample_layers
from resample_layers import filters, geometry, ops


def values(*size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    x = torch.randn(size, dtype=torch.float64, generator=generator)
    return x.requires_grad_()


X, KERNEL, TAPS = values(2, 3, 8, 7), values(3, 2), values(3)
SIGNALS, VOLUMES = values(2, 3, 9), values(2, 3, 4, 5, 6)
GRAD = values(2, 3, 15, 14)  # of outputs of X upsampled by 2 with KERNEL
PAD = (1, 0, 1, 0)
G_PAD = geometry.adjoint_pads((8, 7), (15, 14), (2, 2), (1, 1), PAD, (3, 2))
SHAPE = torch.Size((2, 3, 8, 7))
ROWS = ((0.25, 0.25), (0.25, 0.25))
SQRT2 = math.sqrt(2.0)
LAYER = {"resample_kernel": (1, 3, 3, 1), "padding_mode": "zeros"}
UP, DOWN = {**LAYER, "factor": 2}, {**LAYER, "factor": 2, "ceil_mode": False}
SMOOTH = {**LAYER, "upsample_factor": 1, "downsample_factor": 1, "kernel_size": 1}
FILTERED = {
    "up": 2,
    "down": 2,
    "bias": True,
    "filter_size": 6,
    "sampling_rate": 1.0,
    "in_cutoff": 0.5,
    "in_half_width": 0.5 * (SQRT2 - 1),
    "out_cutoff": 0.5,
    "out_half_width": 0.5 * (SQRT2 - 1),
    "radial": False,
    "negative_slope": 0.2,
    "gain": SQRT2,
    "clamp": None,
    "pad": (11, 10),
    "padding_mode": "zeros",
}
SNAKE = {
    "alpha": 1.0,
    "log_scale": False,
    "up": 2,
    "down": 2,
    "up_numtaps": 12,
    "down_numtaps": 12,
    "padding_mode": "replicate",
}
RATIONAL = {"resample_kernel": None, "padding_mode": "zeros"}
EPILOGUE = {"bias": None, "noise": None, "noise_strength": None, "negative_slope": 0.2,
            "gain": SQRT2, "clamp": None, "scale": None}  # fmt: skip
OP = {"up": 1, "down": 1}


class Case(NamedTuple):
    required: tuple[Any, ...]
    defaults: dict[str, Any]
    input: torch.Tensor | None = None  # of a layer


CASES = {
    "UpFirDnUpsample": Case((), UP, X),
    "UpFirDnUpsample1d": Case((), UP, SIGNALS),
    "UpFirDnUpsample3d": Case((), UP, VOLUMES),
    "UpFirDnDownsample": Case((), DOWN, X),
    "UpFirDnDownsample1d": Case((), DOWN, SIGNALS),
    "UpFirDnDownsample3d": Case((), DOWN, VOLUMES),
    "UpFirDnResample": Case((3, 2), RATIONAL, X),
    "UpFirDnResample1d": Case((3, 2), RATIONAL, SIGNALS),
    "UpFirDnResample3d": Case((3, 2), RATIONAL, VOLUMES),
    "UpFirDnSmooth": Case((), SMOOTH, X),
    "UpFirDnSmooth1d": Case((), SMOOTH, SIGNALS),
    "UpFirDnSmooth3d": Case((), SMOOTH, VOLUMES),
    "FilteredLeakyReLU": Case((3,), FILTERED, X),
    "FilteredSnake": Case((3,), SNAKE, SIGNALS),
    "FilteredSnakeBeta": Case((3,), SNAKE, SIGNALS),
    "make_resample_kernel": Case(([1, 3, 3, 1],), {}),
    "ops.FusedLeakyReLU": Case(
        (3,), {"bias": True, "negative_slope": 0.2, "scale": SQRT2}, X
    ),
    "ops.UpFirDn2d": Case((X, KERNEL, (2, 2), (1, 1), PAD), {"taps_y": None}),
    "ops.UpFirDn2dBackward": Case(
        (GRAD, KERNEL, KERNEL.detach().flip(0, 1), (2, 2), (1, 1), PAD, G_PAD, SHAPE, (15, 14)),
        {"taps_y": None},
    ),
    "ops.bias_act": Case((X,), EPILOGUE),
    "ops.filtered_lrelu": Case(
        (X,),
        {"up_kernel": None, "down_kernel": None, "bias": None, **OP, "pad": (0, 0),
         "negative_slope": 0.2, "gain": SQRT2, "clamp": None, "down_pad": (0, 0),
         "padding_mode": "zeros"},
    ),
    "ops.filtered_snake": Case(
        (SIGNALS, values(3)),
        {"beta": None, "up_kernel": None, "down_kernel": None, "bias": None, **OP, "pad": 0,
         "down_pad": 0, "padding_mode": "zeros"},
    ),
    "ops.fused_leaky_relu": Case((X,), {"bias": None, "negative_slope": 0.2, "scale": SQRT2}),
    "ops.upfirdn1d": Case((SIGNALS, TAPS), {**OP, "pad": 0}),
    "ops.upfirdn2d": Case((X, KERNEL), {**OP, "pad": (0, 0)}),
    "ops.upfirdn2d_bias_act": Case((X, KERNEL), {**OP, "pad": (0, 0), **EPILOGUE}),
    "ops.upfirdn2d_native": Case((X, KERNEL, 2, 2, 1, 1, *PAD), {}),
    "ops.upfirdn3d": Case((VOLUMES, TAPS), {**OP, "pad": 0}),
    "filters.make_resample_kernel": Case(([1, 3, 3, 1],), {}),
    "filters.normalise_taps": Case(("k", [1, 3, 3, 1]), {}),
    "filters.marginals": Case((ROWS,), {}),
    "filters.deviation_from_rank_one": Case((ROWS,), {}),
    "filters.centroid": Case(([0.25, 0.75],), {}),
    "filters.kaiser_beta": Case((60.0,), {}),
    "filters.kaiser_attenuation": Case((12, 0.25), {}),
    "filters.kaiser_window": Case((12, 4.0), {}),
    "filters.kaiser_lowpass": Case((12, 0.5, 4.0), {}),
    "filters.kaiser_sinc": Case((0.25, 0.3, 12), {}),
    "filters.design_lowpass": Case((12, 8.0, 6.0, 32.0), {}),
    "filters.design_radial_lowpass": Case((12, 8.0, 6.0, 32.0), {}),
    "filters.design_rational_taps": Case((3, 2), {}),
    "filters.design_resample_taps": Case((3,), {"numtaps": 19, "attenuation": 50.0}),
    "filters.phases_sum_alike": Case(([1, 3, 3, 1], 2), {}),
    "geometry.output_size": Case((8, 2, 1, 2, 1, 4), {}),
    "geometry.output_sizes": Case(((8, 7), (2, 2), (1, 1), PAD, (3, 2)), {}),
    "geometry.adjoint_pad": Case((8, 16, 2, 1, 2, 4), {}),
    "geometry.adjoint_pads": Case(((8, 7), (15, 14), (2, 2), (1, 1), PAD, (3, 2)), {}),
    "geometry.Tap": Case((0, -1), {}),
    "geometry.Polyphase": Case((1, 1, ((geometry.Tap(0, 0),),), 0, 0), {}),
    "geometry.polyphase": Case((2, 1, 2, 1, 4), {}),
    "geometry.upsample_pad": Case((4, 2), {}),
    "geometry.downsample_pad": Case((4, 2), {"ceil_mode": False}),
    "geometry.filtered_pad": Case((12, 12, 2, 2), {}),
    "geometry.rational_pad": Case((5,), {}),
    "geometry.smooth_pad": Case((4, 1, 2, 3, False), {}),
    "geometry.shift": Case((4, 2, 1, 2), {"centroid": 0.0}),
    "geometry.may_miss": Case((2, 2, 1, 4), {}),
    "geometry.row_range": Case((8, 1, 3, 2, 1, 2, 4), {}),
    "geometry.border": Case((2, 1, 2), {}),
}  # fmt: skip
ARGUMENTS_WITH_ANOTHER_DEFAULT = {  # None: from the factor, or from the sampling rate
    "design_resample_taps": {"numtaps"},
    "FilteredLeakyReLU": {"in_cutoff", "in_half_width", "out_cutoff", "out_half_width", "pad"},
    "FilteredSnake": {"up_numtaps", "down_numtaps"},
    "FilteredSnakeBeta": {"up_numtaps", "down_numtaps"},
}


def public(module: ModuleType, prefix: str) -> dict[str, Any]:
    """Callables of ``__all__``, or those that a module without it defines, by name."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]
    found = {name: getattr(module, name) for name in names}
    return {prefix + name: value for name, value in found.items() if callable(value)}


PUBLIC = {
    **public(resample_layers, ""),
    **public(ops, "ops."),
    **public(filters, "filters."),
    **public(geometry, "geometry."),
}


def parameters_of(function):
    """The names of the required and the optional arguments, in their order."""
    is_function = inspect.isclass(function) and issubclass(function, torch.autograd.Function)
    signature = inspect.signature(function.forward if is_function else function)
    named = [p for p in signature.parameters.values() if p.kind != p.VAR_POSITIONAL]
    named = named[1:] if is_function else named  # without ctx
    required = [p.name for p in named if p.default is p.empty]
    return required, {p.name: p.default for p in named if p.default is not p.empty}


def run(function, case, defaults):
    """What a call returns, and the gradients of all that can have one."""
    leaves = [arg for arg in case.required if isinstance(arg, torch.Tensor) and arg.requires_grad]
    if inspect.isclass(function) and issubclass(function, torch.autograd.Function):
        out = function.apply(*case.required, *defaults.values())
    else:
        out = function(*case.required, **defaults)
    if isinstance(out, nn.Module):
        module = out.double()
        out = module(case.input)
        leaves = [case.input, *module.parameters()]
    if not leaves:
        return out, []
    return out, torch.autograd.grad(out.square().sum(), leaves)


def test_every_public_name_has_a_case():
    assert set(CASES) == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_optional_arguments_left_out(name):
    function, case = PUBLIC[name], CASES[name]
    required, optional = parameters_of(function)
    assert len(required) == len(case.required)
    assert set(optional) == set(case.defaults)
    for argument in ARGUMENTS_WITH_ANOTHER_DEFAULT.get(name.split(".")[-1], ()):
        assert optional.pop(argument) is None
    assert optional == {argument: case.defaults[argument] for argument in optional}
    (out, grads), (expected, expected_grads) = (
        run(function, case, {}),
        run(function, case, case.defaults),
    )
    if not isinstance(out, torch.Tensor):
        assert out == expected
        return
    assert torch.equal(out, expected)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad.isfinite().all()
        assert grad.any()
        assert torch.equal(grad, expected_grad)


@pytest.mark.parametrize("with_taps_y", [False, True], ids=["without taps_y", "with taps_y"])
def test_the_functions_differentiate_twice(with_taps_y):
    """The Functions as their docstrings spell them: input and kernel, two orders."""
    kernel, taps_y = (values(2), values(3)) if with_taps_y else (KERNEL, None)
    last = (taps_y,) if with_taps_y else ()
    x, grad = values(1, 2, 4, 3), values(1, 2, 7, 6)
    g_pad = geometry.adjoint_pads((4, 3), (7, 6), (2, 2), (1, 1), PAD, (3, 2))
    call = (2, 2), (1, 1), PAD
    assert ops.UpFirDn2d.apply(x, kernel, *call, *last).shape == grad.shape

    def forward(x, kernel, *last):
        return ops.UpFirDn2d.apply(x, kernel, *call, *last)

    def backward(grad, kernel, *last):
        flipped = None if with_taps_y else kernel.detach().flip(0, 1)
        rest = (*call, g_pad, x.shape, (7, 6), *last)
        return ops.UpFirDn2dBackward.apply(grad, kernel, flipped, *rest)

    for function, arguments in ((forward, (x, kernel, *last)), (backward, (grad, kernel, *last))):
        assert torch.autograd.gradcheck(function, arguments)
        assert torch.autograd.gradgradcheck(function, arguments)


IMAGES = ["UpFirDnUpsample", "UpFirDnDownsample", "UpFirDnSmooth", "UpFirDnResample"]


@pytest.mark.parametrize("name", IMAGES)
def test_the_method_of_the_layers_of_images(name):
    layer = PUBLIC[name](*CASES[name].required).double()
    required, optional = parameters_of(layer.bias_act)
    assert required == ["input"]
    assert optional == EPILOGUE
    bare, full = layer.bias_act(X), layer.bias_act(X, *EPILOGUE.values())
    assert torch.equal(bare, full)
    torch.testing.assert_close(bare, nn.functional.leaky_relu(layer(X), 0.2) * SQRT2)
    (grad,) = torch.autograd.grad(bare.square().sum(), X)
    assert torch.equal(grad, torch.autograd.grad(full.square().sum(), X)[0])
