# SPDX-License-Identifier: BSD-3-Clause
"""Images that people bring for the training: what is found, how it is decoded, what is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from examples.stylegan2 import data, train

from .images import make_folder

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


# A folder


def test_folder_is_searched_through_resized_and_cropped(tmp_path):
    folder = make_folder(tmp_path / "images", 3)
    (folder / "notes.txt").write_text("no image")
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, 24:40] = (10, 20, 30)  # all that the centre crop sees
    Image.fromarray(wide).save(folder / "wide.png")
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(folder / "grey.png")
    Image.fromarray(np.full((9, 9, 4), 8, np.uint8)).save(folder / "transparent.webp")
    assert len(data.find_images(folder)) == 6
    images = data.load_folder(folder, 16)
    assert images.train.shape == (4, 3, 16, 16)
    assert images.held_out.shape == (2, 3, 16, 16)
    assert images.train_labels is None
    crop = data.load_image(folder / "wide.png", 16)
    assert crop.dtype == torch.uint8
    assert crop[:, 8, 3:-3].T.tolist() == [[10, 20, 30]] * 10
    assert (data.load_image(folder / "grey.png", 16) == 7).all()


def test_folder_errors_name_folder_and_file(tmp_path, capsys):
    def error(folder):
        with pytest.raises(SystemExit) as stop:
            train.main(["--out", str(tmp_path / "out"), "--data", str(folder), *TINY])
        assert stop.value.code == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err.splitlines()[-1]

    missing = tmp_path / "nowhere"
    assert f"the folder of images must exist, got '{missing}'" in error(missing)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "at least 4 images (.jpg, .jpeg, .png, " in error(empty)
    assert f"got 0 in '{empty}'" in error(empty)
    folder = make_folder(tmp_path / "images")
    a_file = folder / "1.txt"
    a_file.write_text("")
    assert f"must be a folder, got the file '{a_file}'" in error(a_file)
    whole = (folder / "2.png").read_bytes()
    for content in (b"", b"no picture at all", whole[: len(whole) // 2]):
        (folder / "2.png").write_bytes(content)
        assert f"every image must be readable, got '{folder / '2.png'}': " in error(folder)


# Images that are read when needed


def test_workers_read_the_same_images_as_are_held_in_memory(tmp_path, no_report):
    folder = make_folder(tmp_path / "images", 12)
    runs = []
    for workers in (0, 1):
        out = tmp_path / str(workers)
        options = ["--out", str(out), *TINY, "--data", str(folder), "--workers", str(workers)]
        assert train.main([*options, "--steps", "4"]) == 0
        assert train.main([*options, "--steps", "6", "--resume"]) == 0
        runs.append(torch.load(out / "checkpoint.pt", weights_only=True))
    for part in ("g", "d", "g_ema"):
        torch.testing.assert_close(runs[0][part], runs[1][part], rtol=0, atol=0)
    assert runs[0]["images"] == runs[1]["images"]


def test_an_unreadable_image_is_named_when_its_turn_comes(tmp_path, capsys, monkeypatch):
    folder = make_folder(tmp_path / "images", 12)
    broken = data.load_folder(folder, 8, in_memory=False).train.paths[3]
    broken.write_bytes(broken.read_bytes()[:60])
    options = ["--out", str(tmp_path / "run"), *TINY, "--data", str(folder), "--workers", "1"]
    assert train.main([*options, "--steps", "9"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: every image must be readable, got '{broken}': " in error
    steps = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["steps"]
    assert f"; {steps} steps are saved: mend or remove it, and go on with --resume" in error
    broken.unlink()
    more = ["--data", str(folder), "--workers", "1", "--resume", "--steps", str(steps + 2)]
    monkeypatch.setattr(train, "report", lambda *args: None)
    assert train.main(["--out", str(tmp_path / "run"), "--device", "cpu", *more]) == 0


def test_folders_too_large_for_memory_ask_for_workers(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "images", 8)
    monkeypatch.setattr(data, "IN_MEMORY", 100)
    with pytest.raises(ValueError, match=r"must not exceed 0 GiB, got 8 images of .* with workers"):
        data.load(str(folder), 16)
    images = data.load(str(folder), 16, workers=1)
    assert isinstance(images.train, data.Files)
    assert images.train[2].shape == (3, 16, 16)
