# SPDX-License-Identifier: BSD-3-Clause
"""The parts of the GPU's benchmarks that need no GPU: they must not compare a thing with itself."""

import argparse
import re
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_filtered, gpu_training
from examples.stylegan.blocks import StyledConv
from resample_layers import UpFirDnDownsample, UpFirDnSmooth, UpFirDnUpsample
from resample_layers.ops import bias_act

from .compat_originals import importable, require_peers


def ran_in(call):
    """What the profiler saw of a call; the other ops' calls are counted in it alone."""
    gpu_training.CALLS.clear()
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
    gpu_training.check_which_ran(ran_in(lambda: module(*inputs)), "ours")
    with gpu_training.in_place(gpu_training.native_ops()):
        out = module(*inputs)
        ran = ran_in(lambda: module(*inputs))
    assert {whose for whose, _ in gpu_training.CALLS} == {"native"}
    with pytest.raises(RuntimeError, match="where ours ops had to run, native ops ran"):
        gpu_training.check_which_ran(ran, "ours")
    torch.testing.assert_close(out, expected)
    assert module(*inputs).equal(expected)
    gpu_training.check_which_ran(ran_in(lambda: module(*inputs)), "ours")


@pytest.mark.parametrize(
    ("whose", "ran", "sentence"),
    [
        ("ours", (), "where ours ops had to run, no ops ran"),
        ("nvidia", ("ours",), "where nvidia ops had to run, ours ops ran"),
        ("native", ("ours", "native"), "where native ops had to run, native and ours ops ran"),
        ("native", ("native",), "native bias_act did not run"),
    ],
)
def test_a_column_whose_ops_did_not_run_alone_is_refused(whose, ran, sentence):
    layer = UpFirDnUpsample()
    replacements = {"ours": {}, "native": gpu_training.native_ops()}

    def call():
        for name in ran:
            with gpu_training.in_place(replacements[name]):
                layer(torch.randn(1, 1, 4, 5))

    names = ran_in(call)
    with pytest.raises(RuntimeError, match=sentence):
        gpu_training.check_which_ran(names, whose)


def test_native_ops_that_all_ran_are_accepted():
    layer, native = UpFirDnUpsample(), gpu_training.native_ops()

    def call():
        with gpu_training.in_place(native):
            layer(torch.randn(1, 1, 4, 5))
        native["bias_act"](torch.randn(1, 1, 4, 5))

    gpu_training.check_which_ran(ran_in(call), "native")
    gpu_training.check_which_ran(ran_in(lambda: bias_act(torch.randn(1, 1, 4, 5))), "ours")


def test_what_a_checkout_lacks_is_named():
    said = "the checkout must have json.Generator, as NVIDIA's stylegan3 has, got: module 'json'"
    with pytest.raises(RuntimeError, match=re.escape(said)):
        gpu_training.member("json", "Generator")
    with pytest.raises(RuntimeError, match=r"must have training\.nowhere\.Loss, .* got: No module"):
        gpu_training.member("training.nowhere", "Loss")


@pytest.mark.filterwarnings("ignore")  # of NVIDIA's code
def test_every_column_runs_its_own_ops_and_nvidias_networks_are_as_large_as_ours(tmp_path):
    """In a complete checkout alone; NVIDIA's networks refuse other numbers of parameters."""
    checkout = Path(require_peers()) / "stylegan3"
    options = {"out": tmp_path, "stylegan3": str(checkout), "compile": False}
    device = torch.device("cpu")
    with importable(checkout):
        columns = gpu_training.make_columns(
            argparse.Namespace(**options), gpu_training.TINY, device
        )
        assert list(columns) == ["ours", "native", "nvidia", "nvidia networks"]
        for column in columns.values():
            with gpu_training.in_place(column.ops):
                names = gpu_training.profile(column.step, gpu_training.PARTS, device)[1]
            gpu_training.check_which_ran(names, column.whose)


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
