# SPDX-License-Identifier: BSD-3-Clause
"""Several processes, and several rounds in a step."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from examples.stylegan import losses, train
from examples.stylegan.processes import World
from examples.stylegan.run import Run
from examples.stylegan.training import DivergedError

from .training import ALIAS_FREE, MANY, ROOT, TINY, assert_same, parts_of_a_step, start

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = {  # a network's settings and the rounds of a step
    "1": (MANY, 1),
    "2": (MANY, 2),
    "stylegan3-t": ({**MANY, **ALIAS_FREE, "batch": 8, "path_weight": 2.0}, 1),
}


def one_case(name, world=None):
    options, accumulate = CASES[name]
    training = start({"world": world, "accumulate": accumulate}, **options)
    training.augmentation.p = 0.5
    return *parts_of_a_step(training), training.magnitudes


def one_of_two(rank, folder):
    """What one of two processes finds: it takes longer to start than all that it does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2)
    found = {name: one_case(name, world) for name in CASES} | {"disagree": disagree(world)}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two processes finds."""
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(one_of_two, (str(folder),), nprocs=2)  # raises what a worker raises
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def whole_batch():
    return one_case("1")[:2]


def assert_near(found, expected, tolerance=1e-5):
    (gradients, figures), (whole, whole_figures) = found, expected
    assert list(gradients) == ["discriminator", "r1", "generator", "path_length"]
    for part, whole_part in whole.items():
        assert gradients[part].keys() == whole_part.keys()
        largest = max(gradient.abs().max() for gradient in whole_part.values())
        assert largest > 0
        for name, gradient in whole_part.items():
            error = (gradients[part][name] - gradient).abs().max() / largest
            assert error < tolerance, (part, name, float(error))
    assert figures == pytest.approx(whole_figures, rel=tolerance, abs=tolerance / 10)


def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(whole_batch, both):
    for found, rounds in itertools.product(both, "12"):
        assert_near(found[rounds][:2], whole_batch)


def test_two_processes_of_stylegan3_have_the_averages_of_one(both):
    """Each divides by its own averages while it draws, and by those of both after it."""
    *expected, magnitudes = one_case("stylegan3-t")
    for found in both:
        assert_near(found["stylegan3-t"][:2], expected, tolerance=1e-3)
        torch.testing.assert_close(found["stylegan3-t"][2], magnitudes, rtol=1e-5, atol=0)
    assert_same(*(found["stylegan3-t"][2] for found in both))
    assert max(abs(float(magnitude) - 1) for magnitude in magnitudes) > 1e-5


def test_a_share_that_is_no_multiple_of_the_group_is_told():
    with pytest.warns(UserWarning, match="a round of 2 images, no multiple of 4, has other groups"):
        start({"accumulate": 2})


def disagree(world):
    """What one process alone sees, both must act upon. It spoils a loss, so it comes last."""
    options = {**MANY, "lr": 1e-3, "augment_images": 64.0, "augment_target": 0.1}
    training = start({"world": world}, **options)
    see = training.augmentation.see
    training.augmentation.see = lambda scores, batch: see(
        scores.abs() if world.rank == 0 else -scores.abs(), batch
    )
    for _ in range(5):
        training.step()
    found = {"p": training.augmentation.p, "sign": training.augmentation.sign}
    found["random"] = training.uniform(1).item()
    found["any"] = [world.any(world.rank == 1, training.device), world.any(False, training.device)]
    loss = losses.generator_loss
    losses.generator_loss = lambda fake: loss(fake) * (math.nan if world.rank == 1 else 1.0)
    try:
        training.generator_step()
    except DivergedError as error:
        found["error"] = str(error)
    return found


def test_what_one_process_sees_all_act_upon(both):
    first, second = (found["disagree"] for found in both)
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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "WORLD_SIZE",
            "two",
            "WORLD_SIZE must be a whole number >= 1, as torchrun sets it, got 'two'",
        ),
        ("WORLD_SIZE", "0", "WORLD_SIZE must be a whole number >= 1, as torchrun sets it, got '0'"),
        ("WORLD_SIZE", "", "WORLD_SIZE must be a whole number >= 1, as torchrun sets it, got ''"),
        (
            "LOCAL_RANK",
            None,
            "LOCAL_RANK must be a whole number >= 0, as torchrun sets it, got none",
        ),
        ("LOCAL_RANK", "b", "LOCAL_RANK must be a whole number >= 0, as torchrun sets it, got 'b'"),
        ("RANK", "-1", "RANK must be a whole number >= 0, as torchrun sets it, got '-1'"),
        ("RANK", "2", "RANK must be < WORLD_SIZE, got 2 and 2"),
        (
            "MASTER_PORT",
            "a",
            "MASTER_PORT must be a whole number >= 0, as torchrun sets it, got 'a'",
        ),
    ],
)
def test_an_environment_that_torchrun_does_not_make(
    name, value, said, tmp_path, monkeypatch, capsys
):
    right = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "RANK": "0", "MASTER_PORT": "29500"}
    for variable, text in {**right, name: value}.items():
        if text is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, text)
    with pytest.raises(SystemExit) as stop:
        train.main(["--out", str(tmp_path / "run"), *TINY])
    assert stop.value.code == 2
    assert f"error: {said}\n" in capsys.readouterr().err


def torchrun(*options, processes=2):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), "-m", "examples.stylegan.train"),
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
