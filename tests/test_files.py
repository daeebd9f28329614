# SPDX-License-Identifier: BSD-3-Clause
"""Files of the examples: written by several processes at once, links to folders, full outputs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from examples import zone_plate
from examples.stylegan import files, generate, sticking, train
from examples.stylegan.files import left_over, locked, whole
from examples.stylegan.run import LOCK, Run
from scripts import compat_fixtures

from .images import make_folder
from .tools import require, run_group
from .training import ROOT, TINY

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["locks", "no locks"])
def locks(request, monkeypatch):
    """Whether the system has locks. Without them it is as on Windows."""
    if request.param == "no locks":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        require("locks of fcntl", found=files.fcntl is not None)
    return request.param == "locks"


def write_two_at_once(path):
    """Each begins before the other ends; the second and last is the one that began first."""
    with whole(path) as first:
        first.write(b"a" * 40_000)
        with whole(path) as second:
            second.write(b"b" * 80_000)
        assert path.read_bytes() == b"b" * 80_000
        first.write(b"a" * 40_000)


def write_in_part(path):
    with whole(path) as file:
        file.write(b"second")
        raise OSError(28, "No space left on device")


def test_a_file_that_two_write_at_once_is_that_of_the_last(locks, tmp_path):
    path = tmp_path / "checkpoint.pt"
    write_two_at_once(path)
    assert path.read_bytes() == b"a" * 80_000
    assert [found.name for found in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_write_that_fails_beside_another_leaves_that_ones_file(locks, tmp_path):
    path = tmp_path / "checkpoint.pt"
    with whole(path) as first:
        first.write(b"first")
        with pytest.raises(OSError, match="No space left") as failed:
            write_in_part(path)
    assert failed.value.filename == str(path)
    assert path.read_bytes() == b"first"
    assert [found.name for found in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("kind", ["folder", "link", "link to nowhere"])
def test_what_has_a_temporary_name_is_not_in_the_way(kind, locks, tmp_path):
    """It was the reason of an error that named another file, or was written through."""
    path, taken, other = (tmp_path / name for name in ("grid.png", "grid.png.tmp", "mine"))
    if kind == "folder":
        taken.mkdir()
    else:
        taken.symlink_to(other)
    if kind == "link":
        other.write_text("mine")
    before = {found.name for found in tmp_path.iterdir()}
    with whole(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert not other.exists() or other.read_text() == "mine"
    assert {found.name for found in tmp_path.iterdir()} == before | {"grid.png"}


def test_what_a_killed_process_left_is_taken_over_or_found(locks, tmp_path):
    path = tmp_path / "checkpoint.pt"
    code = "import os, sys; from pathlib import Path; from examples.stylegan import files\n"
    code += "" if locks else "files.fcntl = None\n"
    code += "with files.whole(Path(sys.argv[1])) as file: os.kill(os.getpid(), 9)"
    ran = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True)
    assert ran.returncode == -9, ran.stderr
    (left,) = tmp_path.iterdir()
    assert left_over(path) == [left]
    for name in ("checkpoint.pt2.tmp", "checkpoint.pt.mine.tmp", "my_checkpoint.pt.tmp"):
        (tmp_path / name).write_text("mine")
    assert left_over(path) == [left]
    with whole(path) as file:
        file.write(b"whole")
    assert left_over(path) == ([] if locks else [left])


def test_a_process_claims_a_folder_once_wherever_it_goes(tmp_path, monkeypatch):
    """The second claim was granted, and its end let other processes in beside the first one."""
    monkeypatch.chdir(tmp_path)
    run = Run("run")
    with run.claim():
        pass
    busy = pytest.raises(OSError, match="--out must be free of a run that still works, got 'run'")
    with busy, Run("run").claim():
        pass
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    run.release()
    assert not list((tmp_path / "run").iterdir())
    with Run(tmp_path / "run").claim():
        pass


def test_a_run_removes_pictures_that_a_kill_left(tmp_path):
    samples = tmp_path / "samples"
    samples.mkdir()
    left = "000100.png.tmp", f"000200.png.{16 * 'a'}.tmp"
    for name in (*left, "000100.png", "mine.png.tmp", "1.png.tmp"):
        (samples / name).write_bytes(b"")
    Run(tmp_path)._remove_left_over()
    assert {path.name for path in samples.iterdir()} == {"000100.png", "mine.png.tmp", "1.png.tmp"}


def test_a_lock_follows_its_file_and_not_the_name(tmp_path):
    """Whoever moves or removes a locked file leaves the name to others."""
    require("locks of fcntl", found=files.fcntl is not None)
    path = tmp_path / "lock"
    with locked(path) as first:
        with locked(path) as second:
            assert (first, second) == (True, False)
        path.unlink()
        with locked(path) as third, locked(path) as fourth:
            assert (third, fourth) == (True, False)
    with locked(path) as last:
        assert last


# Two runs in one folder

TWO_RUNS = """
import contextlib, io, os, signal, sys, time
from examples.stylegan import train
from examples.stylegan.run import Run

out, *options = sys.argv[1:]
run = Run(out)
options = ["--out", out, "--log-every", "1", "--save-every", "1", *options]
child = os.fork()  # what was imported is there already; no thread runs yet
if child == 0:
    os._exit(train.main([*options, "--steps", "1000000"]))
try:
    while not run.checkpoint.exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended"
        time.sleep(0.01)
    for more in (["--resume"], ["--overwrite"], []):
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                train.main([*options, *more, "--steps", "1"])
            raise AssertionError("two runs work in one folder")
        except SystemExit as stop:
            assert stop.code == 2, stop.code
        rule = f"error: --out must be free of a run that still works, got {out!r}: stop it, wait"
        assert rule in said.getvalue(), said.getvalue()
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended"
finally:
    os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
reached = run.read()["steps"]  # its worker may still live
assert train.main([*options, "--resume", "--steps", str(reached + 1)]) == 0
assert [line["step"] for line in run.read_metrics()] == list(range(1, reached + 2))
"""


def test_a_folder_takes_one_run_at_a_time_and_another_as_soon_as_that_is_killed(tmp_path):
    require("locks of fcntl", found=files.fcntl is not None)
    images = make_folder(tmp_path / "images", 9)
    out = tmp_path / "run"
    options = [*TINY, "--data", str(images), "--workers", "1"]
    command = [sys.executable, "-c", TWO_RUNS, str(out), *options]
    status, _, errors = run_group(command, timeout=300, cwd=ROOT)
    assert status == 0, errors
    assert not (out / LOCK).exists()


def test_where_there_are_no_locks_a_run_says_so(tmp_path, capsys, monkeypatch, no_report):
    monkeypatch.setattr(files, "fcntl", None)
    options = ["--out", str(tmp_path), *TINY, "--log-every", "1"]
    assert train.main([*options, "--steps", "1"]) == 0
    note = f"note: --out {tmp_path} takes no locks (this system has no locks of fcntl): make sure "
    assert f"{note}that no other run works there" in capsys.readouterr().err
    left = tmp_path / f"checkpoint.pt.{'0' * 16}.tmp"
    left.write_text("half")
    assert train.main([*options, "--steps", "2", "--resume"]) == 0
    assert not left.exists()


def test_a_lock_that_cannot_be_made_is_told(tmp_path, capsys):
    require("locks of fcntl", found=files.fcntl is not None)
    (tmp_path / LOCK).mkdir()
    with pytest.raises(SystemExit):
        train.main(["--out", str(tmp_path), *TINY])
    said = f"--out must be a folder that can be written to, got {str(tmp_path / LOCK)!r}: Is a dir"
    assert said in capsys.readouterr().err


# Folders in the folder of a run that are links


@pytest.mark.parametrize("name", ["samples", "tensorboard"])
def test_a_new_run_removes_a_link_and_not_what_it_leads_to(name, tmp_path, no_report):
    out, other = tmp_path / "run", tmp_path / "another disk"
    for folder in (out, other):
        folder.mkdir()
    (other / "000900.png").write_text("of the earlier run")
    (out / name).symlink_to(other)
    assert train.main(["--out", str(out), *TINY, "--steps", "1", "--overwrite"]) == 0
    assert not (out / name).is_symlink()
    assert not (out / name / "000900.png").exists()
    assert [path.name for path in other.iterdir()] == ["000900.png"]


def test_a_resumed_run_follows_a_link(tmp_path, no_report):
    out, other = tmp_path / "run", tmp_path / "another disk"
    options = ["--out", str(out), *TINY]
    assert train.main([*options, "--steps", "1"]) == 0
    (out / "samples").rename(other)
    (out / "samples").symlink_to(other)
    assert train.main([*options, "--steps", "2", "--resume"]) == 0
    assert sorted(path.name for path in other.iterdir()) == ["000001.png", "000002.png"]


def test_a_link_to_nowhere_is_found_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "load", lambda *args: pytest.fail("the images were read"))
    (tmp_path / "samples").symlink_to(tmp_path / "nowhere")
    for folder, link in ((tmp_path, "samples"), (tmp_path / "samples", "")):
        with pytest.raises(SystemExit):
            train.main(["--out", str(folder), *TINY, "--steps", "1", "--overwrite"])
        place = tmp_path / "samples"
        said = f"got {str(place)!r}: {place} is a link to nowhere"
        assert said in capsys.readouterr().err, link
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ("", "--data must not lie where the run writes"),
        ("deeper", "--out must not lie in the folder of images, which would then hold generated"),
        ("..", "--data must not lie where the run writes"),
    ],
)
@pytest.mark.parametrize("name", ["samples", "tensorboard"])
def test_a_run_does_not_write_through_a_link_among_its_images(more, rule, name, tmp_path, capsys):
    images = make_folder(tmp_path / "all" / "images", 9)
    target = images / more
    target.mkdir(exist_ok=True)
    out = tmp_path / "run"
    out.mkdir()
    (out / name).symlink_to(target)
    before = sorted(tmp_path.rglob("*"))
    options = ["--out", str(out), "--data", str(images), *TINY, "--steps", "1", "--overwrite"]
    with pytest.raises(SystemExit):
        train.main(options)
    error = capsys.readouterr().err
    assert f"error: {rule}" in error
    assert (
        f"got --out {out}, whose {name} leads to {target.resolve()}, and --data {images}" in error
    )
    assert sorted(tmp_path.rglob("*")) == before


# Options, and outputs that take no text


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (train, [*TINY, "--steps", "1", "--overwrite"]),
        (generate, ["--checkpoint", "none.pt"]),
        (sticking, ["--steps", "1"]),
    ],
)
def test_an_empty_name_is_not_the_working_folder(command, options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "mine.png").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        command.main(["--out", "", *options])
    assert stop.value.code == 2
    assert "error: argument --out: it must be a folder, got ''" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.png", "samples"]


@contextlib.contextmanager
def full_output():
    require("/dev/full", found=os.path.exists("/dev/full"))
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full):
        yield


FULL = "error: standard output could not be written: No space left on device\n"


def test_an_output_that_takes_no_text_is_one_sentence():
    """In a process of its own: Python flushes the output once more when it ends."""
    command = [sys.executable, "-m", "examples.stylegan.describe", "--config", "stylegan3-t-256"]
    require("/dev/full", found=os.path.exists("/dev/full"))
    with open("/dev/full", "w") as full:
        ran = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ran.returncode, ran.stderr) == (1, FULL)


def test_the_other_commands_end_with_that_sentence_too(tmp_path, capsys, no_report, monkeypatch):
    out = tmp_path / "run"
    options = ["--out", str(out), *TINY, "--steps", "1"]
    with full_output():
        assert train.main(options) == 1
    assert capsys.readouterr().err == FULL
    assert train.main([*options, "--overwrite"]) == 0
    pictures = ["--checkpoint", str(out / "checkpoint.pt"), "--out", str(tmp_path / "pictures")]
    capsys.readouterr()
    with full_output():
        assert generate.main(pictures) == 1
    assert capsys.readouterr().err.endswith(FULL)
    assert (tmp_path / "pictures" / "grid.png").exists()
    with full_output():
        assert zone_plate.main(["--out", str(tmp_path / "plate.png")]) == 1
    assert capsys.readouterr().err == FULL


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("", "the folder of --out must have no folder where a file is to be written, got '.'"),
        (".", "the folder of --out must have no folder where a file is to be written, got '.'"),
        (
            "/proc/x/y.png",
            "the folder of --out must be a folder that can be written to, got '/proc/x': N",
        ),
    ],
)
def test_a_picture_that_cannot_be_written_is_told_first(
    place, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zone_plate, "measure", lambda *args: pytest.fail("the work was done"))
    with pytest.raises(SystemExit) as stop:
        zone_plate.main(["--out", place])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: PEERS"),
        (["none"], "PEERS must be a folder, got 'none'"),
    ],
)
def test_the_script_of_the_fixtures_says_what_it_lacks(
    arguments, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["compat_fixtures.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        compat_fixtures.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {said}")


def test_the_zone_plate_that_is_run_as_a_file_says_how_it_is_run(tmp_path):
    file = ROOT / "examples" / "zone_plate.py"
    ran = subprocess.run([sys.executable, file], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 1
    said = "zone_plate.py must be run as a module, from the root of the clone: python -m examples."
    assert ran.stderr == f"{said}zone_plate\n"
