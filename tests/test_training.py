# SPDX-License-Identifier: BSD-3-Clause
"""The training of the StyleGAN2 example: its steps, its files, and whole runs in small."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import re
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from examples.stylegan2 import augment, data, evaluate, losses, train
from examples.stylegan2.discriminator import Discriminator
from examples.stylegan2.generator import Generator
from examples.stylegan2.processes import World
from examples.stylegan2.run import Run
from examples.stylegan2.settings import CONFIGS, Settings, load_config
from examples.stylegan2.training import DivergedError, Training, lazy_adam

from .images import make_folder

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
TINY = [
    *("--resolution", "8", "--channel-max", "4", "--style-dim", "4", "--mapping-layers", "1"),
    *("--batch", "4", "--path-batch", "2", "--samples", "20", "--device", "cpu"),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread, and for long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_report(monkeypatch):
    """For runs whose evaluation does not matter: it takes longer than they."""
    monkeypatch.setattr(train, "report", lambda *args: None)


# Training


def start(how=None, device="cpu", **options):
    how = how or {}
    settings = Settings(
        **{
            **{"resolution": 8, "channel_max": 4, "style_dim": 4, "mapping_layers": 1},
            **{"batch": 4, "path_batch": 2},
            **options,
        }
    )
    return Training(settings, data.load_digits(settings.resolution), torch.device(device), **how)


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
    order = data.Order(1437, 60, seed=0)
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

    def minimise(player, rounds, count, weight=1.0, name="loss"):
        (loss,) = rounds
        weights.append((training.steps, player.name[0], weight * loss.item()))
        return loss

    monkeypatch.setattr(training, "minimise", minimise)
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
    training.discriminator.requires_grad_(False)
    training.generator_step()
    training.discriminator.requires_grad_(True)
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


def assert_same(a, b, path="state"):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


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
    printed = capsys.readouterr().out
    assert printed.startswith("1,437 images of digits to learn from, 360 held out; 8 pixels")
    for row in ("Fréchet distance", "p >= 0.9", "classified as 9", "nearest training image"):
        assert row in printed
    assert "2 steps, 8 images; R1 stepped 1 times, path length 1 times" in printed
    assert "right on 9" in printed
    report = json.loads((out / "evaluation.json").read_text())
    assert len(report["class_share"]["samples"]) == 10
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
    assert "--out must not hold a run, got" in error
    assert "--resume" in error
    with pytest.raises(SystemExit):
        train.main(["--out", str(out), *TINY, "--resume", "--style-dim", "5", "--lr", "0.5"])
    error = capsys.readouterr().err
    assert "--resume needs networks like those of the earlier run, got style_dim=5 for 4" in error


def test_a_resumed_run_keeps_its_settings_but_for_those_said(tmp_path, capsys, no_report):
    out = ["--out", str(tmp_path), "--device", "cpu"]
    assert train.main([*out, *TINY, "--steps", "1", "--lr", "0.003"]) == 0
    capsys.readouterr()
    assert train.main([*out, "--resume", "--steps", "2"]) == 0
    assert "going on with" not in capsys.readouterr().out
    assert train.main([*out, "--resume", "--steps", "3", "--r1-gamma", "5", "--mirror"]) == 0
    assert "going on with r1_gamma=5.0 for 1.0, mirror=True for False" in capsys.readouterr().out
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
    assert "classifier: left out, since the images of a folder have no classes" in printed
    assert "classified" not in printed
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["classifier"] is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--resolution", "12"], "resolution must be a power of two >= 8, got 12"),
        (["--batch", "0"], "batch must be >= 1, got 0"),
        (["--mixing", "1.5"], "mixing must be between 0 and 1, got 1.5"),
        (["--r1-gamma", "nan"], "r1_gamma must be >= 0, got nan"),
        (["--lr", "0"], "lr must be > 0, got 0.0"),
        (["--steps", "0"], "--steps must be >= 1, got 0"),
        (["--channel-multiplier", "1e-9"], "must leave a channel at every resolution"),
        (["--device", "abacus"], "device must be one that torch finds here, got 'abacus'"),
        (["--resume"], "--resume needs the checkpoint of an earlier run, got none at"),
    ],
)
def test_bad_options_get_one_sentence(options, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--out", str(tmp_path / "run"), *TINY, *options])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


# Several processes, several rounds


def parts_of_a_step(training):
    """Run each part of a step from the same weights; the gradients it stepped against."""
    found, hooks = {}, []
    for player in (training.d, training.g):

        def record(optimizer, *_, player=player):
            names = dict(player.network.named_parameters())
            found[part] = {k: p.grad.clone() for k, p in names.items() if p.grad is not None}

        hooks.append(player.optimizer.register_step_pre_hook(record))
    real = training.next_real()
    parts = {
        "discriminator": lambda: training.discriminator_step(real),
        "r1": lambda: training.r1_step(real),
        "generator": training.generator_step,
        "path_length": training.path_length_step,
    }
    for part in parts:  # `record` reads it
        parts[part]()
    for hook in hooks:
        hook.remove()
    return found, {**training.latest(), "path_mean": float(training.path_mean)}


MANY = {
    **{"batch": 16, "path_batch": 8, "mixing": 0.5, "mirror": True, "augment": "ada"},
    **{"lr": 1e-30, "r1_every": 1, "channel_max": 8, "style_dim": 8},  # the weights stay
}


def one_of_two(rank, folder, accumulate):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    how = {"world": World(rank, 2), "accumulate": accumulate}
    training = start(how, **MANY)
    training.augmentation.p = 0.5
    torch.save(parts_of_a_step(training), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def whole_batch():
    training = start(**MANY)
    training.augmentation.p = 0.5
    return parts_of_a_step(training)


def assert_near(found, expected):
    (gradients, figures), (whole, whole_figures) = found, expected
    assert list(gradients) == ["discriminator", "r1", "generator", "path_length"]
    for part, whole_part in whole.items():
        assert gradients[part].keys() == whole_part.keys()
        largest = max(gradient.abs().max() for gradient in whole_part.values())
        assert largest > 0
        for name, gradient in whole_part.items():
            error = (gradients[part][name] - gradient).abs().max() / largest
            assert error < 1e-5, (part, name, float(error))
    assert figures == pytest.approx(whole_figures, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(
    accumulate, whole_batch, tmp_path
):
    mp.spawn(one_of_two, (str(tmp_path), accumulate), nprocs=2)  # raises what a worker raises
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert_near(found, whole_batch)


def test_a_share_that_is_no_multiple_of_the_group_is_told():
    with pytest.warns(UserWarning, match="a round of 2 images, no multiple of 4, has other groups"):
        start({"accumulate": 2})


def two_that_disagree(rank, folder):
    """What one process alone sees, both must act upon."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2)
    options = {**MANY, "lr": 1e-3, "augment_images": 64.0, "augment_target": 0.1}
    training = start({"world": world}, **options)
    see = training.augmentation.see
    training.augmentation.see = lambda scores, batch: see(
        scores.abs() if rank == 0 else -scores.abs(), batch
    )
    for _ in range(5):
        training.step()
    found = {"p": training.augmentation.p, "sign": training.augmentation.sign}
    found["random"] = training.uniform(1).item()
    found["any"] = [world.any(rank == 1, training.device), world.any(False, training.device)]
    loss = losses.generator_loss
    losses.generator_loss = lambda fake: loss(fake) * (math.nan if rank == 1 else 1.0)
    try:
        training.generator_step()
    except DivergedError as error:
        found["error"] = str(error)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_what_one_process_sees_all_act_upon(tmp_path):
    mp.spawn(two_that_disagree, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first == second
    assert first["sign"] == 0  # one says 1, the other -1
    assert first["p"] == 0
    assert first["any"] == [True, False]
    assert first["error"] == "the generator's loss must stay finite, got nan in step 5"


def test_rounds_have_the_gradients_of_the_whole_batch(whole_batch):
    training = start({"accumulate": 4}, **MANY)
    training.augmentation.p = 0.5
    seen = []
    training.discriminator.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    assert_near(parts_of_a_step(training), whole_batch)
    assert max(seen) == 2 * 16 // 4


def test_dealt_samples_meet_the_same_others_in_the_minibatch_stddev():
    batch, group = 32, 4
    for size, rounds in itertools.product((1, 2, 4, 8), (1, 2)):
        if batch // (size * rounds) % group:
            continue
        for rank in range(size):
            for share in World(rank, size).share(torch.arange(batch), rounds):
                groups = share.reshape(group, -1).T  # as MinibatchStdDev groups them
                assert (groups % (batch // group) == groups[:, :1] % (batch // group)).all()


def test_batches_that_cannot_be_dealt_are_refused():
    with pytest.raises(ValueError, match="batch must be a multiple of 3, for 1 processes and 3 ro"):
        start({"accumulate": 3})
    with pytest.raises(ValueError, match="path_batch must be a multiple of 4, for 4 processes, go"):
        start({"world": World(1, 4)})


def torchrun(*options, processes=2):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), "-m", "examples.stylegan2.train"),
        *map(str, options),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


def test_torchrun_trains_writes_once_and_one_process_goes_on(tmp_path):
    options = [*TINY, "--batch", "8", "--path-batch", "4", "--log-every", "1"]
    ran = torchrun("--out", tmp_path / "two", *options, "--steps", "3")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("on cpu, 2 processes") == 1
    assert ran.stdout.count("Fréchet distance to held-out images") == 1
    one = tmp_path / "one"
    assert train.main(["--out", str(one), *options, "--steps", "3"]) == 0
    for a, b in zip(Run(one).read_metrics(), Run(tmp_path / "two").read_metrics(), strict=True):
        # Adam divides tiny gradients by their size, so that steps differ more than gradients
        assert {**a, "seconds": 0} == pytest.approx({**b, "seconds": 0}, rel=1e-2, abs=1e-3)
    more = ["--out", str(tmp_path / "two"), *options, "--steps", "4", "--resume"]
    assert train.main(more) == 0
    assert [line["step"] for line in Run(tmp_path / "two").read_metrics()] == [1, 2, 3, 4]


# Half precision


def half(precision, device):
    options = {"resolution": 16, "clamp": 256.0, "lr": 1e-30, "channel_max": 8}
    training = start(device=device, precision=precision, **options)
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        return training, parts_of_a_step(training)[0]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_rounds_the_losses_gradients_and_not_the_penalties(precision, device):
    _, full = half("float32", device)
    training, gradients = half(precision, device)
    used = []
    for layer in (training.generator.convs[-1], training.discriminator.convs[0]):
        layer.register_forward_hook(lambda _, args, out: used.append(out.dtype))
    training.generator_step()
    assert used == [training.dtype] * 2
    for part, whole in full.items():
        flat, exact = (
            torch.cat([g.flatten() for g in grads.values()]) for grads in (gradients[part], whole)
        )
        error = ((flat - exact).norm() / exact.norm()).item()
        if part in ("discriminator", "generator"):
            # The step's images too come from layers in half
            assert 1e-5 < error < 0.2
        else:
            # The loss is scaled by a power of two, and back
            assert error < (1e-6 if device.type == "cpu" else 1e-4)


def test_float16_skips_a_step_whose_gradient_overflows_and_lowers_its_scale(monkeypatch, device):
    training = start(device=device, precision="float16", clamp=256.0)
    training.step()
    scale = training.g.scaler.get_scale()
    before = {k: v.clone() for k, v in training.generator.state_dict().items()}
    loss = losses.generator_loss
    monkeypatch.setattr(losses, "generator_loss", lambda fake: loss(fake) * 1e37)
    training.generator_step()
    for name, value in training.generator.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert training.g.scaler.get_scale() == scale / 2
    resumed = start(device=device, precision="float16", clamp=256.0)
    resumed.load_state_dict(training.state_dict())
    assert resumed.g.scaler.get_scale() == scale / 2
    for _ in range(20):
        if training.g.scaler.get_scale() > 1:
            training.generator_step()
    with pytest.raises(DivergedError, match="gradient of the loss in float16 must stay finite"):
        training.generator_step()


def test_compiled_networks_have_the_gradients_of_the_eager_ones(device):
    options = {**MANY, "batch": 4, "path_batch": 2, "augment": "none", "r1_gamma": 0.0}
    compiled, eager = (start({"compile": compile}, device, **options) for compile in (True, False))
    torch._dynamo.utils.counters.clear()
    gradients = [parts_of_a_step(training)[0] for training in (compiled, eager)]
    calls = torch._dynamo.utils.counters["frames"]["ok"]
    assert calls >= 2
    for part, whole in gradients[1].items():
        for name, gradient in whole.items():
            torch.testing.assert_close(
                gradients[0][part][name],
                gradient,
                rtol=1e-3,
                atol=1e-5 * float(gradient.abs().max()),
            )


# Augmentation


def unit(n):
    return augment.Changes(torch.eye(3).repeat(n, 1, 1), torch.eye(4).repeat(n, 1, 1))


def test_no_augmentation_leaves_images_as_they_are_bit_for_bit():
    images = torch.randn(3, 3, 16, 16)
    assert torch.equal(augment.Augment()(images, unit(3)), images)
    rng = torch.Generator().manual_seed(0)
    drawn = augment.draw(50, 16, 0.0, rng)
    assert torch.equal(drawn.geometry, unit(50).geometry)
    assert torch.equal(drawn.colour, unit(50).colour)


def smooth_images(n, channels, side):
    """Sums of slow waves, which resampling keeps."""
    y, x = torch.meshgrid(*[(torch.arange(side) + 0.5) / side] * 2, indexing="ij")
    waves = torch.rand(n, channels, 3, 1, 1)
    shifted = [torch.cos(2 * math.pi * (x * (i + 1) + y * (2 - i)) + i) for i in range(3)]
    return (waves * torch.stack(shifted)).sum(2) / 3


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (augment._scale(torch.tensor([-1.0]), torch.tensor([1.0])), lambda x: x.flip(3)),
        # y points down, so that x turns into y clockwise
        (augment._turn(torch.tensor([math.pi / 2])), lambda x: torch.rot90(x, -1, (2, 3))),
        (
            augment._move(torch.tensor([0.25]), torch.tensor([-0.5])),
            lambda x: x.roll((4, -8), (3, 2)),
        ),
    ],
)
def test_geometry_moves_the_image(matrix, expected):
    images = smooth_images(2, 3, 32)
    changes = augment.Changes(matrix.repeat(2, 1, 1), unit(2).colour)
    inside = (slice(None), slice(None), slice(4, 14), slice(6, 26))  # what comes from inside
    moved = augment.Augment()(images, changes)
    assert (moved - images)[inside].abs().max() > 0.2
    torch.testing.assert_close(moved[inside], expected(images)[inside], rtol=0, atol=1e-2)


def test_geometry_leaves_no_border_on_flat_images():
    images = torch.tensor([1.0, -1.0, 0.5]).reshape(3, 1, 1, 1).expand(3, 3, 16, 16)
    rng = torch.Generator().manual_seed(0)
    pipe = augment.Augment()
    for _ in range(20):
        changes = augment.Changes(augment.draw(3, 16, 1.0, rng).geometry, unit(3).colour)
        torch.testing.assert_close(pipe(images, changes), images, rtol=0, atol=1e-5)


def polar(matrices):
    """(angle, stretch along x and y) of matrices [n, 3, 3] that are one or the other."""
    stretch = matrices[:, :2, :2].diagonal(dim1=1, dim2=2)
    return torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]), stretch


def moments(values):
    return values.mean().item(), values.std().item()


def test_each_step_of_the_geometry_is_as_the_paper_says():
    n, side = 20_000, 32
    rng = torch.Generator().manual_seed(0)
    steps = list(augment.geometry_steps(n, side, 1.0, rng))
    mirror, quarter, whole, scale, turn, stretch, turn_again, move = steps
    for step in steps:
        assert torch.equal(step[:, 2], torch.eye(3)[2].expand(n, 3))
    for step in (mirror, quarter, scale, turn, stretch, turn_again):
        assert (step[:, :2, 2] == 0).all()

    assert (mirror[:, 1, 1] == 1).all()
    assert mirror[:, 0, 0].abs().min() == 1
    assert mirror[:, 0, 0].mean().abs() < 0.03
    quarters = (polar(quarter)[0] / (math.pi / 2)).round().long() % 4
    assert torch.bincount(quarters, minlength=4).min() > 0.23 * n
    pixels = whole[:, :2, 2] * side / 2
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-4)
    for axis in range(2):
        assert (pixels[:, axis].min().item(), pixels[:, axis].max().item()) == (-4, 4)
        assert moments(pixels[:, axis]) == pytest.approx((0, 8 / math.sqrt(12)), abs=0.1)
    x, y = polar(scale)[1].unbind(1)
    assert torch.equal(x, y)
    assert moments(x.log2()) == pytest.approx((0, 0.2), abs=0.01)
    x, y = polar(stretch)[1].unbind(1)
    torch.testing.assert_close(x * y, torch.ones(n))
    assert moments(x.log2()) == pytest.approx((0, 0.2), abs=0.01)
    for step in (turn, turn_again):
        torch.testing.assert_close(torch.linalg.det(step), torch.ones(n))
        angle = polar(step)[0]
        assert moments(angle) == pytest.approx((0, 2 * math.pi / math.sqrt(12)), abs=0.05)
    for axis in range(2):
        assert moments(move[:, axis, 2]) == pytest.approx((0, 0.25), abs=0.01)


def test_each_step_of_the_colours_is_as_the_paper_says():
    n = 20_000
    rng = torch.Generator().manual_seed(0)
    steps = list(augment.colour_steps(n, 1.0, rng))
    brightness, contrast, flip, hue, saturation = steps
    unit, grey = torch.eye(3), torch.full((3,), 1 / math.sqrt(3))
    for step in steps[1:]:
        assert (step[:, :3, 3] == 0).all()
    assert torch.equal(brightness[:, :3, :3], unit.expand(n, 3, 3))
    shift = brightness[:, :3, 3]
    assert torch.equal(shift[:, :1].expand(n, 3), shift)
    assert moments(shift[:, 0]) == pytest.approx((0, 0.2), abs=0.01)
    factor = contrast[:, 0, 0]
    torch.testing.assert_close(contrast[:, :3, :3], factor[:, None, None] * unit)
    assert moments(factor.log2()) == pytest.approx((0, 0.5), abs=0.02)

    colour = torch.tensor([1.0, -1.0, 0.0]) / math.sqrt(2)  # across the grey axis
    third = torch.linalg.cross(grey, colour)
    along = flip[:, :3, :3] @ grey
    sign = along @ grey
    torch.testing.assert_close(along, sign[:, None] * grey)
    torch.testing.assert_close(flip[:, :3, :3] @ colour, colour.expand(n, 3))
    assert sign.mean().abs() < 0.03
    torch.testing.assert_close(sign.abs(), torch.ones(n))
    turned = hue[:, :3, :3]
    torch.testing.assert_close(turned @ grey, grey.expand(n, 3))
    torch.testing.assert_close(turned @ turned.mT, unit.expand(n, 3, 3), rtol=0, atol=1e-5)
    angle = torch.atan2(turned @ colour @ third, turned @ colour @ colour)
    assert moments(angle) == pytest.approx((0, 2 * math.pi / math.sqrt(12)), abs=0.05)
    mixed = saturation[:, :3, :3]
    torch.testing.assert_close(mixed @ grey, grey.expand(n, 3))
    factor = mixed @ colour @ colour
    torch.testing.assert_close(mixed @ third, factor[:, None] * third, rtol=1e-4, atol=1e-5)
    assert moments(factor.log2()) == pytest.approx((0, 1.0), abs=0.03)


def test_each_change_happens_with_its_probability_and_they_apply_in_order():
    n, p = 20_000, 0.1
    shares = {  # how often a change that happens is none: a mirror half of the time
        "geometry": [0.5, 0.75, 1, 1, None, 1, None, 1],
        "colour": [1, 1, 0.5, 1, 1],
    }
    for kind, seen in shares.items():
        rng = torch.Generator().manual_seed(3)
        steps = augment.colour_steps(n, p, rng)
        if kind == "geometry":
            steps = augment.geometry_steps(n, 256, p, rng)
        product = None
        for step, share in zip(steps, seen, strict=True):
            unit_matrix = torch.eye(step.shape[1])
            changed = (step != unit_matrix).any(2).any(1).float().mean().item()
            expected = 1 - math.sqrt(1 - p) if share is None else p * share
            assert changed == pytest.approx(expected, abs=0.01)
            product = step if product is None else step @ product
        rng = torch.Generator().manual_seed(3)
        if kind == "geometry":
            drawn = augment.draw(n, 256, p, rng).geometry
            torch.testing.assert_close(drawn, product)


def test_grey_images_get_the_mean_of_what_three_channels_would():
    rng = torch.Generator().manual_seed(0)
    drawn = augment.draw(8, 16, 0.8, rng)
    grey = smooth_images(8, 1, 16)
    pipe = augment.Augment()
    expected = pipe(grey.expand(-1, 3, -1, -1), drawn).mean(1, keepdim=True)
    torch.testing.assert_close(pipe(grey, drawn), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="images must have 1 or 3 channels to be augmented, got 2"):
        pipe(torch.zeros(1, 2, 8, 8), unit(1))


def test_the_generator_learns_through_the_augmentation():
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    drawn = augment.draw(2, 8, 1.0, torch.Generator().manual_seed(3))
    drawn = augment.Changes(drawn.geometry.double(), drawn.colour.double())
    assert torch.autograd.gradcheck(lambda x: augment.Augment()(x, drawn), images)


def test_p_follows_the_mean_sign_of_real_scores():
    sure, unsure = torch.ones(8, 1), torch.tensor([[1.0], [-1.0]] * 4)
    control = augment.Controller(0.6, images=320.0, average=lambda tensors: None)
    for _ in range(8):
        control.see(sure, batch=8)
    assert control.p == pytest.approx(8 * 8 / 320)
    assert control.sign == 1
    for _ in range(4):
        control.see(unsure, batch=8)
    assert control.p == pytest.approx(4 * 8 / 320)
    on_target = augment.Controller(0.0, images=320.0, average=lambda tensors: None)
    for _ in range(4):
        on_target.see(unsure, batch=8)
    assert on_target.p == 0
    for _ in range(400):
        control.see(sure, batch=8)
    assert control.p == 1
    for _ in range(800):
        control.see(unsure, batch=8)
    assert control.p == 0


def test_augmentation_reaches_real_and_generated_images_of_all_steps():
    training = start(augment="ada", r1_every=1)
    training.augmentation.p = 1.0
    seen = []
    forward = training.augment.forward

    def record(images, changes):
        seen.append(images.requires_grad)
        return forward(images, changes)

    training.augment.forward = record
    training.step()
    assert seen == [False, False, False, True]  # fake, real, R1's real; the generator's

    # A discriminator that is sure raises p, and a resumed run goes on with it
    training = start(augment="ada", augment_images=160.0)
    with torch.no_grad():
        training.discriminator.final_linear[1].bias.fill_(50.0)
    for _ in range(9):
        training.step()
    assert training.latest()["augment_p"] == pytest.approx(2 * 16 / 160)
    resumed = start(augment="ada", augment_images=160.0)
    resumed.load_state_dict(copy.deepcopy(training.state_dict()))
    for either in (training, resumed):
        either.step()
    assert_same(training.state_dict(), resumed.state_dict())


# Files of a run that end badly


KILLED = """
import os, signal, sys, torch
from examples.stylegan2 import train

save, count = torch.save, 0

def save_and_die(state, file):
    global count
    count += 1
    if count == {at}:
        file.write(b"half a checkpoint")
        file.flush()
        with open({metrics!r}, "a") as metrics:
            metrics.write('{{"step": 99, "d_lo')
        os.kill(os.getpid(), signal.SIGKILL)
    save(state, file)

torch.save = save_and_die
sys.exit(train.main({options!r}))
"""


def test_a_run_killed_in_the_middle_of_writing_goes_on_bit_for_bit(tmp_path, no_report):
    options = [*TINY, "--mirror", "--log-every", "1", "--save-every", "1", "--steps", "6"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert train.main(["--out", str(straight), *options]) == 0
    more = []
    for at in (3, 2):
        arguments = ["--out", str(killed), *options, *more]
        code = KILLED.format(at=at, metrics=str(killed / "metrics.jsonl"), options=arguments)
        ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
        assert ran.returncode == -signal.SIGKILL, ran.stderr
        assert torch.load(killed / "checkpoint.pt", weights_only=True)["steps"] < 6
        more = ["--resume"]
    assert train.main(["--out", str(killed), *options, "--resume"]) == 0
    a, b = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (straight, killed))
    assert_same(a, b)
    a, b = ([{**x, "seconds": 0} for x in Run(run).read_metrics()] for run in (straight, killed))
    assert a == b


def test_a_run_killed_at_any_moment_goes_on(tmp_path):
    """By the clock, wherever it then is, until the run gets to its end between two kills."""
    options = [*TINY, "--out", str(tmp_path / "run"), "--log-every", "1", "--save-every", "1"]
    command = [sys.executable, "-m", "examples.stylegan2.train", *options, "--steps", "1000000"]
    delays = np.random.default_rng(0).uniform(0.05, 0.6, 3)
    reached = 0
    for delay in delays:
        more = ["--resume"] if reached else []
        process = subprocess.Popen(
            [*command, *more], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        checkpoint, deadline = Run(tmp_path / "run").checkpoint, time.monotonic() + 120
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
        process.communicate()
        steps = torch.load(checkpoint, weights_only=True)["steps"]
        assert steps > reached
        reached = steps


def test_sigterm_finishes_the_step_and_saves(tmp_path, monkeypatch):
    step = Training.step

    def terminated(self):
        signal.raise_signal(signal.SIGTERM)
        step(self)

    monkeypatch.setattr(Training, "step", terminated)
    assert train.main(["--out", str(tmp_path), *TINY, "--steps", "9"]) == 130
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["steps"] == 1


def test_a_damaged_checkpoint_is_named(tmp_path, capsys, no_report):
    out = ["--out", str(tmp_path), *TINY]
    assert train.main([*out, "--steps", "1"]) == 0
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint"):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(SystemExit):
            train.main([*out, "--steps", "2", "--resume"])
        sentence = "--resume needs a whole checkpoint of a training, got " + str(tmp_path)
        assert sentence in capsys.readouterr().err


def test_a_learning_rate_too_high_diverges_and_says_where(tmp_path, capsys):
    out = ["--out", str(tmp_path), *TINY, "--save-every", "1"]
    assert train.main([*out, "--steps", "9", "--lr", "1e30"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "must stay finite, got " in error
    assert " in step 0; what came before that update is in " in error
    assert "--resume and a lower --lr, a higher --r1-gamma or --precision float32" in error
    assert (tmp_path / "diverged.pt").exists()


def test_out_of_memory_says_what_to_change(tmp_path, capsys):
    options = [*TINY, "--path-batch", str(10**14)]  # beyond any address space
    assert train.main(["--out", str(tmp_path), *options, "--steps", "1"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        "out of memory after 0 steps, with 4 of 4 images a round at 8 pixels; nothing was" in error
    )
    assert f"try --accumulate 2, a lower --batch or --path-batch ({10**14})" in error
    training = start()
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ):
        assert "out of memory after 0 steps" in train.explain(error, training, Run(tmp_path))
    assert train.explain(RuntimeError("another"), training, Run(tmp_path)) is None


# TensorBoard and FID


def test_tensorboard_shows_losses_and_images_and_no_step_twice(tmp_path, no_report):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ["--out", str(tmp_path), *TINY, "--tensorboard", "--log-every", "1"]
    assert train.main([*options, "--steps", "3", "--save-every", "2"]) == 0
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert train.main([*options, "--steps", "5", "--resume"]) == 0
    assert state["steps"] == 3
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("d_loss")] == [1, 2, 3, 4, 5]
    lines = Run(tmp_path).read_metrics()
    values = [event.value for event in events.Scalars("g_loss")]
    assert values == pytest.approx([line["g_loss"] for line in lines])
    assert [event.step for event in events.Images("samples")] == [2, 3, 5]


def test_fid_is_the_frechet_distance_of_inceptions_features(tmp_path, capsys):
    torch_fidelity = pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # Weights of the right shapes: the real ones are a download
    class Random(FeatureExtractorInceptionV3):
        def load_state_dict(self, state, **options):
            pass

    empty = tmp_path / "empty.pth"
    torch.save({}, empty)
    network = Random("random", ["2048"], feature_extractor_weights_path=str(empty))
    path = tmp_path / "inception.pth"
    torch.save(network.state_dict(), path)
    a, b = (torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8) for n in (6, 5))
    cpu = torch.device("cpu")
    distances = evaluate.inception_distances({"a": a, "b": b}, b, path, cpu, batch=4)
    assert distances["b"] == pytest.approx(0, abs=1e-2 * distances["a"])
    with torch.no_grad():
        features = [network(x.expand(-1, 3, -1, -1))[0] for x in (a, b)]
    expected = evaluate.frechet_distance(*features)
    assert distances["a"] == pytest.approx(expected, rel=1e-2)
    assert torch_fidelity.__version__

    path.write_bytes(b"no weights")
    with pytest.raises(
        ValueError, match="inception must be weights that torch-fidelity reads, got"
    ):
        evaluate.inception_distances({"a": a}, b, path, cpu)
    for given, sentence in (
        (path, "inception must be weights that torch-fidelity reads, got "),
        (tmp_path / "none", "--inception must be a file of weights, got "),
    ):
        with pytest.raises(SystemExit):
            train.main(["--out", str(tmp_path / "run"), *TINY, "--inception", str(given)])
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Configurations


def test_command_line_goes_over_config_goes_over_defaults(tmp_path, capsys):
    config = tmp_path / "mine.toml"
    config.write_text('resolution = 16\nlr = 1\nmirror = true\nprecision = "bfloat16"\n')
    arguments = ["--out", "x", "--config", str(config), "--resolution", "8", "--no-mirror"]
    _, args = train.parse(arguments)
    assert args.said == {"resolution": 8, "lr": 1.0, "mirror": False, "precision": "bfloat16"}
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
    assert sorted(originals) == ["ada", "rosinality", "stylegan3"]
    for code in originals:
        assert counts == originals[code][str(resolution)], code
        if resolution == 64:
            assert counts == shapes_by_key(code, resolution), code


def test_photographs_are_crops_and_their_held_out_part_was_never_seen():
    images = data.load("photographs", 64)
    assert images.train.shape == (4000, 3, 64, 64)
    assert images.held_out.shape == (500, 3, 64, 64)
    assert len(images.train.flatten(1).unique(dim=0)) > 3990
    train_pixels, held_out = (data.to_pixels(x).flatten(1) for x in (images.train, images.held_out))
    assert torch.cdist(held_out[:100], train_pixels).min() > 1
    again = data.load("photographs", 64)
    assert torch.equal(again.train, images.train)
