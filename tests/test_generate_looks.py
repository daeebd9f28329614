# SPDX-License-Identifier: BSD-3-Clause
"""How generate lays images out: scale, gaps, names, strips of truncation, films, usage errors."""

import subprocess

import numpy as np
import pytest

from examples.stylegan import describe, equivariance, generate, sticking, train

from .test_generate import SIDE, assert_same, checkpoint, pixels, run  # noqa: F401
from .tools import require

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def plain(checkpoint, tmp_path_factory):  # noqa: F811
    """A grid of 2 x 2 images without any of it."""
    folder = tmp_path_factory.mktemp("plain")
    assert run(checkpoint, folder, "--seeds", "0-3") == 0
    return pixels(folder / "grid.png")


def test_scale_and_gap(checkpoint, plain, tmp_path):  # noqa: F811
    assert run(checkpoint, tmp_path, "--seeds", "0-3", "--scale", 3, "--gap", 5) == 0
    grid, side = pixels(tmp_path / "grid.png"), 3 * SIDE
    assert grid.shape == (2 * side + 5, 2 * side + 5, 3)
    assert not grid[side : side + 5].any()
    assert not grid[:, side : side + 5].any()
    large = plain.repeat(3, 0).repeat(3, 1)
    for i in (0, 1):
        for j in (0, 1):
            cell = grid[i * (side + 5) :, j * (side + 5) :][:side, :side]
            assert_same(cell, large[i * side :, j * side :][:side, :side])
    assert run(checkpoint, tmp_path, "--seeds", "2", "--scale", 2, "--files") == 0
    file = pixels(tmp_path / "seed0002.png")
    assert_same(file, plain[SIDE:, :SIDE].repeat(2, 0).repeat(2, 1))


def test_labels_stand_above_the_images(checkpoint, plain, tmp_path):  # noqa: F811
    assert run(checkpoint, tmp_path, "--seeds", "0-3", "--labels") == 0
    grid = pixels(tmp_path / "grid.png")
    band = generate.LABEL
    assert grid.shape == (2 * (SIDE + band), 2 * SIDE, 3)
    assert_same(grid[band : band + SIDE], plain[:SIDE])
    assert_same(grid[2 * band + SIDE :], plain[SIDE:])
    names = [grid[:band, :SIDE], grid[:band, SIDE:], grid[band + SIDE :][:band, :SIDE]]
    assert all(name.max() > 128 for name in names)
    assert (names[0] != names[1]).any()
    assert (names[0] != names[2]).any()


def test_a_mixture_names_its_rows_and_columns_alone(checkpoint, tmp_path):  # noqa: F811
    assert run(checkpoint, tmp_path, "--seeds", "0", "--mix", "1,2", "--labels") == 0
    grid = pixels(tmp_path / "mix.png")
    bands = [grid[:14], grid[14 + SIDE :][:14]]
    named = [[band[:, k * SIDE :][:, :SIDE].any() for k in range(3)] for band in bands]
    assert named == [[False, True, True], [True, False, False]]


def test_a_strip_goes_from_the_mean_to_the_image(checkpoint, plain, tmp_path):  # noqa: F811
    assert run(checkpoint, tmp_path, "--seeds", "0,1", "--strip", "0,0.5,1") == 0
    strip = pixels(tmp_path / "psi.png")
    assert strip.shape == (2 * SIDE, 3 * SIDE, 3)
    assert_same(strip[:SIDE, :SIDE], strip[SIDE:, :SIDE])  # the mean, whatever the seed
    assert_same(strip[:SIDE, 2 * SIDE :], plain[:SIDE, :SIDE])
    assert_same(strip[SIDE:, 2 * SIDE :], plain[:SIDE, SIDE:])
    assert run(checkpoint, tmp_path, "--seeds", "0,1", "--psi", 0.5) == 0
    half = pixels(tmp_path / "grid.png")
    assert_same(strip[:SIDE, SIDE : 2 * SIDE], half[:, :SIDE])


def test_a_strip_may_begin_beyond_the_mean(checkpoint, tmp_path):  # noqa: F811
    assert run(checkpoint, tmp_path, "--seeds", "0", "--strip", "-1,1") == 0
    strip = pixels(tmp_path / "psi.png")
    assert run(checkpoint, tmp_path, "--seeds", "0", "--psi", -1) == 0
    assert_same(strip[:, :SIDE], pixels(tmp_path / "grid.png"))


def test_a_film(checkpoint, tmp_path):  # noqa: F811
    ffmpeg, probe = require("ffmpeg"), require("ffprobe")
    options = ("--seeds", "0,1", "--interpolate", 3, "--format", ".mp4", "--rate", 12.5)
    assert run(checkpoint, tmp_path, *options, "--scale", 4) == 0
    film = tmp_path / "interpolation.mp4"
    entries = "stream=width,height,nb_read_frames,r_frame_rate"
    command = [probe, "-v", "error", "-count_frames", "-show_entries", entries, "-of", "csv=p=0"]
    said = subprocess.run([*command, film], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{4 * SIDE},{4 * SIDE},25/2,6"
    assert [path.name for path in tmp_path.iterdir()] == ["interpolation.mp4"]
    frame = tmp_path / "frame.png"
    subprocess.run([ffmpeg, "-v", "error", "-i", film, "-vframes", "1", frame], check=True)
    assert run(checkpoint, tmp_path, "--seeds", "0", "--files", "--scale", 4) == 0
    difference = abs(pixels(frame) - pixels(tmp_path / "seed0000.png"))
    assert difference.mean() < 16  # a film keeps colours at half the resolution


@pytest.mark.parametrize("folder", ["2026-11-28T15:30", "-films"])
def test_a_film_in_a_folder_whose_name_means_something_to_ffmpeg(
    folder,
    checkpoint,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    require("ffmpeg")
    monkeypatch.chdir(tmp_path)
    options = ("--seeds", "0,1", "--interpolate", 1, "--format", ".mp4")
    assert (
        generate.main(["--checkpoint", str(checkpoint), f"--out={folder}", *map(str, options)]) == 0
    )
    assert (tmp_path / folder / "interpolation.mp4").read_bytes()[4:8] == b"ftyp"


def test_a_film_without_ffmpeg(checkpoint, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="2"):
        run(checkpoint, tmp_path, "--interpolate", 3, "--format", ".mp4")
    assert (
        "--format .mp4 needs the program ffmpeg, which is not on the PATH"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--scale", 0), "--scale must be between 1 and 64, got 0"),
        (("--gap", -1), "--gap must be between 0 and 256, got -1"),
        (("--strip", "0,x"), "it must be numbers from -1000 to 1000, such as 0,0.5,1, got '0,x'"),
        (("--batch", 0), "--batch must be >= 1, got 0"),
        (("--sale", 2), "unrecognized arguments: --sale 2"),
    ],
)
def test_usage_errors_are_one_line(checkpoint, tmp_path, capsys, options, sentence):  # noqa: F811
    with pytest.raises(SystemExit, match="2"):
        run(checkpoint, tmp_path, *options)
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert line.endswith("(--help lists the options)")


@pytest.mark.parametrize("command", [describe, equivariance, generate, sticking, train])
def test_every_command_says_a_usage_error_in_one_line(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--sale", "2"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python -m {command.__name__}: error: ")
    assert line.endswith("(--help lists the options)")


def test_a_picture_that_is_too_large(checkpoint, tmp_path, capsys):  # noqa: F811
    """What is bounded are the pixels that are held, of the picture and not of the images."""
    with pytest.raises(SystemExit, match="2"):
        run(checkpoint, tmp_path, "--seeds", "0-5000", "--scale", 64)
    assert "images of 1024 pixels a side" in capsys.readouterr().err


def test_a_name_that_is_too_long_is_cut_off():
    image = generate.torch.zeros(3, 4, 8, dtype=generate.torch.uint8)
    assert generate.label(image, "123456789").shape == (3, 4 + generate.LABEL, 8)
    assert np.asarray(generate.to_picture(image)).shape == (4, 8, 3)


@pytest.mark.parametrize(
    ("name", "reason"), [("gone.pt", "No such file or directory"), ("", "Is a directory")]
)
def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path, capsys, name, reason):
    path = str(tmp_path / name)
    with pytest.raises(SystemExit) as stopped:
        generate.main(["--checkpoint", path, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    said = f"--checkpoint must be a file that can be read, got {path!r}: {reason}"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
