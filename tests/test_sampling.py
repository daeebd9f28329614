# SPDX-License-Identifier: BSD-3-Clause
"""How many samples the layers return, and where these lie: ``ceil_mode`` and ``shift``."""

import math

import numpy as np
import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F

import resample_layers
from resample_layers import UpFirDnDownsample, UpFirDnSmooth, UpFirDnUpsample, filters

NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
pytestmark = pytest.mark.filterwarnings("ignore:the phases of resample_kernel")


def layer(kind, dims):
    """UpFirDnUpsample and the others, of signals, images or volumes."""
    return getattr(resample_layers, f"UpFirDn{kind}{'' if dims == 2 else f'{dims}d'}")


# ceil_mode


def depthwise(x, taps, pads, mode, stride):
    """Pad, then a strided depthwise convolution with the outer product of the taps."""
    dims = x.dim() - 2
    taps = torch.tensor(taps, dtype=x.dtype) / sum(taps)
    kernel = taps
    for _ in range(dims - 1):
        kernel = kernel[..., None] * taps
    weight = kernel.expand(x.shape[1], 1, *kernel.shape)
    return CONV[dims](F.pad(x, pads * dims, mode), weight, stride=stride, groups=x.shape[1])


@DIMS
@pytest.mark.parametrize("taps", range(1, 8))
def test_ceil_mode_gives_the_samples_of_antialiased_cnns(dims, taps):
    """Its BlurPool reflects (taps - 1) / 2 samples, rounded down before and up after."""
    values = [math.comb(taps - 1, i) for i in range(taps)]
    pads = (math.floor((taps - 1) / 2), math.ceil((taps - 1) / 2))
    ours = layer("Downsample", dims)(values, 2, "reflect", ceil_mode=True).double()
    for size in ((8, 6, 5), (5, 9, 7), (6, 7, 8)):
        x = torch.randn(2, 3, *size[:dims], dtype=torch.float64)
        out = ours(x)
        assert out.shape == (2, 3, *[math.ceil(side / 2) for side in x.shape[2:]])
        torch.testing.assert_close(out, depthwise(x, values, pads, "reflect", 2))


@pytest.mark.parametrize("taps", [3, 5, 7])
def test_ceil_mode_gives_the_samples_of_timm(taps):
    """Its BlurPool2d reflects (stride - 1 + taps - 1) // 2 samples on each side."""
    values = [math.comb(taps - 1, i) for i in range(taps)]
    pads = ((1 + taps - 1) // 2,) * 2
    ours = UpFirDnDownsample(values, 2, "reflect", ceil_mode=True).double()
    for size in ((8, 6), (5, 9), (6, 7)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(ours(x), depthwise(x, values, pads, "reflect", 2))


@DIMS
@pytest.mark.parametrize("mode", NUMPY_MODES)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_ceil_mode_adds_a_sample_and_moves_none(dims, mode, factor):
    """The layer without a mode, on an image that NumPy continued far, has the samples inside."""
    for taps, side in ((1, 7), (2, 8), (4, 9), (5, 10), (6, 11)):
        values = [1.0 + i * i for i in range(taps)]
        x = torch.randn(1, 2, *(side, 7, 8)[:dims], dtype=torch.float64)
        out = layer("Downsample", dims)(values, factor, mode, True).double()(x)
        assert out.shape == (1, 2, *[-(-n // factor) for n in x.shape[2:]])
        far = -(-taps // factor)  # [output samples]
        pads = [(0, 0)] * 2 + [(far * factor,) * 2] * dims
        wide = torch.from_numpy(np.pad(x.numpy(), pads, NUMPY_MODES[mode]))
        wide = layer("Downsample", dims)(values, factor).double()(wide)
        torch.testing.assert_close(out, wide[(..., *[slice(far, far + n) for n in out.shape[2:]])])
        floor = layer("Downsample", dims)(values, factor, mode).double()(x)
        torch.testing.assert_close(out[(..., *[slice(n) for n in floor.shape[2:]])], floor)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_ceil_mode_without_a_word_of_it_is_off(dims):
    x = torch.randn(1, 2, *(5, 7, 9)[:dims])
    assert layer("Downsample", dims)()(x).shape[2:] == (2, 3, 4)[:dims]
    assert not layer("Downsample", dims)().ceil_mode


@DIMS
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_ceil_mode_serves_every_size_in_one_program(dims, mode):
    """Compiled, exported and traced at one size, run at others, forward and backward."""
    model = layer("Downsample", dims)((1, 3, 3, 1), (2, 3, 2)[:dims], mode, ceil_mode=True)
    sizes = [(8, 9, 10), (9, 7, 11), (10, 10, 6), (7, 8, 5)]
    inputs = [torch.randn(2 + i, 3, *size[:dims]) for i, size in enumerate(sizes)]
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    auto = torch.export.Dim.AUTO
    dynamic = ({0: auto, **{2 + i: auto for i in range(dims)}},)
    programs = [
        compiled,
        torch.export.export(model, (inputs[0],), dynamic_shapes=dynamic).module(),
        torch.jit.trace(model, inputs[0]),
        torch.fx.symbolic_trace(model),
    ]
    for x in inputs:
        x.requires_grad_()
        expected = model(x)
        assert expected.shape[2:] == tuple(
            -(-n // f) for n, f in zip(x.shape[2:], model.factor[::-1], strict=True)
        )
        gradient = torch.randn_like(expected)
        (expected_grad,) = torch.autograd.grad(expected, x, gradient)
        for program in programs:
            out = program(x)
            torch.testing.assert_close(out, expected)
            torch.testing.assert_close(torch.autograd.grad(out, x, gradient)[0], expected_grad)
    assert counter.frame_count == 1


@pytest.mark.parametrize("wrong", [None, 1, "yes"])
def test_ceil_mode_is_a_bool(wrong):
    with pytest.raises(TypeError, match=f"^ceil_mode must be a bool, got ceil_mode={wrong!r}$"):
        UpFirDnDownsample(ceil_mode=wrong)


def test_ceil_mode_is_shown():
    assert repr(UpFirDnDownsample((1, 2, 1), 2, "reflect", True)) == (
        "UpFirDnDownsample(resample_kernel=[1, 2, 1], factor=2, padding_mode='reflect', "
        "ceil_mode=True)"
    )
    assert "ceil_mode" not in repr(UpFirDnDownsample())


# shift: output n lies at (n + 0.5) * down / up - 0.5 + shift of the input

KINDS = ("Upsample", "Downsample", "Smooth after", "Smooth before", "Smooth alone")
FACTORS = [(dims, factor) for dims in (1, 2, 3) for factor in range(1, 6)] + [
    (2, (2, 1)), (2, (3, 2)), (3, (1, 2, 1)), (3, (2, 1, 3)),
]  # fmt: skip
KERNEL_SIZES = {1: (3,), 2: (2, 3), 3: (1, 3, 2)}


class Path:
    """A layer, and the convolution beside an UpFirDnSmooth, from the input to the last output."""

    def __init__(self, kind, dims, factor, shape):
        self.dims = dims
        self.factor = (factor,) * dims if isinstance(factor, int) else factor
        if kind == "Smooth alone":
            self.factor = (1,) * dims
        # Taps convolved twice with a box of each factor: upsampled ramps are ramps
        taps = np.array(shape, np.float64)
        for box in {*self.factor}:
            taps = np.convolve(np.convolve(taps, np.ones(box)), np.ones(box))
        size, ones = (1,) * dims, (1,) * dims
        if kind in ("Upsample", "Downsample"):
            self.layer = layer(kind, dims)(taps, self.factor).double()
        else:
            size = ones if kind == "Smooth alone" else KERNEL_SIZES[dims]
            rate = "upsample_factor" if kind == "Smooth after" else "downsample_factor"
            arguments = {rate: self.factor, "kernel_size": size}
            self.layer = layer("Smooth", dims)(taps, **arguments).double()
        self.beside = kind if kind.startswith("Smooth") else None
        if kind == "Smooth after" and max(self.factor) == 1:
            self.beside = "Smooth before"  # the layer knows no stride: it stands before
        rises = kind in ("Upsample", "Smooth after")
        self.up, self.down = (self.factor, ones) if rises else (ones, self.factor)
        self.reach = len(taps) + max(size)  # [samples of the finer side] that an output reads
        # The weight of the convolution is symmetric and has the sum 1
        weight = torch.ones((), dtype=torch.float64)
        for n in size:
            line = torch.rand(n, dtype=torch.float64) + 0.1
            line = (line + line.flip(0)) / (2 * line.sum())
            weight = line.reshape(-1, *[1] * weight.dim()) * weight
        self.weight = weight[None, None]

    def __call__(self, x):
        stride = self.factor[::-1]
        if self.beside == "Smooth after":
            return self.layer(CONV_TRANSPOSE[self.dims](x, self.weight, stride=stride))
        if self.beside == "Smooth before":
            return CONV[self.dims](self.layer(x), self.weight, stride=stride)
        return self.layer(x)

    def run(self, function, window):
        """Outputs for an image ``function(x, y, z)``, and where the property puts them.

        ``window`` is how many outputs of each axis (x first) are wanted, in the middle, where no
        border is seen.
        """
        sides, starts = [], []
        for up, down, count in zip(self.up, self.down, window, strict=True):
            start = -(-(self.reach + 1) // down)  # [output samples]: further than an output reads
            sides.append(-(-(2 * start + count) * down // up) + 1)
            starts.append(start)
        grid = torch.meshgrid(
            *[torch.arange(n, dtype=torch.float64) for n in sides[::-1]], indexing="ij"
        )
        out = self(function(*grid[::-1])[None, None])[0, 0]
        places = []
        for axis, (start, count) in enumerate(zip(starts, window, strict=True)):
            assert start + count <= out.shape[-1 - axis] - start
            out = out.narrow(-1 - axis, start, count)
            n = torch.arange(start, start + count, dtype=torch.float64)
            down, up = self.down[axis], self.up[axis]
            places.append((n + 0.5) * down / up - 0.5 + self.layer.shift[axis])
        return out, torch.meshgrid(*places[::-1], indexing="ij")[::-1]


@pytest.mark.parametrize("shape", [[1], [1, 1], [1, 3, 2], [5, 1]], ids=str)
@pytest.mark.parametrize(("dims", "factor"), FACTORS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_shift_with_a_ramp(kind, dims, factor, shape):
    """Each output holds its own position: taps of both parities, symmetric and not."""
    path = Path(kind, dims, factor, shape)

    def ramp(x, y=0.0, z=0.0):
        return x + 10 * y + 100 * z

    out, places = path.run(ramp, [2 * up + 1 for up in path.up])
    torch.testing.assert_close(out, ramp(*places), rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("shape", [[1], [1, 1]], ids=["odd", "even"])
@pytest.mark.parametrize(("dims", "factor"), FACTORS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_shift_with_a_sinusoid(kind, dims, factor, shape):
    """Symmetric taps change a wave's height, and no wave's phase."""
    path, period = Path(kind, dims, factor, shape), 11
    frequency = 2 * math.pi / period

    def phase(x, y=0.0, z=0.0):
        return frequency * (x + y + z) + 0.3

    # Upsampling leaves images of other frequencies: over whole periods they are orthogonal
    whole = [up * period if up > 1 else 3 for up in path.up]
    out, places = path.run(lambda *x: torch.sin(phase(*x)), whole)
    angle = phase(*places).flatten()
    waves = torch.stack([torch.sin(angle), torch.cos(angle)], 1)
    height, turned = torch.linalg.lstsq(waves, out.reshape(-1, 1)).solution.flatten()
    assert height > 0.02
    assert abs(turned) < 1e-11


def test_shift_of_asymmetric_taps_is_the_delay_of_long_waves():
    """The phase delay tends to the centroid, which is not the middle of the window."""
    for kind in KINDS:
        path, frequency = Path(kind, 1, 3, [1, 3, 9, 0, 0]), 1e-4
        out, (places,) = path.run(lambda x: torch.sin(frequency * x), [9])  # noqa: B023
        torch.testing.assert_close(out, torch.sin(frequency * places), rtol=1e-6, atol=1e-9)
    # The window of four taps and two zeros is in place; the taps are not
    assert UpFirDnDownsample([1, 3, 3, 1]).shift == (0.0, 0.0)
    assert UpFirDnDownsample([1, 3, 3, 1, 0, 0]).shift == (1.0, 1.0)
    assert UpFirDnDownsample([0, 0, 1, 3, 3, 1]).shift == (-1.0, -1.0)


def test_shift_of_kernels_that_are_not_separable():
    kernel = torch.tensor([[0, 1, 2, 0], [3, 0, 1, 5], [1, 1, 0, 0]], dtype=torch.float64)
    x, y = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="xy")
    for made, up, down in (
        (UpFirDnDownsample(kernel, (2, 3)), 1, (2, 3)),
        (UpFirDnSmooth(kernel), 1, (1, 1)),
    ):
        out = made(torch.stack([x, y])[:, None])[:, 0, 3:5, 3:5]
        for axis in (0, 1):
            n = torch.arange(3, 5.0)
            places = (n + 0.5) * down[axis] / up - 0.5 + made.shift[axis]
            expected = places.expand(2, 2) if axis == 0 else places[:, None].expand(2, 2)
            torch.testing.assert_close(out[axis], expected)


def test_shift_in_numbers():
    """What the design by a factor of 3 moved with 18 taps, and what layers move by themselves."""
    even = filters.design_resample_taps(3, 18)
    assert UpFirDnUpsample(even, 3).shift == (-1 / 6, -1 / 6)
    assert UpFirDnDownsample(even, 3).shift == (-0.5, -0.5)
    assert UpFirDnSmooth().shift == (-0.5, -0.5)
    assert UpFirDnUpsample(factor=(2, 1)).shift == (0.0, -0.5)
    thin = (1, 2, 1)
    assert UpFirDnUpsample(thin).shift == (-0.25, -0.25)
    assert UpFirDnDownsample(thin).shift == (-0.5, -0.5)
    ramp = torch.arange(60.0, dtype=torch.float64)[None, None]
    for taps, factor, moved in (
        (even, 3, 1),
        (thin, 2, 1),
        (filters.design_resample_taps(3), 3, 0),
    ):
        up = layer("Upsample", 1)(taps, factor).double()
        down = layer("Downsample", 1)(taps, factor).double()
        # Pixels of the small image are as long as ``factor`` pixels of the large one
        assert down.shift[0] + factor * up.shift[0] == -moved
        again = up(down(ramp))[0, 0, 24:-24].reshape(-1, factor).mean(1)
        expected = (ramp[0, 0, 24:-24] - moved).reshape(-1, factor).mean(1)
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("factor", range(1, 9))
def test_the_default_design_moves_nothing(factor):
    taps = filters.design_resample_taps(factor)
    assert taps == taps[::-1]  # to the last bit
    assert len(taps) % 2 == factor % 2
    for dims in (1, 2, 3):
        assert layer("Upsample", dims)(taps, factor).shift == (0.0,) * dims
        assert layer("Downsample", dims)(taps, factor).shift == (0.0,) * dims
    assert len(filters.design_resample_taps(3)) == 19
    assert len(filters.design_resample_taps(4)) == 24


def test_ceil_mode_shifts_nothing():
    for taps in ((1, 2, 1), (1, 3, 3, 1), (1, 4)):
        for factor in (2, 3):
            ceil = UpFirDnDownsample(taps, factor, ceil_mode=True)
            assert ceil.shift == UpFirDnDownsample(taps, factor).shift


MODES_OF_TORCH = {1: "linear", 2: "bilinear", 3: "trilinear"}
AVERAGES = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@DIMS
@pytest.mark.parametrize("factor", range(1, 6))
def test_without_a_shift_samples_lie_where_torch_interpolates(dims, factor):
    """Triangles of the factor's parity interpolate linearly, and boxes are torch's average pool."""
    x = torch.randn(1, 2, *(5, 6, 7)[:dims], dtype=torch.float64)
    numtaps = 2 * factor - factor % 2
    triangle = [factor - abs(i - (numtaps - 1) / 2) for i in range(numtaps)]
    up = layer("Upsample", dims)(triangle, factor, "replicate").double()
    assert up.shift == (0.0,) * dims
    torch.testing.assert_close(
        up(x), F.interpolate(x, scale_factor=factor, mode=MODES_OF_TORCH[dims])
    )
    down = layer("Downsample", dims)([1] * factor, factor).double()
    assert down.shift == (0.0,) * dims
    torch.testing.assert_close(down(x), AVERAGES[dims](x, factor))
