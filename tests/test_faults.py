# SPDX-License-Identifier: BSD-3-Clause
"""What may happen to a process: no memory, Ctrl-C, a kill, a full disk, a user without a home.

Whatever it is, tensors, gradients, buffers and files are as they were before, and the next call
works. Trainings and pictures that end badly are in test_training_faults.py and test_generate.py.
"""

import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples.stylegan.checkpoints import (
    CheckpointError,
    load,
    save_basicsr,
    save_rosinality,
)
from examples.stylegan.discriminator import Discriminator
from examples.stylegan.files import find_half_replaced, waiting
from examples.stylegan.generator import Generator
from resample_layers.compat import migrate
from resample_layers.ops.upfirdn2d import UPFIRDN2D

from .test_clients import OURS, contents, migrate_quickly, use
from .test_extension import LIBRARIES
from .tools import files_of_at_most, require

ROOT = Path(__file__).parent.parent


def run(code, *arguments, **environment):
    """A process of its own; what it printed."""
    ours = ("RESAMPLE_LAYERS_BACKEND", "LD_PRELOAD")
    kept = {k: v for k, v in os.environ.items() if k not in ours}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(
        command, cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# Memory

FAIL = """
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
extern void *__libc_malloc(size_t), *__libc_memalign(size_t, size_t);
static atomic_long seen, wanted;
static atomic_size_t least;

/* Let the given one of the allocations of so many bytes or more fail, once. */
void fail(long number, size_t size) { seen = 0; least = size; wanted = number; }
/* How many there were since. */
long count(void) { wanted = 0; return seen; }

static int fails(size_t size) {
  return wanted && size >= least && atomic_fetch_add(&seen, 1) + 1 == wanted;
}
void* malloc(size_t size) {
  if (!fails(size)) return __libc_malloc(size);
  errno = ENOMEM;
  return NULL;
}
int posix_memalign(void** memory, size_t alignment, size_t size) {
  *memory = fails(size) ? NULL : __libc_memalign(alignment, size);
  return *memory ? 0 : ENOMEM;
}
"""
CALLS = """
import ctypes, os, sys, torch
from resample_layers.ops import (
    bias_act, extension, filtered_lrelu, filtered_snake, upfirdn2d, upfirdn2d_bias_act)

assert extension.choices["cpu"].backend == os.environ["RESAMPLE_LAYERS_BACKEND"]
torch.set_num_threads(2)
torch.manual_seed(0)

def make(side):
    "Calls and their tensors; results are larger than the images, which have this side."
    # channels_last needs scratch memory in calls, filtered activations need it in threads
    x, b, t = torch.randn(2, 3, side, side), torch.randn(3), torch.randn(8)
    last = x.contiguous(memory_format=torch.channels_last)
    noise = torch.randn(2, 1, 2 * side, 2 * side)
    return {
        "planar": (lambda x, k: upfirdn2d(x, k, up=2, pad=(2, 1)), x, torch.randn(4, 4)),
        "separable": (lambda x, t: upfirdn2d(x, t, up=2, down=3, pad=(8, 8)), x, t),
        "channels_last": (lambda x, t: upfirdn2d(x, t, up=2, pad=(8, 8)), last, t),
        "bias_act": (lambda x, k, b, n, s: upfirdn2d_bias_act(x, k, b, n, s, up=2, pad=(2, 1)),
                     x, torch.randn(4, 4), b, noise, torch.ones(1)),
        "bias_act alone": (bias_act, x, b),
        "filtered_lrelu": (lambda x, b: filtered_lrelu(
            x, t, t, b, up=2, down=2, pad=(4, 3), down_pad=(3, 4)), x, b),
        "filtered_snake": (lambda x, a: filtered_snake(
            x, a, None, t, t, up=2, down=2, pad=(4, 3), down_pad=(3, 4)), x.flatten(2), b.abs()),
    }

def leaves_of(tensors):
    return [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in tensors]

def compute(call, leaves):
    out = call(*leaves)
    out.square().sum().backward()
    grads = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return [out.detach(), *grads]

def check_sentence(name, error):
    first = str(error).splitlines()[0]
    assert type(error) is RuntimeError, (name, repr(error))
    # What autograd and torch's own functions ask for is said by torch alone
    assert "ran out of memory on cpu, with tensors of shapes [" in first or (
        "can't allocate memory" in first), (name, first)
    return "ran out of memory" in first

def check_intact(name, call, leaves, tensors, versions, expected):
    assert [leaf._version for leaf in leaves] == versions, name
    assert all(torch.equal(a, b) for a, b in zip(leaves, tensors, strict=True)), name
    assert all(leaf.grad is None for leaf in leaves), name
    for one, other in zip(compute(call, leaves), expected, strict=True):
        torch.testing.assert_close(one, other, msg=name)
"""


def test_a_memory_error_without_words():
    """Python raises such ones; the sentence ended in the middle."""
    x = torch.ones(1, 1, 3, 3)
    with pytest.raises(RuntimeError) as caught:
        UPFIRDN2D._raise(MemoryError(), (x, x[0, 0]))
    assert str(caught.value) == (
        "upfirdn2d ran out of memory on cpu, with tensors of shapes [1, 1, 3, 3], [3, 3]\n"
        "can't allocate memory: MemoryError()"
    )


EACH_ALLOCATION = (
    CALLS
    + """
library = ctypes.CDLL(None)
library.fail.argtypes, library.count.restype = [ctypes.c_long, ctypes.c_size_t], ctypes.c_long
library.fail(1, 8192)
try:
    torch.empty(1 << 20)
    sys.exit(print("torch has an allocator of its own"))
except RuntimeError:
    library.count()
for name, (call, *tensors) in make(40).items():
    leaves = leaves_of(tensors)
    versions = [leaf._version for leaf in leaves]
    expected = compute(call, leaves)
    number = failed = 0
    while True:
        number += 1
        library.fail(number, 8192)  # what is smaller is torch's and Python's own
        error = None
        try:
            compute(call, leaves)
        except Exception as raised:
            error = raised
        if library.count() < number:
            assert error is None, name
            break
        failed += check_sentence(name, error)
        check_intact(name, call, leaves, tensors, versions, expected)
    print(name, number - 1, failed, sep=", ")
"""
)


def test_each_allocation_of_the_kernels_may_fail(tmp_path):
    """One after another, forward and backward, in the kernels' scratch memory too."""
    require("CPU library", found=LIBRARIES["cpu"].exists())
    require("glibc", found=platform.libc_ver()[0] == "glibc")
    library = tmp_path / "fail.so"
    command = [require("cc"), "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=FAIL, text=True, check=True)
    printed = run(EACH_ALLOCATION, RESAMPLE_LAYERS_BACKEND="extension", LD_PRELOAD=str(library))
    require("malloc of glibc in torch", found="allocator of its own" not in printed)  # as on arm64
    lines = [line.split(", ") for line in printed.splitlines()]
    assert len(lines) == 7
    assert all(int(failed) >= 1 and int(count) >= 3 for _, count, failed in lines), printed


NO_MEMORY = (
    CALLS
    + """
import contextlib, resource

@contextlib.contextmanager
def no_more_memory():
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (64 << 10)
    resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))

try:
    with no_more_memory():
        torch.empty(1 << 22)
    sys.exit(print("torch has an allocator of its own"))
except RuntimeError:
    pass
# Every result is far larger than what malloc may have left in a heap (its padding is 128 KiB)
for name, (call, *tensors) in make(400).items():
    leaves = leaves_of(tensors)
    versions = [leaf._version for leaf in leaves]
    expected = compute(call, leaves)
    said = []
    try:
        with no_more_memory():
            call(*leaves)
    except Exception as error:
        said.append(check_sentence(name, error))
    check_intact(name, call, leaves, tensors, versions, expected)
    out = call(*leaves)
    grad = torch.ones_like(out)
    try:
        with no_more_memory():
            out.backward(grad)
    except Exception as error:
        said.append(check_sentence(name, error))
    check_intact(name, call, leaves, tensors, versions, expected)
    print(name, *said, sep=", ")
"""
)


def test_a_process_without_memory_goes_on():
    """The limit of the system: too little for the forward pass, or for the backward pass."""
    require("CPU library", found=LIBRARIES["cpu"].exists())
    require("RLIMIT_AS", found=sys.platform == "linux")
    # Memory of 16 KiB and more is asked of the system, and goes back to it; a second arena would
    # have 64 MiB of addresses that are taken already
    printed = run(
        NO_MEMORY,
        RESAMPLE_LAYERS_BACKEND="extension",
        MALLOC_MMAP_THRESHOLD_="16384",
        MALLOC_ARENA_MAX="1",
    ).splitlines()
    require("malloc of glibc in torch", found="allocator of its own" not in printed[0])
    assert len(printed) == 7
    assert all(re.fullmatch(r"[\w ]+, True, True", line) for line in printed), printed


# Ctrl-C

INTERRUPTED = (
    CALLS
    + """
import signal, threading, time

image = torch.randn(1, 4, 256, 256, requires_grad=True)
kernel = torch.randn(12, 12, requires_grad=True)
before = image.detach().clone()
small, *tensors = make(40)["filtered_lrelu"]
leaves = leaves_of(tensors)
expected = compute(small, leaves)
for place in ("forward", "backward"):
    out, stopped = None, False
    # The signal is sent from another thread while the main one is in the kernels
    def send():
        started.wait()
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)
    started = threading.Event()
    thread = threading.Thread(target=send)
    thread.start()
    try:
        if place == "forward":
            started.set()
            for _ in range(1000):  # no kernel is cut short: the loop ends between two calls
                out = upfirdn2d(image, kernel, up=2, pad=(6, 5))
        else:
            out = upfirdn2d(image, kernel, up=2, pad=(6, 5))
            started.set()
            for _ in range(1000):
                torch.autograd.grad(out.sum(), (image, kernel), retain_graph=True)
    except KeyboardInterrupt:
        stopped = True
    thread.join()
    assert stopped, place
    assert torch.equal(image, before) and image._version == 0
    assert image.grad is None and kernel.grad is None
    for one, other in zip(compute(small, leaves), expected):
        torch.testing.assert_close(one, other)
print("done")
"""
)


def test_ctrl_c_in_a_long_call():
    """It arrives when the running kernel has ended, and leaves all as it was."""
    backend = "extension" if LIBRARIES["cpu"].exists() else "native"
    assert run(INTERRUPTED, RESAMPLE_LAYERS_BACKEND=backend) == "done\n"


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


BETWEEN = """
import os, signal, sys
from pathlib import Path
from tests import test_faults

def die(event, arguments):
    global left
    if event == "os.rename":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

networks = test_faults.small_networks("basicsr")
for folder, number in zip(sys.argv[1:], (3, 4, 4), strict=True):
    if os.fork() == 0:
        left = number
        sys.addaudithook(die)
        test_faults.SAVERS["basicsr"](*networks, Path(folder))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_pair_of_files_is_never_taken_from_two_saves(tmp_path):
    """A kill before a file takes its place: the pair is the old one, or refused with the cure."""
    folders = [tmp_path / name for name in ("first", "second", "no old pair")]
    for folder in folders:
        folder.mkdir()
    for folder in folders[:2]:
        SAVERS["basicsr"](*small_networks("basicsr"), folder)
    before = [contents(folder) for folder in folders]
    assert run(BETWEEN, *folders).split() == ["-9", "-9", "-9"]
    now = [contents(folder) for folder in folders]
    assert {path: now[0][path] for path in before[0]} == before[0]
    load(folders[0] / "net.pth", folders[0] / "net_d.pth")
    for folder in folders[1:]:
        path, second = folder / "net.pth", folder / "net_d.pth"
        with pytest.raises(CheckpointError, match=r"only .*net_d\.pth took its place") as caught:
            load(path, second)
        subprocess.run(shlex.split(str(caught.value).split("finish with: ")[1]), check=True)
        load(path, second)
        assert {p.name for p in contents(folder)} == {"net.pth", "net_d.pth"}
    assert contents(folders[1])[folders[1] / "net.pth"] != before[1][folders[1] / "net.pth"]
    for folder in folders:  # the next save needs no help
        SAVERS["basicsr"](*small_networks("basicsr"), folder)
        load(folder / "net.pth", folder / "net_d.pth")
        assert {p.name for p in contents(folder)} == {"net.pth", "net_d.pth"}


PAIRS = """
import os, shlex, shutil, signal, sys
from pathlib import Path
from examples.stylegan import files

def attempt(folder, text, how="", first=0):
    "Save a pair in a process of its own; what it said, and whether it met its fault."
    said, met = folder.with_suffix(".said"), folder.with_suffix(".met")
    child = os.fork()
    if child == 0:
        count, busy, words = 0, True, ""

        def meet(event, _):
            nonlocal count
            if not busy or event not in ("open", "os.rename", "os.remove"):
                return
            count += 1
            if count == first:
                met.mkdir()
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
            if count == first or count > first and "all" in how:
                raise KeyboardInterrupt if "stop" in how else OSError(5, "Input/output error")

        def write(file):
            file.write(text[:3])
            if how == "full":
                raise OSError(28, "No space left on device")
            file.write(text[3:])

        if how not in ("", "full"):
            sys.addaudithook(meet)
        try:
            files.write_pair(folder / "g", write, folder / "d", write)
        except (OSError, KeyboardInterrupt) as error:
            words = str(error)
        busy = False
        said.write_text(words)
        os._exit(0)
    os.waitpid(child, 0)
    words, faulty = said.read_text() if said.exists() else "", met.exists()
    said.unlink(missing_ok=True)
    if faulty:
        met.rmdir()
    return words, faulty

def copied(folder, name):
    return Path(shutil.copytree(folder, f"{folder} {name}"))

def pair(folder):
    "What the two files hold, once a pair that is refused is finished as the sentence says."
    half = files.find_half_replaced(folder / "g", folder / "d")
    if half:
        sentence = files.explain_half_replaced(folder / "g", folder / "d")
        mv, source, target = shlex.split(sentence.split("finish with: ")[1])
        os.replace(source, target)
    found = {(folder / n).read_bytes() if (folder / n).exists() else None for n in "gd"}
    assert len(found) == 1, (folder, half, found)
    return half, found.pop()

root, count, seen = Path(sys.argv[1]), 0, []
for start in (b"earlier", None):
    for how in ("kill", "stop", "stop all", "fail", "fail all"):
        for first in range(1, 99):
            count += 1
            case = root / f"{count} {how} {first}"
            case.mkdir()
            for name in "gd" if start else "":
                (case / name).write_bytes(start)
            words, faulty = attempt(case, b"second", how, first)
            if not faulty:
                break
            left = {path.name for path in case.iterdir()}
            copy = copied(case, "finished")
            half, found = pair(copy)
            assert found in (start, b"second"), (case, found)
            if how in ("stop", "fail"):
                wanted = {"g", "d"} if found else set()
                assert left == (left & wanted | {"g.pair"} if half else wanted), (case, left)
            if "fail" in how:
                assert ("finish with: mv " in words) == half, (case, words)
                assert f"{case}/" in words, (case, words)
            state = {(path.name, path.read_bytes()) for path in case.iterdir()}
            if state in seen:
                continue
            seen.append(state)
            for again, at in (("full", 0), *(("kill", n) for n in range(1, 12, 2))):
                copy = copied(case, f"{again} {at}")
                attempt(copy, b"third", again, at)
                assert pair(copied(copy, "finished"))[1] in (found, b"third")
                attempt(copy, b"last")
                assert pair(copy) == (False, b"last")
                assert {path.name for path in copy.iterdir()} == {"g", "d"}, copy
        assert first > 8, (how, first)
print("done")
"""


def test_no_fault_and_no_retry_mixes_two_saves_of_a_pair(tmp_path):
    """A kill, Ctrl-C or a failure before each change of a name, and then a second fault."""
    assert run(PAIRS, tmp_path) == "done\n"


def test_what_another_save_left_is_not_taken_for_a_pairs(tmp_path):
    """A kill in the middle of a save of one file leaves a part of it; a later file is whole."""
    path, second = tmp_path / "net.pth", tmp_path / "net_d.pth"
    SAVERS["basicsr"](*small_networks("basicsr"), tmp_path)
    (tmp_path / "net.pth.tmp").write_bytes(b"half")
    second.write_bytes(second.read_bytes())
    load(path, second)


@pytest.mark.parametrize("dialect", SAVERS)
def test_a_save_of_one_file_replaces_what_waits_for_its_place(dialect, tmp_path):
    generator = small_networks(dialect)[0]
    path = tmp_path / ("net.pth" if dialect == "basicsr" else "net.pt")
    SAVERS["basicsr"](*small_networks("basicsr"), tmp_path)
    waiting(path).write_bytes(b"of a pair that was not finished")
    save = {"basicsr": save_basicsr, "rosinality": save_rosinality}[dialect]
    save(path, generator)
    assert not find_half_replaced(path, tmp_path / "net_d.pth")
    load(path)
    assert {p.name for p in tmp_path.iterdir()} == {"net.pth", "net_d.pth", path.name}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("a", "b/../a"),
        *[("a", f"a{end}") for end in (".tmp", ".pair")],
        *[(f"a{end}", "a") for end in (".tmp", ".pair2")],
    ],
)
def test_paths_of_a_pair_that_collide_are_refused(name, other, tmp_path):
    (tmp_path / "b").mkdir()
    said = "discriminator_path must be another file than path, and neither the other with .tmp"
    with pytest.raises(ValueError, match=said):
        save_basicsr(
            tmp_path / name,
            *small_networks("basicsr"),
            discriminator_path=tmp_path / other,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_pair_that_cannot_be_finished_is_as_it_was_or_says_how(tmp_path, monkeypatch):
    """A folder stands in the way of one file; then the disk fails between the two renames."""
    networks = small_networks("basicsr")
    for name, other in (("net.pth", "net_d.pth"), ("net_d.pth", "net.pth")):
        (tmp_path / name).mkdir()
        with pytest.raises(IsADirectoryError) as caught:
            SAVERS["basicsr"](*networks, tmp_path)
        assert caught.value.filename == str(tmp_path / name)
        assert not (tmp_path / other).exists()
        assert not list(tmp_path.glob("*.tmp"))
        (tmp_path / name).rmdir()
    replace = os.replace

    def fail(source, target):
        if target == tmp_path / "net.pth":
            raise OSError(5, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(OSError, match=r"Input/output error; of a pair .* finish with: mv "):
            SAVERS["basicsr"](*networks, tmp_path)
    with pytest.raises(CheckpointError, match=r"only .*net_d\.pth took its place"):
        load(tmp_path / "net.pth", tmp_path / "net_d.pth")


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


@pytest.mark.parametrize("end", ["", ".old"], ids=["before the first change", "after the last one"])
def test_ctrl_c_right_after_a_rename_leaves_nothing_over(end, tmp_path, monkeypatch):
    """It was told as half-done after the last change, with a command that could not run."""
    root = tmp_path / "root"
    before = use(root)
    rename = os.rename

    def stop(source, target):
        rename(source, target)
        if target == root / f"{migrate.WORK}{end}":
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", stop)
    if end:
        assert "undo it with: git" in migrate_quickly(root, "rosinality")
        assert contents(root) == {root / "a.py": OURS.encode()}
    else:
        with pytest.raises(KeyboardInterrupt):
            migrate_quickly(root, "rosinality")
        assert contents(root) == before
    assert not list(root.glob(".resample_layers_migrate*"))


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
    sets = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    require(
        "CAP_DAC_READ_SEARCH", found=bool(int(sets["CapPrm"], 16) & 4)
    )  # not in every container
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
