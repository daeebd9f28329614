# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints of other StyleGAN codes, against what those codes themselves gave.

``tests/fixtures/checkpoints`` was written by the original codes (scripts/checkpoint_fixtures.py).
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import functools
import gzip
import io
import json
import math
import os
import pickle
import re
import struct
import subprocess
import sys
import types
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch

from examples.stylegan import checkpoints, train
from examples.stylegan.alias_free import LAYERS, AliasFreeGenerator
from examples.stylegan.checkpoints import CheckpointError, archives, keys, load, records, saving
from examples.stylegan.checkpoints.pickles import Budget
from examples.stylegan.discriminator import Discriminator
from examples.stylegan.generator import Generator
from scripts.checkpoint_fixtures import FILTERS, PSI, seeded_inputs, seeded_state
from scripts.fuzz_checkpoints import as_stream

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = Path(__file__).parent / "fixtures" / "checkpoints"
KEYS = json.loads((FIXTURES / "keys.json").read_text())
NAMES = ("rosinality_8", "basicsr_32", "basicsr_64", "ada_32", "ada_64", "stylegan3-stylegan2_32")
NAMES = (*NAMES, "stylegan3-stylegan2_64", "ada_32.pkl", "stylegan3-stylegan2_32.pkl")
ALIAS_FREE = ("stylegan3-t_32.pkl", "stylegan3-r_32.pkl")
NOTHING = (
    "must be a checkpoint of rosinality's, BasicSR's or NVIDIA's StyleGAN2, or of a StyleGAN3, got"
)
TOLERANCE = 1e-5  # of the largest value, in float32
ALIAS_FREE_TOLERANCE = 3e-5  # one unit in the last place of all weights moves images by 8e-6


pytestmark = pytest.mark.usefixtures("one_thread")


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


def nvidia_pickle(file, protocol=None):
    def rebuild(meta):
        raise AssertionError("pickling calls nothing")

    module = types.ModuleType("torch_utils.persistence")
    rebuild.__module__, rebuild.__qualname__ = module.__name__, "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = rebuild
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
        patch.setitem(sys.modules, module.__name__, module)
        return pickle.dumps(file, protocol)


def torch_file(content, zipped=True):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def text(value):
    """The opcode that pushes a string."""
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


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
@pytest.mark.parametrize("original", ["rosinality", "basicsr", "ada", "stylegan3-stylegan2"])
def test_tables_have_every_key_and_shape_of_the_original_at_full_width(original, resolution):
    dialect = "nvidia" if original in ("ada", "stylegan3-stylegan2") else original
    with torch.device("meta"):
        ours = Generator(resolution).state_dict(), Discriminator(resolution).state_dict()
    tables = (
        keys.generator_keys(dialect, resolution, mapping_layers=8),
        keys.discriminator_keys(dialect, resolution),
    )
    filters = (
        keys.generator_filters(dialect, resolution),
        keys.discriminator_filters(dialect, resolution),
    )
    means = ({"mapping.w_avg": [512]} if dialect == "nvidia" else {}, {})
    parts = ("generator", "discriminator")
    for part, state, table, kernels, mean in zip(parts, ours, tables, filters, means, strict=True):
        assert set(table) == set(state)
        shapes = {entry.key: list(state[key].shape[entry.dims]) for key, entry in table.items()}
        shapes |= {key: [4, 4] for key in kernels} | mean
        assert shapes == KEYS[original][str(resolution)][part]


@pytest.mark.parametrize("kind", ["t", "r"])
@pytest.mark.parametrize("resolution", [32, 64])
def test_the_table_has_every_key_and_shape_of_stylegan3_at_full_width(resolution, kind):
    with torch.device("meta"):
        generator = AliasFreeGenerator(resolution, kind=kind)
    state = generator.state_dict()
    layers = keys.alias_free_layers("nvidia", generator.plans)
    table = keys.alias_free_keys("nvidia", layers, mapping_layers=2)
    assert set(table) == set(state)
    shapes = {entry.key: list(state[key].shape[entry.dims]) for key, entry in table.items()}
    filters = keys.alias_free_filters("nvidia", generator)
    shapes |= {key: list(kernel.shape) for key, kernel in filters.items()}
    shapes["mapping.w_avg"] = [512]
    assert shapes == KEYS[f"stylegan3-{kind}"][str(resolution)]["generator"]


@pytest.mark.parametrize("name", NAMES + ALIAS_FREE)
def test_outputs_and_weights_equal_the_originals(name, tmp_path):
    original = Original(name)
    checkpoint = load(*files(name, tmp_path))
    tolerance = ALIAS_FREE_TOLERANCE if name in ALIAS_FREE else TOLERANCE
    assert relative(our_images(checkpoint, original), original.images) <= tolerance
    assert relative(our_scores(checkpoint, original), original.scores) <= TOLERANCE
    # A factor on a demodulated convolution shows in no image: every tensor, wherever it went
    networks = {"generator": checkpoint.generator, "discriminator": checkpoint.discriminator}
    for part, network in networks.items():
        ours = sorted(value.numpy().tobytes() for value in network.state_dict().values())
        theirs = sorted(
            value.numpy().tobytes()
            for key, value in original.states[part].items()
            if not key.endswith((*FILTERS, "w_avg"))
        )
        assert ours == theirs


@pytest.mark.parametrize(
    ("name", "size"), [("basicsr_32", 4), ("ada_32", 4), ("stylegan3-stylegan2_64", 2)]
)
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
    "stylegan3-stylegan2_32": (32, 3, 1, {4: 6, 8: 6, 16: 6, 32: 4}, (0.2, 0.1), (4, 1)),
    "stylegan3-stylegan2_64": (64, 2, 3, {4: 6, 8: 6, 16: 6, 32: 6, 64: 4}, (256, 256), (2, 2)),
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
        "input": "constant",
    }
    assert checkpoint.network == "stylegan2"
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
            "generator must have as many channels at all sides up to 32 pixels, and from 64 on "
            "half as many, rounded down, at each next side, as BasicSR's has, got 4 at 8 instead "
            "of 5",
        ),
        (
            checkpoints.save_rosinality,
            lambda: Generator(8, 4, 1, channels={4: 5, 8: 5}),
            "generator must have 512 channels up to 32 pixels, 256 * channel_multiplier at 64, and "
            "half as many at each next side, as rosinality's has, got 5 at 4 instead of 512, 5 at "
            "8 instead of 512",
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


SIDES = [2**level for level in range(2, 11)]


def basicsr_widths(multiplier, narrow):
    """As BasicSR's two networks compute them."""
    low = {side: int(512 * narrow) for side in SIDES[:4]}
    return low | {side: int(16384 // side * multiplier * narrow) for side in SIDES[4:]}


def test_widths_that_arguments_of_the_originals_give_are_accepted():
    rng = np.random.RandomState(0)
    for multiplier in range(1, 9):
        widths = dict.fromkeys(SIDES[:4], 512)
        widths |= {side: 16384 // side * multiplier for side in SIDES[4:]}
        assert saving.widths("rosinality", widths) == widths
    for _ in range(1000):
        widths = basicsr_widths(rng.choice([1, 2, 3.7, rng.uniform(0.1, 4)]), rng.uniform(0.1, 2))
        assert saving.widths("basicsr", widths) == widths
        # and these arguments, which the docstring names, give them
        low, middle = widths[4], widths[64]
        assert basicsr_widths((2 * middle + 1) / low, low / 512) == widths


def test_a_discriminator_of_uneven_widths_goes_to_basicsr(tmp_path):
    generator = Generator(8, 4, 1, channels={4: 6, 8: 6})
    channels = {side: width for side, width in basicsr_widths(1.9, 0.013).items() if side <= 256}
    assert channels == {4: 6, 8: 6, 16: 6, 32: 6, 64: 6, 128: 3, 256: 1}
    discriminator = Discriminator(256, channels=channels)
    paths = tmp_path / "g", tmp_path / "d"
    checkpoints.save_basicsr(paths[0], generator, discriminator, discriminator_path=paths[1])
    assert torch.load(paths[1])["params"]["conv_body.0.0.weight"].shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("dialect", "channels", "wrong"),
    [
        ("basicsr", {4: 8, 8: 8, 16: 7, 32: 8, 64: 5, 128: 3}, {16: 8, 128: 2}),
        ("basicsr", {4: 8, 8: 8, 16: 8, 32: 8, 64: 4, 128: 1, 256: 1}, {128: 2}),
        ("rosinality", {4: 512, 8: 512, 16: 512, 32: 512, 64: 100}, {64: 256}),
        ("rosinality", {4: 512, 8: 512, 16: 512, 32: 512, 64: 700, 128: 350}, {64: 512, 128: 256}),
    ],
)
def test_widths_that_no_argument_gives_are_listed(dialect, channels, wrong):
    found = saving.widths(dialect, channels)
    assert {side: width for side, width in found.items() if width != channels[side]} == wrong


def test_saving_refuses_more_pixels_than_the_originals_have(tmp_path):
    channels = dict.fromkeys([*SIDES, 2048], 1)
    channels |= dict(zip(SIDES[4:], (32, 16, 8, 4, 2), strict=True))
    generator = Generator(2048, 1, 1, channels=channels)
    sentence = "generator must have 1024 pixels or fewer, as BasicSR's has, got 2048"
    with pytest.raises(ValueError, match=sentence):
        checkpoints.save_basicsr(tmp_path / "g", generator)


def test_saving_warns_of_groups_that_basicsr_must_be_told(tmp_path):
    networks = (
        Generator(8, 4, 1, channels={4: 5, 8: 5}),
        Discriminator(8, channels={4: 5, 8: 5}, group_size=2),
    )
    with pytest.warns(UserWarning, match="groups of 4 samples, not of 2, unless made with stddev_"):
        checkpoints.save_basicsr(tmp_path / "g", *networks, discriminator_path=tmp_path / "d")
    assert (tmp_path / "d").exists()


def test_saving_a_discriminator_refuses_other_groups_and_half_a_pair(tmp_path):
    generator = Generator(8, 4, 1, channels={4: 4, 8: 4})
    discriminator = Discriminator(8, channels={4: 4, 8: 4}, group_size=2, stddev_channels=2)
    save = checkpoints.save_basicsr
    sentence = "discriminator must have stddev_channels 1, as BasicSR's has, got 2"
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


@pytest.mark.parametrize("network", ["stylegan2", "stylegan3-t", "stylegan3-r"])
def test_our_own_training_checkpoint_loads(network, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "report", lambda *args: None)
    options = [
        *("--resolution", "8", "--channel-max", "4", "--style-dim", "4", "--mapping-layers", "1"),
        *("--batch", "4", "--path-batch", "2", "--steps", "1", "--device", "cpu"),
        *("--clamp", "7.5", "--network", network),
    ]
    if network != "stylegan2":
        options += ["--input", "fourier", "--path-weight", "0", "--mixing", "0"]
    assert train.main([*options, "--out", str(tmp_path)]) == 0
    checkpoint = load(tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (checkpoint.dialect, checkpoint.network) == ("resample_layers", network)
    assert checkpoint.latent_avg is None
    assert checkpoint.generator.style[1].lr_multiplier == state["settings"]["mapping_lr"] != 0.01
    for network, part in ((checkpoint.generator, "g_ema"), (checkpoint.discriminator, "d")):
        assert network.clamp == 7.5
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


@pytest.mark.parametrize("name", ["rosinality_8", "basicsr_32", "ada_32"])
def test_noise_that_a_file_lacks_is_drawn_the_same_each_time(name, tmp_path):
    original = Original(name)
    whole = load(*original.write(tmp_path))
    state = original.states["generator"]
    for key in [key for key in state if "noise" in key and state[key].numel() > 1]:
        del state[key]
    first, again = (load(*original.write(tmp_path)) for _ in range(2))
    lacked = [f"noises.noise_{i}" for i in range(len(whole.generator.fixed_noise()))]
    for key, value in whole.generator.state_dict().items():
        drawn = first.generator.state_dict()[key]
        assert drawn.equal(again.generator.state_dict()[key])
        assert drawn.equal(value) == (key not in lacked)
    assert 0.8 < torch.cat([n.flatten() for n in first.generator.fixed_noise()]).std() < 1.2


def test_files_that_lack_some_of_their_noise_are_refused(tmp_path):
    original = Original("basicsr_32")
    del original.states["generator"]["noises.noise1"], original.states["generator"]["noises.noise4"]
    said = "got generator: missing: noises.noise1, noises.noise4$"
    with pytest.raises(CheckpointError, match=said):
        load(*original.write(tmp_path))


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
        ("generator", "", {"c_dim": 10}, "must have c_dim 0 in its generator, got 10"),
        ("discriminator", "", {"c_dim": 10}, "must have c_dim 0 in its discriminator, got 10"),
        (
            "generator",
            "synthesis.b8",
            {"architecture": "resnet"},
            "must have architecture 'skip' in synthesis.b8 of its generator, got 'resnet'",
        ),
        (
            "generator",
            "synthesis.b8",
            {"architecture": "orig"},
            "must have architecture 'skip' in synthesis.b8 of its generator, got 'orig'",
        ),
        (
            "discriminator",
            "b8",
            {"architecture": "skip"},
            "must have architecture 'resnet' in b8 of its discriminator, got 'skip'",
        ),
        (
            "discriminator",
            "b4",
            {"architecture": "orig"},
            "must have architecture 'resnet' in b4 of its discriminator, got 'orig'",
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
            "must have use_noise True in synthesis.b8.conv0 of its generator, got False",
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
            "must have mbstd_group_size a whole number >= 1 in b4.mbstd of its discriminator, got "
            "None",
        ),
    ],
)
def test_networks_of_nvidias_that_ours_cannot_be(part, path, change, sentence, tmp_path):
    original = Original("stylegan3-stylegan2_32")
    original.attributes[part][path] |= change
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        load(*original.write(tmp_path))


ODD_ATTRIBUTES = {
    ("generator", "", "c_dim"): [math.nan, "0", None, False, -1, [0], {}],
    ("generator", "synthesis.b8", "architecture"): [["skip"], None, 3],
    ("generator", "synthesis.b8.conv0", "activation"): [["lrelu"], None, math.nan],
    ("generator", "synthesis.b8.conv0", "use_noise"): [1, "True", [True]],
    ("generator", "synthesis.b8.conv0", "conv_clamp"): [
        *(math.nan, math.inf, -1, "256", True, [256], 10**400, {"a": 1})
    ],
    ("generator", "mapping.fc1", "bias_gain"): [math.nan, 0, -0.01, "0.01", None, [0.01], 10**5000],
    ("discriminator", "", "c_dim"): [1.0, b"0"],
    ("discriminator", "b8.conv1", "conv_clamp"): [math.nan, -0.5, {"a": {1, 2}}, (1, 2)],
    ("discriminator", "b4.mbstd", "group_size"): [4.0, 0, -1, True, "4", math.nan, [4]],
    ("discriminator", "b4.mbstd", "num_channels"): [0, -1, 1.5, None, "1", {}],
}


@pytest.mark.parametrize("place", ODD_ATTRIBUTES)
def test_attributes_of_nvidias_may_be_anything(place, tmp_path):
    part, path, name = place
    where = f"{path} of its {part}" if path else f"its {part}"
    for value in ODD_ATTRIBUTES[place]:
        original = Original("stylegan3-stylegan2_32")
        original.attributes[part][path] |= {name: value}
        file = original.write(tmp_path)[0]
        with pytest.raises(CheckpointError) as caught:
            load(file)
        shown = "a number of" if type(value) is int and value > 10**9 else repr(value)
        shown = shown.replace("{1, 2}", "[1, 2]")  # sets are read as lists
        said = rf"{re.escape(str(file))} must have (mbstd_)?{name} .* in {re.escape(where)}, got "
        assert re.match(said + re.escape(shown), str(caught.value))


@pytest.mark.parametrize("part", ["_parameters", "_buffers", "_modules"])
@pytest.mark.parametrize("content", [None, [], {1: None}, {"x": 3}, {"x" * 101: None}], ids=str)
def test_parts_of_nvidias_modules_may_be_anything(part, content, tmp_path):
    networks = {name: persistent({"": {}}, {}) for name in ("G_ema", "D")}
    networks["G_ema"].state[part] = content
    (tmp_path / "file").write_bytes(nvidia_pickle(networks))
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "file")
    text = str(caught.value)
    assert re.search("must have .* in (_\\w+ of )?(the top of )?its generator, got ", text)
    assert part in text or "x" in text


@pytest.mark.parametrize("value", [math.nan, -1.0, "0.01", None])
def test_the_learning_rate_in_our_own_settings_is_checked(value, tmp_path):
    path = tmp_path / "checkpoint.pt"
    file = {"g_ema": {"input.input": torch.zeros(1)}, "settings": {"mapping_lr": value}}
    torch.save(file, path)
    sentence = f"{path} must have mapping_lr a finite number > 0 in its settings, got {value!r}"
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        load(path)


def test_a_configuration_that_networks_refuse_names_the_file_too(tmp_path):
    original = Original("stylegan3-stylegan2_32")
    original.attributes["discriminator"]["b4.mbstd"] |= {"num_channels": 5}
    path = original.write(tmp_path)[0]
    sentence = f"{path} stddev_channels must divide the channels at 4x4, 6, got 5"
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        load(path)


# StyleGAN3


@pytest.mark.parametrize("name", ALIAS_FREE)
def test_the_configuration_of_stylegan3_is_inferred(name):
    kind = name[len("stylegan3-")]
    checkpoint = load(FIXTURES / name)
    channels = {"t": [6] * 11 + [5, 4, 4], "r": [8] * LAYERS}[kind]
    assert checkpoint.network == f"stylegan3-{kind}"
    assert checkpoint.dialect == "nvidia"
    assert checkpoint.configuration["generator"] == {
        "resolution": 32,
        "style_dim": 8,
        "mapping_layers": {"t": 2, "r": 1}[kind],
        "image_channels": {"t": 3, "r": 1}[kind],
        "kind": kind,
        "channels": channels,
        "clamp": 1.5,
        "mapping_lr": 0.01,
    }
    again = AliasFreeGenerator(**checkpoint.configuration["generator"])
    again.load_state_dict(checkpoint.generator.state_dict())
    assert checkpoint.summary == (
        f"NVIDIA's StyleGAN3-{kind.upper()} of 32 pixels: generator at G_ema, discriminator at D, "
        "mean style; left out: G"
    )
    assert not checkpoint.generator.training


def test_every_clamp_of_stylegan3_shows_in_the_fixture():
    """Or the test of outputs would not see one that is missing."""
    original, checkpoint = Original(ALIAS_FREE[0]), load(FIXTURES / ALIAS_FREE[0])
    generator = checkpoint.generator
    for layer in (*generator.layers, generator.to_rgb):
        layer.activate.clamp, clamp = 1e9, layer.activate.clamp
        error = relative(our_images(checkpoint, original), original.images)
        assert error > ALIAS_FREE_TOLERANCE
        layer.activate.clamp = clamp


def test_both_names_of_numpys_modules_are_read(tmp_path):
    """NumPy 1 wrote its numbers and arrays as of numpy.core, NumPy 2 as of numpy._core."""
    data = (FIXTURES / ALIAS_FREE[0]).read_bytes()  # of protocol 3, which has names as lines
    names = [b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"]
    assert sum(name in data for name in names) == 1
    images = []
    for name in names:
        for other in names:
            data = data.replace(other, name)
        (tmp_path / "file.pkl").write_bytes(data)
        images.append(our_images(load(tmp_path / "file.pkl"), Original(ALIAS_FREE[0])))
    assert images[0].equal(images[1])


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (("num_critical", 2), 3, "must have num_critical 2 in synthesis of its generator, got 3"),
        (("num_layers", 14), 15, "must have num_layers 14 in synthesis of its generator, got 15"),
        (("up_factor", 2), 4, "must have up_factor 2 in synthesis.L0_36_6 of its .*, got 4"),
    ],
)
def test_another_plan_of_stylegan3s_layers_is_refused(before, after, sentence, tmp_path):
    data = (FIXTURES / ALIAS_FREE[0]).read_bytes()
    name, value = before
    key = b"X" + len(name).to_bytes(4, "little") + name.encode()
    found = re.search(re.escape(key) + rb"(q.|r....)K" + re.escape(bytes([value])), data, re.DOTALL)
    place = found.end() - 1
    (tmp_path / "file.pkl").write_bytes(data[:place] + bytes([after]) + data[place + 1 :])
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path / "file.pkl")


def alias_free_state(kind="t"):
    """A bare state dict of NVIDIA's."""
    return dict(Original(f"stylegan3-{kind}_32").states["generator"])


def without(state, part):
    return {key: value for key, value in state.items() if part not in key}


BROKEN = {
    "a filter": (
        lambda s: s | {"synthesis.L3_36_6.up_filter": s["synthesis.L3_36_6.up_filter"] * 1.01},
        "must hold the keys and shapes of NVIDIA's StyleGAN3-T of 32 pixels, got generator: "
        "filters other than the published ones: synthesis.L3_36_6.up_filter",
    ),
    "the last layer": (
        lambda s: without(s, ".L14_"),
        "must tell the resolution of NVIDIA's StyleGAN3 in the name of its layer 14, got none",
    ),
    "the kernel size": (
        lambda s: {k: v[..., :2, :2] if v.dim() == 4 else v for k, v in s.items()},
        r"must have convolutions of 3x3 \(T\) or 1x1 \(R\), got 2x2",
    ),
    "a weight": (
        lambda s: without(s, "L5_52_6.affine.bias"),
        r"got generator: missing: synthesis.L5_52_6.affine.bias$",
    ),
    "the resolution": (
        lambda s: {k.replace("L14_32_3", "L14_48_3"): v for k, v in s.items()},
        "must hold a generator of a power of two from 8 to 4096 pixels, got 48",
    ),
    "a larger resolution": (
        lambda s: {k.replace("L14_32_3", "L14_64_3"): v for k, v in s.items()},
        "of NVIDIA's StyleGAN3-T of 64 pixels, got generator: missing: ",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_state_that_is_no_stylegan3_is_refused(change, sentence, tmp_path):
    torch.save(change(alias_free_state()), tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path / "file.pt")


def test_a_bare_state_of_stylegan3_loads(tmp_path):
    for state in (alias_free_state("r"), without(alias_free_state("r"), "_filter")):
        torch.save({"g_ema": state}, tmp_path / "file.pt")
        checkpoint = load(tmp_path / "file.pt")
        assert (checkpoint.network, checkpoint.generator.clamp) == ("stylegan3-r", None)
    assert "filters of the generator are not in the file: the published ones taken" in (
        checkpoint.summary
    )


def ours(**settings):
    generator = AliasFreeGenerator(16, 4, 1, 1, channels=[3, 4] * (LAYERS // 2))
    settings = {"resolution": 16, "mapping_lr": 0.1, "clamp": 7.5, **settings}
    return generator, {"g_ema": generator.state_dict(), "settings": settings}


@pytest.mark.parametrize("name", ALIAS_FREE)
def test_a_stylegan3_of_nvidias_saved_without_code_loads(name, tmp_path):
    first = load(FIXTURES / name)
    options = first.configuration["generator"]
    settings = {key: options[key] for key in ("resolution", "mapping_lr", "clamp")}
    state = {"g_ema": first.generator.state_dict(), "latent_avg": first.latent_avg}
    torch.save({**state, "settings": settings}, tmp_path / "file.pt")
    again = load(tmp_path / "file.pt")
    assert (again.dialect, again.network) == ("resample_layers", first.network)
    assert again.configuration["generator"] == options
    original = Original(name)
    assert our_images(again, original).equal(our_images(first, original))


def test_our_stylegan3_must_tell_its_resolution(tmp_path):
    _, file = ours(resolution="16")
    sentence = "must have resolution a whole number >= 1 in its settings, got '16'"
    for content, said in (
        (file, sentence),
        (file["g_ema"], "tell the resolution of our StyleGAN3"),
    ):
        torch.save(content, tmp_path / "checkpoint.pt")
        with pytest.raises(CheckpointError, match=said):
            load(tmp_path / "checkpoint.pt")


def test_a_stylegan2_with_fourier_features_loads(tmp_path):
    generator = Generator(8, 4, 1, channels={4: 5, 8: 5}, input="fourier")
    torch.save({"g_ema": generator.state_dict()}, tmp_path / "file.pt")
    checkpoint = load(tmp_path / "file.pt")
    assert checkpoint.network == "stylegan2"
    assert checkpoint.configuration["generator"]["input"] == "fourier"
    state = dict(checkpoint.generator.state_dict())
    torch.testing.assert_close(state, dict(generator.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("save", [checkpoints.save_rosinality, checkpoints.save_basicsr])
@pytest.mark.parametrize(
    ("generator", "got"),
    [
        (lambda: ours()[0], "AliasFreeGenerator with FourierInput"),
        (
            lambda: Generator(8, 4, 1, channels={4: 5, 8: 5}, input="fourier"),
            "Generator with FourierInput",
        ),
    ],
)
def test_what_the_other_codes_have_not_is_not_saved(save, generator, got, tmp_path):
    with pytest.raises(ValueError, match="must be StyleGAN2's with a learned constant, .* " + got):
        save(tmp_path / "file", generator())
    assert not list(tmp_path.iterdir())


def test_basicsrs_two_files_in_the_wrong_places(tmp_path):
    g, d = Original("basicsr_32").write(tmp_path)
    with pytest.raises(CheckpointError, match="got only a discriminator, which load"):
        load(d)
    with pytest.raises(CheckpointError, match="must hold a discriminator of BasicSR's, got none"):
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
            r"must be a pickle of data, got the opcode b'.x00' at byte 23$",
        ),
        (
            pickle.dumps({"weights": 1}),
            "must be a checkpoint of rosinality's, .* got {'weights': 1}$",
        ),
        (pickle.dumps([1, 2]), "must be a checkpoint of rosinality's, .* got \\[1, 2\\]$"),
        (pickle.dumps({"g_ema": {"a": 1}}), "must be a checkpoint of .* got {'g_ema': {'a': 1}}$"),
        (
            pickle.dumps({"g_ema": {"input.a": 1}}),
            f"{NOTHING} {{'g_ema': {{'input.a': 1}}}}",
        ),
        (
            pickle.dumps({"params": {"to_rgb1.a": 1}}),
            f"{NOTHING} {{'params': {{'to_rgb1.a': 1}}}}",
        ),
        (pickle.dumps({"g_ema": None}) + b"x", "must end with its contents, got 1 bytes more$"),
        (pickle.dumps({"g_ema": None}, protocol=1), "got a file that starts with b'}q"),
        (b"\x80\x06N.", "must be a pickle of protocol 2 to 5, got another"),
        (b"<!DOCTYPE html><html>", "got a web page, perhaps of a download that failed"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "got a pointer of Git LFS: fetch the file",
        ),
        (b"\x89HDF\r\n\x1a\n", "got an HDF5 file$"),
        (gzip.compress(torch_file({})), "got a file compressed with gzip: unpack it first$"),
        (
            b"\x02\x00\x00\x00\x00\x00\x00\x00{}",
            "got one of safetensors: read it with safetensors.torch.load_file, and write that with",
        ),
    ],
)
def test_files_that_are_no_checkpoints(data, sentence, tmp_path):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path / "file")


# What the reader reads


def parsed(data):
    return archives.parse(data, Budget(len(data)))


DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "uint8", "bool")


@pytest.mark.parametrize(
    ("dtype", "zipped"),
    [(dtype, zipped) for dtype in DTYPES for zipped in (True, False)]
    + [("float8_e4m3fn", True)],  # of which torch's old format has none
)
def test_tensors_of_all_types_and_views(dtype, zipped):
    dtype = getattr(torch, dtype)
    numbers = torch.arange(24.0).reshape(2, 3, 4).to(dtype)
    views = {
        "all": numbers,
        "from an offset": numbers[1, 1:],
        "every other": numbers[:, ::2, 1::2],
        "transposed": numbers.transpose(0, 2),
        "broadcast": numbers[0, 0, :1].expand(5, 1),
        "one": numbers[1, 2, 3],
        "none": numbers[:, :0],
        "a parameter": torch.nn.Parameter(numbers[0], requires_grad=False),
    }
    data = torch_file(views, zipped)
    found, budget = parsed(data), Budget(len(data))
    wanted = torch.load(io.BytesIO(data), weights_only=True)
    assert found.keys() == wanted.keys() == views.keys()
    for name, value in found.items():
        if not dtype.is_floating_point:  # not a network's, and left as it is
            assert records.tensor(value, budget) is None
            continue
        tensor = records.tensor(value, budget)
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()
        assert tensor.shape == wanted[name].shape == views[name].shape
        assert tensor.float().equal(wanted[name].float())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("numpy", ["_core", "core"])
def test_nvidias_files_in_all_protocols_and_with_numpys_values(protocol, numpy, tmp_path):
    original = Original("ada_32")
    attributes = original.attributes["generator"]
    for path in attributes:
        if path.startswith("mapping.fc"):
            attributes[path]["bias_gain"] = np.float64(attributes[path]["bias_gain"])
    attributes[""]["c_dim"] = np.int64(attributes[""]["c_dim"])
    attributes[""] |= {"array": np.arange(3.0), "large": np.arange(100), "order": np.float32(3)}
    states = {part: original.states[part] for part in ("generator", "discriminator")}
    networks = {
        name: persistent(original.attributes[part], states[part])
        for name, part in (("G_ema", "generator"), ("D", "discriminator"))
    }
    data = nvidia_pickle(networks, protocol)
    if numpy == "core":  # as NumPy 1 named it
        data = data.replace(b"numpy._core.", b"numpy.core.")
        for kind, size in ((b"\x8c", 1), (b"X", 4)):
            for module in (b"multiarray", b"numeric"):
                name = b"numpy.core." + module
                long, short = ((len(name) + n).to_bytes(size, "little") for n in (1, 0))
                data = data.replace(kind + long + name, kind + short + name)
    (tmp_path / "file.pkl").write_bytes(data)
    checkpoint = load(tmp_path / "file.pkl")
    assert relative(our_images(checkpoint, original), original.images) <= TOLERANCE
    assert relative(our_scores(checkpoint, original), original.scores) <= TOLERANCE


def test_plain_values_come_as_they_are():
    values = {
        "numbers": [0, 255, 256, 65536, -1, 2**40, -(2**70), 0.1, math.inf],
        "rest": [
            None,
            True,
            False,
            "\u00e9\U0001f600\udc80",
            (),
            (1,),
            (1, 2),
            (1, 2, 3),
            (1, 2, 3, 4),
        ],
        "": {1: {}, -5: []},
    }
    for protocol in (2, 3, 4, 5):
        assert parsed(pickle.dumps(values, protocol)) == values
    for module in ("pathlib", "pathlib._local"):  # of Python 3.13
        path = parsed(b"\x80\x02c%b\nPosixPath\n" % module.encode() + text("a") + b"\x85R.")
        assert (path.name, path.args) == (f"{module}.PosixPath", ("a",))
    many = {str(n): [n] for n in range(3000)}  # which the pickler writes in parts
    assert parsed(torch_file(many)) == parsed(torch_file(many, zipped=False)) == many


def test_a_mean_style_that_is_no_tensor(tmp_path):
    torch.save({"g_ema": {"input.input": torch.zeros(1)}, "latent_avg": 5}, tmp_path / "file")
    with pytest.raises(
        CheckpointError, match="must have floating-point numbers in latent_avg, got 5"
    ):
        load(tmp_path / "file")


STREAM = as_stream(b"\x80\x02N.")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (STREAM.replace(b"M\xe9\x03", b"M\xe8\x03"), "must be of torch's protocol 1001, got 1000"),
        (
            as_stream(b"\x80\x02N.").replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
            "must have numbers with the lowest byte first, got others",
        ),
        (STREAM + b"x", "must end with its contents, got 1 bytes more"),
        (
            as_stream(b"\x80\x02" + text("storage") + b"0" + b"."),
            "must be a pickle of data, got the opcode b'0'",
        ),
    ],
)
def test_streams_that_are_none(data, sentence, tmp_path):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path / "file")


# What wraps networks


def small():
    torch.manual_seed(0)
    sizes = {"channels": {4: 4, 8: 4}}
    return Generator(8, 4, 1, **sizes), Discriminator(8, **sizes)


def prefixed(prefix, network):
    return {prefix + key: value for key, value in network.state_dict().items()}


DEFAULTS = (bool, complex, dict, float, int, list, set, str, tuple, OrderedDict, defaultdict)


def wrapped():
    """Files that other programs make of the networks of ``small``, and what loading them says."""
    g, d = small()
    state, mean = g.state_dict(), torch.arange(4.0)
    inner = torch.nn.Sequential(OrderedDict(net=torch.compile(torch.nn.DataParallel(g))))
    compiled = small()[0]
    compiled.conv1 = torch.compile(compiled.conv1)
    lightning = {**prefixed("generator.", g), **prefixed("discriminator.", d), "loss.a": mean}
    encoder = {"encoder.input_layer.0.weight": torch.zeros(2), **prefixed("decoder.", g)}
    averaged = torch.optim.swa_utils.AveragedModel(g)
    both = {"state_dict": prefixed("net.", g), "params_ema": state}
    taken = "prefixes taken off: "
    return {
        "bare": (state, "generator at the top"),
        "bare, beside what is no tensor": (
            {**state, "iteration": 5, "net.version": "1", "args": {"lr": 0.1}, "ema.loss": None},
            "generator at the top",
        ),
        "beside a number with a name like a weight's": (
            {"g": state, "input.size": 256},
            "generator at g",
        ),
        "beside paths and dicts with a default": (
            {
                "g_ema": defaultdict(list, {**state, "path": Path("g.pt")}),
                "paths": [PureWindowsPath("c:/g.pt"), PurePosixPath("g.pt"), Path()],
                "losses": [defaultdict(kind, a=kind()) for kind in DEFAULTS],
                "more": defaultdict(None, b=defaultdict(dict)),
            },
            "generator at g_ema",
        ),
        "data parallel": (
            {"g": torch.nn.DataParallel(g).state_dict(), "epoch": 3},
            f"generator at g; {taken}module.",
        ),
        "compiled": (torch.compile(g).state_dict(), f"generator at the top; {taken}_orig_mod."),
        "one layer compiled": (
            {"g_ema": compiled.state_dict()},
            f"generator at g_ema; {taken}_orig_mod.",
        ),
        "compiled data parallel": (
            {"state_dict": inner.state_dict()},
            f"generator at state_dict.net; {taken}_orig_mod., module.",
        ),
        "averaged": (averaged.state_dict(), f"generator at the top; {taken}module."),
        "deepspeed": ({"module": state, "step": 1}, "generator at module"),
        "lightning": (
            {"epoch": 1, "state_dict": lightning, "optimizer_states": [{"state": {0: mean}}]},
            "generator at state_dict.generator, discriminator at state_dict.discriminator; "
            "left out: loss",
        ),
        "two dicts": (
            {"generator_state_dict": state, "D_state_dict": d.state_dict(), "g_optim": {"a": mean}},
            "generator at generator_state_dict, discriminator at D_state_dict",
        ),
        "an average of two": (both, "generator at params_ema; left out: state_dict.net"),
        "psp": (
            {"state_dict": encoder, "latent_avg": mean.repeat(4, 1), "opts": {"lr": 0.1}},
            "generator at state_dict.decoder, mean style; left out: encoder",
        ),
        "e4e": (
            {
                **{"state_dict": encoder, "latent_avg": mean, "opts": argparse.Namespace(lr=1)},
                "discriminator_state_dict": {"mlp.0.weight": torch.zeros(1)},
            },
            "generator at state_dict.decoder, mean style; left out: encoder, mlp",
        ),
        "mean among weights": (
            {"model": {**prefixed("module.", g), "module.latent_avg": mean[None]}},
            f"generator at model, mean style; {taken}module.",
        ),
    }


@pytest.mark.parametrize("kind", wrapped())
def test_networks_are_found_in_what_wraps_them(kind, tmp_path):
    file, said = wrapped()[kind]
    torch.save(file, tmp_path / "file.pt")
    checkpoint = load(tmp_path / "file.pt")
    g, d = small()
    torch.testing.assert_close(checkpoint.generator.state_dict(), g.state_dict(), rtol=0, atol=0)
    filters = "filters of the {} are not in the file: [1, 3, 3, 1] taken"
    kinds = ["generator", "discriminator"] if "discriminator at" in said else ["generator"]
    notes = [filters.format(kind) for kind in kinds]
    assert checkpoint.summary == "; ".join([f"rosinality's StyleGAN2 of 8 pixels: {said}", *notes])
    if "discriminator" in kinds:
        found = checkpoint.discriminator.state_dict()
        torch.testing.assert_close(found, d.state_dict(), rtol=0, atol=0)
    if "mean style" in said:
        assert checkpoint.latent_avg.tolist() == [0, 1, 2, 3]
    else:
        assert checkpoint.latent_avg is None


@pytest.mark.parametrize("name", ["rosinality_8", "basicsr_32", "ada_32"])
def test_bare_state_dicts_and_filters_that_a_file_lacks(name, tmp_path):
    original = Original(name)
    state = original.states["generator"]
    kept = {k: v for k, v in state.items() if not k.endswith(("kernel", "resample_filter"))}
    dialect = {"ada": "nvidia"}.get(original.dialect, original.dialect)
    for file, filters in ((state, False), (kept, len(kept) < len(state))):
        torch.save({f"module.{key}": value for key, value in file.items()}, tmp_path / "file.pt")
        checkpoint = load(tmp_path / "file.pt")
        checkpoint.latent_avg = (
            original.latent_avg if checkpoint.latent_avg is None else checkpoint.latent_avg
        )
        assert checkpoint.dialect == dialect
        assert relative(our_images(checkpoint, original), original.images) <= TOLERANCE
        assert ("filters of the generator are not in the file" in checkpoint.summary) == filters
        said = "clamp and groups are not in the file: no clamp and groups of 4 taken"
        assert (said in checkpoint.summary) == (name == "ada_32")


def test_an_object_of_nvidias_alone(tmp_path):
    original = Original("ada_32")
    network = persistent(original.attributes["generator"], original.states["generator"])
    for file in (network, {"G": network}, {"module": {"G": network}}):
        (tmp_path / "file.pkl").write_bytes(nvidia_pickle(file))
        checkpoint = load(tmp_path / "file.pkl")
        assert relative(our_images(checkpoint, original), original.images) <= TOLERANCE


def test_summaries_of_the_usual_files(tmp_path):
    first = "generator at g_ema, discriminator at d, mean style"
    assert load(*Original("rosinality_8").write(tmp_path)).summary == (
        f"rosinality's StyleGAN2 of 8 pixels: {first}"
    )
    assert load(*Original("basicsr_32").write(tmp_path)).summary == (
        "BasicSR's StyleGAN2 of 32 pixels: generator at params_ema, discriminator at params, mean "
        "style"
    )
    assert load(FIXTURES / "ada_32.pkl").summary == (
        "NVIDIA's StyleGAN2 of 32 pixels: generator at G_ema, discriminator at D, mean style; "
        "left out: G"
    )


def test_a_mean_of_each_layer_is_left_out(tmp_path):
    g, _ = small()
    torch.save({"g_ema": g.state_dict(), "latent_avg": torch.rand(4, 4)}, tmp_path / "file.pt")
    checkpoint = load(tmp_path / "file.pt")
    assert checkpoint.latent_avg is None
    assert "; left out: latent_avg, which is not the same for all layers" in checkpoint.summary
    torch.save({"g_ema": g.state_dict(), "latent_avg": torch.rand(4, 5)}, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=r"misshapen: latent_avg \[4, 5\] for 4$"):
        load(tmp_path / "file.pt")


def test_wrapping_that_is_not_clear_is_refused(tmp_path):
    g, d = small()
    state = g.state_dict()
    cases = {
        "must hold one generator, got 2, at ['generator', 'net']": {
            "generator": state,
            "net": state,
        },
        "must name each part once, got two for 'input.input'": {
            **state,
            "module.input.input": state["input.input"],
        },
        f"{NOTHING} {{'stylegan_decoder.": prefixed("stylegan_decoder.", g),
        f"{NOTHING} {{'g_optim': {{": {"g_optim": state},
        f"{NOTHING} {{'a': {{'b': {{": {"a": {"b": state}},
        "must hold a discriminator of rosinality's at D, got one of BasicSR's": {
            "G": state,
            "D": {key.replace("convs.", "conv_body."): v for key, v in d.state_dict().items()},
        },
        "got generator: unexpected: extra": {"g": {**state, "extra": torch.zeros(1)}},
    }
    for sentence, file in cases.items():
        torch.save(file, tmp_path / "file.pt")
        with pytest.raises(CheckpointError, match=re.escape(sentence)):
            load(tmp_path / "file.pt")


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
    storage = Call(torch.storage._load_from_bytes, torch_file(call, zipped=False))
    tensor = Call(torch._utils._rebuild_tensor_v2, storage, 0, (1,), (1,), False, {})
    return {
        "os.system": (pickle.dumps({"G_ema": call}), system),
        "os.system by name": (b"\x80\x02cos\nsystem\n(S'%b'\ntR." % command.encode(), "os.system"),
        "eval": (pickle.dumps(Call(eval, code), protocol=2), "__builtin__.eval"),
        "new eval": (pickle.dumps(Call(eval, code)), "builtins.eval"),
        "exec": (pickle.dumps({"G": Call(exec, code)}), "builtins.exec"),
        "torch.load": (pickle.dumps(Call(torch.load, str(marker))), "torch.serialization.load"),
        "getattr": (pickle.dumps(Call(getattr, dict, "get")), "builtins.getattr"),
        "within a storage": (pickle.dumps({"g_ema": {"input.input": tensor}}), system),
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
        with contextlib.suppress(TypeError, AttributeError):  # of what took the place of data
            pickle.loads(malicious(marker)[kind][0])
        marker.unlink()


def test_source_text_in_nvidias_files_is_not_run(tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    monkeypatch.setattr(Persistent, "source", f"open({str(marker)!r}, 'w')")
    path = Original("ada_32").write(tmp_path)[0]
    assert str(marker).encode() in path.read_bytes()
    assert load(path).dialect == "nvidia"
    assert not marker.exists()


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    file = torch_file({"params": {"constant_input.weight": torch.arange(6.0)}})
    end = b"K\x00K\x06\x85q\x0aK\x01\x85q\x0b"  # offset, size and stride
    assert file.count(end) == 1
    for offset, size, stride in ((1, 6, 1), (0, 6, 2), (5, 2, 1), (0, 7, 1), (255, 1, 1)):
        changed = b"K%cK%c\x85q\x0aK%c\x85q\x0b" % (offset, size, stride)
        (tmp_path / "file").write_bytes(file.replace(end, changed))
        said = (
            f"must have tensors within their storages, got one of size ({size},), stride "
            f"({stride},) and offset {offset} in a <storage of 6 torch.float32>"
        )
        with pytest.raises(CheckpointError, match=re.escape(said)):
            load(tmp_path / "file")


def objects():
    """Pickles that lack their end: what they made is on the stack."""
    storage = torch.arange(6.0).untyped_storage()
    typed = torch.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    module = Persistent({"_parameters": {}, "_buffers": {}, "_modules": {}})
    return {
        "a tensor": pickle.dumps(torch.arange(6.0), 3)[:-1],
        "a parameter": pickle.dumps(torch.nn.Parameter(torch.arange(6.0)), 3)[:-1],
        "a storage": pickle.dumps(typed, 3)[:-1],
        "a module": nvidia_pickle(module, 3)[:-1],
        "a dtype": b"\x80\x03cnumpy\ndtype\n" + text("f8") + b"\x85R",
        "a dict": b"\x80\x03}",
        "a set": b"\x80\x03cbuiltins\nset\n)R",
        "a list": b"\x80\x03]",
        "a tuple": b"\x80\x03N\x85",
        "a name": b"\x80\x03cbuiltins\nset\n",
    }


OPCODES = {
    "BUILD of attributes": b"}" + text("__class__") + b"K\x01sb",
    "BUILD of slots": b"N}" + text("tensor") + b"K\x01s\x86b",
    "BUILD of a tensor's state": b"(K\x00K\x00(K\x01t(K\x01ttb",
    "REDUCE": b")R",
    "NEWOBJ": b")\x81",
    "SETITEM": b"K\x00K\x01s",
    "APPEND": b"K\x01a",
    "ADDITEMS": b"(K\x01\x90",
}


ALLOWED = {  # the rest of how a pickle makes things
    ("a dict", "SETITEM"),
    ("a list", "APPEND"),
    ("a list", "ADDITEMS"),  # a set is a list here
    ("a name", "REDUCE"),
    ("a name", "NEWOBJ"),
}


@pytest.mark.parametrize(
    ("kind", "opcode"),
    [
        (kind, opcode)
        for kind in objects()
        for opcode in OPCODES
        if (kind, opcode) not in ALLOWED
        and not ("BUILD" in opcode and kind in ("a dict", "a dtype"))
    ],
)
def test_a_pickle_cannot_change_what_it_has_made(kind, opcode, tmp_path):
    (tmp_path / "file").write_bytes(objects()[kind] + OPCODES[opcode] + b".")
    said = r"must (leave .* as it is|call what it names, with a tuple), got "
    with pytest.raises(CheckpointError, match=said):
        load(tmp_path / "file")


@pytest.mark.parametrize("opcode", [opcode for opcode in OPCODES if "BUILD" in opcode])
def test_attributes_of_a_dict_are_left_out(opcode):
    """Of which torch's ``_metadata`` is one; one named items would deceive its readers."""
    data = objects()["a dict"] + text("a") + b"K\x01s" + OPCODES[opcode] + b"."
    assert parsed(data) == {"a": 1}
    items = b"}" + text("items") + b"cbuiltins\nset\nsb"
    ordered = b"\x80\x02ccollections\nOrderedDict\n)R" + text("a") + b"K\x01s"
    value = parsed(ordered + items + b".")
    assert type(value) is dict
    assert list(value.items()) == [("a", 1)]


def test_what_is_finished_stays_as_it_is(tmp_path):
    """Or things could be within themselves, or get deeper after they were measured."""
    for finish in (b"h\x00\x85", b"]h\x00a", b"}" + text("a") + b"h\x00s"):
        (tmp_path / "file").write_bytes(b"\x80\x02]q\x00" + finish + b"h\x00K\x01a.")
        with pytest.raises(CheckpointError, match=r"must leave \[\] as it is, got more to put"):
            load(tmp_path / "file")


def loop(within):
    """A pickle of a module that is in its own ``within``, and so without end."""
    rebuild = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
    parts = dict.fromkeys(("_parameters", "_buffers", "_modules"), b"}")
    parts[within] = b"}q\x00"
    state = b"}(" + b"".join(text(name) + value for name, value in parts.items()) + b"u"
    module = rebuild + b"}" + text("state") + state + b"s\x85Rq\x01"
    closed = module + b"h\x00" + text("x") + b"h\x01s0"
    return b"\x80\x02}" + text("G_ema") + closed + b"s."


def nested(depth, names):
    """Modules in modules, each under all of ``names`` of its parent."""
    state = {"_parameters": {}, "_buffers": {}}
    module = Persistent({**state, "_modules": {}})
    for _ in range(depth):
        module = Persistent({**state, "_modules": dict.fromkeys(names, module)})
    return nvidia_pickle({"G_ema": module})


def archive(change, compression):
    """A file of torch's whose pickle went through ``change``, written anew."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(torch_file({"params": {"a": torch.zeros(10**6)}}))) as old,
        zipfile.ZipFile(file, "w", compression) as new,
    ):
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith("data.pkl") else data)
    return file.getvalue()


def doubled(times):
    """Opcodes of a tuple of itself twice, of itself twice, and so on."""
    return b"N\x85q\x00" + b"h\x00\x86q\x00" * times


def archived(*records, compression=zipfile.ZIP_STORED):
    """An archive of names and bytes, by Python's own writer."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as new:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in records:
            new.writestr(name, data)
    return file.getvalue()


def entry(name, mode=0o100644, attributes=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16 | attributes
    return info


def replaced_items():
    state = OrderedDict((f"style_mlp.{i}.bias", torch.zeros(1).expand(10**7)) for i in range(60))
    state.itemz = ()
    return torch_file({"params_ema": state}).replace(b"itemz", b"items")


def encoded_often():
    """NumPy's numbers, each of all bytes of one string."""
    string, scalar = "\xe9" * 10**5, np.float64(0).__reduce__()[0]
    values = {
        f"a{i}": Call(scalar, np.dtype("f8"), Call(codecs.encode, string, "latin1"))
        for i in range(2000)
    }
    parts = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    return nvidia_pickle({"G_ema": Persistent({**values, **parts})})


def shared_parts():
    """A hundred modules of the same five thousand buffers."""
    buffers = dict.fromkeys(map(str, range(5000)))
    parts = {"_parameters": {}, "_buffers": buffers}
    modules = {f"m{i}": Persistent({**parts, "_modules": {}}) for i in range(100)}
    return nvidia_pickle({"G_ema": Persistent({**parts, "_modules": modules})})


def without_noise(resolution):
    """A small file of large images: a generator as narrow as one can be, without its noise."""
    sides = keys.sides_of(resolution)
    with torch.device("meta"):
        network = Generator(resolution, 1, 1, channels=dict.fromkeys(sides, 1))
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    return torch_file({k: torch.zeros(v) for k, v in shapes.items() if "noises." not in k})


def attacks():
    """Files by what they try, and how they are refused."""
    whole = torch_file({"params_ema": {"style_mlp.1.bias": torch.zeros(3)}})
    data = b"\x80\x02}."
    end = whole.index(b"PK\x06\x06")  # of the large kind, its locator, and the usual end
    numbers = b"".join(b"J" + (i << 14).to_bytes(4, "little") + b"N" for i in range(10_001))
    key = b"\x80\x02}" + doubled(60) + b"Ns."
    deep = b"\x80\x02N" + b"\x85" * 99_980 + b"."
    ordinary = ("a/data.pkl", data)
    behind = archived(("b/data.pkl", b"\x80\x02N."))
    storages = [(f"a/data/{i}", b"") for i in range(20_000)]
    header = archived(ordinary).replace(b"a/data.pkl", b"a/DATA.pkl", 1)
    one_tensor, integers = torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    called = b"cbuiltins\n%s\n%s\x85R"
    containers = {"": bytes, " in an archive": in_archive, " in a stream": as_stream}
    found = {}
    for where, wrap in containers.items():
        found |= {
            f"a key of doubled tuples{where}": (
                wrap(key),
                r"must have strings and whole numbers as keys, got \(\(",
            ),
            f"nested tuples{where}": (wrap(deep), "must nest up to 200 deep, got more"),
            f"opcodes without end{where}": (
                wrap(b"\x80\x02" + b"N" * 10**6 + b"."),
                "must be read in at most 200,000 steps, got more",
            ),
            f"numbers as keys{where}": (
                wrap(b"\x80\x02}(" + numbers + b"u."),
                "must have up to 10,000 numbers as keys, got more",
            ),
        }
    return found | {
        "data.PKL": (
            archived(("a/data.PKL", key)),
            r"must be an archive with data.pkl, got \['a/data.PKL'\]",
        ),
        "data.PKL and data.pkl": (
            archived(("a/data.PKL", key), ordinary),
            "must have one record of each name, got 'a/data.pkl' twice",
        ),
        "data.pkl twice": (
            archived(ordinary, ordinary),
            "must have one record of each name, got 'a/data.pkl' twice",
        ),
        "a large number as key": (
            b"\x80\x02}\x8a\x09" + b"\xff" * 8 + b"\x00Ns.",
            "must have strings and whole numbers as keys, got 18446744073709551615",
        ),
        "a name of doubled tuples": (
            b"\x80\x02" + doubled(60) + text("x") + b"\x93.",
            r"must name what it asks for, got \(\(\(",
        ),
        "a value of doubled tuples": (b"\x80\x02" + doubled(60) + b".", NOTHING),
        "replaced items": (replaced_items(), "got more than [0-9,]+ bytes of numbers and strings"),
        "encoded often": (
            encoded_often(),
            "must be a whole checkpoint, got error unpack requires a buffer of 8 bytes",
        ),
        "copied often": (
            b"\x80\x02]("
            + text("x" * 10**5)
            + b"q\x01"
            + (called % (b"set", b"h\x01") + b"c_codecs\nencode\nh\x01\x85R") * 10_000
            + b"ccollections\nCounter\nh\x01\x85Re.",
            NOTHING,
        ),
        "bytes without end": (
            b"\x80\x02" + called % (b"bytearray", b"J\xff\xff\xff\x7f") + b".",
            NOTHING,
        ),
        "shared parts": (shared_parts(), "must be read in at most 200,000 steps, got more"),
        "keys of many words": (
            b"\x80\x02}(" + b"".join(text("g." * 97 + str(i)) + b"N" for i in range(3000)) + b"u.",
            "must be read in at most 200,000 steps, got more",
        ),
        "one tensor, many layers": (
            torch_file({"params": {f"style_mlp.{i}.bias": one_tensor for i in range(20_000)}}),
            "must hold a generator of BasicSR's StyleGAN2, of 8 pixels or more, got 20000 keys",
        ),
        "many mapping layers": (
            torch_file(
                {
                    "params": {f"style_mlp.{i}.bias": one_tensor for i in range(20_000)}
                    | {"to_rgbs.0.bias": one_tensor}
                }
            ),
            "must hold a generator of at most 100 mapping layers, got one numbered 19999",
        ),
        "no numbers, much width": (
            torch_file(
                {
                    "params": {
                        "to_rgb1.modulated_conv.modulation.weight": torch.empty(0, 10**12),
                        "to_rgbs.0.modulated_conv.weight": torch.empty(1, 10**9, 0, 1, 1),
                        **{f"style_conv{i}.activate.bias": one_tensor for i in (1,)},
                    }
                }
            ),
            "must ",
        ),
        "noise of 179 MB that is to be drawn": (
            without_noise(4096),
            "generator: missing: noises.noise_0, noises.noise_1, .*, noises.noise_20$",
        ),
        "a memo of 16 GB": (b"\x80\x02}r\xff\xff\xff\x7f.", NOTHING),
        "a string of 4 GB": (
            b"\x80\x02X\xff\xff\xff\xff.",
            "got more than 24 bytes of numbers and",
        ),
        "bytes of 16 EB": (b"\x80\x02\x8e" + b"\xff" * 8 + b".", "whose pickle ends early"),
        "a stream's storage of 16 EB": (
            as_stream(torch_pickle()).replace(b"\x02" + bytes(7), b"\xff" * 8),
            "must be a whole checkpoint, got 8 bytes of -1 numbers",
        ),
        "a module in itself": (loop("_modules"), "must leave {.*} as it is, got more to put"),
        "a module as its buffer": (loop("_buffers"), "must leave {.*} as it is, got more to put"),
        "a dict in itself": (
            b"\x80\x02}q\x00" + text("G_ema") + b"h\x00s.",
            "must leave {} as it is, got more to put",
        ),
        "a list of itself": (
            b"\x80\x02]q\x00h\x00a.",
            r"must leave \[\] as it is, got more to put",
        ),
        "shared modules": (
            nested(5, "ab"),
            "must have each module once, got one both at a and b of its generator",
        ),
        "deep modules": (nested(20, "a"), "must nest modules up to 8 deep, got a.a.a"),
        "compression": (
            archive(lambda data: data, zipfile.ZIP_DEFLATED),
            "must have records without compression, as torch's are, got 'archive/data.pkl'",
        ),
        "an archive behind": (
            whole + behind,
            "must be an archive that ends with its central directory, got that at bytes",
        ),
        "an archive before": (
            behind + whole,
            "must have one central directory, got two",
        ),
        "an archive in the comment": (
            whole[:-2] + len(behind).to_bytes(2, "little") + behind,
            "must be an archive that ends with its central directory, got that at bytes",
        ),
        "a comment": (
            archived(ordinary)[:-2] + b"\x01\x00x",
            "must be a whole checkpoint, got an archive with another end",
        ),
        "another large end": (
            whole[:end] + behind + whole[end:],
            "must have one central directory, got two",
        ),
        "another list of records": (
            archived(ordinary)[:-22] + end_of(archived(ordinary), size=-1),
            "must be an archive that ends with its central directory, got that at bytes",
        ),
        "another count": (
            archived(ordinary)[:-22] + end_of(archived(ordinary), count=1),
            "must have 2 records, as it says, got 1",
        ),
        "a part of an archive": (
            archived(ordinary)[:-18] + b"\x01" + archived(ordinary)[-17:],
            "must be an archive in one file, got a part of one",
        ),
        "encryption": (
            archived(ordinary).replace(
                b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x40"
            ),
            "must have plain records, neither encrypted nor split, got 'a/data.pkl'",
        ),
        "a record between": (
            between(archived(ordinary, ("a/version", b"3")), behind[:41]),
            "must have its records one after another, got 'a/version' at bytes",
        ),
        "a header of another name": (
            header,
            "must have one name and size for each record, got two for 'a/data.pkl'",
        ),
        "an absolute name": (
            archived(ordinary, ("/a", b"")),
            "must have names of records in one folder, got '/a'",
        ),
        "a name that leaves": (
            archived(ordinary, ("a/../../b", b"")),
            "must have names of records in one folder, got 'a/../../b'",
        ),
        "a name of Windows": (
            archived(ordinary, ("a/b", b"")).replace(b"a/b", b"a\\b"),
            "must have names of records in one folder, got 'a.*b'",
        ),
        "a name with a zero": (
            archived(ordinary, ("a/data/b", b"")).replace(b"a/data/b", b"a/data\x00b"),
            "must have names of records in one folder, got 'a/data.x00b'",
        ),
        "a folder": (
            archived(ordinary, ("a/data/", b"")),
            "must have names of records in one folder, got 'a/data/'",
        ),
        "two folders": (
            archived(ordinary, ("b/data.pkl", data)),
            r"must be an archive of one folder, got \['a', 'b'\]",
        ),
        "a link": (
            archived(ordinary, (entry("a/data/0", 0o120777), b"/etc/passwd")),
            "must have files in its archive, and neither links nor folders, got 'a/data/0'",
        ),
        "what is marked as a folder": (
            archived(ordinary, (entry("a/data/0", attributes=0x10), b"1234")),
            "must have files in its archive, and neither links nor folders, got 'a/data/0'",
        ),
        "letters that a terminal obeys": (
            torch_file(
                {"g": {"input.\x1b[2J": one_tensor, "\udc80": integers, "to_rgbs.0.x": integers}}
            ),
            r"got others at \['\\udc80', 'to_rgbs.0.x'\]",
        ),
        "unexpected letters": (
            torch_file(
                {"g": {"to_rgbs.0.\x1b[2J": torch.zeros(1), "conv1.activate.bias": one_tensor}}
            ),
            "must ",
        ),
        "a program of TorchScript": (
            archived(ordinary, ("a/constants.pkl", data)),
            "got a program of TorchScript: read it with torch.jit.load",
        ),
        "the highest byte first": (
            archived(ordinary, ("a/byteorder", b"big")),
            "must have numbers with the lowest byte first, got others",
        ),
        "too many records": (
            archived(ordinary, *storages),
            "must have a central directory of up to 1,048,576 bytes, got 1,",
        ),
    }


def in_archive(pickled):
    return archived(("a/data.pkl", pickled), ("a/version", b"3\n"))


def torch_pickle():
    """A tensor of the storage a, that :func:`as_stream` writes."""
    reference = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("a") + text("cpu") + b"K\x02tQ"
    )
    rebuild = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + b"K\x00K\x02\x85K\x01\x85\x89}tR"
    )
    return b"\x80\x02}" + text("g_ema") + b"}" + text("input.input") + rebuild + b"ss."


def end_of(file, count=0, size=0):
    """The end of an archive, that says other numbers."""
    sign, *zeros, first, second, length, at, comment = struct.unpack("<4s4H2IH", file[-22:])
    del zeros, first
    changed = (second + count, second + count, length + size, at, comment)
    return struct.pack("<4s4H2IH", sign, 0, 0, *changed)


def between(file, hidden):
    """An archive with bytes between its records and its central directory."""
    at = struct.unpack("<I", file[-6:-2])[0]
    end = struct.pack("<I", at + len(hidden))
    return file[:at] + hidden + file[at:-6] + end + file[-2:]


def test_attacks_are_refused_in_bounds_of_memory_and_stack(tmp_path):
    """In a process of their own, which measures them; time is for scripts/fuzz_checkpoints.py."""
    cases = attacks()
    paths = [tmp_path / f"{number:03d}" for number in range(len(cases))]
    for path, (data, _) in zip(paths, cases.values(), strict=True):
        path.write_bytes(data)
    command = [sys.executable, "scripts/fuzz_checkpoints.py", "--keep", str(tmp_path / "kept")]
    most = tmp_path / "most"  # which is no attack: as much noise as is drawn for a file
    most.write_bytes(without_noise(1024))
    command += ["--seconds", "60", "--read", str(most), *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    lines = ended.stdout.splitlines()
    assert not [line for line in lines if line.startswith("FAILED")], ended.stdout
    assert lines[0] == "loaded"
    said = [line for line in lines if " must " in line][: len(cases)]
    wrong = {
        name: line
        for (name, (_, sentence)), line in zip(cases.items(), said, strict=True)
        if not re.search(sentence, line)
    }
    assert not wrong
    assert all(len(line) < 1000 for line in said)


def test_a_short_fuzz(tmp_path):
    """The long one is ``make fuzz-checkpoints``."""
    command = [sys.executable, "scripts/fuzz_checkpoints.py", "--keep", str(tmp_path / "kept")]
    command += ["--seconds", "60", "--files", "300"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ": loaded" in ended.stdout  # not all are broken so badly
    assert ended.stdout.count(" must ") > 20


def test_pipes_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(CheckpointError, match=f"{path} must be a file, got a pipe or a device"):
            load(path)
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


@pytest.mark.parametrize("name", ["basicsr_32", "ada_32.pkl", "stylegan3-stylegan2_32.pkl"])
def test_mutated_files_load_or_are_refused_by_name(name, tmp_path):
    whole = files(name, tmp_path)[0].read_bytes()
    rng = np.random.RandomState(0)
    path, refused = tmp_path / "mutated", []
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.randint(len(data), size=rng.choice([1, 30])):
            data[at] = rng.randint(256)
        path.write_bytes(data)
        try:
            load(path)
        except CheckpointError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all(said.startswith(f"{path} must ") for said in refused)


def test_stddev_channels_must_divide_the_channels():
    sentence = "stddev_channels must divide the channels at 4x4, 4, got 3"
    with pytest.raises(ValueError, match=sentence):
        Discriminator(8, channels={4: 4, 8: 4}, stddev_channels=3)


SMALL = small()[0].state_dict()
ODD = {
    "keys that are no strings": (
        {"g_ema": {1: torch.zeros(1)}},
        f"{NOTHING} {{'g_ema': {{1: ",
    ),
    "numbers among names": (
        {"g_ema": {1: torch.arange(5), "input.input": torch.zeros(1)}},
        "must hold floating-point tensors, got others at ['1']",
    ),
    "no dense tensors": (
        {"g_ema": {"input.input": torch.zeros(1, 4, 4, 4).to_sparse(), "to_rgbs.0.bias": None}},
        "must hold floating-point tensors, got others at ['input.input']",
    ),
    "weights that are no tensors": (
        {"g_ema": {**SMALL, "conv1.noise.weight": 0.1, "to_rgbs.0.bias": None}},
        "must hold the keys and shapes of rosinality's StyleGAN2 of 8 pixels, got generator: "
        "missing: conv1.noise.weight, to_rgbs.0.bias",
    ),
    "numbers that are not in the file": (
        {"params": {"constant_input.weight": torch.zeros(1).expand(10**9)}},
        "must be a whole checkpoint, got more than ",
    ),
    "a block far away": (
        {"g_ema": {f"to_rgbs.{10**11}.conv.weight": torch.zeros(1)}},
        "must hold a generator of at most 4096 pixels, got keys numbered 100000000000",
    ),
    "a mapping layer far away": (
        {"params": {"to_rgbs.1.bias": torch.zeros(1), f"style_mlp.{10**11}.bias": torch.zeros(1)}},
        "must hold a generator of at most 100 mapping layers, got one numbered 100000000000",
    ),
    "a number without end": (
        {"g_ema": {f"to_rgbs.{'9' * 5000}.bias": torch.zeros(1)}},
        "must hold a generator of rosinality's StyleGAN2, of 8 pixels or more, got 1 keys such",
    ),
    "no dict": ({"g_ema": [1]}, f"{NOTHING} {{'g_ema': [1]}}"),
    "none": ({"g_ema": None}, f"{NOTHING} {{'g_ema': None}}"),
    "no dict of BasicSR's": ({"params": None}, f"{NOTHING} {{'params': None}}"),
    "many dimensions": (
        {"params": {"constant_input.weight": torch.zeros([1] * 9)}},
        "must have tensors of up to 8 dimensions, got 9",
    ),
    "a discriminator only": (
        {"d": {"final_linear.0.weight": torch.zeros(1)}},
        "must hold a generator, got only a discriminator, which load() takes as",
    ),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_checkpoint_errors(kind, tmp_path):
    path = tmp_path / "odd.pt"
    contents, sentence = ODD[kind]
    torch.save(contents, path)
    with pytest.raises(CheckpointError, match=re.escape(f"{path} {sentence}")):
        load(path)


def test_nvidias_files_without_a_generator(tmp_path):
    original = Original("ada_32")
    discriminator = persistent(original.attributes["discriminator"], {})
    for file, sentence in (
        ({"D": discriminator}, "must hold a generator, got only a discriminator"),
        ({"G_ema": None, "D": discriminator}, "must hold a generator, got only a discriminator"),
        ({"G_ema": {}, "D": discriminator}, "must hold a generator, got only a discriminator"),
    ):
        (tmp_path / "file.pkl").write_bytes(nvidia_pickle(file))
        with pytest.raises(CheckpointError, match=f"file.pkl {sentence}"):
            load(tmp_path / "file.pkl")


def test_files_of_two_dialects_do_not_go_together(tmp_path):
    generator, discriminator = Original("basicsr_32").write(tmp_path)
    other = Original("rosinality_8").write(tmp_path)[0]
    said = f"{other} must hold a discriminator of BasicSR's, got one of rosinality's"
    with pytest.raises(CheckpointError, match=re.escape(said)):
        load(generator, other)
    said = f"{other} must be BasicSR's where discriminator_path is given, got rosinality's"
    with pytest.raises(CheckpointError, match=re.escape(said)):
        load(other, discriminator)
