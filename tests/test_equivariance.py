# SPDX-License-Identifier: BSD-3-Clause
"""Equivariance in decibels, against what NVIDIA's ``metrics/equivariance.py`` computes.

``scripts/equivariance_fixtures.py`` records that; it imports the cases below.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from examples.stylegan import equivariance, sticking, transforms
from examples.stylegan.generate import Sampler
from examples.stylegan.generator import Generator

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = Path(__file__).parent / "fixtures" / "equivariance.npz"
SIDE = 24
SHIFTS = {  # in widths; 24 * 0.0625 is 1.5, which is rounded to 2, and 24 * 0.1041666 is near 2.5
    "small": (0.0625, -0.11),
    "half": (-0.0625, 2.5 / 24),
    "none": (0.0, 0.0),
    "far": (0.9, -1.5),
}
ANGLES = {"small": 0.3, "quarter": math.pi / 2, "large": -2.7, "none": 0.0}
SEED, IMAGES, BATCH = 5, 6, 3  # of the decibels


def example() -> Tensor:
    return torch.from_numpy(np.random.RandomState(0).standard_normal((1, 2, SIDE, SIDE))).float()


class Waves(nn.Module):
    """A generator that is all but equivariant: waves bent by a leaky ReLU, and noise that stays."""

    resolution, style_dim, num_styles = 32, 6, 1

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Module()
        self.input.register_buffer("transform", torch.eye(3))
        rng = np.random.RandomState(1)
        self.frequencies = torch.from_numpy(rng.uniform(-9, 9, (self.style_dim, 2))).float()

    def fixed_noise(self) -> list[Tensor]:
        return [torch.zeros(1, 1, self.resolution, self.resolution)]

    def mapping(self, z: Tensor) -> Tensor:
        return z.tanh()

    def repeat(self, w: Tensor) -> Tensor:
        return w[:, None]

    def synthesis(self, styles: Tensor, noise: list[Tensor]) -> Tensor:
        at = (torch.arange(self.resolution) + 0.5) / self.resolution - 0.5
        x, y = torch.meshgrid(at, at, indexing="xy")
        place = torch.stack((x, y, torch.ones_like(x)), 2) @ self.input.transform.T  # [H, W, 3]
        phases = 2 * math.pi * (place[..., :2] @ self.frequencies.T)  # [H, W, style_dim]
        waves = torch.sin(phases + 3 * styles[:, :, None])  # [N, H, W, style_dim]
        image = nn.functional.leaky_relu(waves.sum(3)[:, None] / 2, 0.2)
        return torch.cat((image, image.square() / 2), 1) + noise[0] / 50


@pytest.fixture(scope="module")
def recorded():
    with np.load(FILE) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def assert_like(found, recorded, name, flipped=0):
    torch.testing.assert_close(
        found.images, recorded[f"{name} images"], rtol=0, atol=2e-5, msg=lambda m: f"{name}: {m}"
    )
    differ = (found.mask.expand_as(found.images) != recorded[f"{name} mask"]).sum()
    assert differ <= flipped * found.images.shape[1], name
    assert set(found.mask.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("name", SHIFTS)
def test_translations_are_the_originals(name, recorded):
    shift = SHIFTS[name]
    found = equivariance.translate_by_pixels(example(), *shift)
    assert_like(found, recorded, f"integer {name}")
    assert_like(equivariance.translate(example(), *shift), recorded, f"fractional {name}")


@pytest.mark.parametrize("name", ANGLES)
def test_rotations_are_the_originals(name, recorded):
    """The mask may differ where the nearest sample is a tie: in a corner's pixel or two."""
    found = equivariance.rotate(example(), ANGLES[name])
    assert_like(found, recorded, f"rotation {name}", flipped=2)
    assert found.mask.sum() > 100
    assert_like(equivariance.blur_as_rotated(example(), ANGLES[name]), recorded, f"pseudo {name}")


def test_decibels_are_the_originals(recorded):
    found = equivariance.measure(Waves(), IMAGES, SEED, BATCH)
    assert list(found) == ["EQ-T", "EQ-T_frac", "EQ-R"]
    expected = recorded["decibels"].tolist()
    assert 15 < min(expected) < max(expected) < 45  # neither nothing nor rounding errors
    assert list(found.values()) == pytest.approx(expected, abs=0.01)


def test_a_direction_is_what_a_viewer_sees():
    generator = Waves()
    styles, silence = torch.zeros(1, 1, 6), generator.fixed_noise()

    def drawn(movement):
        with transforms.moved(generator, movement):
            return generator.synthesis(styles, silence)[0, 0]

    still = drawn(torch.eye(3))
    right_and_down = drawn(transforms.translation(4 / 32, 8 / 32))
    torch.testing.assert_close(right_and_down[8:, 4:], still[:-8, :-4], rtol=0, atol=1e-4)
    turned = drawn(transforms.rotation(math.pi / 2))
    torch.testing.assert_close(turned, still.rot90(), rtol=0, atol=1e-4)  # counter-clockwise
    assert (turned - still.rot90(-1)).abs().max() > 0.1
    images = equivariance.rotate(still[None, None], math.pi / 2)
    inside = images.mask == 1
    difference = (images.images - still.rot90())[0, 0][inside].abs().mean()
    assert difference < 0.2 * (still - still.rot90())[inside].abs().mean()
    assert torch.equal(generator.input.transform, torch.eye(3))


def test_a_movement_comes_after_the_transform_that_is_there():
    generator = Generator(16, 8, 1, channels={4: 4, 8: 4, 16: 4}, input="fourier")
    transform = generator.input.transform
    transform.copy_(torch.linalg.inv(transforms.translation(0.25, 0)))
    for movement, x in ((torch.eye(3), 0.25), (transforms.translation(0.5, 0), 0.75)):
        with transforms.moved(generator, movement):
            expected = torch.linalg.inv(transforms.translation(x, 0))
            torch.testing.assert_close(transform.double(), expected)


def test_the_transform_is_put_back_after_a_failure():
    generator = Waves()

    def fail():
        with transforms.moved(generator, transforms.translation(1, 2)):
            assert generator.input.transform[:2, 2].tolist() == [-1, -2]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(generator.input.transform, torch.eye(3))


def test_an_exact_generator_has_no_noise_in_decibels():
    class Flat(Waves):
        def synthesis(self, styles, noise):
            return torch.ones(len(styles), 3, 32, 32)

    found = equivariance.measure(Flat(), 2)
    assert found["EQ-T"] == math.inf
    assert found["EQ-T_frac"] > 100
    assert found["EQ-R"] > 40  # the filter takes a little off, where ones end at the edges


def test_what_cannot_be_measured_is_said():
    generator = Generator(16, 8, 1, channels={4: 4, 8: 4, 16: 4})
    with pytest.raises(ValueError, match=r"generator must have a Fourier input, which can be mov"):
        equivariance.measure(generator, 4)
    with pytest.raises(ValueError, match="images must be >= 1, got 0"):
        equivariance.measure(Waves(), 0)
    with pytest.raises(ValueError, match="batch must be >= 1, got -1"):
        equivariance.measure(Waves(), 4, batch=-1)

    class Small(Waves):
        resolution = 8

    with pytest.raises(ValueError, match=r"resolution must be 16 or more, so .* got 8"):
        equivariance.measure(Small(), 1)

    class Broken(Waves):
        def synthesis(self, styles, noise):
            return super().synthesis(styles, noise) * math.nan

    with pytest.raises(FloatingPointError, match="every pixel must be finite"):
        equivariance.measure(Broken(), 1)


def checkpoint(path: Path, **options) -> tuple[Path, Generator]:
    """A file, of our own training's kind, of a small StyleGAN2."""
    torch.manual_seed(0)
    generator = Generator(16, 8, 1, 1, channels={4: 4, 8: 4, 16: 4}, **options)
    settings = {"mapping_lr": 0.01, "resolution": 16}
    torch.save({"g_ema": generator.state_dict(), "settings": settings}, path)
    return path, generator


def test_the_command_prints_a_line_for_each_figure(tmp_path, capsys):
    path, generator = checkpoint(tmp_path / "g.pt", input="fourier")
    command = ["--checkpoint", str(path), "--images", "6", "--seed", "2", "--device", "cpu"]
    assert equivariance.main(command) == 0
    found = equivariance.measure(generator.eval(), 6, 2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["EQ-T", "EQ-T_frac", "EQ-R"]
    assert [line.split()[1] for line in lines] == [f"{value:.2f}" for value in found.values()]
    assert all(0 < value < 60 for value in found.values())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "error: generator must have a Fourier input, which can be moved and turned, as Style"),
        (
            ("--checkpoint", "none.pt"),
            "error: --checkpoint must be a file that can be read, got 'none",
        ),
        (("--images", "0"), "error: --images must be >= 1, got 0"),
        (("--batch", "-2"), "error: --batch must be >= 1, got -2"),
        (("--seed", "-1"), "error: --seed must be between 0 and 2**63 - 1, got -1"),
    ],
)
def test_the_command_says_in_a_sentence_what_it_cannot_do(options, sentence, tmp_path, capsys):
    path, _ = checkpoint(tmp_path / "g.pt")
    with pytest.raises(SystemExit) as stop:
        equivariance.main(["--checkpoint", str(path), "--device", "cpu", *options])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_strip_shows_what_differs_from_the_first_image_moved(tmp_path):
    _, generator = checkpoint(tmp_path / "g.pt", input="fourier")
    cells = sticking.strip(Sampler(generator.eval()), [3, 4])
    images, differences = (
        torch.stack(part).unflatten(0, (2, sticking.SHIFTS)) for part in (cells[:10], cells[10:])
    )
    assert images.shape == (2, sticking.SHIFTS, 1, 16, 16)
    assert not differences[:, 0].any()  # black
    for pixels in range(1, sticking.SHIFTS):
        a, b = images[:, pixels, :, :, pixels:].int(), images[:, 0, :, :, :-pixels].int()
        shown = differences[:, pixels, :, :, pixels:].int()
        inside = (a > 0) & (a < 255) & (b > 0) & (b < 255)  # bytes that were not clamped
        assert ((shown - (a - b).abs()).abs() * inside).max() <= 2
        assert shown.max() > 8
        assert not differences[:, pixels, :, :, :pixels].any()


def test_a_training_that_fails_is_told(tmp_path, capsys):
    for config in sticking.CONFIGS:
        (tmp_path / config).write_text("not a folder")
    assert sticking.main(["--out", str(tmp_path), "--steps", "1"]) == 1
    said = capsys.readouterr().err
    assert "sticking: error: the training of digits-" in said
    assert "failed: python -m examples.stylegan.train: error:" in said
    assert not (tmp_path / "strip.png").exists()


def test_a_training_deletes_no_file_unless_told_to(tmp_path, capsys):
    """Neither those of an earlier run, nor those of others."""
    folder = tmp_path / sticking.CONFIGS[0]
    (folder / "samples").mkdir(parents=True)
    for name in ("samples/mine.txt", "metrics.jsonl", "diverged.pt"):
        (folder / name).write_text("mine")
    assert sticking.main(["--out", str(tmp_path), "--steps", "1"]) == 1
    said = "error: --out must not hold a run or files of the same names, got "
    assert f"{said}{folder / 'diverged.pt'}: add --overwrite to delete" in capsys.readouterr().err
    assert [path.read_text() for path in folder.rglob("*") if path.is_file()] == ["mine"] * 3


def test_a_training_goes_on_or_starts_anew_as_told(tmp_path, monkeypatch):
    start, commands = subprocess.Popen, []

    def popen(command, **options):
        commands.append(command)
        return start([sys.executable, "-c", ""], **options)

    monkeypatch.setattr(sticking.subprocess, "Popen", popen)
    first = tmp_path / sticking.CONFIGS[0]
    first.mkdir()
    (first / "checkpoint.pt").write_text("an earlier run's")
    sticking.train(tmp_path, 1)
    sticking.train(tmp_path, 1, overwrite=True)
    added = [set(command) & {"--resume", "--overwrite"} for command in commands]
    assert added == [{"--resume"}, set(), {"--overwrite"}, {"--overwrite"}]


def test_a_place_that_takes_no_files_is_told(tmp_path, capsys):
    (tmp_path / "taken").write_text("not a folder")
    with pytest.raises(SystemExit):
        sticking.main(["--out", str(tmp_path / "taken")])
    said = f"error: --out must be a folder that can be written to, got '{tmp_path / 'taken'}': "
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("who", ["the command", "a training"])
def test_sigterm_stops_all(who, tmp_path, monkeypatch, capsys):
    start, processes = subprocess.Popen, []

    def popen(_, **options):
        ends = who == "a training" and not processes
        program = "raise SystemExit(130)" if ends else "import time; time.sleep(99)"
        processes.append(start([sys.executable, "-c", program], **options))
        return processes[-1]

    monkeypatch.setattr(sticking.subprocess, "Popen", popen)
    if who == "the command":
        monkeypatch.setattr(sticking, "wait", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert sticking.main(["--out", str(tmp_path)]) == sticking.STOPPED
    first = sticking.STOPPED if who == "a training" else -signal.SIGTERM
    assert [process.returncode for process in processes] == [first, -signal.SIGTERM]
    assert "stopped; the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before

    # A run that has begun, and has saved nothing yet
    processes.clear()
    run = tmp_path / sticking.CONFIGS[1]
    run.mkdir()
    (run / "metrics.jsonl").touch()
    assert sticking.main(["--out", str(tmp_path)]) == sticking.STOPPED
    said = "stopped before the first checkpoint; --overwrite starts anew"
    assert said in capsys.readouterr().err


def test_a_training_that_is_killed_without_a_word_is_told(tmp_path, monkeypatch):
    for config in sticking.CONFIGS:
        (tmp_path / f"{config}.log").write_text("words of an earlier call\n")
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    start = subprocess.Popen

    def popen(_, **options):
        return start([sys.executable, "-c", killed], **options)

    monkeypatch.setattr(sticking.subprocess, "Popen", popen)
    with pytest.raises(sticking.TrainingFailedError, match="failed: it ended with status -9"):
        sticking.train(tmp_path, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_training_starts_stops_it(number, tmp_path, monkeypatch, capsys):
    """It comes when the process exists already, and is not known yet."""
    start, processes = subprocess.Popen, []

    def popen(_, **options):
        command = [sys.executable, "-c", "import time; time.sleep(99)"]
        processes.append(start(command, **options))
        signal.raise_signal(number)
        return processes[-1]

    monkeypatch.setattr(sticking.subprocess, "Popen", popen)
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert sticking.main(["--out", str(tmp_path)]) == sticking.STOPPED
        assert [process.returncode for process in processes] == [-signal.SIGTERM]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert "stopped; the same command goes on" in capsys.readouterr().err
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_is_ignored_stays_so(tmp_path, monkeypatch):
    """In the trainings too, as ``nohup`` or ``&`` in a script has it."""
    start = subprocess.Popen
    ends = "import signal; raise SystemExit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    monkeypatch.setattr(
        sticking.subprocess,
        "Popen",
        lambda _, **options: start([sys.executable, "-c", ends], **options),
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(sticking.TrainingFailedError, match="failed: it ended with status 1"):
            sticking.train(tmp_path, 1)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_command_in_another_thread(tmp_path, monkeypatch, capsys):
    """Where Python sets no handlers of signals."""
    start = subprocess.Popen
    monkeypatch.setattr(
        sticking.subprocess,
        "Popen",
        lambda _, **options: start([sys.executable, "-c", "raise SystemExit(3)"], **options),
    )
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(sticking.main, ["--out", str(tmp_path)]).result() == 1
    assert "failed: it ended with status 3" in capsys.readouterr().err
