# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints of other StyleGAN2 codes, against what those codes themselves gave.

``tests/fixtures/checkpoints`` was written by the original codes (scripts/checkpoint_fixtures.py).
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import pickle
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.stylegan2 import checkpoints, train
from examples.stylegan2.checkpoints import CheckpointError, load
from examples.stylegan2.discriminator import Discriminator
from examples.stylegan2.generator import Generator
from scripts.checkpoint_fixtures import PSI, seeded_inputs, seeded_state

FIXTURES = Path(__file__).parent / "fixtures" / "checkpoints"
KEYS = json.loads((FIXTURES / "keys.json").read_text())
NAMES = ("rosinality_8", "basicsr_32", "basicsr_64", "ada_32", "ada_64", "stylegan3_32")
NAMES = (*NAMES, "stylegan3_64", "ada_32.pkl", "stylegan3_32.pkl")
TOLERANCE = 1e-5  # of the largest value, in float32


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def wide_states(shapes):
    """What checkpoint_fixtures.py gave to networks too wide to keep."""
    rng = np.random.RandomState(0)
    return {part: seeded_state(values, rng) for part, values in json.loads(shapes).items()}


class Original:
    """One of the originals' networks: state by its keys, and what it gave."""

    def __init__(self, name):
        self.dialect = name.split("_")[0]
        with np.load(FIXTURES / f"{name.removesuffix('.pkl')}.npz") as arrays:
            values = {key: arrays[key] for key in arrays.files}
        texts = {
            key: json.loads(str(values.pop(key)))
            for key in ("shapes", "attributes")
            if key in values
        }
        tensors = {key: torch.from_numpy(value) for key, value in values.items()}
        self.attributes = texts.get("attributes")
        self.z, self.images, self.scores = (tensors[k] for k in ("z", "images", "scores"))
        self.latent_avg = tensors.get("latent_avg")
        self.states = {}
        for part in ("generator", "discriminator"):
            prefix = f"{part}/"
            state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            if "shapes" in texts:
                state |= wide_states(json.dumps(texts["shapes"]))[part]
            self.states[part] = state

    def write(self, folder):
        """The files that the original code would leave, in their order for load."""
        g, d = self.states["generator"], self.states["discriminator"]
        mean = {} if self.latent_avg is None else {"latent_avg": self.latent_avg}
        if self.dialect == "rosinality":
            torch.save({"g_ema": g, "d": d, **mean}, folder / "file.pt")
            return [folder / "file.pt"]
        if self.dialect == "basicsr":
            torch.save({"params_ema": g, **mean}, folder / "net_g.pth")
            torch.save({"params": d}, folder / "net_d.pth")
            return [folder / "net_g.pth", folder / "net_d.pth"]
        networks = {
            name: persistent(self.attributes[part], self.states[part])
            for name, part in (("G_ema", "generator"), ("D", "discriminator"))
        }
        (folder / "file.pkl").write_bytes(nvidia_pickle({"G": networks["G_ema"], **networks}))
        return [folder / "file.pkl"]


def files(name, folder):
    return [FIXTURES / name] if name.endswith(".pkl") else Original(name).write(folder)


class Persistent:
    """Pickles as an object of NVIDIA's does: source text, class name, state."""

    source = ""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": "Generator"}
        rebuild = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        return rebuild, ({**meta, "state": self.state},)


def persistent(attributes, state):
    """Nested objects with these attributes by path and tensors by key."""
    modules = {path: Persistent(dict(values)) for path, values in attributes.items()}
    for module in modules.values():
        module.state |= {"_parameters": {}, "_buffers": {}, "_modules": {}}
    for key, tensor in state.items():
        path, _, name = key.rpartition(".")
        modules[path].state["_parameters"][name] = torch.nn.Parameter(tensor)
    for path, module in modules.items():
        parent, _, name = path.rpartition(".")
        if path:
            modules[parent].state["_modules"][name] = module
    return modules[""]


def nvidia_pickle(file):
    def rebuild(meta):
        raise AssertionError("pickling calls nothing")

    module = types.ModuleType("torch_utils.persistence")
    rebuild.__module__, rebuild.__qualname__ = module.__name__, "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = rebuild
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
        patch.setitem(sys.modules, module.__name__, module)
        return pickle.dumps(file)


def torch_file(content, zipped=True):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def relative(a, b):
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


@torch.no_grad()
def our_images(checkpoint, original):
    generator, z = checkpoint.generator, original.z[: len(original.images)]
    w = generator.truncate(generator.mapping(z), checkpoint.latent_avg, PSI)
    return generator.synthesis(generator.repeat(w), generator.fixed_noise())


@torch.no_grad()
def our_scores(checkpoint, original):
    _, images = seeded_inputs(8, (8, *original.images.shape[1:]))
    return checkpoint.discriminator(images)


# Against the originals


@pytest.mark.parametrize("resolution", [32, 64])
@pytest.mark.parametrize("original", ["rosinality", "basicsr", "ada", "stylegan3"])
def test_tables_have_every_key_and_shape_of_the_original_at_full_width(original, resolution):
    dialect = "nvidia" if original in ("ada", "stylegan3") else original
    with torch.device("meta"):
        ours = Generator(resolution).state_dict(), Discriminator(resolution).state_dict()
    tables = (
        checkpoints.generator_keys(dialect, resolution, mapping_layers=8),
        checkpoints.discriminator_keys(dialect, resolution),
    )
    filters = (
        checkpoints.generator_filters(dialect, resolution),
        checkpoints.discriminator_filters(dialect, resolution),
    )
    means = ({"mapping.w_avg": [512]} if dialect == "nvidia" else {}, {})
    parts = ("generator", "discriminator")
    for part, state, table, kernels, mean in zip(parts, ours, tables, filters, means, strict=True):
        assert set(table) == set(state)
        shapes = {entry.key: list(state[key].shape[entry.dims]) for key, entry in table.items()}
        shapes |= {key: [4, 4] for key in kernels} | mean
        assert shapes == KEYS[original][str(resolution)][part]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_weights_equal_the_originals(name, tmp_path):
    original = Original(name)
    checkpoint = load(*files(name, tmp_path))
    assert relative(our_images(checkpoint, original), original.images) <= TOLERANCE
    assert relative(our_scores(checkpoint, original), original.scores) <= TOLERANCE
    # A factor on a demodulated convolution shows in no image: every tensor, wherever it went
    networks = {"generator": checkpoint.generator, "discriminator": checkpoint.discriminator}
    for part, network in networks.items():
        ours = sorted(value.numpy().tobytes() for value in network.state_dict().values())
        theirs = sorted(
            value.numpy().tobytes()
            for key, value in original.states[part].items()
            if not key.endswith(("kernel", "resample_filter", "w_avg"))
        )
        assert ours == theirs


@pytest.mark.parametrize(("name", "size"), [("basicsr_32", 4), ("ada_32", 4), ("stylegan3_64", 2)])
def test_groups_show_in_the_fixtures(name, size, tmp_path):
    """Or the test of outputs would not see groups of another size."""
    original = Original(name)
    checkpoint = load(*original.write(tmp_path))
    assert checkpoint.discriminator.stddev.group_size == size
    for other in {2, 4, 8} - {size}:
        checkpoint.discriminator.stddev.group_size = other
        assert relative(our_scores(checkpoint, original), original.scores) > 10 * TOLERANCE


def test_every_clamp_shows_in_the_fixtures(tmp_path):
    """Or the test of outputs would not see one that is missing."""
    original = Original("ada_64")
    checkpoint = load(*original.write(tmp_path))
    for network, run, theirs in (
        (checkpoint.generator, our_images, original.images[:1]),
        (checkpoint.discriminator, our_scores, original.scores),
    ):
        clamped = [module for module in network.modules() if getattr(module, "clamp", None)]
        for module in clamped[1:]:  # the first is the network, which only says it
            module.clamp, clamp = 1e9, module.clamp
            assert relative(run(checkpoint, original)[: len(theirs)], theirs) > 10 * TOLERANCE
            module.clamp = clamp


CONFIGURATIONS = {
    # resolution, depth, image channels, channels, clamps, what else the discriminator has
    "rosinality_8": (8, 2, 3, {4: 512, 8: 512}, (None, None), {}),
    "basicsr_64": (64, 4, 3, {4: 8, 8: 8, 16: 8, 32: 8, 64: 8}, (None, None), {}),
    "ada_64": (64, 8, 3, {4: 6, 8: 6, 16: 6, 32: 6, 64: 4}, (0.3, 0.2), (4, 1)),
    "stylegan3_32": (32, 3, 1, {4: 6, 8: 6, 16: 6, 32: 4}, (0.2, 0.1), (4, 1)),
    "stylegan3_64": (64, 2, 3, {4: 6, 8: 6, 16: 6, 32: 6, 64: 4}, (256, 256), (2, 2)),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configuration_is_inferred(name, tmp_path):
    resolution, depth, image_channels, channels, clamps, deviation = CONFIGURATIONS[name]
    checkpoint = load(*files(name, tmp_path))
    shared = {"resolution": resolution, "image_channels": image_channels, "channels": channels}
    assert checkpoint.configuration["generator"] == {
        **shared,
        "style_dim": 8,
        "mapping_layers": depth,
        "mapping_lr": 0.01,
        "clamp": clamps[0],
    }
    sizes = dict(zip(("group_size", "stddev_channels"), deviation, strict=False))
    assert checkpoint.configuration["discriminator"] == {**shared, "clamp": clamps[1], **sizes}
    assert not checkpoint.generator.training
    assert not checkpoint.discriminator.training


# Saving


@pytest.mark.parametrize("name", ["rosinality_8", "basicsr_64"])
def test_what_is_saved_is_what_the_original_had(name, tmp_path):
    written = Original(name).write(tmp_path)
    checkpoint = load(*written)
    networks = checkpoint.generator, checkpoint.discriminator, checkpoint.latent_avg
    paths = [tmp_path / f"ours_{path.name}" for path in written]
    if name == "rosinality_8":
        checkpoints.save_rosinality(*paths, *networks)
    else:
        checkpoints.save_basicsr(paths[0], *networks, paths[1])
    for ours, theirs in zip(paths, written, strict=True):
        ours, theirs = (torch.load(path, weights_only=True) for path in (ours, theirs))
        assert ours.keys() == theirs.keys()
        for key in theirs:
            torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=0)


def test_another_learning_rate_of_the_mapping_is_folded_into_its_weights(tmp_path):
    generator = Generator(8, style_dim=6, mapping_layers=2, channels={4: 5, 8: 5}, mapping_lr=0.1)
    torch.nn.init.normal_(generator.style[1].bias)
    checkpoints.save_basicsr(tmp_path / "g.pth", generator)
    again = load(tmp_path / "g.pth").generator
    z = torch.randn(4, 6)
    torch.testing.assert_close(again.mapping(z), generator.mapping(z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("save", "network", "sentence"),
    [
        (
            checkpoints.save_basicsr,
            lambda: Generator(8, 4, 1, image_channels=1, channels={4: 5, 8: 5}),
            "generator must have 3 image channels, as BasicSR's has, got 1",
        ),
        (
            checkpoints.save_basicsr,
            lambda: Generator(8, 4, 1, channels={4: 5, 8: 4}),
            "generator must have as many channels at all sides up to 32 pixels, half as many at "
            "each next side from 64, as BasicSR's has, got {4: 5, 8: 4}",
        ),
        (
            checkpoints.save_rosinality,
            lambda: Generator(8, 4, 1, channels={4: 5, 8: 5}),
            "generator must have 512 channels up to 32 pixels, half as many at each next side "
            "from 64, as rosinality's has, got {4: 5, 8: 5}",
        ),
        (
            checkpoints.save_basicsr,
            lambda: Generator(8, 4, 1, channels={4: 5, 8: 5}, resample_kernel=(1, 2, 2, 1)),
            "generator must have the filter [1, 3, 3, 1], as BasicSR's has, got another",
        ),
    ],
)
def test_saving_refuses_what_the_original_code_cannot_build(save, network, sentence, tmp_path):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        save(tmp_path / "file", network())
    assert not (tmp_path / "file").exists()


def test_saving_a_discriminator_refuses_other_groups_and_half_a_pair(tmp_path):
    generator = Generator(8, 4, 1, channels={4: 4, 8: 4})
    discriminator = Discriminator(8, channels={4: 4, 8: 4}, group_size=2, stddev_channels=2)
    save = checkpoints.save_basicsr
    sentence = (
        "discriminator must have group_size 4 and stddev_channels 1, as BasicSR's has, got (2, 2)"
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        save(tmp_path / "g", generator, discriminator, discriminator_path=tmp_path / "d")
    sentence = "discriminator and discriminator_path must be given together, got a discriminator"
    with pytest.raises(ValueError, match=sentence):
        save(tmp_path / "g", generator, discriminator)
    assert not list(tmp_path.iterdir())


def test_saving_warns_of_a_clamp_that_is_lost(tmp_path):
    generator = Generator(8, 4, 1, channels={4: 5, 8: 5}, clamp=256)
    with pytest.warns(UserWarning, match="without the clamp of 256 its outputs differ"):
        checkpoints.save_basicsr(tmp_path / "g", generator)


# What files look like besides


def test_our_own_training_checkpoint_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "report", lambda *args: None)
    options = [
        *("--resolution", "8", "--channel-max", "4", "--style-dim", "4", "--mapping-layers", "1"),
        *("--batch", "4", "--path-batch", "2", "--steps", "1", "--device", "cpu"),
    ]
    assert train.main([*options, "--out", str(tmp_path)]) == 0
    checkpoint = load(tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint.dialect == "resample_layers"
    assert checkpoint.latent_avg is None
    assert checkpoint.generator.style[1].lr_multiplier == state["settings"]["mapping_lr"] != 0.01
    for network, part in ((checkpoint.generator, "g_ema"), (checkpoint.discriminator, "d")):
        torch.testing.assert_close(dict(network.state_dict()), dict(state[part]), rtol=0, atol=0)


def test_files_of_rosinalitys_training_load_with_their_arguments(tmp_path):
    original = Original("rosinality_8")
    states = {"g_ema": original.states["generator"], "d": original.states["discriminator"]}
    args = argparse.Namespace(size=8, path="images", lr=0.002)
    file = {**states, "g_optim": {"state": {}}, "args": args, "ada_aug_p": 0.5}
    for zipped in (True, False):  # torch before 1.6 wrote the latter
        torch.save(file, tmp_path / "000000.pt", _use_new_zipfile_serialization=zipped)
        checkpoint = load(tmp_path / "000000.pt")
        assert (checkpoint.dialect, checkpoint.latent_avg) == ("rosinality", None)
        weight = states["g_ema"]["convs.1.conv.weight"]
        assert checkpoint.generator.convs[1].conv.weight.equal(weight)


def test_half_precision_becomes_float32(tmp_path):
    original = Original("basicsr_32")
    state = {key: value.half() for key, value in original.states["generator"].items()}
    torch.save({"params": state}, tmp_path / "net_g.pth")
    checkpoint = load(tmp_path / "net_g.pth")
    assert {value.dtype for value in checkpoint.generator.state_dict().values()} == {torch.float32}
    assert checkpoint.discriminator is None


# Errors


@pytest.mark.parametrize(
    ("name", "lost", "bent"),
    [
        ("basicsr_32", "style_convs.2.modulated_conv.weight", "conv_body.1.conv1.0.weight"),
        ("basicsr_32", "noises.noise3", "conv_body.3.skip.1.weight"),
        ("ada_32", "synthesis.b16.conv1.bias", "b4.fc.weight"),
        ("rosinality_8", "convs.0.conv.blur.kernel", "convs.1.skip.0.kernel"),
    ],
)
def test_one_error_lists_all_missing_unexpected_and_misshapen_keys(name, lost, bent, tmp_path):
    original = Original(name)
    generator, discriminator = original.states["generator"], original.states["discriminator"]
    del generator[lost]
    generator["mapping.extra" if name == "ada_32" else "extra"] = torch.zeros(1)
    shape = list(discriminator[bent].shape)
    discriminator[bent] = discriminator[bent][:3]
    with pytest.raises(CheckpointError) as caught:
        load(*original.write(tmp_path))
    text = str(caught.value)
    assert f"generator: missing: {lost};" in text
    assert re.search(r"generator: unexpected: (mapping\.)?extra;", text)
    assert text.endswith(f"discriminator: misshapen: {bent} {[3, *shape[1:]]} instead of {shape}")


def test_other_filters_are_refused(tmp_path):
    original = Original("rosinality_8")
    generator = original.states["generator"]
    generator["to_rgbs.0.upsample.kernel"] = generator["to_rgbs.0.upsample.kernel"] / 4
    with pytest.raises(CheckpointError, match=r"filters other than .*: to_rgbs.0.upsample.kernel$"):
        load(*original.write(tmp_path))


@pytest.mark.parametrize(
    ("part", "path", "change", "sentence"),
    [
        ("generator", "", {"c_dim": 10}, "must have c_dim 0 in its generator, got 10: class-con"),
        ("discriminator", "", {"c_dim": 10}, "must have c_dim 0 in its discriminator, got 10"),
        (
            "generator",
            "synthesis.b8",
            {"architecture": "resnet"},
            "must have architecture 'skip' in its generator, got 'resnet'",
        ),
        (
            "generator",
            "synthesis.b8",
            {"architecture": "orig"},
            "must have architecture 'skip' in its generator, got 'orig'",
        ),
        (
            "discriminator",
            "b8",
            {"architecture": "skip"},
            "must have architecture 'resnet' in its discriminator, got 'skip'",
        ),
        (
            "discriminator",
            "b4",
            {"architecture": "orig"},
            "must have architecture 'resnet' in its discriminator, got 'orig'",
        ),
        (
            "generator",
            "synthesis.b8.conv0",
            {"activation": "relu"},
            "must have activation 'lrelu' in synthesis.b8.conv0 of its generator, got 'relu'",
        ),
        (
            "generator",
            "mapping.fc2",
            {"activation": "linear"},
            "must have activation 'lrelu' in mapping.fc2 of its generator, got 'linear'",
        ),
        (
            "discriminator",
            "b4.out",
            {"activation": "lrelu"},
            "must have activation 'linear' in b4.out of its discriminator, got 'lrelu'",
        ),
        (
            "generator",
            "synthesis.b8.conv0",
            {"use_noise": False},
            "must have use_noise True in its generator, got False",
        ),
        (
            "generator",
            "synthesis.b8.conv0",
            {"conv_clamp": 3},
            "must have the same conv_clamp in all layers, got {",
        ),
        (
            "discriminator",
            "b4.mbstd",
            {"group_size": None},
            "must have mbstd_group_size and mbstd_num_channels > 0, got None and 1",
        ),
    ],
)
def test_networks_of_nvidias_that_ours_cannot_be(part, path, change, sentence, tmp_path):
    original = Original("stylegan3_32")
    original.attributes[part][path] |= change
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        load(*original.write(tmp_path))


def test_a_configuration_that_networks_refuse_names_the_file_too(tmp_path):
    original = Original("stylegan3_32")
    original.attributes["discriminator"]["b4.mbstd"] |= {"num_channels": 5}
    path = original.write(tmp_path)[0]
    sentence = f"{path} stddev_channels must divide the channels at 4x4, 6, got 5"
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        load(path)


def test_stylegan3s_own_generator_is_refused(tmp_path):
    state = {"synthesis.L0_36_512.weight": torch.zeros(1), "mapping.fc0.weight": torch.zeros(1)}
    attributes = {"": {}, "mapping": {}, "mapping.fc0": {"bias_gain": 0.01}, "synthesis": {}}
    network = persistent({**attributes, "synthesis.L0_36_512": {"conv_clamp": 256}}, state)
    (tmp_path / "file.pkl").write_bytes(nvidia_pickle({"G_ema": network, "D": None}))
    sentence = "must hold a generator of NVIDIA's StyleGAN2, of 8 pixels or more, got 2 keys such"
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path / "file.pkl")


def test_basicsrs_two_files_in_the_wrong_places(tmp_path):
    g, d = Original("basicsr_32").write(tmp_path)
    with pytest.raises(CheckpointError, match="got a discriminator only: give this as disc"):
        load(d)
    with pytest.raises(CheckpointError, match="must hold a discriminator, got none"):
        load(g, g)


@pytest.mark.parametrize("name", ["basicsr_32", "ada_32.pkl"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_files(name, share, tmp_path):
    whole = files(name, tmp_path)[0].read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=f"{re.escape(str(path))} must be a whole checkpoint"):
        load(path)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"once upon a time", "must be a whole checkpoint, got a file that starts with b'once"),
        (b"\x89PNG\r\n\x1a\n", "must be a whole checkpoint, got a file that starts with b'.x89PNG"),
        (b"cos\nsystem\n(S'exit'\ntR.", "got a file that starts with b'cos.nsystem"),
        (
            torch_file({}, zipped=False).replace(b"}q", b"\x00q"),
            r"got UnpicklingError Unsupported operand 0$",
        ),
        (pickle.dumps({"weights": 1}), "must be a checkpoint of rosinality's .* got keys"),
        (pickle.dumps([1, 2]), "must be a checkpoint of rosinality's .* got list"),
        (pickle.dumps({"g_ema": {"a": 1}}), "must hold floating-point tensors, got others at"),
        (pickle.dumps({"params": {"a": 1}}), "must hold floating-point tensors, got others at"),
    ],
)
def test_files_that_are_no_checkpoints(data, sentence, tmp_path):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path / "file")


# Malicious files


class Call:
    """Pickles as a call of ``function``, made when the pickle is read."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def malicious(marker):
    """Files that would write ``marker``, and what must be named as refused."""
    command, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    system = f"{os.system.__module__}.system"
    call = Call(os.system, command)
    nested = pickle.dumps(Call(torch.storage._load_from_bytes, torch_file(call, zipped=False)))
    return {
        "os.system": (pickle.dumps({"G_ema": call}), system),
        "os.system by name": (b"\x80\x02cos\nsystem\n(S'%b'\ntR." % command.encode(), "os.system"),
        "eval": (pickle.dumps(Call(eval, code), protocol=2), "__builtin__.eval"),
        "new eval": (pickle.dumps(Call(eval, code)), "builtins.eval"),
        "exec": (pickle.dumps({"G": Call(exec, code)}), "builtins.exec"),
        "torch.load": (pickle.dumps(Call(torch.load, str(marker))), "torch.serialization.load"),
        "getattr": (pickle.dumps(Call(getattr, dict, "get")), "builtins.getattr"),
        "within a storage": (nested, system),
        "persistent id": (b"\x80\x02X\x04\x00\x00\x00evilQ.", "persistent object 'evil'"),
        "a class unknown": (b"\x80\x02cdnnlib.tflib.network\nNetwork\n.", "network.Network"),
        "a .pt": (torch_file({"g_ema": call}), system),
        "an old .pt": (torch_file({"g_ema": call}, zipped=False), system),
        "a .pt with eval": (torch_file({"g_ema": Call(eval, code)}), "eval"),
        "a .pt of a network": (torch_file({"g_ema": torch.nn.ReLU()}), "torch.nn"),
    }


@pytest.mark.parametrize("kind", malicious(Path("marker")))
def test_malicious_files_are_refused_by_name_and_nothing_runs(kind, tmp_path):
    marker = tmp_path / "marker"
    data, refused = malicious(marker)[kind]
    (tmp_path / "file").write_bytes(data)
    sentence = f"must hold data only, got one that asks for .*{re.escape(refused)}.*, which is ref"
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path / "file")
    assert not marker.exists()


def test_the_malicious_files_are_live(tmp_path):
    """Or the test above would pass for any reader."""
    marker = tmp_path / "marker"
    for kind in ("os.system", "os.system by name", "eval", "new eval", "exec", "within a storage"):
        pickle.loads(malicious(marker)[kind][0])
        marker.unlink()


def test_source_text_in_nvidias_files_is_not_run(tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    monkeypatch.setattr(Persistent, "source", f"open({str(marker)!r}, 'w')")
    path = Original("ada_32").write(tmp_path)[0]
    assert str(marker).encode() in path.read_bytes()
    assert load(path).dialect == "nvidia"
    assert not marker.exists()


@pytest.mark.parametrize("name", sorted(checkpoints.RestrictedUnpickler.ALLOWED))
def test_a_pickle_cannot_change_what_it_may_call(name, tmp_path):
    """BUILD sets attributes of whatever is on the stack; __call__ of a class would be fatal."""
    module, attribute = name
    states = (
        b"}X\x08\x00\x00\x00__call__X\x01\x00\x00\x00xs",
        b"N}X\x05\x00\x00\x00otherK\x01s\x86",
    )
    before = checkpoints.RestrictedUnpickler.ALLOWED[name]
    for state in states:
        called = b"\x80\x02" + f"c{module}\n{attribute}\n".encode()
        (tmp_path / "file").write_bytes(called + state + b"b.")
        with pytest.raises(CheckpointError, match="must be a whole checkpoint"):
            load(tmp_path / "file")
    assert not hasattr(before, "other")


def test_a_tensor_beyond_its_storage_is_refused():
    unpickler = checkpoints.RestrictedUnpickler
    tensor = unpickler.ALLOWED["torch._utils", "_rebuild_tensor_v2"]
    assert tensor(torch.arange(6.0), 1, (2, 2), (2, 1)).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(RuntimeError, match="out of bounds"):
        tensor(torch.arange(6.0), 3, (2, 2), (2, 1))


def test_stddev_channels_must_divide_the_channels():
    sentence = "stddev_channels must divide the channels at 4x4, 4, got 3"
    with pytest.raises(ValueError, match=sentence):
        Discriminator(8, channels={4: 4, 8: 4}, stddev_channels=3)


@pytest.mark.parametrize(
    "contents",
    [
        {"g_ema": {1: torch.zeros(1)}},
        {"g_ema": {"input.input": torch.zeros(1, 4, 4, 4).to_sparse(), "to_rgbs.0.bias": None}},
        {"g_ema": {f"to_rgbs.{10**11}.conv.weight": torch.zeros(1)}},
        {"g_ema": [1]},
    ],
    ids=["keys that are no strings", "no dense tensors", "a layer far away", "no dict"],
)
def test_odd_files_are_checkpoint_errors(contents, tmp_path):
    path = tmp_path / "odd.pt"
    torch.save(contents, path)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load(path)
