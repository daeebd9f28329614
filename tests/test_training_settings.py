# SPDX-License-Identifier: BSD-3-Clause
"""The configurations of the training."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch

from examples.stylegan import data, train
from examples.stylegan.discriminator import Discriminator
from examples.stylegan.generator import Generator
from examples.stylegan.settings import CONFIGS, Settings, load_config

from .training import ROOT, TINY

pytestmark = pytest.mark.usefixtures("one_thread")

FIXTURES = ROOT / "tests" / "fixtures"


def test_command_line_goes_over_config_goes_over_defaults(tmp_path, capsys):
    config = tmp_path / "mine.toml"
    config.write_text('steps = 7\nresolution = 16\nlr = 1\nmirror = true\nprecision = "bfloat16"\n')
    arguments = ["--out", "x", "--config", str(config), "--resolution", "8", "--no-mirror"]
    _, args = train.parse(arguments)
    numbers = {"steps": 7, "resolution": 8, "lr": 1.0}
    assert args.said == {**numbers, "mirror": False, "precision": "bfloat16"}
    for content, sentence in [
        ("resolutoin = 3", "config must have settings only, got 'resolutoin' in "),
        ("resolution = 3.5", "resolution must be of type int, got 3.5 in "),
        ("mirror = 1", "mirror must be of type bool, got 1 in "),
        ("resolution", "config must be TOML, got "),
    ]:
        config.write_text(content)
        with pytest.raises(SystemExit):
            train.parse(arguments)
        assert sentence in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train.parse(["--out", "x", "--config", "huge"])
    error = capsys.readouterr().err
    assert "config must be a file or one of config-f-1024, config-f-256, config-f-64, dig" in error


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('precision = "float33"', "precision must be one of float32, bfloat16, float16, got 'flo"),
        ('augment = "Ada"', "augment must be one of none, ada, got 'Ada'"),
    ],
)
def test_a_config_is_held_to_the_choices_of_the_command_line(content, sentence, tmp_path, capsys):
    config = tmp_path / "mine.toml"
    config.write_text(content)
    options = ["--out", str(tmp_path / "run"), "--config", str(config), *TINY]
    with pytest.raises(SystemExit) as stop:
        train.main([*options, "--steps", "1"])
    assert stop.value.code == 2
    assert f"error: {sentence}" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_configurations_are_whole(path):
    settings = Settings(**load_config(path.stem))
    settings.check()
    if path.stem == "digits":
        assert settings == Settings()
    if path.stem.startswith("config-f"):
        assert settings.resolution == int(path.stem.removeprefix("config-f-"))
        with pytest.raises(ValueError, match="data must be digits, photographs or a folder of im"):
            data.load(settings.data, settings.resolution)


def expected_parameters(channels, style_dim, mapping_layers, image_channels):
    """What is trained, layer by layer, of the generator and of the discriminator."""
    sides = sorted(channels)
    last = channels[4]

    def linear(fan_in, fan_out):
        return fan_in * fan_out + fan_out

    def styled(before, after):  # weights, modulation of what comes in, noise strength, bias
        return 9 * before * after + linear(style_dim, before) + 1 + after

    generator = mapping_layers * linear(style_dim, style_dim) + 16 * last + styled(last, last)
    for side in sides:
        here = channels[side]
        if side > 4:
            generator += styled(channels[side // 2], here) + styled(here, here)
        generator += image_channels * here + linear(style_dim, here) + image_channels  # to RGB

    discriminator = linear(image_channels, channels[sides[-1]])  # from RGB, 1x1
    for side in sides[1:]:
        here, after = channels[side], channels[side // 2]
        discriminator += 9 * here * here + here  # first convolution
        discriminator += 9 * here * after + after  # second, which halves the side
        discriminator += here * after  # skip, 1x1, without bias
    discriminator += 9 * (last + 1) * last + last  # with the standard deviation's channel
    discriminator += linear(16 * last, last) + linear(last, 1)
    return [generator, discriminator]


def shapes_by_key(code, resolution):
    """The parameters among the keys that the original's networks have."""
    tables = json.loads((FIXTURES / "checkpoints" / "keys.json").read_text())[code][str(resolution)]
    buffers = r"(^|\.)(kernel|noises\..*|resample_filter|noise_const|w_avg)$"
    return [
        sum(math.prod(shape) for key, shape in tables[part].items() if not re.search(buffers, key))
        for part in ("generator", "discriminator")
    ]


@pytest.mark.parametrize("resolution", [64, 256, 1024])
def test_configuration_f_has_as_many_parameters_as_the_originals(resolution):
    settings = Settings(**load_config(f"config-f-{resolution}"))
    channels = settings.channels()
    with torch.device("meta"):
        options = (settings.style_dim, settings.mapping_layers, 3, channels, settings.mapping_lr)
        networks = Generator(resolution, *options), Discriminator(resolution, 3, channels)
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == expected_parameters(channels, settings.style_dim, settings.mapping_layers, 3)
    originals = json.loads((FIXTURES / "parameter_counts.json").read_text())
    for code in ("ada", "rosinality", "stylegan3-stylegan2"):
        assert counts == originals[code][str(resolution)], code
        if resolution == 64:
            assert counts == shapes_by_key(code, resolution), code
