# SPDX-License-Identifier: BSD-3-Clause
"""The parts of the GPU's benchmarks that need no GPU: they must not compare a thing with itself."""

import pytest
import torch

from benchmarks import gpu, gpu_filtered, gpu_training
from examples.stylegan2.blocks import StyledConv
from resample_layers import UpFirDnDownsample, UpFirDnSmooth, UpFirDnUpsample


def names_of(call):
    """What the profiler saw of a call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        call()
    return [event.key for event in profiler.key_averages()]


@pytest.mark.parametrize(
    "make",
    [
        UpFirDnUpsample,
        UpFirDnDownsample,
        lambda: UpFirDnSmooth(),
        lambda: StyledConv(4, 4, 8, upsample=True),
    ],
    ids=["up", "down", "smooth", "styled convolution"],
)
def test_other_ops_take_the_place_of_ours(make):
    """With them in place no operator of ours runs, and the result is the same."""
    module = make()
    inputs = [torch.randn(2, 4, 8, 10)]
    if isinstance(module, StyledConv):
        inputs += [torch.randn(2, 8), torch.randn(2, 1, 16, 20)]
    expected = module(*inputs)
    gpu_training.check_which_ran(names_of(lambda: module(*inputs)), "ours")
    with gpu_training.in_place(gpu_training.native_ops()):
        out = module(*inputs)
        ran = names_of(lambda: module(*inputs))
    gpu_training.check_which_ran(ran, "native")
    torch.testing.assert_close(out, expected)
    assert module(*inputs).equal(expected)
    gpu_training.check_which_ran(names_of(lambda: module(*inputs)), "ours")


@pytest.mark.parametrize("name", ["ours", "native"])
def test_a_comparison_with_itself_is_refused(name):
    with gpu_training.in_place(gpu_training.native_ops() if name == "ours" else {}):
        layer = UpFirDnUpsample()
        ran = names_of(lambda: layer(torch.randn(1, 1, 4, 5)))
    with pytest.raises(RuntimeError, match=f"with {name} ops, our operators"):
        gpu_training.check_which_ran(ran, name)


@pytest.mark.parametrize(
    "layer",
    [
        gpu_filtered.Layer("T", (2, 4, 9, 12), 2, False),
        gpu_filtered.Layer("R", (2, 4, 8, 7), 4, True),
        gpu_filtered.Layer("BigVGAN", (2, 4, 21), 2, False),
    ],
    ids=lambda layer: layer.name,
)
def test_filtered_activations_are_compared_with_the_same_formula(layer):
    """Our three calls and plain torch compute what the one call does, so their times compare."""
    tensors = gpu_filtered.Tensors(layer, torch.float32, torch.device("cpu"))
    expected = tensors.expected()
    for call in (tensors.ours, tensors.three_calls, tensors.plain):
        out = call(*tensors.leaves)
        assert out.shape == tensors.out.shape
        assert gpu.relative_error(out, expected) < 1e-5
