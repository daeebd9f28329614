# SPDX-License-Identifier: BSD-3-Clause
"""Runs that end badly: killed, terminated, damaged, diverged, out of memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from examples.stylegan2 import train
from examples.stylegan2.run import Run
from examples.stylegan2.training import Training

from .training import ROOT, TINY, assert_same, start

pytestmark = pytest.mark.usefixtures("one_thread")


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
