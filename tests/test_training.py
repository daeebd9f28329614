# SPDX-License-Identifier: BSD-3-Clause
"""The training of the StyleGAN2 example: its steps, its files, and whole runs in small."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import signal
import stat
import subprocess
import sys
import warnings

import pytest
import torch
from PIL import Image

from examples.stylegan import data, evaluate, generate, losses, train
from examples.stylegan.order import Order
from examples.stylegan.processes import World
from examples.stylegan.run import Run
from examples.stylegan.settings import Settings, absolute
from examples.stylegan.training import Training, lazy_adam

from .images import make_folder
from .training import ROOT, TINY, assert_same, start

pytestmark = pytest.mark.usefixtures("one_thread")


def test_real_and_fake_in_one_pass_score_as_in_two():
    training = start(batch=8)
    real, fake = torch.randn(2, 8, 1, 8, 8)
    fake = fake * 5  # mixed groups would show
    for n in (8, 6):
        together = training.score_both(real[:n], fake[:n])
        apart = training.discriminator(real[:n]), training.discriminator(fake[:n])
        torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("mirror", [False, True])
def test_every_step_sees_its_own_images_mirrored_where_asked(mirror, monkeypatch):
    training = start(mirror=mirror, batch=60)
    seen = []
    monkeypatch.setattr(training, "discriminator_step", lambda real: seen.append(real[0]))
    monkeypatch.setattr(training, "r1_step", lambda real: None)
    images = data.to_pixels(data.load_digits(8).train)
    order = Order(1437, 60, seed=0)
    for step in range(3):
        training.step()
        expected = images[order.batch(step)]
        plain = (seen[step] == expected).all(3).all(2).all(1)
        mirrored = (seen[step] == expected.flip(3)).all(3).all(2).all(1)
        assert (plain | mirrored).all()
        assert 15 < plain.sum() < 45 if mirror else plain.all()


def test_lazy_adam_shares_rate_and_memory_among_its_steps():
    module = torch.nn.Linear(1, 1)
    group = lazy_adam(module, lr=0.1, weight=1.0, every=4).param_groups[0]
    assert group["lr"] == pytest.approx(0.08)
    assert group["betas"] == (0.0, pytest.approx(0.99**0.8))
    group = lazy_adam(module, lr=0.1, weight=0.0, every=4).param_groups[0]
    assert group["lr"] == 0.1
    assert group["betas"] == (0.0, 0.99)


def test_penalties_are_stepped_when_due_and_weigh_as_if_at_every_step(monkeypatch):
    training = start(r1_every=2, path_every=3, r1_gamma=5.0, path_weight=3.0)
    weights = []

    def gradients(player, rounds, count, weight=1.0):
        (loss,) = rounds
        weights.append((training.steps, player.name[0], weight * loss.item()))
        return {"loss": loss, "norm": torch.tensor(0.0)}

    monkeypatch.setattr(training, "gradients", gradients)
    monkeypatch.setattr(losses, "discriminator_loss", lambda real, fake: torch.tensor(-1.0))
    monkeypatch.setattr(losses, "generator_loss", lambda fake: torch.tensor(-2.0))
    monkeypatch.setattr(losses, "r1_penalty", lambda scores, images: torch.tensor(1.0))
    monkeypatch.setattr(losses, "path_length_penalty", lambda lengths, mean: torch.tensor(1.0))
    for _ in range(5):
        training.step()
    r1, path = 5.0 / 2 * 2, 3.0 * 3
    main = [("d", -1.0), ("g", -2.0)]
    assert weights == [
        *[(0, "d", -1.0), (0, "d", r1), (0, "g", -2.0), (0, "g", path)],
        *[(1, *m) for m in main],
        *[(2, "d", -1.0), (2, "d", r1), (2, "g", -2.0)],
        *[(3, "d", -1.0), (3, "g", -2.0), (3, "g", path)],
        *[(4, "d", -1.0), (4, "d", r1), (4, "g", -2.0)],
    ]
    assert training.counts == {"r1": 3, "path_length": 2}


def test_each_step_moves_its_own_network_only():
    training = start()
    before = {k: v.clone() for k, v in training.discriminator.state_dict().items()}
    training.generator_step()
    training.path_length_step()
    for name, value in training.discriminator.state_dict().items():
        assert torch.equal(value, before[name]), name
    before = {k: v.clone() for k, v in training.generator.state_dict().items()}
    real = torch.randn(4, 1, 8, 8)
    training.discriminator_step([real])
    training.r1_step([real])
    for name, value in training.generator.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_average_has_its_half_life():
    training = start(ema_images=20.0)
    training.steps = 10**6
    with torch.no_grad():
        for mean, new in zip(
            training.ema.parameters(), training.generator.parameters(), strict=True
        ):
            mean.fill_(1.0)
            new.fill_(0.0)
    for _ in range(5):  # 5 * 4 images
        training.average()
    for mean in training.ema.parameters():
        torch.testing.assert_close(mean, torch.full_like(mean, 0.5))


def test_average_follows_fast_at_first():
    training = start(ema_images=1e9)
    for steps, weight in ((0, 1.0), (1, 1 - 0.5**20), (10, 0.75), (100, 1 - 0.5**0.2)):
        training.steps = steps
        with torch.no_grad():
            for mean, new in zip(
                training.ema.parameters(), training.generator.parameters(), strict=True
            ):
                mean.fill_(1.0)
                new.fill_(0.0)
        training.average()
        for mean in training.ema.parameters():
            torch.testing.assert_close(mean, torch.full_like(mean, 1 - weight))


def test_mixing_happens_as_often_as_asked():
    training = start()
    for mixing, low, high in ((0.0, 0, 0), (1.0, 400, 400), (0.5, 150, 250)):
        training = start(mixing=mixing)
        (latents,) = training.draw(400)
        styles = training.styles(latents)
        assert styles.shape == (400, 4, 4)
        assert low <= int((styles[:, 0] != styles[:, -1]).any(1).sum()) <= high


def test_stopped_and_resumed_equals_straight_through_bit_for_bit(tmp_path, no_report):
    options = [*TINY, "--mirror", "--r1-every", "2", "--path-every", "3", "--log-every", "1"]
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    assert train.main(["--out", str(straight), *options, "--steps", "7"]) == 0
    assert train.main(["--out", str(resumed), *options, "--steps", "4"]) == 0
    with open(resumed / "metrics.jsonl", "a") as file:  # steps that no checkpoint remembers
        file.write(json.dumps({"step": 5, "d_loss": 1e9}) + "\n")
    torch.randn(11)  # a new process has other random numbers
    assert train.main(["--out", str(resumed), *options, "--steps", "7", "--resume"]) == 0
    a, b = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (straight, resumed))
    assert a["steps"] == 7
    assert a["counts"] == {"r1": 4, "path_length": 3}
    assert_same(a, b)
    a, b = (
        [line | {"seconds": 0} for line in Run(run).read_metrics()] for run in (straight, resumed)
    )
    assert a == b
    assert [line["step"] for line in a] == [1, 2, 3, 4, 5, 6, 7]
    assert (straight / "samples.png").read_bytes() == (resumed / "samples.png").read_bytes()


def test_a_checkpoint_is_whole_or_not_written(tmp_path, monkeypatch):
    training, run = start(), Run(tmp_path)
    run.save(training)
    before = run.checkpoint.read_bytes()

    def die_half_way(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    training.step()
    monkeypatch.setattr(torch, "save", die_half_way)
    with pytest.raises(KeyboardInterrupt):
        run.save(training)
    assert run.checkpoint.read_bytes() == before


def test_a_checkpoint_is_on_the_disk_before_it_replaces_the_old_one(tmp_path, monkeypatch):
    training, run = start(), Run(tmp_path)
    done = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("folder" if folder else f"file {os.fstat(descriptor).st_size > 0}")
        fsync(descriptor)

    def record_replace(*names):
        done.append("replace")
        replace(*names)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    run.save(training)
    assert done == ["file True", "replace", "folder"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch, capsys, no_report):
    out = ["--out", str(tmp_path), *TINY, "--save-every", "1"]
    step = Training.step

    def ruined(self):
        step(self)
        if self.steps == 2:
            with torch.no_grad():
                self.generator.conv1.conv.weight.fill_(math.inf)

    monkeypatch.setattr(Training, "step", ruined)
    assert train.main([*out, "--steps", "9"]) == 1
    assert "the generator's weights must stay finite, got nan in step 2" in capsys.readouterr().err
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["steps"] == 1


def test_interrupt_finishes_the_step_and_can_be_resumed(tmp_path, monkeypatch, capsys):
    step = Training.step

    def interrupted(self):
        if self.steps == 1:
            signal.raise_signal(signal.SIGINT)
        step(self)

    monkeypatch.setattr(Training, "step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert train.main(["--out", str(tmp_path / "run"), *TINY, "--steps", "9"]) == 130
    assert "stopped after 2 steps; go on with --resume" in capsys.readouterr().err
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["steps"] == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_in_the_evaluation_gives_no_half_learned_verdict(tmp_path, monkeypatch, capsys):
    from sklearn.neural_network import MLPClassifier

    def fit(*args):
        warnings.warn("Training interrupted by user.", stacklevel=2)

    monkeypatch.setattr(MLPClassifier, "fit", fit)
    assert train.main(["--out", str(tmp_path), *TINY, "--steps", "1"]) == 130
    assert "stopped before the evaluation's end; --resume repeats it" in capsys.readouterr().err
    assert not (tmp_path / "evaluation.json").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    tmp_path, monkeypatch, capsys, no_report
):
    out = ["--out", str(tmp_path), *TINY]
    assert train.main([*out, "--steps", "1"]) == 0
    before = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(losses, "generator_loss", lambda fake: fake.mean() * math.nan)
    assert train.main([*out, "--steps", "3", "--resume"]) == 1
    error = capsys.readouterr().err
    assert "the generator's loss must stay finite, got nan in step 1; what came before" in error
    assert f"{tmp_path / 'checkpoint.pt'} is as it was" in error
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    state = torch.load(tmp_path / "diverged.pt", weights_only=True)
    assert state["steps"] == 1
    assert all(value.isfinite().all() for value in state["g"].values())


def test_two_steps_from_the_command_line(tmp_path, capsys):
    out = tmp_path / "run"
    assert train.main(["--out", str(out), *TINY, "--steps", "2"]) == 0
    printed, progress = capsys.readouterr()
    assert printed.startswith("1,437 images of digits to learn from, 360 held out; 8 pixels")
    for name in ("d_loss", "g_loss", "r1", "path_length"):
        assert re.search(rf"\b{name}=-?\d+\.\d\d\b", progress), name
    for row in ("Fréchet distance", "p >= 0.9", "classified as 9", "nearest training image"):
        assert row in printed
    assert "2 steps, 8 images; R1 stepped 1 times, path length stepped 1 times" in printed
    assert "right on 9" in printed
    report = json.loads((out / "evaluation.json").read_text())
    assert len(report["class_share"]["samples"]) == 10
    report["training"] |= {"r1_steps": 0, "path_length_steps": 0}  # as of a run without penalties
    assert "training: 2 steps, 8 images\n" in evaluate.format_report(report)
    lines = Run(out).read_metrics()
    assert [line["step"] for line in lines] == [2]
    assert lines[0]["images"] == 8
    assert {"d_loss", "g_loss", "r1", "path_length"} <= lines[0].keys()
    for name in ("samples.png", "samples/000002.png", "losses.png"):
        with Image.open(out / name) as image:
            assert min(image.size) > 64
            assert image.convert("L").getextrema()[0] < image.convert("L").getextrema()[1]

    # Again into the same folder: only where asked for
    with pytest.raises(SystemExit):
        train.main(["--out", str(out), *TINY, "--steps", "2"])
    error = capsys.readouterr().err
    assert f"must not hold a run or files of the same names, got {out / 'checkpoint.pt'}" in error
    assert "--resume" in error
    with pytest.raises(SystemExit):
        train.main(["--out", str(out), *TINY, "--resume", "--style-dim", "5", "--lr", "0.5"])
    error = capsys.readouterr().err
    assert "--resume needs networks like those of the earlier run, got style_dim=5 for 4" in error


def test_a_resumed_run_keeps_its_settings_but_for_those_said(tmp_path, capsys, no_report):
    out = ["--out", str(tmp_path), "--device", "cpu"]
    assert train.main([*out, *TINY, "--steps", "1", "--lr", "0.003"]) == 0
    capsys.readouterr()
    assert train.main([*out, "--resume"]) == 0
    assert "going on with" not in capsys.readouterr().out
    assert train.main([*out, "--resume", "--steps", "3", "--r1-gamma", "5", "--mirror"]) == 0
    said = "going on with steps=3 for 1, r1_gamma=5.0 for 1.0, mirror=True for False"
    assert said in capsys.readouterr().out
    settings = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["settings"]
    assert (settings["lr"], settings["r1_gamma"], settings["style_dim"]) == (0.003, 5.0, 4)


def test_a_lower_learning_rate_reaches_a_resumed_optimiser():
    training = start(lr=0.1)
    training.step()
    resumed = start(lr=0.01)
    resumed.load_state_dict(copy.deepcopy(training.state_dict()))
    for player, every in ((resumed.d, 16), (resumed.g, 4)):
        rate = player.optimizer.param_groups[0]["lr"]
        assert rate == pytest.approx(0.01 * every / (every + 1))


def test_overwriting_leaves_nothing_of_the_earlier_run(tmp_path, monkeypatch, no_report):
    out = ["--out", str(tmp_path), *TINY, "--log-every", "1"]
    assert train.main([*out, "--steps", "4"]) == 0
    (tmp_path / "diverged.pt").write_bytes(b"old")

    class Kill(BaseException):
        pass

    step = Training.step

    def killed(self):
        if self.steps == 2:
            raise Kill
        step(self)

    monkeypatch.setattr(Training, "step", killed)
    with pytest.raises(Kill):
        train.main([*out, "--overwrite", "--steps", "4"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl"]
    assert [line["step"] for line in Run(tmp_path).read_metrics()] == [1, 2]


@pytest.mark.parametrize(
    "name",
    [
        *("losses.png", "checkpoint.pt.tmp", "losses.png.0123456789abcdef.tmp"),
        *("samples/mine.png", "tensorboard/mine"),
    ],
)
def test_a_new_run_deletes_no_file_of_others_unless_told_to(name, tmp_path, capsys, no_report):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    options = ["--out", str(tmp_path), *TINY, "--steps", "1"]
    with pytest.raises(SystemExit) as stop:
        train.main(options)
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    named = tmp_path / name.split("/")[0]
    assert f"--out must not hold a run or files of the same names, got {named}: add --ov" in error
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]
    assert train.main([*options, "--overwrite"]) == 0
    assert not path.exists() or path.read_bytes() != b"mine"


def test_a_run_and_its_images_lie_apart(tmp_path, capsys):
    images = make_folder(tmp_path / "images", 9)
    run, link = tmp_path / "run", tmp_path / "link"
    link.symlink_to(images)
    make_folder(tmp_path / "run" / "samples", 9)
    before = sorted(tmp_path.rglob("*"))
    for folder, data_folder, sentence in [
        (images, images, "--out must not lie in the folder of images, which would then hold ge"),
        (images / "run", images, "--out must not lie in the folder of images"),
        (images / "a" / "run", link, "--out must not lie in the folder of images"),
        (link / "run", images, "--out must not lie in the folder of images"),
        (run, run / "samples", "--data must not lie where the run writes, got --out"),
    ]:
        options = ["--out", str(folder), "--data", str(data_folder), *TINY, "--steps", "1"]
        with pytest.raises(SystemExit) as stop:
            train.main([*options, "--overwrite"])
        assert stop.value.code == 2
        assert sentence in capsys.readouterr().err.splitlines()[-1]
        assert sorted(tmp_path.rglob("*")) == before


def test_other_images_are_taken_on_a_resume_only_where_asked_for(tmp_path, capsys, no_report):
    folder = make_folder(tmp_path / "images", 9)
    options = ["--out", str(tmp_path / "run"), "--device", "cpu"]
    data_option = ["--data", str(folder)]
    assert train.main([*options, *TINY, *data_option, "--steps", "1"]) == 0
    folder = folder.rename(tmp_path / "moved")
    assert train.main([*options, "--resume", "--data", str(folder), "--steps", "2"]) == 0
    (folder / "0.JPG").unlink()
    with pytest.raises(SystemExit):
        train.main([*options, "--resume", "--steps", "3"])
    sentence = "--resume needs the images of the earlier run, got 8 files, "
    assert sentence in capsys.readouterr().err
    assert train.main([*options, "--resume", "--data", str(folder), "--steps", "3"]) == 0


def test_two_steps_on_a_folder(tmp_path, capsys):
    folder = make_folder(tmp_path / "images")
    options = ["--out", str(tmp_path / "run"), "--data", str(folder), *TINY, "--steps", "2"]
    assert train.main(options) == 0
    printed = capsys.readouterr().out
    assert "3 channel(s)" in printed
    assert "Fréchet distance" in printed
    assert "classifier: left out, since these images have no classes" in printed
    assert "classified" not in printed
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["classifier"] is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--resolution", "12"], "resolution must be a power of two >= 8, got 12"),
        (["--batch", "0"], "batch must be >= 1, got 0"),
        (["--mixing", "1.5"], "mixing must be between 0 and 1, got 1.5"),
        (["--r1-gamma", "nan"], "r1_gamma must be finite and >= 0, got nan"),
        (["--lr", "0"], "lr must be finite and > 0, got 0.0"),
        (["--lr", "inf"], "lr must be finite and > 0, got inf"),
        (["--ema-images", "inf"], "ema_images must be finite and >= 0, got inf"),
        (["--steps", "0"], "steps must be >= 1, got 0"),
        (["--steps", str(10**30)], f"steps must be < 9,007,199,254,740,992, got {10**30}"),
        (["--batch", str(10**12)], f"batch must be <= 1,048,576, got {10**12}"),
        (["--mapping-layers", str(10**9)], f"mapping_layers must be <= 1,000, got {10**9}"),
        (["--samples", str(10**9)], f"--samples must be <= 1,000,000, got {10**9}"),
        (["--threads", str(10**30)], f"--threads must be <= 1,024, got {10**30}"),
        (["--workers", str(10**9)], f"--workers must be <= 1,024, got {10**9}"),
        (["--clamp", "1e308"], "clamp must be between 0 and 3.4028234663852886e+38, got 1e+308"),
        (["--augment-images", "1e-308"], "augment_images must be finite and >= 1, got 1e-308"),
        (["--channel-multiplier", "inf"], "error: channel_multiplier must be finite, got inf"),
        (["--channel-multiplier", "nan"], "error: channel_multiplier must be finite, got nan"),
        (["--style-dim", str(2**50)], "out of memory before the first step: "),
        (["--channel-multiplier", "1e-9"], "channel_max must leave a channel at every resolution"),
        (["--cuda-graphs"], "error: cuda_graphs needs a device of type cuda, got cpu"),
        (["--device", "abacus"], "device must be one that torch finds here, got 'abacus'"),
        (["--resume"], "--resume needs the checkpoint of an earlier run, got none at"),
    ],
)
def test_bad_options_get_one_sentence(options, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--out", str(tmp_path / "run"), *TINY, *options])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_a_multiplier_beyond_any_number_leaves_the_maximum():
    assert Settings(channel_multiplier=1e308).channels() == {4: 64, 8: 64, 16: 64, 32: 64}


def test_the_number_of_steps_is_a_setting_that_a_resume_keeps(tmp_path, monkeypatch, capsys):
    """A run of 3 steps, stopped after 2, ends after 3, or after what the resume says."""
    monkeypatch.setattr(train, "report", lambda *args: None)
    out = ["--out", str(tmp_path), "--device", "cpu"]
    step = Training.step

    def interrupted(self):
        if self.steps == 1:
            signal.raise_signal(signal.SIGINT)
        step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "step", interrupted)
        assert train.main([*out, *TINY, "--steps", "3"]) == 130
    for options, steps in (([], 3), (["--steps", "4"], 4)):
        assert train.main([*out, "--resume", *options]) == 0
        state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert (state["steps"], state["settings"]["steps"]) == (steps, steps)
    assert "steps are done" not in capsys.readouterr().out
    assert train.main([*out, "--resume", "--steps", "2"]) == 0
    assert "4 of 2 steps are done: a higher --steps would go on" in capsys.readouterr().out


def test_checkpoints_of_versions_with_fewer_or_more_settings(tmp_path, capsys, no_report):
    out = ["--out", str(tmp_path), "--device", "cpu"]
    assert train.main([*out, *TINY, "--steps", "1"]) == 0
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["settings"]["steps"]
    torch.save(state, tmp_path / "checkpoint.pt")
    assert train.main([*out, "--resume", "--steps", "2"]) == 0
    assert "going on with steps=2 for 2500" in capsys.readouterr().out
    state["settings"]["sharpness"] = 3
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(SystemExit):
        train.main([*out, "--resume"])
    said = f"cannot go on with {tmp_path / 'checkpoint.pt'}: a checkpoint must have no settings but"
    assert f"{said} those of this version, got sharpness" in capsys.readouterr().err


def test_a_run_goes_on_from_another_folder_and_after_its_own_moved(
    tmp_path, monkeypatch, capsys, no_report
):
    """Paths of the images, said from one working folder, hold in another."""
    make_folder(tmp_path / "here" / "images", 9)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    options = ["--data", "images", *TINY, "--steps", "1"]
    assert train.main(["--out", "run", *options]) == 0
    (tmp_path / "here" / "run").rename(tmp_path / "there" / "moved")
    monkeypatch.chdir(tmp_path / "there")
    more = ["--out", "moved", "--device", "cpu", "--resume"]
    assert train.main([*more, "--steps", "2"]) == 0
    state = torch.load(tmp_path / "there" / "moved" / "checkpoint.pt", weights_only=True)
    assert (state["steps"], state["settings"]["data"]) == (2, str(tmp_path / "here" / "images"))

    # Images that moved: the error says where their place was read
    (tmp_path / "here" / "images").rename(tmp_path / "there" / "pictures")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train.main([*more, "--steps", "3"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"must exist, got '{tmp_path / 'here' / 'images'}'; that is the --data of the" in error
    assert "checkpoint moved/checkpoint.pt: say --data to name another place" in error
    with pytest.raises(SystemExit):
        train.main([*more, "--data", "nowhere"])
    assert "that is the --data of" not in capsys.readouterr().err
    assert train.main([*more, "--steps", "3", "--data", "pictures"]) == 0

    # Earlier versions stored the path as it was said
    state["settings"]["data"] = "pictures"
    torch.save(state, tmp_path / "there" / "moved" / "checkpoint.pt")
    assert train.main([*more, "--steps", "3"]) == 0
    state = torch.load(tmp_path / "there" / "moved" / "checkpoint.pt", weights_only=True)
    assert state["settings"]["data"] == str(tmp_path / "there" / "pictures")


def test_names_of_bundled_images_are_no_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "photographs", ""):
        assert absolute(name) == name
    assert absolute("a/../b") == str(tmp_path / "b")


def test_without_mapping_layers_all_penalties_step_and_pictures_come(tmp_path, no_report):
    options = [*TINY, "--mapping-layers", "0", "--path-every", "1", "--steps", "2"]
    assert train.main(["--out", str(tmp_path), *options]) == 0
    lines = Run(tmp_path).read_metrics()
    assert lines[-1]["path_length"] > 0
    assert lines[-1]["path_penalty"] > 0
    path = str(tmp_path / "checkpoint.pt")
    assert generate.main(["--checkpoint", path, "--out", str(tmp_path / "pictures")]) == 0
    training = start(mapping_layers=0, path_weight=1.0)
    before = training.generator.conv1.conv.weight.clone()
    training.path_length_step()
    assert not torch.equal(training.generator.conv1.conv.weight, before)


@pytest.mark.parametrize("batch", [1, 5, 7])
def test_groups_of_one_image_are_told_once(batch):
    said = f"a round of {batch} images has groups of one image, whose minibatch standard deviation"
    with pytest.warns(UserWarning, match=said) as told:
        start(batch=batch).step()
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start(batch=6)  # groups of three
        start({"world": World(1, 2)}, batch=2 * batch)  # the other process tells


@pytest.mark.parametrize("name", ["train", "generate", "equivariance", "sticking", "describe"])
def test_a_command_that_is_run_as_a_file_says_how_it_is_run(name, tmp_path):
    file = ROOT / "examples" / "stylegan" / f"{name}.py"
    command = [sys.executable, str(file), "--help"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 1
    said = f"{name}.py must be run as a module, from the root of the clone: python -m examples.styl"
    assert ran.stderr.startswith(said)
    assert len(ran.stderr.splitlines()) == 1


def test_photographs_are_crops_and_their_held_out_part_was_never_seen():
    images = data.load("photographs", 64)
    assert images.train.shape == (4000, 3, 64, 64)
    assert images.held_out.shape == (500, 3, 64, 64)
    assert len(images.train.flatten(1).unique(dim=0)) > 3990
    train_pixels, held_out = (data.to_pixels(x).flatten(1) for x in (images.train, images.held_out))
    assert torch.cdist(held_out[:100], train_pixels).min() > 1
    again = data.load("photographs", 64)
    assert torch.equal(again.train, images.train)
