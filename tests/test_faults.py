# SPDX-License-Identifier: BSD-3-Clause
"""What may happen to a process: a kill, Ctrl-C, a full disk, a user without a home.

Whatever it is, files are as they were before.
Trainings and pictures that end badly are
in test_training_faults.py and test_generate.py.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples.stylegan.checkpoints import save_basicsr, save_rosinality
from examples.stylegan.discriminator import Discriminator
from examples.stylegan.generator import Generator
from resample_layers.compat import migrate

from .test_clients import OURS, contents, migrate_quickly, use
from .tools import files_of_at_most, require

ROOT = Path(__file__).parent.parent


def run(code, *arguments, **environment):
    """A process of its own; what it printed."""
    kept = {k: v for k, v in os.environ.items() if k != "RESAMPLE_LAYERS_BACKEND"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(
        command, cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# Files

OTHER = {"style_dim": 8, "mapping_layers": 2, "channels": {4: 8, 8: 8, 16: 8}}
SAVERS = {
    "rosinality": lambda g, d, folder: save_rosinality(folder / "net.pt", g),
    "basicsr": lambda g, d, folder: save_basicsr(
        folder / "net.pth", g, d, discriminator_path=folder / "net_d.pth"
    ),
}


def small_networks(dialect):
    if dialect == "basicsr":
        channels = {4: 8, 8: 8, 16: 8}
        return Generator(16, **OTHER), Discriminator(16, channels=channels)
    return Generator(8, style_dim=8, mapping_layers=1), None


@pytest.mark.parametrize("dialect", SAVERS)
def test_a_full_disk_leaves_the_earlier_checkpoint(dialect, tmp_path):
    """Both of BasicSR's files, also where the first one would still fit."""
    generator, discriminator = small_networks(dialect)
    SAVERS[dialect](generator, discriminator, tmp_path)
    before = contents(tmp_path)
    sizes = [len(content) for content in before.values()]
    with torch.no_grad():
        generator.input.input.add_(1)
    for size in {min(sizes) // 2, max(sizes) - 1}:
        with files_of_at_most(size), pytest.raises(OSError, match="File too large"):
            SAVERS[dialect](generator, discriminator, tmp_path)
        assert contents(tmp_path) == before
    SAVERS[dialect](generator, discriminator, tmp_path)
    assert contents(tmp_path) != before


KILLED = """
import os, signal, sys
import torch
from pathlib import Path
from tests import test_faults

def die(state, file):
    open(file, "wb").write(b"half") if isinstance(file, (str, os.PathLike)) else file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

networks = test_faults.small_networks(sys.argv[1])
torch.save = die
test_faults.SAVERS[sys.argv[1]](*networks, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("dialect", SAVERS)
def test_a_kill_leaves_the_earlier_checkpoint(dialect, tmp_path):
    SAVERS[dialect](*small_networks(dialect), tmp_path)
    before = contents(tmp_path)
    command = [sys.executable, "-c", KILLED, dialect, str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert {path: contents(tmp_path)[path] for path in before} == before
    SAVERS[dialect](*small_networks(dialect), tmp_path)
    assert set(contents(tmp_path)) == set(before)


# The command that replaces a vendored copy

STOPPED = """
import os, signal, sys
from resample_layers.compat import migrate

def stop(event, arguments):
    "Before each change of the names in a folder."
    global left
    if event in ("os.rename", "os.remove", "os.rmdir"):
        left -= 1
        if left == 0 and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if left == 0 or left < 0 and how == "broken":  # and it stays so
            full, broken = OSError(28, "No space left on device"), OSError(5, "Input/output error")
            raise {"full": full, "stop": KeyboardInterrupt(), "broken": broken}[how]

how, *roots = sys.argv[1:]
for number, root in enumerate(roots, 1):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(root + ".said", os.O_WRONLY | os.O_CREAT), 2)
        left = number
        sys.addaudithook(stop)
        os.chdir(root)
        try:
            os._exit(migrate.main(["rosinality"]))
        except KeyboardInterrupt:
            os._exit(130)
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("how", ["kill", "full", "stop"])
def test_a_migration_that_is_stopped_loses_nothing(how, tmp_path):
    """Before each change of a name: all is as it was, or can be put back as the next run says."""
    roots = [tmp_path / str(number) for number in range(9)]
    more = {"b.py": "import op\n", "net/c.py": "from op import upfirdn2d\n"}
    before = [use(root, **more) for root in roots]
    statuses = [int(line) for line in run(STOPPED, how, *roots, RESAMPLE_LAYERS_BACKEND="native")
                .splitlines() if line.lstrip("-").isdigit()]  # fmt: skip
    expected = {"kill": -signal.SIGKILL, "full": 1, "stop": 130}[how]
    assert statuses[:6] == [expected] * 6  # the folder of work, three files, the copy, the end
    for root, old, status in zip(roots, before, statuses, strict=True):
        work = root / migrate.WORK
        if how == "kill" and work.exists():
            said = migrate_quickly(root, "rosinality", refused=True)
            assert f"{work}: an earlier run was killed half-way" in said
            undo = said.split("put it back with: ")[1].split("; then remove ")[0]
            subprocess.run(shlex.split(undo), check=True)
            shutil.rmtree(work)
        after = contents(root)
        after = {k: v for k, v in after.items() if migrate.WORK not in str(k)}  # what is left over
        finished = (root / "a.py").read_text() == OURS
        if status == 0 or root.name > "5":  # what is to be deleted lies aside, and may remain
            assert finished
        if finished:
            assert set(after) == {root / "a.py", root / "b.py", root / "net" / "c.py"}
            assert (root / "net" / "c.py").read_text() == OURS
            continue
        assert after == old
        if how == "full":
            told = "Nothing was changed, because of:\n[Errno 28] No space left on device"
            assert told in Path(f"{root}.said").read_text()
        migrate_quickly(root, "rosinality")
        assert {path.name for path in root.iterdir()} == {".git", "a.py", "b.py", "net"}


def test_a_migration_that_cannot_be_put_back_says_how_to(tmp_path):
    """The second file cannot be replaced, nor the first one moved back."""
    roots = [tmp_path / str(number) for number in range(3)]
    before = [use(root, **{"b.py": "import op\n"}) for root in roots]
    run(STOPPED, "broken", *roots, RESAMPLE_LAYERS_BACKEND="native")
    said = Path(f"{roots[2]}.said").read_text()
    assert "The change stopped half-way, because of:\n[Errno 5] Input/output error" in said
    assert "Nothing was changed" not in said
    undo = said.split("put it back with: ")[1].split("; then remove ")[0]
    subprocess.run(shlex.split(undo), check=True)
    shutil.rmtree(roots[2] / migrate.WORK)
    assert contents(roots[2]) == before[2]


# A user whom the system does not know

NOBODY = """
import ctypes, os, sys
import torch
libc = ctypes.CDLL(None, use_errno=True)
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
# Without a name, and with the right to read alone (CAP_DAC_READ_SEARCH), for torch may lie in the
# folder of another user; PR_SET_KEEPCAPS
assert libc.prctl(8, 1, 0, 0, 0) == 0
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
version, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(4, 4)
assert libc.capset(version, sets) == 0, os.strerror(ctypes.get_errno())
import resample_layers.info
from resample_layers.compat import migrate
assert resample_layers.UpFirDnUpsample()(torch.ones(1, 1, 4, 4)).shape == (1, 1, 8, 8)
assert "backends" in resample_layers.info.report()
print(migrate.main(["rosinality", sys.argv[1], "--dry-run"]))
"""


def test_a_user_without_a_name_or_a_home(tmp_path):
    """As in a container that was started with another number of the user."""
    require("root", found=sys.platform == "linux" and os.geteuid() == 0)
    (tmp_path / "a.py").write_text("x = 1\n")
    assert "nothing imports a copy of op: nothing was changed\n0\n" in run(NOBODY, tmp_path)


def test_the_folder_of_a_user_without_a_home(monkeypatch, tmp_path):
    """The same of the home alone, for any user: Python finds none and raises."""
    use(tmp_path)

    def fail(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(migrate.Path, "home", classmethod(fail))
    migrate_quickly(tmp_path, "rosinality")
    assert (tmp_path / "a.py").read_text() == OURS
