# SPDX-License-Identifier: BSD-3-Clause
"""What a training reports: TensorBoard and FID."""

from __future__ import annotations

import os

import pytest
import torch

from examples.stylegan import evaluate, train
from examples.stylegan.run import Run

from .training import TINY

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_weights_that_cannot_be_looked_for_are_absent(tmp_path, monkeypatch):
    """Names that are too long are what the system refuses to root too."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / ("home" * 99)))
    assert evaluate.find_inception() is None
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert evaluate.find_inception() is None
    path = tmp_path / "hub" / "checkpoints" / evaluate.INCEPTION
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert evaluate.find_inception() == path


def test_weights_in_a_home_that_is_closed_are_absent(tmp_path, monkeypatch):
    """As another user than root, whom no folder is closed to."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / evaluate.INCEPTION
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    (tmp_path / "hub").chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        assert evaluate.find_inception() is None
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "hub").chmod(0o700)
    assert evaluate.find_inception() == path


@pytest.mark.parametrize("kind", ["page", "bytes", "half", "code", "list"])
def test_weights_that_are_found_damaged_are_told_and_left_out(
    kind, tmp_path, monkeypatch, capsys, no_report
):
    """Nobody has asked for them; given by ``--inception`` they are an error. None is executed."""
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / evaluate.INCEPTION
    path.parent.mkdir(parents=True)
    torch.save({"a": torch.ones(999)} if kind != "list" else [], path)
    whole = path.read_bytes()
    content = {
        "page": b"<html>",
        "bytes": b"\x80\x02}q\x00K",
        "half": whole[: len(whole) // 2],
        "code": b"cos\nsystem\n(S'touch " + str(tmp_path / "executed").encode() + b"'\ntR.",
        "list": whole,
    }[kind]
    path.write_bytes(content)
    reason = "it is damaged, or not a file of tensors that torch.save wrote"
    if kind == "list":
        reason = "it holds no dict of tensors"
    said = f"inception must be weights that torch-fidelity reads, got {str(path)!r}: {reason}\n"
    options = ["--out", str(tmp_path / "run"), *TINY, "--steps", "1"]
    with pytest.raises(SystemExit):
        train.main([*options, "--inception", str(path)])
    assert capsys.readouterr().err.endswith(f"error: {said}")
    assert train.main(options) == 0
    assert capsys.readouterr().err.startswith(f"note: FID is left out: {said}")
    assert not (tmp_path / "executed").exists()
