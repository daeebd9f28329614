# SPDX-License-Identifier: BSD-3-Clause
"""Images from a checkpoint, as a user asks for them on the command line."""

import contextlib
import io
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from examples.stylegan import generate
from examples.stylegan.alias_free import AliasFreeGenerator
from examples.stylegan.checkpoints import load, save_rosinality
from examples.stylegan.discriminator import Discriminator
from examples.stylegan.generator import Generator

from .tools import files_of_at_most

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 16


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file of a generator whose noise can be seen."""
    torch.manual_seed(0)
    generator = Generator(SIDE, 512, 2, channels={4: 512, 8: 512, 16: 512})
    for name, parameter in generator.named_parameters():
        if name.endswith("noise.weight"):
            torch.nn.init.constant_(parameter, 0.2)
    discriminator = Discriminator(SIDE, channels=generator.channels)
    path = tmp_path_factory.mktemp("checkpoint") / "ros.pt"
    save_rosinality(path, generator, discriminator, generator.mean_style(64))
    return path


def run(checkpoint, folder, *options):
    return generate.main(
        ["--checkpoint", str(checkpoint), "--out", str(folder), *map(str, options)]
    )


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def assert_same(a, b):
    """But for the last bits of the arithmetic, which may round one byte off."""
    assert a.shape == b.shape
    assert abs(a - b).max() <= 1


def test_a_grid_holds_each_seeds_image(checkpoint, tmp_path, capsys):
    assert run(checkpoint, tmp_path, "--seeds", "3,5-8", "--batch", 2) == 0
    said = capsys.readouterr()
    assert said.out == f"1 file: {tmp_path / 'grid.png'}\n"
    assert f"{checkpoint}: rosinality's StyleGAN2 of {SIDE} pixels: generator at g_ema" in said.err
    grid = pixels(tmp_path / "grid.png")
    assert grid.shape == (2 * SIDE, 3 * SIDE, 3)
    assert run(checkpoint, tmp_path, "--seeds", "8,3,6", "--files", "--batch", 1) == 0
    places = {3: (0, 0), 6: (0, 2), 8: (1, 1)}
    images = {seed: pixels(tmp_path / f"seed{seed:04d}.png") for seed in places}
    for seed, (row, column) in places.items():
        cell = grid[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
        assert_same(cell, images[seed])
    assert abs(images[3] - images[6]).max() > 8
    assert not grid[SIDE:, 2 * SIDE :].any()  # five images in six places


def test_a_folder_is_shown_on_output_of_any_encoding(checkpoint, tmp_path):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(output):
        assert run(checkpoint, tmp_path / "é", "--seeds", 3) == 0
    output.flush()
    assert output.buffer.getvalue().decode() == f"1 file: {tmp_path}/\\xe9/grid.png\n"


def test_truncation_pulls_to_the_mean(checkpoint, tmp_path):
    for psi in (0.0, 0.5):
        run(checkpoint, tmp_path / str(psi), "--seeds", "0-1", "--files", "--psi", psi)
    first, second = (pixels(tmp_path / "0.0" / f"seed000{i}.png") for i in (0, 1))
    assert_same(first, second)
    half = [pixels(tmp_path / "0.5" / f"seed000{i}.png") for i in (0, 1)]
    assert abs(half[0] - half[1]).max() > 4


def test_noise_is_stored_or_of_the_seed_or_none(checkpoint, tmp_path):
    images = {}
    for noise in ("stored", "seed", "none"):
        options = ("--files", "--psi", 0, "--noise", noise)  # styles are all alike
        run(checkpoint, tmp_path / noise, "--seeds", "4-6", *options)
        images[noise] = [pixels(tmp_path / noise / f"seed000{i}.png") for i in (4, 5, 6)]
    assert_same(images["stored"][0], images["stored"][1])
    assert abs(images["seed"][0] - images["seed"][1]).max() > 8
    assert_same(images["none"][0], images["none"][1])
    assert abs(images["none"][0] - images["stored"][0]).max() > 8
    run(checkpoint, tmp_path, "--seeds", "5", "--files", "--psi", 0, "--noise", "seed")
    assert_same(pixels(tmp_path / "seed0005.png"), images["seed"][1])


def test_mixing_takes_coarse_layers_from_rows_and_fine_ones_from_columns(checkpoint, tmp_path):
    def cells(crossover):
        options = ("--seeds", "0-1", "--mix", "7-9", "--crossover", crossover, "--noise", "none")
        run(checkpoint, tmp_path, *options)
        picture = pixels(tmp_path / "mix.png")
        assert picture.shape == (3 * SIDE, 4 * SIDE, 3)
        return picture.reshape(3, SIDE, 4, SIDE, 3).transpose(0, 2, 1, 3, 4)

    layers = load(checkpoint).generator.num_styles
    columns, rows = cells(0), cells(layers)
    for i in range(1, 3):
        for j in range(1, 4):
            assert_same(columns[i, j], columns[0, j])
            assert_same(rows[i, j], rows[i, 0])
    mixed = cells(2)
    assert abs(mixed[1, 1] - mixed[0, 1]).max() > 2
    assert abs(mixed[1, 1] - mixed[1, 0]).max() > 2
    assert not mixed[0, 0].any()


@pytest.mark.parametrize("suffix", generate.ANIMATED)
def test_interpolation_walks_from_seed_to_seed_and_back(suffix, checkpoint, tmp_path):
    run(
        checkpoint, tmp_path, "--seeds", "2,4", "--interpolate", 3, "--rate", 20, "--format", suffix
    )
    with Image.open(tmp_path / f"interpolation{suffix}") as picture:
        assert picture.info["loop"] == 0
        frames = [f.convert("RGB") for f in ImageSequence.Iterator(picture)]
    assert len(frames) == 6
    run(checkpoint, tmp_path, "--seeds", "2,4", "--files")
    for frame, seed in ((frames[0], 2), (frames[3], 4)):
        difference = abs(np.asarray(frame).astype(int) - pixels(tmp_path / f"seed000{seed}.png"))
        assert difference.mean() <= (6 if suffix == ".gif" else 1)  # a GIF has 256 colours
    assert abs(np.asarray(frames[1]).astype(int) - np.asarray(frames[0]).astype(int)).max() > 0


@pytest.mark.parametrize(
    ("suffix", "rate", "milliseconds", "note"),
    [
        (".webp", 30, 33, ""),
        (".png", 1000, 1, ""),
        (".gif", 50, 20, ""),
        (".gif", 30, 30, "note: --rate is 33.3, not 30, for .gif has durations in units of 10 ms"),
        (".gif", 70, 10, "note: --rate is 100, not 70"),
        (".webp", 0.02, 50_000, ""),
        (".gif", 0.002, 500_000, ""),
    ],
)
def test_rates_are_what_the_format_holds(
    suffix, rate, milliseconds, note, checkpoint, tmp_path, capsys
):
    options = ("--interpolate", 2, "--rate", rate, "--format", suffix)
    assert run(checkpoint, tmp_path, "--seeds", "2,4", *options) == 0
    with Image.open(tmp_path / f"interpolation{suffix}") as picture:
        picture.load()
        assert picture.info["duration"] == milliseconds
    said = capsys.readouterr().err
    assert note in said
    assert ("note:" in said) == bool(note)


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_pictures_of_an_interpolation_are_let_go(suffix, checkpoint, tmp_path, monkeypatch):
    """Of 40, a WebP holds the first and the current; a GIF holds them in 256 colours."""
    made, most = [], []
    original = generate.to_picture

    def to_picture(image):
        picture = original(image)
        made.append(weakref.ref(picture))
        most.append(sum(one() is not None for one in made))
        return picture

    monkeypatch.setattr(generate, "to_picture", to_picture)
    run(checkpoint, tmp_path, "--seeds", "2,4", "--interpolate", 20, "--format", suffix)
    assert len(most) == 40
    assert max(most) <= 3


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """A file, of our own training's kind, of a generator of grey images."""
    torch.manual_seed(0)
    generator = Generator(SIDE, 8, 1, image_channels=1, channels={4: 4, 8: 4, 16: 4})
    path = tmp_path_factory.mktemp("grey") / "checkpoint.pt"
    settings = {"mapping_lr": 0.01}
    torch.save({"g_ema": generator.state_dict(), "settings": settings}, path)
    return path


def test_grey_pictures_are_written_as_grey(grey, tmp_path):
    run(grey, tmp_path, "--seeds", "0-2")
    run(grey, tmp_path, "--seeds", "0-2", "--files")
    run(grey, tmp_path, "--seeds", "0-2", "--mix", "4")
    for name in ("grid.png", "seed0001.png", "mix.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.mode == "L"
    assert_same(pixels(tmp_path / "grid.png")[:SIDE, SIDE:], pixels(tmp_path / "seed0001.png"))


@pytest.mark.parametrize("suffix", generate.ANIMATED)
def test_grey_interpolations(suffix, grey, tmp_path):
    run(grey, tmp_path, "--seeds", "2,4", "--interpolate", 3, "--format", suffix)
    run(grey, tmp_path, "--seeds", "2,4", "--files")
    with Image.open(tmp_path / f"interpolation{suffix}") as picture:
        assert picture.n_frames == 6
        picture.seek(3)
        frame = np.asarray(picture.convert("RGB")).astype(int)
    assert abs(frame - pixels(tmp_path / "seed0004.png")).max() <= 3


@pytest.fixture(scope="module", params=["stylegan3-t", "stylegan3-r", "stylegan2"])
def movable(request, tmp_path_factory):
    """A file, of our own training's kind, of a generator with a Fourier input."""
    torch.manual_seed(0)
    sizes = SIDE, 8, 1, 1
    if request.param == "stylegan2":
        generator = Generator(*sizes, channels={4: 4, 8: 4, 16: 4}, input="fourier")
    else:
        generator = AliasFreeGenerator(*sizes, kind=request.param[-1], channels=[8] * 14)
        generator.set_magnitude_decay(0.0)
        with torch.no_grad():  # weights that nobody trained draw next to nothing
            images = generator.train()(torch.randn(64, 8))
            gain = 0.5 / images.std()
            generator.to_rgb.conv.weight.mul_(gain)
            generator.to_rgb.activate.bias.fill_(-4 * gain * images.mean())
    path = tmp_path_factory.mktemp("movable") / f"{request.param}.pt"
    settings = {"mapping_lr": 0.01, "clamp": 256.0, "resolution": SIDE}
    torch.save({"g_ema": generator.state_dict(), "settings": settings}, path)
    return path


def test_all_pictures_of_a_fourier_input(movable, tmp_path):
    options = {
        "grid.png": (),
        "seed0001.png": ("--files",),
        "mix.png": ("--mix", "4"),
        "interpolation.webp": ("--interpolate", 2),
    }
    where = ("--translate", "0.1,-0.2", "--rotate", 20)
    for name, kind in options.items():
        assert run(movable, tmp_path / "still", "--seeds", "0-2", *kind) == 0
        assert run(movable, tmp_path / "moved", "--seeds", "0-2", *kind, *where) == 0
        still, moved = (pixels(tmp_path / folder / name) for folder in ("still", "moved"))
        assert still.shape == moved.shape
        assert abs(still - moved).max() > 8
    grid = pixels(tmp_path / "moved" / "grid.png")
    assert_same(grid[:SIDE, SIDE:], pixels(tmp_path / "moved" / "seed0001.png"))


@pytest.mark.parametrize("movable", ["stylegan3-t", "stylegan3-r"], indirect=True)
def test_pictures_move_right_and_down_and_turn_counter_clockwise(movable, tmp_path):
    """By whole pixels and a quarter of a turn, StyleGAN3 shows what it showed before.

    A StyleGAN2 with Fourier features draws something else, which is why there is a StyleGAN3.
    """
    kind = movable.stem

    def pictures(*options):  # [seed, row, column, colour]
        assert run(movable, tmp_path, "--seeds", "0-3", "--files", *options) == 0
        return np.stack([pixels(tmp_path / f"seed000{seed}.png") for seed in range(4)])

    still = pictures()
    assert still.std((1, 2)).mean() > 8
    moved = pictures("--translate", f"{-2 / SIDE},{4 / SIDE}")
    assert abs(moved[:, 4:, :-2] - still[:, :-4, 2:]).mean() < 1.5
    if kind == "stylegan3-r":
        turned = np.rot90(still, axes=(1, 2))
        assert abs(pictures("--rotate", 90) - turned).mean() < 1.5
        both = pictures("--rotate", 90, "--translate", f"0,{4 / SIDE}")
        assert abs(both[:, 4:] - turned[:, :-4]).mean() < 1.5  # the turn comes first


@pytest.mark.parametrize("suffix", generate.ANIMATED)
def test_a_movement_goes_there_and_back(suffix, movable, tmp_path):
    where = ("--seeds", "2,4", "--translate", "-0.25,0", "--rotate", 40)
    assert run(movable, tmp_path, *where, "--move", 2, "--format", suffix) == 0
    with Image.open(tmp_path / f"movement{suffix}") as picture:
        frames = [np.asarray(f.convert("RGB")).astype(int) for f in ImageSequence.Iterator(picture)]
    assert len(frames) == 4
    for folder, share in (("0", 0), ("1", 0.5), ("2", 1), ("1", 0.5)):
        options = ("--translate", f"{-0.25 * share},0", "--rotate", 40 * share)
        run(movable, tmp_path / folder, "--seeds", "2,4", *options)
    for frame, folder in zip(frames, "0121", strict=True):
        difference = abs(frame - pixels(tmp_path / folder / "grid.png"))
        assert difference.mean() <= (6 if suffix == ".gif" else 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--translate", "0.1,0"), "generator must have a Fourier input, which can be moved and t"),
        (("--rotate", 0), "generator must have a Fourier input, which can be moved and turned"),
        (("--move", 3), "--move needs --translate or --rotate, to say where the images go, got n"),
        (("--move", 0, "--rotate", 5), "--move must be >= 1, got 0"),
        (("--translate", "0.1"), "it must be two finite numbers of widths, X,Y such as 0.25,-0.1"),
        (("--translate", "1e39,0"), "such as 0.25,-0.1, from -1000 to 1000, got '1e39,0'"),
        (("--translate", "-1,nan"), "it must be two finite numbers of widths, X,Y such as 0.25"),
        (
            ("--rotate", "inf"),
            "argument --rotate: it must be a finite number of degrees, got 'inf'",
        ),
        (("--rotate", 5, "--move", 3, "--mix", 2), "not allowed with argument"),
        (("--rotate", 5, "--move", 50_000), "--move must give 100,000 images at most, got 200,000"),
    ],
)
def test_movements_that_cannot_be(options, sentence, grey, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(grey, tmp_path / "out", "--seeds", "1-2", *options)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("channels", [2, 4])
def test_images_that_are_no_pictures(channels, tmp_path, capsys):
    generator = Generator(8, 4, 1, image_channels=channels, channels={4: 4, 8: 4})
    file = {"g_ema": generator.state_dict(), "settings": {"mapping_lr": 0.01}}
    torch.save(file, tmp_path / "g.pt")
    with pytest.raises(SystemExit):
        run(tmp_path / "g.pt", tmp_path / "out")
    said = f"image_channels must be 1, for grey pictures, or 3, for RGB, got {channels}"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_animation_that_fails_leaves_the_earlier_one(checkpoint, tmp_path, monkeypatch):
    options = ("--seeds", "0-1", "--interpolate", "3")
    run(checkpoint, tmp_path, *options)
    before = (tmp_path / "interpolation.webp").read_bytes()
    made = []

    def failing(image):
        made.append(image)
        if len(made) > 3:
            raise KeyboardInterrupt
        return to_picture(image)

    to_picture = generate.to_picture
    monkeypatch.setattr(generate, "to_picture", failing)
    assert run(checkpoint, tmp_path, *options) == 130
    assert (tmp_path / "interpolation.webp").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["interpolation.webp"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_give_nearly_the_same_images(dtype, checkpoint, tmp_path):
    run(checkpoint, tmp_path / "wide", "--seeds", "0-3")
    run(checkpoint, tmp_path / dtype, "--seeds", "0-3", "--dtype", dtype)
    difference = abs(pixels(tmp_path / "wide" / "grid.png") - pixels(tmp_path / dtype / "grid.png"))
    assert 0 < difference.mean() < 3


def test_compiled_synthesis_gives_the_same_images(tmp_path):
    """Of a network of 8 pixels, whose kernels are fewer to compile."""
    checkpoint = tmp_path / "checkpoint.pt"
    generator = Generator(8, 8, 1, 1, channels={4: 4, 8: 4})
    torch.save({"g_ema": generator.state_dict(), "settings": {"mapping_lr": 0.01}}, checkpoint)
    run(checkpoint, tmp_path / "eager", "--seeds", "0-2", "--batch", 2)
    run(checkpoint, tmp_path / "compiled", "--seeds", "0-2", "--batch", 2, "--compile")
    assert_same(pixels(tmp_path / "eager" / "grid.png"), pixels(tmp_path / "compiled" / "grid.png"))


def test_pixels_that_are_not_finite_are_no_picture(tmp_path, capsys):
    generator = Generator(8, 512, 1, channels={4: 512, 8: 512})
    torch.nn.init.constant_(generator.to_rgb1.bias, float("nan"))
    save_rosinality(tmp_path / "ros.pt", generator)
    assert run(tmp_path / "ros.pt", tmp_path / "out", "--seeds", "5") == 1
    said = "error: every pixel must be finite, got others for seed 5 in torch.float32: try"
    assert said in capsys.readouterr().err
    for suffix in generate.ANIMATED:
        options = ("--seeds", "5,6", "--interpolate", 2, "--format", suffix)
        assert run(tmp_path / "ros.pt", tmp_path / "out", *options) == 1
    assert not list((tmp_path / "out").iterdir())


def test_a_checkpoint_without_a_mean_gets_one():
    generator = Generator(8, 16, 1, channels={4: 4, 8: 4})
    found = generate.Checkpoint("basicsr", generator, None, None, {}, "")
    samplers = [generate.make_sampler(found, torch.device("cpu"), psi=0.5) for _ in range(2)]
    assert torch.equal(samplers[0].mean, samplers[1].mean)
    assert samplers[0].mean.shape == (16,)


def test_without_truncation_no_mean_is_measured(monkeypatch):
    generator = Generator(8, 16, 1, channels={4: 4, 8: 4})
    monkeypatch.setattr(generator, "mean_style", lambda *args: pytest.fail("was measured"))
    found = generate.Checkpoint("basicsr", generator, None, None, {}, "")
    sampler = generate.make_sampler(found, torch.device("cpu"))
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(3))
    assert torch.equal(sampler.w([3]), generator.mapping(z))
    with pytest.raises(ValueError, match=r"mean must be given where psi is not 1, got .* psi=0.5"):
        generate.Sampler(generator, psi=0.5)


def test_seeds_are_numbers_and_ranges():
    assert generate.parse_seeds("0-3, 7,2") == [0, 1, 2, 3, 7]


# Numbers of the seeds, as versions before this test made them, rounded to six places
SEEDS = (0, 7, 2**32 - 1)
W_OF_8 = [  # after the normalisation, three of 8
    [1.283704, -0.244437, -1.815009],
    [-0.146044, 0.782117, 0.941975],
    [1.54489, -0.497728, 1.295775],
]
W_OF_32 = [  # three of 32
    [-1.118893, -1.14525, -0.249032],
    [-0.835266, 0.402931, 0.915493],
    [-2.081259, -0.85229, 0.352655],
]
NOISE = [  # of each layer, in row 1 and column 1
    [0.692009, 0.28515, 1.564209],
    [-0.585498, -0.215342, -1.312866],
    [2.302516, -0.173168, 1.817556],
]


@pytest.mark.parametrize(("style_dim", "expected"), [(8, W_OF_8), (32, W_OF_32)])
def test_seeds_below_two_to_the_32_keep_their_numbers(style_dim, expected):
    generator = Generator(8, style_dim, 0, 1, {4: 4, 8: 4})
    sampler = generate.Sampler(generator, noise="seed")
    torch.testing.assert_close(sampler.w(SEEDS)[:, :3], torch.tensor(expected), rtol=0, atol=1e-5)
    noise = torch.stack([image[:, 0, 1, 1] for image in sampler.noise_of(SEEDS)])
    torch.testing.assert_close(noise, torch.tensor(NOISE), rtol=0, atol=1e-5)


def test_seeds_count_with_all_their_bits(grey, tmp_path):
    seeds = [0, *(2**power for power in (32, 33, 62)), 2**32 + 1, 2**63 - 1, 2**32 - 1]
    generator = Generator(8, 512, 0, 1, {4: 4, 8: 4})
    sampler = generate.Sampler(generator, noise="seed")
    w = sampler.w(seeds) @ sampler.w(seeds).T / 512
    noise = sampler.noise_of(seeds)[-1].flatten(1)
    noise = noise @ noise.T / 64
    for products, far in ((w, 0.25), (noise, 0.7)):  # five deviations and more
        torch.testing.assert_close(products.diag(), torch.ones(7), rtol=0, atol=far)
        assert (products - products.diag().diag()).abs().max() < far
    numbers = generate.Normal(2**62 + 5)(100_000)
    assert numbers.dtype == torch.float32
    assert abs(float(numbers.mean())) < 0.02
    assert abs(float(numbers.std()) - 1) < 0.02
    run(grey, tmp_path, "--files", "--seeds", ",".join(map(str, seeds)))
    pictures = {(tmp_path / f"seed{seed:04d}.png").read_bytes() for seed in seeds}
    assert len(pictures) == len(seeds)
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=f"seed must be between 0 and 2..63 - 1, got {seed}"):
            sampler.w([seed])


def test_psi_at_its_bounds_gives_pictures(checkpoint, tmp_path):
    for psi in (-1000, 1000):
        assert run(checkpoint, tmp_path, "--psi", psi, "--seeds", "0-1", "--batch", 10**30) == 0
    with pytest.raises(ValueError, match=r"psi must be between -1000 and 1000, got 1000\.5"):
        generate.Sampler(load(checkpoint).generator, torch.zeros(512), psi=1000.5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--seeds", "0-8"), "--seeds must need 0 GiB of pixels at most, got 9 images of 16 pixel"),
        (("--mix", "0-3", "--seeds", "0"), "--mix must need 0 GiB of pixels at most, got 10 imag"),
        (("--interpolate", 9, "--seeds", "0-1", "--format", ".png"), "0.0 GiB: --format .webp ho"),
    ],
)
def test_pictures_of_more_than_memory_are_refused(
    options, sentence, checkpoint, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(generate, "MOST_BYTES", 8 * 3 * SIDE**2)
    with pytest.raises(SystemExit):
        run(checkpoint, tmp_path / "out", *options)
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    run(checkpoint, tmp_path, "--files", "--seeds", "0-8")
    run(checkpoint, tmp_path, "--seeds", "0-7")
    run(checkpoint, tmp_path, "--interpolate", 5, "--seeds", "0-1")


KINDS = {
    "grid.png": (),
    "seed0003.png": ("--files",),
    "mix.png": ("--mix", "4"),
    "interpolation.webp": ("--interpolate", 2),
    "interpolation.gif": ("--interpolate", 2, "--format", ".gif"),
    "interpolation.png": ("--interpolate", 2, "--format", ".png"),
}


@pytest.mark.parametrize("name", KINDS)
def test_places_that_cannot_be_written_to_are_found_first(
    name, checkpoint, tmp_path, capsys, monkeypatch
):
    reading = "load_checkpoint"
    monkeypatch.setattr(generate, reading, lambda path: pytest.fail("the checkpoint was read"))
    (tmp_path / "file").write_text("mine")
    (tmp_path / name).mkdir()
    for folder, reason in (
        (tmp_path / "file", "Not a directory"),
        (tmp_path / "file" / "below", "Not a directory"),
        ("/proc/pictures", "No such file or directory"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(checkpoint, folder, "--seeds", "3-4", *KINDS[name])
        assert stopped.value.code == 2
        said = f"--out must be a folder that can be written to, got {str(folder)!r}: {reason}"
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit), files_of_at_most(0):
        run(checkpoint, tmp_path / "new", "--seeds", "3-4", *KINDS[name])
    assert f"got {str(tmp_path / 'new')!r}: File too large" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    with pytest.raises(SystemExit):
        run(checkpoint, tmp_path, "--seeds", "3-4", *KINDS[name])
    said = f"--out must have no folder where a file is to be written, got '{tmp_path / name}'"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", KINDS)
def test_a_full_disk_leaves_the_earlier_picture(name, checkpoint, tmp_path, capsys):
    assert run(checkpoint, tmp_path, "--seeds", "3-4", *KINDS[name]) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    with files_of_at_most(200):
        assert run(checkpoint, tmp_path, "--seeds", "3-4", "--psi", 0.5, *KINDS[name]) == 1
    said = f"error: {tmp_path / name} could not be written: File too large; the pictures that were"
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


KILLED = """
import os, signal, sys
from PIL import Image
from examples.stylegan import generate

def save_half_and_die(self, file, **options):
    open(file, "wb").write(b"half") if isinstance(file, (str, os.PathLike)) else file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

Image.Image.save = save_half_and_die
generate.main(sys.argv[1:])
"""


def test_a_kill_in_the_middle_of_a_picture_leaves_the_earlier_one(grey, tmp_path):
    run(grey, tmp_path)
    before = (tmp_path / "grid.png").read_bytes()
    arguments = ("--checkpoint", grey, "--out", tmp_path, "--psi", 0.5)
    command = [sys.executable, "-c", KILLED, *map(str, arguments)]
    root = Path(__file__).parent.parent
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert (tmp_path / "grid.png").read_bytes() == before
    run(grey, tmp_path, "--psi", 0.5)
    assert (tmp_path / "grid.png").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_interrupts_and_too_little_memory_are_one_sentence(grey, tmp_path, capsys, monkeypatch):
    def fail(error):
        def instead(*args, **kwargs):
            raise error

        return instead

    full = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")
    for place, error, status, said in (
        ("load_checkpoint", KeyboardInterrupt(), 130, "stopped before the first picture"),
        ("save_grid", KeyboardInterrupt(), 130, "stopped; the pictures that were finished are who"),
        ("save_grid", full, 1, "error: out of memory: try --batch 4, or fewer --seeds"),
        ("save_grid", MemoryError(), 1, "error: out of memory: try --batch 4, or fewer --seeds"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(generate, place, fail(error))
            assert run(grey, tmp_path / "out") == status
        *taken, last = capsys.readouterr().err.splitlines()
        summary = f"{grey}: our StyleGAN2 of 16 pixels: generator at g_ema"
        assert taken == ([] if place == "load_checkpoint" else [summary])
        assert said in last


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--seeds", "3-1"),
            "seeds must be numbers from 0 to 2**63 - 1 and ranges of them, such as",
        ),
        (("--seeds", 2**64), "got '18446744073709551616'"),
        (("--seeds", "a"), "got 'a'"),
        (("--seeds", ""), "got ''"),
        (("--batch", 0), "--batch must be >= 1, got 0"),
        (("--interpolate", 0), "--interpolate must be >= 1, got 0"),
        (("--interpolate", 3, "--seeds", "4,4"), "--interpolate must have two --seeds or more"),
        (("--interpolate", 3, "--seeds", "4"), "to go between, got [4]"),
        (("--rate", 0), "--rate must be between 0.02 and 1000 for .webp, got 0"),
        (("--rate", "nan"), "--rate must be between 0.02 and 1000 for .webp, got nan"),
        (("--rate", 1001), "--rate must be between 0.02 and 1000 for .webp, got 1001"),
        (("--rate", 101, "--format", ".gif"), "between 0.002 and 100 for .gif, got 101"),
        (("--rate", 0.01, "--format", ".png"), "between 0.02 and 1000 for .png, got 0.01"),
        (("--psi", "nan"), "--psi must be between -1000 and 1000, got nan"),
        (("--psi", "inf"), "--psi must be between -1000 and 1000, got inf"),
        (("--psi", "1e308"), "--psi must be between -1000 and 1000, got 1e+308"),
        (("--psi=-1e308",), "--psi must be between -1000 and 1000, got -1e+308"),
        (
            ("--seeds", f"0-{2**63 - 1}"),
            "seeds must be 100,000 at most, got 9,223,372,036,854,775,808 in '0-92233720368547758",
        ),
        (("--seeds", "5,0-99999"), "seeds must be 100,000 at most, got 100,001 in '5,0-99999'"),
        (("--seeds", "-1"), "got '-1'"),
        (("--seeds", "1e3"), "got '1e3'"),
        (("--mix", "0-99999"), "--mix must give 100,000 images at most, got 1,700,016"),
        (("--interpolate", 10**30), "must give 100,000 images at most, got 16,000,000,000,0"),
        (("--interpolate", "inf"), "invalid int value: 'inf'"),
        (("--mix", "1", "--crossover", -1), "--crossover must be between 0 and 6, got -1"),
        (("--rate", "1e308"), "--rate must be between 0.02 and 1000 for .webp, got 1e+308"),
        (("--mix", "1", "--crossover", 7), "--crossover must be between 0 and 6, got 7"),
        (("--mix", "1", "--files"), "not allowed with"),
        (("--device", "toaster"), "device must be one that torch finds here, got 'toaster'"),
    ],
)
def test_refusals(options, sentence, checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(checkpoint, tmp_path / "out", *options)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ({"g_ema": None}, "must be a checkpoint of rosinality's, BasicSR's or NVIDIA's StyleGAN2,"),
        (
            {"d": {"final_linear.0.weight": torch.zeros(1)}},
            "must hold a generator, got only a discriminator",
        ),
        (
            {"params": {"final_linear.0.weight": torch.zeros(1)}},
            "must hold a generator, got only a discriminator",
        ),
    ],
)
def test_checkpoints_without_a_generator(contents, sentence, tmp_path, capsys):
    path = tmp_path / "file.pt"
    torch.save(contents, path)
    with pytest.raises(SystemExit):
        run(path, tmp_path / "out")
    assert f"{path} {sentence}" in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint(tmp_path, capsys):
    path = tmp_path / "picture.pt"
    path.write_bytes(b"no checkpoint")
    for missing in (path, tmp_path / "nowhere.pt"):
        with pytest.raises(SystemExit):
            run(missing, tmp_path / "out")
        assert str(missing) in capsys.readouterr().err
