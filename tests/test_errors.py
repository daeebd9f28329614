# SPDX-License-Identifier: BSD-3-Clause
"""Bad input: the whole sentence, which names argument, rule and value."""

import re

import numpy as np
import pytest
import torch

from resample_layers import (
    UpFirDnDownsample,
    UpFirDnSmooth,
    UpFirDnUpsample,
    filters,
    make_resample_kernel,
)
from resample_layers.ops import FusedLeakyReLU, fused_leaky_relu, upfirdn2d, upfirdn2d_native

X = torch.ones(1, 2, 4, 5)
K = torch.ones(2, 3)


class Odd:
    def __repr__(self):
        return "Odd(" + "x" * 100 + ")"


CALLS = [
    # input
    (lambda: upfirdn2d([[1.0]], K), TypeError,
     "input must be a tensor [N, C, H, W], got [[1.0]] (list)"),
    (lambda: upfirdn2d("image", K), TypeError,
     "input must be a tensor [N, C, H, W], got 'image' (str)"),
    (lambda: upfirdn2d(Odd(), K), TypeError, "input must be a tensor [N, C, H, W], got Odd"),
    (lambda: upfirdn2d(X.long(), K), TypeError,
     "input must be float16, bfloat16, float32 or float64, got torch.int64"),
    (lambda: upfirdn2d(X.to(torch.complex64), K), TypeError,
     "input must be float16, bfloat16, float32 or float64, got torch.complex64"),
    (lambda: upfirdn2d(X[0], K), ValueError,
     "input must have 4 dimensions [N, C, H, W], got 3: shape (2, 4, 5)"),
    (lambda: upfirdn2d(X[None], K), ValueError,
     "input must have 4 dimensions [N, C, H, W], got 5: shape (1, 1, 2, 4, 5)"),
    # kernel
    (lambda: upfirdn2d(X, [1.0, 3.0]), TypeError,
     "kernel must be a tensor [kh, kw] or [taps], or a pair of tensors (taps_x, taps_y), "
     "got [1.0, 3.0] (list)"),
    (lambda: upfirdn2d(X, "box"), TypeError,
     "kernel must be a tensor [kh, kw] or [taps], or a pair of tensors (taps_x, taps_y), "
     "got 'box' (str)"),
    (lambda: upfirdn2d(X, K.int()), TypeError,
     "kernel must be float16, bfloat16, float32 or float64, got torch.int32"),
    (lambda: upfirdn2d(X, (K[0], K[0].int())), TypeError,
     "kernel[1] must be float16, bfloat16, float32 or float64, got torch.int32"),
    (lambda: upfirdn2d(X, torch.tensor(1.0)), ValueError,
     "kernel must be [kh, kw], [taps] or a pair of taps ([kw], [kh]), got 0 dimensions: shape ()"),
    (lambda: upfirdn2d(X, K[None]), ValueError,
     "kernel must be [kh, kw], [taps] or a pair of taps ([kw], [kh]), "
     "got 3 dimensions: shape (1, 2, 3)"),
    (lambda: upfirdn2d(X, torch.ones(0)), ValueError,
     "kernel must have at least one tap, got shape (0,)"),
    (lambda: upfirdn2d(X, torch.ones(2, 0)), ValueError,
     "kernel must have at least one tap, got shape (2, 0)"),
    (lambda: upfirdn2d(X, torch.ones(0, 2)), ValueError,
     "kernel must have at least one tap, got shape (0, 2)"),
    (lambda: upfirdn2d(X, (K, K[0])), ValueError,
     "kernel as a pair must be two tensors (taps_x, taps_y) of 1 dimension each, "
     "got 2 of shapes [(2, 3), (3,)]"),
    (lambda: upfirdn2d(X, (K[0, 0], K[0])), ValueError,
     "kernel as a pair must be two tensors (taps_x, taps_y) of 1 dimension each, "
     "got 2 of shapes [(), (3,)]"),
    (lambda: upfirdn2d(X, (K[0], K[0, 0])), ValueError,
     "kernel as a pair must be two tensors (taps_x, taps_y) of 1 dimension each, "
     "got 2 of shapes [(3,), ()]"),
    (lambda: upfirdn2d(X, (K[0], K[0], K[0])), ValueError,
     "kernel as a pair must be two tensors (taps_x, taps_y) of 1 dimension each, "
     "got 3 of shapes [(3,), (3,), (3,)]"),
    (lambda: upfirdn2d(X, (K[0], K)), ValueError,
     "kernel as a pair must be two tensors (taps_x, taps_y) of 1 dimension each, "
     "got 2 of shapes [(3,), (2, 3)]"),
    (lambda: upfirdn2d(X, (K[0],)), ValueError,
     "kernel as a pair must be two tensors (taps_x, taps_y) of 1 dimension each, "
     "got 1 of shapes [(3,)]"),
    (lambda: upfirdn2d(X, K.to("meta")), ValueError,
     "kernel must be on the device of input, got kernel on meta and input on cpu"),
    (lambda: upfirdn2d(X, (K[0], K[0].to("meta"))), ValueError,
     "kernel[1] must be on the device of input, got kernel[1] on meta and input on cpu"),
    # factors
    (lambda: upfirdn2d(X, K, up=0), ValueError, "up must be >= 1 in both axes, got up=0"),
    (lambda: upfirdn2d(X, K, up=-1), ValueError, "up must be >= 1 in both axes, got up=-1"),
    (lambda: upfirdn2d(X, K, up=2**31), ValueError,
     "up must be made of ints of 32 bits, got up=2147483648 (int)"),
    (lambda: upfirdn2d(X, K, up=2**32), ValueError,
     "up must be made of ints of 32 bits, got up=4294967296 (int)"),
    (lambda: upfirdn2d(X, K, down=0), ValueError, "down must be >= 1 in both axes, got down=0"),
    (lambda: upfirdn2d(X, K, down=-1), ValueError, "down must be >= 1 in both axes, got down=-1"),
    (lambda: upfirdn2d(X, K, down=2**31), ValueError,
     "down must be made of ints of 32 bits, got down=2147483648 (int)"),
    (lambda: upfirdn2d(X, K, up=(2, 0)), ValueError,
     "up must be >= 1 in both axes, got up=(2, 0)"),
    (lambda: upfirdn2d(X, K, down=-1), ValueError, "down must be >= 1 in both axes, got down=-1"),
    (lambda: upfirdn2d(X, K, up=1.5), TypeError, "up must be made of ints, got up=1.5 (float)"),
    (lambda: upfirdn2d(X, K, down=(2.0, 1)), TypeError,
     "down must be made of ints, got down=(2.0, 1) (tuple)"),
    (lambda: upfirdn2d(X, K, up="2"), TypeError, "up must be made of ints, got up='2' (str)"),
    (lambda: upfirdn2d(X, K, up=True), TypeError, "up must be made of ints, got up=True (bool)"),
    (lambda: upfirdn2d(X, K, up=torch.tensor(2)), TypeError,
     "up must be made of ints, got up=tensor(2) (Tensor)"),
    (lambda: upfirdn2d(X, K, up=None), TypeError,
     "up must be made of ints, got up=None (NoneType)"),
    (lambda: upfirdn2d(X, K, up=(1, 2, 3)), ValueError,
     "up must be an int or 2 ints (x, y), got up=(1, 2, 3)"),
    (lambda: upfirdn2d(X, K, down=2**70), ValueError,
     "down must be made of ints of 32 bits, got down=1180591620717411303424 (int)"),
    # pads
    (lambda: upfirdn2d(X, K, pad=(2**31, 0)), ValueError,
     "pad must be made of ints of 32 bits, got pad=(2147483648, 0) (tuple)"),
    (lambda: upfirdn2d(X, K, pad=1), TypeError,
     "pad must be 2 ints (before, after) for both axes or 4 ints (x0, x1, y0, y1), "
     "got pad=1 (int)"),
    (lambda: upfirdn2d(X, K, pad="same"), TypeError,
     "pad must be 2 ints (before, after) for both axes or 4 ints (x0, x1, y0, y1), "
     "got pad='same' (str)"),
    (lambda: upfirdn2d(X, K, pad=(1,)), ValueError,
     "pad must have 2 values (before, after) or 4 values (x0, x1, y0, y1), got 1: pad=(1,)"),
    (lambda: upfirdn2d(X, K, pad=(1, 1, 1)), ValueError,
     "pad must have 2 values (before, after) or 4 values (x0, x1, y0, y1), got 3: pad=(1, 1, 1)"),
    (lambda: upfirdn2d(X, K, pad=[1] * 5), ValueError,
     "pad must have 2 values (before, after) or 4 values (x0, x1, y0, y1), "
     "got 5: pad=[1, 1, 1, 1, 1]"),
    (lambda: upfirdn2d(X, K, pad=(1.0, 1)), TypeError,
     "pad must be made of ints, got pad=(1.0, 1) (tuple)"),
    (lambda: upfirdn2d(X, K, pad=(1, 1, 0.5, 1)), TypeError,
     "pad must be made of ints, got pad=(1, 1, 0.5, 1) (tuple)"),
    # output
    (lambda: upfirdn2d(X, torch.ones(5, 2)), ValueError,
     "output must be at least 1x1 (height x width), got 0x4 from input 4x5, kernel 5x2, "
     "up=(1, 1), down=(1, 1), pad=(0, 0, 0, 0)"),
    (lambda: upfirdn2d(X, K, 2, (3, 1), (0, -9)), ValueError,
     "output must be at least 1x1 (height x width), got -2x0 from input 4x5, kernel 2x3, "
     "up=(2, 2), down=(3, 1), pad=(0, -9, 0, -9)"),
    (lambda: upfirdn2d(X[:, :, :0], K), ValueError,
     "output must be at least 1x1 (height x width), got -1x3 from input 0x5, kernel 2x3, "
     "up=(1, 1), down=(1, 1), pad=(0, 0, 0, 0)"),
    # the native function checks alike
    (lambda: upfirdn2d_native(X, K, 1, 1, 1, 0, 0, 0, 0, 0), ValueError,
     "down must be >= 1 in both axes, got down=(1, 0)"),
    (lambda: upfirdn2d_native(X[0], K, 1, 1, 1, 1, 0, 0, 0, 0), ValueError,
     "input must have 4 dimensions [N, C, H, W], got 3: shape (2, 4, 5)"),
    # taps of layers and make_resample_kernel
    (lambda: make_resample_kernel([]), ValueError, "k must have at least one tap, got []"),
    (lambda: make_resample_kernel([[], []]), ValueError,
     "k must have at least one tap, got [[], []]"),
    (lambda: make_resample_kernel(3), ValueError,
     "k must be [taps] or [kh, kw], got 0 dimensions: 3"),
    (lambda: make_resample_kernel(torch.ones(1, 2, 2)), ValueError,
     "k must be [taps] or [kh, kw], got more dimensions: [1.0, 1.0] in it"),
    (lambda: make_resample_kernel([1.0, float("nan")]), ValueError,
     "k must be finite, got [1.0, nan]"),
    (lambda: make_resample_kernel([1, -1]), ValueError,
     "k must not sum to zero, got [1, -1]"),
    (lambda: make_resample_kernel([0.1, 0.2, -0.3]), ValueError,
     "k must not sum to zero, got [0.1, 0.2, -0.3]"),
    (lambda: make_resample_kernel("cubic"), TypeError,
     "k must be a list, tuple, array or tensor of taps, got 'cubic' (str)"),
    (lambda: make_resample_kernel(torch.ones(2, dtype=torch.complex64)), TypeError,
     "k must be made of real numbers, got (1+0j) in it"),
    (lambda: make_resample_kernel(np.array([True, False])), TypeError,
     "k must be made of real numbers, got True in it"),
    (lambda: make_resample_kernel([1.0, "2"]), TypeError,
     "k must be made of real numbers, got '2' in it"),
    (lambda: make_resample_kernel([[1, 2], [3]]), ValueError,
     "k must have rows of one length, got [[1, 2], [3]]"),
    (lambda: make_resample_kernel([[1, 2], 3]), ValueError,
     "k must have rows of one length, got [[1, 2], 3]"),
    (lambda: make_resample_kernel(None), TypeError,
     "k must be a list, tuple, array or tensor of taps, got None (NoneType)"),
    (lambda: make_resample_kernel(torch.ones(3, device="meta")), ValueError,
     "k must hold values, got a tensor on the meta device"),
    (lambda: UpFirDnUpsample([]), ValueError,
     "resample_kernel must have at least one tap, got []"),
    (lambda: UpFirDnDownsample([float("inf")]), ValueError,
     "resample_kernel must be finite, got [inf]"),
    (lambda: UpFirDnSmooth([1, -1]), ValueError,
     "resample_kernel must not sum to zero, got [1, -1]"),
    (lambda: UpFirDnUpsample("cubic"), TypeError,
     "resample_kernel must be a list, tuple, array or tensor of taps, got 'cubic' (str)"),
    # layers
    (lambda: UpFirDnUpsample(factor=0), ValueError,
     "factor must be >= 1 in both axes, got factor=0"),
    (lambda: UpFirDnDownsample(factor=2.5), TypeError,
     "factor must be made of ints, got factor=2.5 (float)"),
    (lambda: UpFirDnSmooth(upsample_factor=2, downsample_factor=(1, 2)), ValueError,
     "only one of upsample_factor and downsample_factor may be above 1, got upsample_factor=2, "
     "downsample_factor=(1, 2)"),
    (lambda: UpFirDnSmooth(kernel_size=0), ValueError,
     "kernel_size must be >= 1 in both axes, got kernel_size=0"),
    (lambda: UpFirDnUpsample(padding_mode="same"), ValueError,
     "padding_mode must be one of zeros, reflect, replicate, circular, got 'same'"),
    (lambda: UpFirDnDownsample([1] * 8, padding_mode="reflect")(X[:, :, :3]), ValueError,
     "padding_mode='reflect' needs an input of at least 4x4 (height x width), got 3x5"),
    (lambda: UpFirDnDownsample([1] * 12, padding_mode="circular")(X), ValueError,
     "padding_mode='circular' needs an input of at least 5x5 (height x width), got 4x5"),
    (lambda: UpFirDnUpsample()(X[0]), ValueError,
     "input must have 4 dimensions [N, C, H, W], got 3: shape (2, 4, 5)"),
    # filters
    (lambda: filters.kaiser_lowpass(0, 0.5, 1.0), ValueError, "numtaps must be >= 1, got 0"),
    (lambda: filters.kaiser_lowpass(8, 1.0, 1.0), ValueError,
     "cutoff must lie in (0, 1), 1 the Nyquist frequency, got 1.0"),
    (lambda: filters.kaiser_lowpass(8.5, 0.5, 1.0), TypeError, "numtaps must be an int, got 8.5"),
    (lambda: filters.kaiser_lowpass(8, 0.5, -1.0), ValueError,
     "beta must be >= 0 and finite, got -1.0"),
    (lambda: filters.kaiser_lowpass(8, 0.5, float("inf")), ValueError,
     "beta must be >= 0 and finite, got inf"),
    (lambda: filters.design_resample_taps("2"), TypeError, "factor must be an int, got '2'"),
    (lambda: filters.design_resample_taps(2, 12, float("nan")), ValueError,
     "attenuation must be >= 0 dB and finite, got nan"),
    (lambda: filters.design_resample_taps(0), ValueError, "factor must be >= 1, got 0"),
    (lambda: filters.design_resample_taps(4, 3), ValueError,
     "numtaps must be >= 4, got 3"),
    # layers that look at their input first
    (lambda: UpFirDnUpsample(padding_mode="reflect")([1.0]), TypeError,
     "input must be a tensor [N, C, H, W], got [1.0] (list)"),
    (lambda: UpFirDnUpsample(padding_mode="circular")(X[0]), ValueError,
     "input must have 4 dimensions [N, C, H, W], got 3: shape (2, 4, 5)"),
    # activation
    (lambda: fused_leaky_relu(X.int()), TypeError,
     "input must be float16, bfloat16, float32 or float64, got torch.int32"),
    (lambda: fused_leaky_relu(X.to(torch.float8_e4m3fn)), TypeError,
     "input must be float16, bfloat16, float32 or float64, got torch.float8_e4m3fn"),
    (lambda: fused_leaky_relu([1.0]), TypeError,
     "input must be a tensor [N, C, ...], got [1.0] (list)"),
    (lambda: fused_leaky_relu(X, [1.0]), TypeError,
     "bias must be a tensor or None, got [1.0] (list)"),
    (lambda: fused_leaky_relu(X, torch.ones(2, dtype=torch.complex64)), TypeError,
     "bias must be float16, bfloat16, float32 or float64, got torch.complex64"),
    (lambda: fused_leaky_relu(X, torch.ones(2, dtype=torch.bool)), TypeError,
     "bias must be float16, bfloat16, float32 or float64, got torch.bool"),
    (lambda: fused_leaky_relu(X, torch.ones(2, device="meta")), ValueError,
     "bias must be on the device of input, got bias on meta and input on cpu"),
    (lambda: fused_leaky_relu(X, torch.ones(3)), ValueError,
     "bias must be [C] with the C of input [N, C, ...], got bias of shape (3,) and input of "
     "shape (1, 2, 4, 5)"),
    (lambda: fused_leaky_relu(X, torch.ones(2, 1)), ValueError,
     "bias must be [C] with the C of input [N, C, ...], got bias of shape (2, 1) and input of "
     "shape (1, 2, 4, 5)"),
    (lambda: fused_leaky_relu(X, torch.ones(())), ValueError,
     "bias must be [C] with the C of input [N, C, ...], got bias of shape () and input of "
     "shape (1, 2, 4, 5)"),
    (lambda: fused_leaky_relu(X, torch.ones(1)), ValueError,
     "bias must be [C] with the C of input [N, C, ...], got bias of shape (1,) and input of "
     "shape (1, 2, 4, 5)"),
    (lambda: fused_leaky_relu(torch.ones(2), torch.ones(2)), ValueError,
     "bias must be [C] with the C of input [N, C, ...], got bias of shape (2,) and input of "
     "shape (2,)"),
    (lambda: fused_leaky_relu(X.to_sparse()), ValueError,
     "input must be dense, got a tensor of layout torch.sparse_coo"),
    (lambda: fused_leaky_relu(X, torch.ones(2).to_sparse()), ValueError,
     "bias must be dense, got a tensor of layout torch.sparse_coo"),
    (lambda: fused_leaky_relu(X, None, "1"), TypeError,
     "negative_slope must be a number, got negative_slope='1'"),
    (lambda: fused_leaky_relu(X, None, 0.2, float("inf")), ValueError,
     "scale must be finite, got scale=inf"),
    (lambda: FusedLeakyReLU(-1), ValueError, "channel must be >= 0, got -1"),
    (lambda: FusedLeakyReLU(2, 1), TypeError, "bias must be a bool, got bias=1"),
    (lambda: FusedLeakyReLU(2, True, float("nan")), ValueError,
     "negative_slope must be finite, got negative_slope=nan"),
    (lambda: FusedLeakyReLU(2, True, 0.2, "1"), TypeError,
     "scale must be a number, got scale='1'"),
    (lambda: FusedLeakyReLU(3)(X), ValueError,
     "bias must be [C] with the C of input [N, C, ...], got bias of shape (3,) and input of "
     "shape (1, 2, 4, 5)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "sentence"), CALLS, ids=[c[2][:60] for c in CALLS])
def test_error(call, error, sentence):
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        call()


def test_numpy_ints_are_ints():
    out = upfirdn2d(X, K, np.int64(2), (np.int32(1), 2), (np.int64(1), 1))
    torch.testing.assert_close(out, upfirdn2d(X, K, 2, (1, 2), (1, 1)))
