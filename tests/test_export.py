# SPDX-License-Identifier: BSD-3-Clause
"""Programs and files made of models: exported, packaged, traced, copied, pickled, saved."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from examples.stylegan.alias_free import LAYERS, AliasFreeGenerator
from examples.stylegan.generator import Generator
from resample_layers import (
    UpFirDnDownsample,
    UpFirDnDownsample1d,
    UpFirDnDownsample3d,
    UpFirDnSmooth,
    UpFirDnSmooth1d,
    UpFirDnSmooth3d,
    UpFirDnUpsample,
    UpFirDnUpsample1d,
    UpFirDnUpsample3d,
)
from resample_layers.ops import FusedLeakyReLU, bias_act, upfirdn2d

from .tools import require

AUTO = torch.export.Dim.AUTO


class Block(nn.Module):
    """A layer with its epilogue, and the activations."""

    def __init__(self, clamp=1.0):
        super().__init__()
        self.blur = UpFirDnUpsample()
        self.bias = nn.Parameter(torch.randn(3))
        self.act = FusedLeakyReLU(3)
        self.clamp = clamp

    def forward(self, x):
        x = self.blur.bias_act(x, self.bias, clamp=self.clamp)
        return bias_act(self.act(x), self.bias)


def every_layer(*modes):
    """All layers, with 1-D and 2-D filters, and what follows them; by default zeros all around."""
    a, b, c, d = modes or ("zeros",) * 4
    return nn.Sequential(
        Block(),
        UpFirDnSmooth(downsample_factor=2, kernel_size=3, padding_mode=a),
        UpFirDnDownsample([[1, 2], [3, 4]], padding_mode=b, ceil_mode=True),
        UpFirDnSmooth(upsample_factor=2, kernel_size=3, padding_mode=c),
        UpFirDnUpsample((1, 2, 1), (2, 1), padding_mode=d),
    )


def beyond_images(up, smooth, down, modes):
    """The layers of signals or of volumes."""
    a, b, c, _ = modes or ("zeros",) * 4
    layers = up(padding_mode=a), smooth(kernel_size=3, padding_mode=b)
    return nn.Sequential(*layers, down((1, 2, 1), 2, c), down(padding_mode=a, ceil_mode=True))


MODES = {"zeros": (), "others": ("reflect", "replicate", "circular", "reflect")}
by_mode = pytest.mark.parametrize("modes", MODES.values(), ids=MODES)


class Fixed(Generator):
    """With its stored noise."""

    def forward(self, z):
        return super().forward(z, self.fixed_noise())


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    model = Fixed(16, style_dim=8, mapping_layers=2, channels={4: 8, 8: 8, 16: 4}).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("noise.weight"):
                parameter.fill_(0.3)  # starts at 0, where noise would not show
    return model


@pytest.fixture(scope="module", params=["t", "r"])
def alias_free(request):
    """A StyleGAN3 whose input moves with the style."""
    torch.manual_seed(0)
    model = AliasFreeGenerator(16, 8, 1, kind=request.param, channels=[4] * LAYERS).eval()
    with torch.no_grad():
        model.input.affine.weight.normal_(std=0.3)
    return model


# torch.export and AOTInductor


def test_export_with_dynamic_shapes(device):
    model = torch.nn.Sequential(UpFirDnDownsample(), UpFirDnUpsample((1, 2, 1))).to(device)
    auto = torch.export.Dim.AUTO
    program = torch.export.export(
        model,
        (torch.randn(2, 3, 16, 18, device=device),),
        dynamic_shapes=({0: auto, 2: auto, 3: auto},),
    )
    for size in ((2, 3, 16, 18), (3, 3, 21, 30)):
        x = torch.randn(size, device=device)
        torch.testing.assert_close(program.module()(x), model(x))


def test_an_exported_program_keeps_the_operators():
    """Opaque, so that the compiled kernels serve it; saved and loaded as torch does."""
    model, x = Block(), torch.randn(2, 3, 5, 6)
    program = torch.export.export(model, (x,)).run_decompositions()
    targets = {str(node.target) for node in program.graph.nodes}
    assert "resample_layers.upfirdn2d_bias_act.default" in targets
    torch.testing.assert_close(program.module()(x), model(x))


def test_a_package_of_a_generator_runs(generator, tmp_path):
    """AOTInductor: compiled, packaged, loaded, and run with batches of other sizes."""
    require("c++")
    z = torch.randn(2, 8)
    with torch.no_grad():
        program = torch.export.export(generator, (z,), dynamic_shapes=({0: AUTO},))
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "generator.pt2")
        )
        package = torch._inductor.aoti_load_package(path)
        for n in (2, 5):
            z = torch.randn(n, 8)
            torch.testing.assert_close(package(z), generator(z), rtol=1e-4, atol=1e-4)


def test_a_stylegan3_is_exported_and_compiled_whole(alias_free):
    z = torch.randn(2, 8)
    with torch.no_grad():
        program = torch.export.export(alias_free, (z,), dynamic_shapes=({0: AUTO},))
        compiled = torch.compile(alias_free, backend="aot_eager", fullgraph=True)
        for run in (program.module(), compiled):
            torch.testing.assert_close(run(z), alias_free(z), rtol=1e-4, atol=1e-5)
        z = torch.randn(5, 8)
        torch.testing.assert_close(program.module()(z), alias_free(z), rtol=1e-4, atol=1e-5)


# ONNX


def test_onnx_export_makes_standard_operators_of_it(monkeypatch, device):
    """Door 1: while the exporter runs, the graph holds no operator of ours."""

    def operators():
        program = torch.export.export(
            UpFirDnUpsample().to(device), (torch.randn(1, 2, 5, 6, device=device),)
        )
        return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]

    # Dynamo notes once which functions it knows: it must see torch's own before ours
    assert torch._dynamo.trace_rules.lookup(torch.onnx.is_in_onnx_export) is not None
    assert "resample_layers.upfirdn2d.default" in operators()
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    targets = operators()
    assert targets
    assert not [target for target in targets if "resample_layers" in target]


def assert_onnx(proto, model, *inputs, tolerance=1e-5):
    """Standard operators only, and onnxruntime's results within the tolerance of the model's."""
    import onnxruntime

    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    assert not proto.functions
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (name,) = (each.name for each in session.get_inputs())
    for x in inputs:
        (out,) = session.run(None, {name: x.numpy()})
        expected = model(x).detach()
        scale = max(1.0, float(expected.abs().max()))
        assert out.shape == tuple(expected.shape)
        assert (torch.from_numpy(out) - expected).abs().max() <= tolerance * scale


@pytest.fixture
def onnx():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            require(name, found=False)


def export_onnx(model, example, dynamic, exported_before):
    """As users call it: with a model, or with the program of a model."""
    if exported_before:
        program = torch.export.export(model, (example,), dynamic_shapes=(dynamic,))
        return torch.onnx.export(program, dynamo=True, verbose=False)
    return torch.onnx.export(
        model, (example,), dynamic_shapes=(dynamic,), dynamo=True, verbose=False
    )


by_way = pytest.mark.parametrize("exported_before", [False, True], ids=["model", "program"])


@by_way
@by_mode
def test_onnx_of_every_layer(modes, exported_before, onnx):
    """Batch, height and width free, at sizes that were not traced."""
    model = every_layer(*modes).eval()
    dynamic = {0: AUTO, 2: AUTO, 3: AUTO}
    program = export_onnx(model, torch.randn(2, 3, 8, 9), dynamic, exported_before)
    assert_onnx(program.model_proto, model, torch.randn(1, 3, 7, 12), torch.randn(3, 3, 11, 6))


@by_way
def test_onnx_of_a_generator(exported_before, generator, onnx):
    program = export_onnx(generator, torch.randn(2, 8), {0: AUTO}, exported_before)
    assert_onnx(program.model_proto, generator, torch.randn(1, 8), torch.randn(3, 8))


def test_onnx_of_a_stylegan3(alias_free, onnx):
    program = export_onnx(alias_free, torch.randn(2, 8), {0: AUTO}, exported_before=False)
    inputs = torch.randn(1, 8), torch.randn(3, 8)
    assert_onnx(program.model_proto, alias_free, *inputs, tolerance=1e-4)


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export")
@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Constant folding:UserWarning")
@by_mode
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_onnx_of_the_tracer(dims, modes, onnx):
    """torch.onnx's older way, with every size free but the channels, which biases fix."""
    import onnx as onnx_

    model = {
        1: lambda: beyond_images(
            UpFirDnUpsample1d, UpFirDnSmooth1d, UpFirDnDownsample1d, modes=modes
        ),
        2: lambda: every_layer(*modes),
        3: lambda: beyond_images(
            UpFirDnUpsample3d, UpFirDnSmooth3d, UpFirDnDownsample3d, modes=modes
        ),
    }[dims]().eval()
    sizes = (8, 9, 6), (7, 12, 10), (11, 6, 7)
    example, *others = (torch.randn(1 + i, 3, *size[:dims]) for i, size in enumerate(sizes))
    file = io.BytesIO()
    torch.onnx.export(
        model,
        (example,),
        file,
        dynamo=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "n", **{2 + i: f"side{i}" for i in range(dims)}}},
    )
    assert_onnx(onnx_.load_from_string(file.getvalue()), model, example, *others)


# Tracers


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_tracers_pass_through_padding_modes(mode, device):
    model = UpFirDnUpsample(padding_mode=mode).to(device)
    x = torch.randn(1, 2, 8, 9, device=device)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x))
    traced = torch.jit.trace(model, torch.randn(1, 2, 5, 4, device=device))
    torch.testing.assert_close(traced(x), model(x))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(x), model(x))


def test_jit_trace_generalises_over_sizes(device):
    model = torch.nn.Sequential(UpFirDnUpsample(), UpFirDnDownsample((1, 2, 1), (3, 2))).to(device)
    traced = torch.jit.trace(model, torch.randn(1, 2, 8, 9, device=device))
    for size in ((1, 2, 8, 9), (3, 2, 11, 6)):
        x = torch.randn(size, device=device)
        torch.testing.assert_close(traced(x), model(x))
    operators = {node.kind() for node in traced.inlined_graph.nodes()}
    assert not any("resample_layers" in kind for kind in operators)


def test_a_trace_runs_without_the_package(tmp_path):
    """Saved, and loaded by a process that cannot import it."""
    model = every_layer().eval()
    torch.jit.trace(model, torch.randn(1, 3, 8, 9)).save(str(tmp_path / "model.pt"))
    x = torch.randn(2, 3, 11, 6)
    torch.save((x, model(x).detach()), tmp_path / "pair.pt")
    code = """
import sys
sys.modules["resample_layers"] = None  # an ImportError for who asks
import torch
x, expected = torch.load("pair.pt")
torch.testing.assert_close(torch.jit.load("model.pt")(x), expected)
assert not list(torch.ops.loaded_libraries)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_fx_symbolic_trace(device):
    model = torch.nn.Sequential(UpFirDnUpsample(), torch.nn.ReLU()).to(device)
    traced = torch.fx.symbolic_trace(model)
    x = torch.randn(1, 2, 8, 9, device=device)
    torch.testing.assert_close(traced(x), model(x))
    assert any(node.target is upfirdn2d for node in traced.graph.nodes)


@by_mode
def test_graph_modules_copy_and_pickle(modes):
    model = every_layer(*modes)
    traced = torch.fx.symbolic_trace(model)
    x = torch.randn(1, 3, 8, 9)
    for each in (traced, copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        torch.testing.assert_close(each(x), model(x))


# Whole models


def test_copies_pickles_and_files_of_whole_models(generator, tmp_path):
    """Also of a half model, whose kernels stay float32, and of one that has run and has slopes."""
    for model, x in (
        (generator, torch.randn(2, 8)),
        (every_layer(*MODES["others"]), torch.randn(1, 3, 8, 9)),
        (every_layer().bfloat16(), torch.randn(1, 3, 8, 9).bfloat16()),
    ):
        model(x).float().sum().backward()
        torch.save(model, tmp_path / "model.pt")
        copies = {
            "deepcopy": copy.deepcopy(model),
            "pickle": pickle.loads(pickle.dumps(model)),
            "file": torch.load(tmp_path / "model.pt", weights_only=False),
        }
        for name, each in copies.items():
            assert torch.equal(each(x), model(x)), name
            pairs = zip(each.buffers(), model.buffers(), strict=True)
            assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs), name
        with torch.no_grad():
            for parameter in copies["deepcopy"].parameters():
                parameter.add_(1)
        assert not torch.equal(copies["deepcopy"](x), model(x))  # nothing is shared


def test_a_generator_made_on_meta(generator):
    """Parameters and filters without memory, then with, then with values: the same images."""
    with torch.device("meta"):
        model = copy.deepcopy(generator).to("meta")
        layers = every_layer()
    assert model(torch.empty(2, 8, device="meta")).shape == (2, 3, 16, 16)
    model.to_empty(device="cpu").load_state_dict(generator.state_dict())
    z = torch.randn(2, 8)
    assert torch.equal(model(z), generator(z))
    expected = every_layer()
    layers.to_empty(device="cpu").load_state_dict(expected.state_dict())
    x = torch.randn(1, 3, 8, 9)
    assert torch.equal(layers(x), expected(x))
