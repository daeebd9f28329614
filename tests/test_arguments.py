# SPDX-License-Identifier: BSD-3-Clause
"""What a right call's arguments become, argument by argument; the errors are in test_errors.py."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from resample_layers.ops import arguments

SIGNAL, X, VOLUME = torch.ones(2, 3, 5), torch.ones(2, 3, 4, 5), torch.ones(2, 3, 3, 4, 5)
K, A, B, C = torch.ones(2, 3), torch.ones(1), torch.ones(2), torch.ones(3)
WRONG = (TypeError, ValueError)


def same(ours, wanted):
    """Equal, the tensors by identity."""
    if isinstance(wanted, torch.Tensor):
        return ours is wanted
    if isinstance(wanted, tuple):
        return isinstance(ours, tuple) and len(ours) == len(wanted) and all(map(same, ours, wanted))
    return type(ours) is type(wanted) and ours == wanted


@pytest.mark.parametrize(
    ("kernel", "taps"), [(K, (K, None)), (C, (C, C)), ((A, C), (A, C)), ([C, B], (C, B))]
)
def test_kernels_of_images(kernel, taps):
    ours = arguments.check_call(X, kernel, 2, (1, 3), (1, 2))
    assert same(ours, (*taps, (2, 2), (1, 3), (1, 2, 1, 2)))


@pytest.mark.parametrize(
    ("size", "kernel", "pad"),
    [
        ((1, 1), (1, 1), (0, 0, 0, 0)),
        ((4, 5), (4, 5), (0, 0, 0, 0)),
        ((4, 5), (6, 5), (0, 0, 1, 1)),
        ((4, 5), (4, 8), (3, 0, 0, 0)),
    ],
)
def test_the_least_output_is_one_pixel(size, kernel, pad):
    """One more tap of either axis is an error."""
    x = torch.ones(1, 1, *size)
    arguments.check_call(x, torch.ones(kernel), 1, 1, pad)
    for more in ((1, 0), (0, 1)):
        longer = torch.ones([k + m for k, m in zip(kernel, more, strict=True)])
        with pytest.raises(ValueError, match="output must be at least 1x1"):
            arguments.check_call(x, longer, 1, 1, pad)


def test_signals():
    ours = arguments.check_separable_call(1, SIGNAL, C, 2, (3,), (1, 2))
    assert same(ours, ((C,), (2,), (3,), (1, 2)))
    assert same(arguments.check_separable_call(1, SIGNAL, C, 1, 1, 4)[3], (4, 4))
    for taps, pad in ((5, 0), (7, (1, 1)), (6, (0, 1))):
        arguments.check_separable_call(1, SIGNAL, torch.ones(taps), 1, 1, pad)
        with pytest.raises(ValueError, match="output must be at least 1 "):
            arguments.check_separable_call(1, SIGNAL, torch.ones(taps + 1), 1, 1, pad)


def test_volumes():
    ours = arguments.check_separable_call(3, VOLUME, (A, B, C), (1, 2, 3), 2, (1, 2, 3, 4, 5, 6))
    assert same(ours, ((A, B, C), (1, 2, 3), (2, 2, 2), (1, 2, 3, 4, 5, 6)))
    ours = arguments.check_separable_call(3, VOLUME, C, 1, 1, (1, 2))
    assert same(ours, ((C, C, C), (1, 1, 1), (1, 1, 1), (1, 2, 1, 2, 1, 2)))
    assert same(arguments.check_separable_call(3, VOLUME, C, 1, 1, 4)[3], (4,) * 6)
    with pytest.raises(ValueError, match="got -1x2x5 from input 3x4x5, kernel 9x1x1"):
        arguments.check_separable_call(3, VOLUME, (A, A, torch.ones(9)), 1, (1, 2, 3), 0)
    for axis, side in enumerate((5, 4, 3)):  # x first
        pads = [0] * 6
        pads[2 * axis : 2 * axis + 2] = 2, 1
        for length, right in ((side + 3, True), (side + 4, False)):
            taps = [torch.ones(length) if a == axis else A for a in range(3)]
            if right:
                arguments.check_separable_call(3, VOLUME, taps, 1, 1, pads)
            else:
                with pytest.raises(ValueError, match="output must be at least 1x1x1"):
                    arguments.check_separable_call(3, VOLUME, taps, 1, 1, pads)


FILTERED = {
    "kernels": {"up_kernel": None, "down_kernel": None}, "operands": {"bias": None},
    "up": 1, "down": 1, "pads": {"pad": (0, 0), "down_pad": (0, 0)}, "padding_mode": "zeros",
    "constants": (0.2, 1.0, None),
}  # fmt: skip


def check_filtered(dims, input, **changes):
    return arguments.check_filtered_call(dims, input, **{**FILTERED, **changes})


def test_filtered_images():
    (up, up_y, down, down_y), *rest = check_filtered(2, X)
    for one, one_y in ((up, up_y), (down, down_y)):
        assert one_y is one
        assert one.shape == (1,)
        assert one.item() == 1
    assert same(tuple(rest), ((1, 1), (1, 1), (0, 0, 0, 0), (0, 0, 0, 0), False, (0.2, 1.0, None)))
    ours = check_filtered(
        2, X, kernels={"up_kernel": C, "down_kernel": (A, B)}, operands={"bias": C}, up=(2, 3),
        down=(3, 1), pads={"pad": (1, 2), "down_pad": (1, 2, 3, 4)}, padding_mode="replicate",
        constants=(0, 2, 3),
    )  # fmt: skip
    assert same(
        ours,
        ((C, C, A, B), (2, 3), (3, 1), (1, 2, 1, 2), (1, 2, 3, 4), True, (0.0, 2.0, 3.0)),
    )


def test_filtered_signals_are_images_of_one_row():
    ours = check_filtered(
        1, SIGNAL, kernels={"up_kernel": C, "down_kernel": B}, up=2, down=(3,),
        pads={"pad": (1, 2), "down_pad": 3}, operands={"alpha": C, "beta": None},
    )  # fmt: skip
    (up, up_y, down, down_y), *rest = ours
    for rows, taps in ((up, C), (down, B)):
        assert torch.equal(rows, taps[None])
    assert up_y is None
    assert down_y is None
    assert same(tuple(rest), ((2, 1), (3, 1), (1, 2, 0, 0), (3, 3, 0, 0), False, (0.2, 1.0, None)))


@pytest.mark.parametrize(("dims", "x"), [(1, SIGNAL), (2, X)])
def test_the_least_filtered_output_is_one_pixel(dims, x):
    for taps, up, down in ((4, 2, 1), (1, 2, 2), (8, 1, 3)):
        calls = {"up": up, "down": down, "pads": {"pad": (taps + 5, taps - 5), "down_pad": (0, 0)}}
        side = x.shape[2] * up + taps + 1  # the shortest one between the filters
        kernels = {"up_kernel": torch.ones(taps), "down_kernel": torch.ones(side)}
        check_filtered(dims, x, kernels=kernels, **calls)
        kernels["down_kernel"] = torch.ones(side + 1)
        with pytest.raises(ValueError, match=r"^output must be at least 1"):
            check_filtered(dims, x, kernels=kernels, **calls)
    short = {"up_kernel": torch.ones(x.shape[2] + 1), "down_kernel": None}
    with pytest.raises(ValueError, match=r"^the upsampled signal must be at least 1"):
        check_filtered(dims, x, kernels=short)
    check_filtered(dims, x, kernels=short, pads={"pad": (1, 0), "down_pad": (0, 0)})


def test_an_empty_image_may_be_padded_but_not_continued():
    """There is nothing to continue."""
    for empty in (X[:, :, :0], X[:, :, :, :0]):
        pads = {"pad": (1, 1), "down_pad": (0, 0)}
        check_filtered(2, empty, pads=pads)
        with pytest.raises(ValueError, match=r"^input must be at least 1x1"):
            check_filtered(2, empty, pads=pads, padding_mode="replicate")


def test_shapes_of_the_epilogue():
    ours = arguments.check_epilogue(X, (4, 5), C, X[:, :1], A, X[:, :, 0, 0], 0, 2, 3)
    assert same(ours, (0.0, 2.0, 3.0))
    arguments.check_epilogue(X, (4, 5), None, X[:1, :1], A.reshape(1, 1), None, 0.2, 1.0, None)
    arguments.check_epilogue(X, (4, 5), None, X[:1, :1], None, None, 0.2, 1.0, None)


@pytest.mark.parametrize("shape", [(1,), (4,), (3, 1), (1, 3), ()])
def test_a_number_for_each_channel_is_a_vector(shape):
    t = torch.ones(shape)
    with pytest.raises(ValueError, match=r"^bias must be "):
        arguments.check_epilogue(X, (4, 5), t, None, None, None, 0.2, 1.0, None)
    with pytest.raises(ValueError, match=r"^alpha must be "):
        check_filtered(2, X, operands={"alpha": t})
    with pytest.raises(ValueError, match=r"^scale must be "):
        arguments.check_epilogue(X, (4, 5), None, None, None, t, 0.2, 1.0, None)


@pytest.mark.parametrize(
    "shape",
    [(2, 3, 4, 5), (3, 1, 4, 5), (2, 1, 3, 5), (2, 1, 5, 5), (2, 1, 4, 4), (2, 1, 4, 6), (1, 4, 5),
     (0, 1, 4, 5), (1, 1, 1, 4, 5), ()],
)  # fmt: skip
def test_noise_is_one_image_of_the_output(shape):
    with pytest.raises(ValueError, match=r"^noise must be "):
        arguments.check_epilogue(X, (4, 5), None, torch.ones(shape), None, None, 0.2, 1.0, None)


@pytest.mark.parametrize("name", ["bias", "noise", "noise_strength", "scale"])
def test_operands_are_dense_and_real(name):
    values = dict.fromkeys(("bias", "noise", "noise_strength", "scale"))
    for t in (C.to_sparse(), C.long(), C.to("meta"), 1.0):
        given = {**values, "noise": X[:, :1], name: t}
        with pytest.raises(WRONG, match=f"^{name} must be "):
            arguments.check_epilogue(X, (4, 5), *given.values(), 0.2, 1.0, None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_all_dtypes_of_all_tensors(dtype):
    t, x = C.to(dtype), X.to(dtype)
    arguments.check_call(x, C, 1, 1, (2, 2))
    arguments.check_call(X, t, 1, 1, (2, 2))
    arguments.check_epilogue(X, (4, 5), t, None, None, None, 0.2, 1.0, None)


@pytest.mark.parametrize(
    ("value", "factor"),
    [(1, 1), (3, 3), (np.int64(2), 2), (np.uint8(2), 2), (2**31 - 1, 2**31 - 1)],
)
def test_factors(value, factor):
    for dims in (1, 2, 3):
        assert same(arguments.as_factors("up", value, dims), (factor,) * dims)
        assert same(arguments.as_factors("up", [value] * dims, dims), (factor,) * dims)
    assert same(arguments.as_factors("up", value), (factor, factor))


@pytest.mark.parametrize("value", [0, -1, 2**31, True, 2.0, "2", None, torch.tensor(2)])
def test_factors_that_are_none(value):
    for dims in (1, 2, 3):
        with pytest.raises(WRONG, match=r"^up must be "):
            arguments.as_factors("up", value, dims)
        with pytest.raises(WRONG, match=r"^up must be "):
            arguments.as_factors("up", (value, *[1] * (dims - 1)), dims)
        for length in (dims - 1, dims + 1):
            with pytest.raises(ValueError, match=r"^up must be an int or "):
                arguments.as_factors("up", (1,) * length, dims)


def test_pads():
    assert same(arguments.as_pads((1, np.int32(-2))), (1, -2, 1, -2))
    assert same(arguments.as_pads([1, 2, np.int8(3), 4]), (1, 2, 3, 4))
    for limit in (2**31 - 1, 1 - 2**31):
        assert arguments.as_pads((limit, 0))[0] == limit
    for beyond in (2**31, -(2**31), -(2**31) - 1):
        with pytest.raises(ValueError, match=r"^pad must be made of ints of 32 bits"):
            arguments.as_pads((0, beyond))
    for place in range(4):
        pads = [0] * 4
        pads[place] = 0.5
        with pytest.raises(TypeError, match=r"^down_pad must be made of ints"):
            arguments.as_pads(pads, "down_pad")
    for length in (0, 1, 3, 5):
        with pytest.raises(ValueError, match=f"^pad must have .*, got {length}: "):
            arguments.as_pads([0] * length)


@pytest.mark.parametrize(
    "value", [-1, -5e-324, math.inf, -math.inf, math.nan, 10**400, True, "1", None, A, 1j]
)
def test_constants_that_are_none(value):
    for name, constants in (
        ("negative_slope", (value, 1.0, None)),
        ("gain", (0.2, value, None)),
        ("clamp", (0.2, 1.0, value)),
    ):
        if value is None and name == "clamp":
            continue
        with pytest.raises(WRONG, match=f"^{name} must be "):
            arguments.check_epilogue(X, (4, 5), None, None, None, None, *constants)
        with pytest.raises(WRONG, match=f"^{name} must be "):
            check_filtered(2, X, constants=constants)


def test_constants():
    third = Fraction(1, 3)
    ours = arguments.check_epilogue(X, (4, 5), *[None] * 4, np.float32(0.5), third, 5e-324)
    assert same(ours, (0.5, float(third), 5e-324))
    for name, constants in (("gain", (0.2, 0, None)), ("clamp", (0.2, 1.0, 0.0))):
        with pytest.raises(ValueError, match=f"^{name} must be finite and > 0"):
            arguments.check_epilogue(X, (4, 5), *[None] * 4, *constants)


def test_long_values_are_named_by_their_type():
    """An error stays one sentence."""
    longest = "x" * 58  # and its quotes
    for value, text in (
        ([0.5] * 10, "[0.5, "),
        ([0.5] * 50, "list"),
        (longest, f"'{longest}' (str)"),
        (longest + "x", "str"),
    ):
        with pytest.raises(TypeError) as caught:
            arguments.check_required("alpha", value)
        assert str(caught.value).startswith(f"alpha must be a tensor [C], got {text}")
    assert arguments.check_required("alpha", C) is None
