# SPDX-License-Identifier: BSD-3-Clause
"""Runs that end badly: killed, terminated, damaged, diverged, out of memory."""

from __future__ import annotations

import math
import multiprocessing
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.stylegan import losses, train
from examples.stylegan.checkpoints import read_values
from examples.stylegan.run import Run
from examples.stylegan.settings import Settings
from examples.stylegan.training import Training

from .images import make_folder
from .tools import files_of_at_most, no_more_files, run_group
from .training import ROOT, TINY, assert_same, start

pytestmark = pytest.mark.usefixtures("one_thread")


KILLED = """
import os, signal, sys, torch
from examples.stylegan import train

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


KILLED_BY_THE_CLOCK = """
import os, signal, sys, time
from examples.stylegan import train
from examples.stylegan.checkpoints import read_values

options, path, *delays = {arguments!r}
reached = 0
for delay in delays:
    before = os.stat(path).st_mtime_ns if reached else 0
    child = os.fork()  # what was imported is there already; no thread runs yet
    if child == 0:
        os._exit(train.main([*options, *(["--resume"] if reached else [])]))
    while not os.path.exists(path) or os.stat(path).st_mtime_ns == before:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before it was killed"
        time.sleep(0.005)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    steps = read_values(path)["steps"]
    assert steps > reached, (steps, reached)
    reached = steps
print(reached)
"""


def test_a_run_killed_at_any_moment_goes_on(tmp_path):
    """By the clock, wherever it then is, three times."""
    options = ["--out", str(tmp_path / "run"), *TINY, "--log-every", "1", "--save-every", "1"]
    delays = np.random.default_rng(0).uniform(0.05, 0.6, 3).tolist()
    arguments = [[*options, "--steps", "1000000"], str(Run(tmp_path / "run").checkpoint), *delays]
    command = [sys.executable, "-c", KILLED_BY_THE_CLOCK.format(arguments=arguments)]
    status, output, errors = run_group(command, timeout=300, cwd=ROOT)
    assert status == 0, errors
    assert int(output.splitlines()[-1]) >= 3


def test_no_process_outlives_a_command_that_takes_too_long():
    """The forked one holds the pipe, which is at its end when that is gone."""
    forks = "import os, time; os.fork() or time.sleep(99)"
    reading, writing = os.pipe()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            run_group([sys.executable, "-I", "-S", "-c", forks], timeout=2, pass_fds=[writing])
        os.close(writing)
        assert select.select([reading], [], [], 5)[0]
    finally:
        os.close(reading)


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
    checkpoint = tmp_path / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    state = torch.load(checkpoint, weights_only=True)
    torch.save({**state, "steps": Settings()}, tmp_path / "other.pt")
    torch.save({"g_ema": state["g_ema"]}, tmp_path / "bare.pt")
    hole = bytearray(whole)
    hole[100:2000] = bytes(1900)
    for content, reason in [
        *[(whole[:length], "it is truncated") for length in (len(whole) // 2, 5, len(whole) - 1)],
        (whole[: len(whole) // 2] + bytes(len(whole) // 2), "it is truncated"),
        (b"", "it is empty"),
        (b"no checkpoint", "it does not begin as one"),
        (hole, "it must be a pickle of data, got the opcode "),
        ((tmp_path / "other.pt").read_bytes(), "it must hold data only, got one that asks for ex"),
        ((tmp_path / "bare.pt").read_bytes(), "it is without augmentation, counts, d, d_optim"),
    ]:
        checkpoint.write_bytes(content)
        with pytest.raises(SystemExit):
            train.main([*out, "--steps", "2", "--resume"])
        error = capsys.readouterr().err.splitlines()[-1]
        sentence = f"--resume needs a whole checkpoint of a training, got {checkpoint}: {reason}"
        assert sentence in error
        assert checkpoint.read_bytes() == content


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path, capsys, monkeypatch, no_report):
    out = ["--out", str(tmp_path), *TINY]
    assert train.main([*out, "--steps", "1"]) == 0
    read = Run.read

    def starved(self):
        with no_more_files():
            return read(self)

    monkeypatch.setattr(Run, "read", starved)
    with pytest.raises(SystemExit):
        train.main([*out, "--steps", "2", "--resume"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(
        f"--resume needs a whole checkpoint of a training, got {tmp_path / 'checkpoint.pt'}: "
        "it cannot be read: Too many open files"
    )


def test_resume_reads_all_that_a_training_saves(tmp_path):
    """Networks, moments, scalers, random numbers: what torch.load reads, of both its formats."""
    training = start()
    training.step()
    path = tmp_path / "checkpoint.pt"
    for new_format in (True, False):
        torch.save(training.state_dict(), path, _use_new_zipfile_serialization=new_format)
        parts = [("", torch.load(path, weights_only=True), read_values(path))]
        for name, theirs, ours in parts:  # which grows
            if isinstance(theirs, dict):
                assert list(theirs) == list(ours), name
                parts += [(f"{name}.{key}", theirs[key], ours[key]) for key in theirs]
            elif isinstance(theirs, (list, tuple)):
                parts += [(name, *pair) for pair in zip(theirs, ours, strict=True)]
            else:
                assert type(theirs) is type(ours), name
                assert same(theirs, ours), name
        assert len(parts) > 100
    start().load_state_dict(read_values(path))


def same(a, b):
    if not isinstance(a, torch.Tensor):
        return a == b
    return a.dtype == b.dtype and torch.equal(a, b)


def test_resume_bounds_what_a_file_costs(tmp_path, capsys):
    """A list of lists of lists, which a small pickle names a thousand million times."""
    out = ["--out", str(tmp_path), *TINY]
    bomb = "x"
    for _ in range(30):
        bomb = [bomb, bomb]
    torch.save({"steps": bomb}, tmp_path / "checkpoint.pt")
    with pytest.raises(SystemExit):
        train.main([*out, "--resume"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert "it must be read in at most 200,000 steps, got more" in error


def test_a_checkpoint_whose_parts_do_not_fit_is_named_and_stays(tmp_path, capsys, no_report):
    out = ["--out", str(tmp_path), *TINY]
    assert train.main([*out, "--steps", "1"]) == 0
    checkpoint = tmp_path / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    for path, value, reason in [
        (["settings"], 3, "settings must be a dict, got 3"),
        (["settings", "path_every"], "4", "path_every must be of type int, got '4'"),
        (["settings", "mirror"], 0, "mirror must be of type bool, got 0"),
        (["settings", "lr"], torch.ones(1), "lr must be of type float, got an object of type Tens"),
        (["settings", "augment"], "Ada", "augment must be one of none, ada, got 'Ada'"),
        (["settings", 5], 5, "a checkpoint must have no settings but those of this version, got 5"),
        (["steps"], "1", "steps must be of type int, got '1'"),
        (["steps"], -1, "steps must be >= 0, got -1"),
        (["counts", "r1"], None, "counts.r1 must exist"),
        (["latest", "d_loss"], "1", "latest.d_loss must be of type float, got '1'"),
        (["g", "conv1.conv.weight"], None, "g.conv1.conv.weight must exist"),
        (["g"], [], "g must be of type dict, got an object of type list"),
        (["d", "more"], torch.ones(1), "d.more must not exist"),
        (["g_ema", "conv1.conv.weight"], 1, "g_ema.conv1.conv.weight must be of type Tensor, g"),
        (["g_optim"], 3, "g_optim.state must be of type dict, got 3"),
        (["d_optim", "state", 0, "exp_avg"], torch.ones(3), "d_optim.state.0.exp_avg must be a te"),
        (["d_optim", "state", 99], {}, "d_optim.state.99 must not exist"),
        (["augmentation", "p"], 5.0, "augmentation.p must be between 0 and 1, got 5.0"),
        (["path_mean"], torch.ones(2), "path_mean must be a tensor float32 strided [], got float"),
        (["rng"], torch.ones(3), "rng must be a tensor uint8 strided ["),
        (["rng"], torch.full((5056,), 255, dtype=torch.uint8), ""),  # in torch's words
    ]:
        checkpoint.write_bytes(whole)
        state = torch.load(checkpoint, weights_only=True)
        *parents, last = path
        part = state
        for name in parents:
            part = part[name]
        if value is None:
            del part[last]
        else:
            part[last] = value
        torch.save(state, checkpoint)
        before = checkpoint.read_bytes()
        with pytest.raises(SystemExit) as stop:
            train.main(["--out", str(tmp_path), "--device", "cpu", "--resume", "--steps", "2"])
        assert stop.value.code == 2, path
        error = capsys.readouterr().err.splitlines()[-1]
        assert reason in error, path
        if reason != "augment must be one of none, ada, got 'Ada'":
            assert f"--resume cannot go on with {checkpoint}: {reason}" in error
        assert checkpoint.read_bytes() == before

    torch.save([state], checkpoint)
    with pytest.raises(SystemExit):
        train.main([*out, "--resume"])
    assert "it is without augmentation, counts, d, d_optim" in capsys.readouterr().err
    checkpoint.write_bytes(whole)
    for line in ("3", "{}", '{"step": "1"}', "{"):
        (tmp_path / "metrics.jsonl").write_text(f"{line}\n")
        with pytest.raises(SystemExit):
            train.main([*out, "--resume"])
        said = f"metrics must be one JSON object a line, with a step, got {line!r} in line 1 of "
        assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_run_goes_on_in_another_precision(tmp_path, no_report):
    """Both ways: only float16 scales its losses."""
    out = ["--out", str(tmp_path), *TINY, "--clamp", "256"]
    assert train.main([*out, "--steps", "1"]) == 0
    for steps, precision in ((2, "float16"), (3, "float32")):
        options = ["--resume", "--steps", str(steps), "--precision", precision]
        assert train.main([*out, *options]) == 0
        state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert (state["steps"], bool(state["g_scaler"])) == (steps, precision == "float16")


@pytest.mark.parametrize(
    ("name", "size", "more"),
    [
        ("checkpoint.pt", 40_000, ["--log-every", "100"]),
        ("metrics.jsonl", 900, ["--log-every", "1", "--save-every", "100"]),
    ],
)
def test_a_full_disk_ends_a_run_with_a_sentence_and_loses_nothing(
    name, size, more, tmp_path, capsys, no_report
):
    """No file may have more than ``size`` bytes: checkpoints have 80,000, a metric's line 270."""
    options = ["--out", str(tmp_path), *TINY]
    assert train.main([*options, "--steps", "2", "--log-every", "1"]) == 0
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with files_of_at_most(size):
        assert train.main([*options, *more, "--steps", "20", "--resume"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {tmp_path / name} could not be written: File too large, after " in error
    checkpoint = tmp_path / "checkpoint.pt"
    assert error.endswith(f"; {checkpoint} is as it was: go on with --resume")
    assert checkpoint.read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp"))
    assert train.main([*options, "--steps", "3", "--log-every", "1", "--resume"]) == 0
    assert [line["step"] for line in Run(tmp_path).read_metrics()] == [1, 2, 3]
    assert torch.load(checkpoint, weights_only=True)["steps"] == 3

    # After the last step
    with files_of_at_most(20_000):
        assert train.main([*options, "--resume"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {tmp_path / 'losses.png'} could not be written: File too large; " in error
    assert error.endswith("is as it was: --resume repeats the evaluation")


# TensorBoard writes in a thread, which ends with an exception that it hands on to the training
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_fills_with_tensorboards_events(tmp_path, capsys):
    """The events get 11,000 bytes for each picture of samples."""
    pytest.importorskip("tensorboard")
    first, tmp_path = tmp_path / "first", tmp_path / "run"
    assert train.main(["--out", str(first), *TINY, "--steps", "1"]) == 0
    options = ["--out", str(tmp_path), *TINY, "--tensorboard", "--save-every", "1"]
    with files_of_at_most((first / "checkpoint.pt").stat().st_size + 7_000):
        assert train.main([*options, "--steps", "40"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in error
    assert "File too large, after " in error
    steps = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["steps"]
    assert 2 <= steps < 40


def test_a_full_disk_before_the_first_checkpoint_says_to_start_again(tmp_path, capsys):
    with files_of_at_most(40_000):
        assert train.main(["--out", str(tmp_path), *TINY, "--steps", "1"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("1 steps; nothing was saved yet: start again with --overwrite")


def test_what_came_before_a_divergence_may_not_fit_either(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(losses, "generator_loss", lambda fake: fake.mean() * math.nan)
    with files_of_at_most(40_000):
        assert train.main(["--out", str(tmp_path), *TINY, "--steps", "1"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: the generator's loss must stay finite, got nan in step 0; " in error
    assert f"{tmp_path / 'diverged.pt'} could not be written: File too large" in error


@pytest.mark.parametrize("name", ["samples", "losses.png", "evaluation.json"])
def test_reports_are_whole_or_not_written(name, tmp_path, capsys):
    training, run = start(), Run(tmp_path)
    run.begin(training)
    write = {
        "samples": lambda: run.save_samples(training),
        "losses.png": run.plot_losses,
        "evaluation.json": lambda: run.save_json("evaluation.json", list(range(500))),
    }[name]
    write()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(before) >= 2
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large") as failed:
        write()
    assert str(failed.value.filename).startswith(str(tmp_path / name))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("case", ["file", "below a file", "/proc/run", "name", "null", "full"])
def test_folders_that_cannot_be_written_to_are_found_first(case, tmp_path, capsys, monkeypatch):
    """Before the images are read."""
    monkeypatch.setattr(train, "load", lambda *args: pytest.fail("the images were read"))
    (tmp_path / "file").write_text("mine")
    folder, reason = {
        "file": (tmp_path / "file", "Not a directory"),
        "below a file": (tmp_path / "file" / "run", "Not a directory"),
        "/proc/run": (Path("/proc/run"), "No such file or directory"),
        "name": (tmp_path / "new" / ("long" * 99), "File name too long"),
        "null": (tmp_path / "new" / "nu\0ll", "embedded null byte"),
        "full": (tmp_path / "new" / "run", "File too large"),
    }[case]
    with pytest.raises(SystemExit) as stop, files_of_at_most(0 if case == "full" else 10**6):
        train.main(["--out", str(folder), *TINY])
    assert stop.value.code == 2
    said = f"--out must be a folder that can be written to, got {str(folder)!r}: {reason}"
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["checkpoint.pt", "losses.png", "evaluation.json"])
def test_folders_in_the_way_of_files_are_found_first(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "load", lambda *args: pytest.fail("the images were read"))
    (tmp_path / name).mkdir()
    with pytest.raises(SystemExit):
        train.main(["--out", str(tmp_path), *TINY])
    said = f"--out must have no folder where a file is to be written, got '{tmp_path / name}'"
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_file_in_the_way_of_a_folder_is_found_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "load", lambda *args: pytest.fail("the images were read"))
    (tmp_path / "samples").write_text("mine")
    with pytest.raises(SystemExit):
        train.main(["--out", str(tmp_path), *TINY])
    said = f"--out must be a folder that can be written to, got '{tmp_path / 'samples'}': Not a di"
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "samples").read_text() == "mine"


def test_interrupts_before_the_first_step_and_within_one(tmp_path, capsys, monkeypatch):
    options = ["--out", str(tmp_path / "run"), *TINY, "--steps", "9"]

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "load", interrupt)
        assert train.main(options) == 130
    assert capsys.readouterr().err.splitlines() == ["stopped before the first step"]
    assert not (tmp_path / "run").exists()

    def interrupted(self):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the second does not wait for the step's end

    monkeypatch.setattr(Training, "step", interrupted)
    assert train.main(options) == 130
    said = "stopped in the middle of a step; nothing was saved yet"
    assert capsys.readouterr().err.splitlines()[-1] == said


def test_a_second_interrupt_while_losses_are_plotted(tmp_path, capsys, monkeypatch):
    """The steps are saved, and the workers have ended."""
    images = make_folder(tmp_path / "images", 9)
    out = tmp_path / "run"
    options = ["--out", str(out), "--data", str(images), *TINY, "--steps", "9", "--workers", "1"]
    step, workers = Training.step, []

    def interrupted(self):
        step(self)
        workers.append(len(multiprocessing.active_children()))
        signal.raise_signal(signal.SIGINT)

    def plot(self):
        workers.append(len(multiprocessing.active_children()))
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Training, "step", interrupted)
    monkeypatch.setattr(Run, "plot_losses", plot)
    assert train.main(options) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped after 1 steps; go on with --resume"
    assert torch.load(out / "checkpoint.pt", weights_only=True)["steps"] == 1
    assert workers == [1, 0]


def test_a_disk_that_is_full_when_a_run_was_stopped(tmp_path, capsys, monkeypatch):
    step = Training.step

    def interrupted(self):
        step(self)
        signal.raise_signal(signal.SIGINT)

    def fill(self):
        with files_of_at_most(1000):
            plot(self)

    plot = Run.plot_losses
    monkeypatch.setattr(Training, "step", interrupted)
    monkeypatch.setattr(Run, "plot_losses", fill)
    assert train.main(["--out", str(tmp_path), *TINY, "--steps", "9"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path / 'losses.png'} could not be written: File too large; " in error
    assert error.endswith("checkpoint.pt is as it was: go on with --resume")


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
