# SPDX-License-Identifier: BSD-3-Clause
"""The compiled libraries: found or not, fit or not, the package computes and says why.

Most tests start a process with a copy of the package, whose libraries are what the test needs.
"""

import atexit
import base64
import ctypes
import functools
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import pytest
import torch

import resample_layers
from resample_layers.info import VARIABLES
from resample_layers.ops import extension, library_file, native

from .tools import require

OPS = torch.ops.resample_layers
NATIVE_ONLY: set[str] = set()  # ops that have no compiled kernel on any device
PACKAGE = Path(resample_layers.__file__).parent
LIBRARIES = {device: extension.library_path(device) for device in ("cpu", "cuda")}
CALL = """
import torch
from resample_layers.ops import upfirdn2d
assert upfirdn2d(torch.ones(1, 1, 3, 4), torch.ones(2, 2)).sum() == 24
"""
CHOICES = CALL + "from resample_layers.ops import extension; print(extension.choices)"


@pytest.fixture
def copy(tmp_path) -> Path:
    """A folder with the package in it, without libraries."""
    ignore = shutil.ignore_patterns("lib", "__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "resample_layers", ignore=ignore)
    (tmp_path / "resample_layers" / "lib").mkdir()
    return tmp_path


@functools.cache
def other_modules() -> list[str]:
    """Python's path as it is here, but for the folders that hold a copy of the package.

    Where torch lies beside it, as after the installation of a wheel, links lead to the rest.
    """
    folders = []
    for folder in map(Path, map(os.path.abspath, sys.path)):
        if not (folder / "resample_layers").is_dir():
            folders.append(str(folder))
        elif (folder / "torch").is_dir():
            links = Path(tempfile.mkdtemp())
            atexit.register(shutil.rmtree, links)
            for path in folder.iterdir():
                if path.name != "resample_layers":
                    (links / path.name).symlink_to(path)
            folders.append(str(links))
    return folders


def run(
    folder: Path,
    *arguments: str,
    check: bool = True,
    input: str | None = None,
    **environment: str,
):
    """A process that sees the copy of the package in ``folder``, and no other copy.

    The environment of the tests may have one installed: ``-S`` keeps Python from finding it. Of the
    variables that the package reads, the process has those that are given here.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RESAMPLE_LAYERS_") and name not in VARIABLES
    }
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": os.pathsep.join([str(folder), *other_modules()]), **environment},
        capture_output=True,
        text=True,
        check=check,
        input=input,
    )


IN_FORKS = """
import json, os, runpy, signal, sys, traceback, torch

results = []
for environment, code in json.load(sys.stdin):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(100)  # the end of a process that waits for ever
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.environ.update(environment)
        try:
            exec(code, {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as output:
        results.append([output.read(), os.waitpid(child, 0)[1]])
print(json.dumps(results))
"""
REPORT = "import runpy; runpy.run_module('resample_layers.info', run_name='__main__')"


def run_in_forks(folder: Path, *cases: tuple[dict[str, str], str]) -> list[str]:
    """What each case, an environment and a code, prints: a process each, with torch imported."""
    result = run(folder, "-W", "always", "-c", IN_FORKS, input=json.dumps(cases))
    outputs, statuses = zip(*json.loads(result.stdout), strict=True)
    assert set(statuses) == {0}, outputs  # no signal has ended one
    return list(outputs)


def last_line(result) -> str:
    assert result.returncode != 0
    return result.stderr.strip().splitlines()[-1]


def library_of(folder: Path, device: str = "cpu") -> Path:
    return folder / "resample_layers" / "lib" / extension.library_path(device).name


def compile_library(path: Path, source: str) -> None:
    compiler = require("cc")
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True)


DESCRIPTION = {"version": resample_layers.__version__, "key": "CPU", "target": "2.11"}


def compile_description(path: Path, info: dict[str, str]) -> None:
    """A library that says this of itself, and has vector units "of a test"."""
    text = "".join(f"{key}={value}\\n" for key, value in info.items())
    compile_library(
        path,
        f'const char* resample_layers_describe(void) {{ return "{text}"; }}\n'
        'const char* resample_layers_cpu_capability(void) { return "of a test"; }',
    )


def built(device: str = "cpu") -> Path:
    path = LIBRARIES[device]
    require(f"{device.upper()} library", found=path.exists())
    return path


# What is there, what is asked for

NATIVELY = (
    "UserWarning: resample_layers computes natively on the CPU, which is several times slower: "
)


def warned(output: str) -> str:
    """The one warning of a process, without what it begins with."""
    assert output.count("Warning: ") == 1, output
    line = next(line for line in output.splitlines() if NATIVELY in line)
    return line.partition(NATIVELY)[2]


@pytest.fixture
def compiler(tmp_path) -> str:
    """A PATH with nothing but a C++ compiler."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "g++").symlink_to(require("c++"))
    return str(folder)


def test_without_a_compiler_all_is_native_and_quiet(copy):
    result = run(copy, "-W", "error", "-c", CHOICES, PATH="/nowhere")
    assert "backend='native'" in result.stdout
    assert "there are no CPU kernels here" in result.stdout
    assert result.stderr == ""


def test_a_clone_without_kernels_warns_with_the_command_that_compiles_them(copy, compiler):
    """Once, where a compiler is found; the command names the clone."""
    (copy / "build_backend").mkdir()
    (copy / "build_backend" / "toolchain.py").touch()
    told, report = run_in_forks(copy, ({"PATH": compiler}, CHOICES), ({"PATH": compiler}, REPORT))
    assert "backend='native'" in told
    reason = f"there are no CPU kernels here: {library_of(copy)} does not exist. What helps: "
    assert warned(told) == (
        f"{reason}pip install --editable {copy}, or set RESAMPLE_LAYERS_BACKEND=native to compute "
        "natively without this warning."
    )
    assert f"{reason}pip install --editable {copy}.\n" in report


def test_an_installation_without_kernels_warns_with_the_command_that_passes_the_cache(
    copy, compiler
):
    """Pip may have taken a wheel without kernels from its cache."""
    found, named, quiet = run_in_forks(
        copy,
        ({"PATH": compiler}, CALL),
        ({"PATH": "/nowhere", "CXX": f"{compiler}/g++ -pipe"}, CALL),
        ({"PATH": compiler, "RESAMPLE_LAYERS_BACKEND": "native"}, CALL),
    )
    assert (
        "What helps: pip install --no-cache-dir --no-deps --force-reinstall . in a clone of "
        "resample_layers, or set RESAMPLE_LAYERS_BACKEND=native"
    ) in warned(found)
    assert warned(named) == warned(found)
    assert quiet == ""


def test_a_clone_that_hides_an_installation_with_kernels_warns(copy, tmp_path):
    """What ``pip install .`` and any command in the clone meet; also without a compiler."""
    site, bare = tmp_path / "site", tmp_path / "bare"
    for folder in (site, bare):
        shutil.copytree(copy / "resample_layers", folder / "resample_layers")
    shutil.copy(built(), library_of(site))
    path = {"PATH": "/nowhere"}
    hides, hides_no_kernels, from_elsewhere = run_in_forks(
        copy,
        (path, f"import sys; sys.path.append({str(site)!r})\n" + CHOICES),
        (path, f"import sys; sys.path.append({str(bare)!r})\n" + CHOICES),
        (path, f"import sys; sys.path.insert(0, {str(site)!r})\n" + CHOICES),
    )
    assert "backend='native'" in hides
    assert (
        f"does not exist, and {copy} hides the installation in {site}, which has kernels. What "
        f"helps: start Python in another folder than {copy}, or "
    ) in warned(hides)
    assert "Warning" not in hides_no_kernels
    assert "Warning" not in from_elsewhere
    assert "'cpu': Choice(backend='extension'" in from_elsewhere


def test_a_copy_inside_another_package_hides_nothing(copy, tmp_path):
    vendor = tmp_path / "project" / "vendor"
    shutil.copytree(copy / "resample_layers", vendor / "resample_layers")
    shutil.copy(built(), library_of(copy))
    code = f"import sys; sys.path.append({str(copy)!r}); import vendor.resample_layers"
    assert run(tmp_path / "project", "-W", "error", "-c", code, PATH="/nowhere").stderr == ""


def test_the_compilers_that_are_looked_for_are_those_of_the_build():
    path = Path(__file__).parent.parent / "build_backend" / "toolchain.py"
    require("checkout", found=path.exists())
    assert f"COMPILERS = {extension.COMPILERS!s}".replace("'", '"') in path.read_text()


def test_native_can_be_forced(copy):
    shutil.copy(built(), library_of(copy))
    code = CHOICES + "; print(torch.ops.loaded_libraries)"
    result = run(copy, "-W", "error", "-c", code, RESAMPLE_LAYERS_BACKEND="native")
    assert result.stdout.count("'RESAMPLE_LAYERS_BACKEND=native'") == 2  # cpu and cuda
    assert result.stdout.splitlines()[-1] == "set()"


def test_extension_can_be_forced_and_import_loads_no_cuda(copy):
    for device in ("cpu", "cuda"):
        if extension.library_path(device).exists():
            shutil.copy(extension.library_path(device), library_of(copy, device))
    built()
    code = CHOICES + "; print(torch.ops.loaded_libraries, torch.cuda.is_initialized())"
    result = run(copy, "-W", "error", "-c", code, RESAMPLE_LAYERS_BACKEND="extension")
    assert "'cpu': Choice(backend='extension'" in result.stdout
    assert "upfirdn2d_cpu-" in result.stdout
    assert "upfirdn2d_cuda-" not in result.stdout
    assert result.stdout.strip().endswith("False")


def test_unknown_values_in_the_environment(copy):
    """Of variables that are read at import: an error that names the values that there are."""
    shutil.copy(built(), library_of(copy))
    backend, units, unused, empty, unknown = run_in_forks(
        copy,
        ({"RESAMPLE_LAYERS_BACKEND": "cuda"}, CALL),
        ({"RESAMPLE_LAYERS_CPU": "mmx"}, CALL),
        ({"RESAMPLE_LAYERS_CPU": "mmx", "RESAMPLE_LAYERS_BACKEND": "native"}, CHOICES),
        ({"RESAMPLE_LAYERS_CPU": "", "RESAMPLE_LAYERS_BACKEND": ""}, CHOICES),
        ({"RESAMPLE_LAYERS_BAKEND": "native"}, REPORT),
    )
    assert backend.splitlines()[-1] == (
        "ValueError: RESAMPLE_LAYERS_BACKEND must be native or extension, or not set, got 'cuda'"
    )
    assert re.fullmatch(
        "ValueError: RESAMPLE_LAYERS_CPU=mmx is not one of .* of this processor: baseline.*",
        units.splitlines()[-1],
    )
    assert "'cpu': Choice(backend='native'" in unused  # no kernels are loaded, none are chosen
    assert "'cpu': Choice(backend='extension'" in empty
    assert "  cpu   extension: " in unknown
    assert "  RESAMPLE_LAYERS_BAKEND=native  (not read when the package runs)\n" in unknown


# Files that are there but do not fit


def test_a_file_that_does_not_fit_is_told_everywhere(copy):
    """Works natively; warns once, at import; tells in the report; is an error where forced."""
    library_of(copy).write_bytes(b"no library")
    reason = f"{library_of(copy)} is not loaded: it is no ELF file. What helps: pip install --no-"
    result = run(copy, "-W", "always", "-c", CHOICES)
    assert "'cpu': Choice(backend='native'" in result.stdout
    assert warned(result.stderr).startswith(reason)
    assert reason in run(copy, "-m", "resample_layers.info").stdout

    result = run(copy, "-c", CALL, check=False, RESAMPLE_LAYERS_BACKEND="extension")
    told = "RuntimeError: RESAMPLE_LAYERS_BACKEND=extension asks for compiled CPU kernels, but "
    assert last_line(result).startswith(told + reason)


def with_machine(data: bytes) -> bytes:
    """The header of another machine: RISC-V."""
    return data[:18] + (243).to_bytes(2, sys.byteorder) + data[20:]


def zeros_from(data: bytes, start: int) -> bytes:
    return data[:start] + bytes(len(data) - start)


# Name: what becomes of the library's bytes, and what is said of the file
DAMAGED = {
    "empty": (lambda data: b"", "it is empty"),
    "text": (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "it is no ELF file"),
    "header": (lambda data: data[:40], "it is cut short: 40 bytes do not hold its header"),
    "machine": (with_machine, "it is made for RISC-V (64 bits, little-endian), and this process"),
    "bits": (lambda data: data[:4] + b"\1" + data[5:], "it is made for"),
    "kind": (lambda data: data[:16] + b"\1" + data[17:], "it is no shared library"),
    "zeros first": (lambda data: bytes(len(data) // 2) + data[len(data) // 2 :], "no ELF file"),
    "zeros after the header": (lambda data: zeros_from(data, 64), "the table of segments"),
    **{
        f"{tenths} tenths": (
            lambda data, tenths=tenths: data[: len(data) * tenths // 10],
            "it is cut short: it has",
        )
        for tenths in range(1, 10)
    },
    **{
        f"{tenths} tenths, then zeros": (
            lambda data, tenths=tenths: zeros_from(data, len(data) * tenths // 10),
            "the table of sections does not name its strings",
        )
        for tenths in range(1, 10)
    },
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_not_loaded(name, other_library):
    damage, fault = DAMAGED[name]
    other_library.write_bytes(damage(built().read_bytes()))
    with pytest.raises(extension.UnavailableError) as caught:
        extension.open_library("cpu")
    assert f"{other_library} is not loaded: " in str(caught.value)
    assert fault in str(caught.value)


def test_what_is_no_file_is_not_loaded(other_library, tmp_path):
    """A FIFO without a writer would be waited for."""
    cases = {
        "it is a FIFO, and no file": lambda: os.mkfifo(other_library),
        "it is a folder, and no file": other_library.mkdir,
        "it is a socket, and no file": lambda: os.mknod(other_library, stat.S_IFSOCK),
        "it is a device, and no file": lambda: other_library.symlink_to("/dev/zero"),
        "it cannot be read: No such file": lambda: other_library.symlink_to(tmp_path / "gone"),
        "it cannot be read: Too many levels": lambda: other_library.symlink_to(other_library),
    }
    for fault, make in cases.items():
        make()
        with pytest.raises(extension.UnavailableError, match=f"is not loaded: {fault}"):
            extension.open_library("cpu")
        other_library.rmdir() if other_library.is_dir() else other_library.unlink()


def test_no_file_ends_the_import_or_the_report(copy, tmp_path):
    """In processes of their own: the system's loader would end those, or wait for ever."""
    makers = {
        name: lambda path, damage=DAMAGED[name][0]: path.write_bytes(damage(built().read_bytes()))
        for name in ("5 tenths", "5 tenths, then zeros", "zeros after the header", "machine")
    }
    makers |= {"FIFO": os.mkfifo, "folder": Path.mkdir}
    cases = []
    for name, make in makers.items():
        shutil.copytree(copy / "resample_layers", tmp_path / name / "resample_layers")
        make(library_of(tmp_path / name))
        cases.append(({}, f"import sys; sys.path.insert(0, {str(tmp_path / name)!r})\n{REPORT}"))
    for name, told in zip(makers, run_in_forks(copy, *cases), strict=True):
        fault = warned(told).partition(". What helps: ")[0]
        assert fault.startswith(f"{library_of(tmp_path / name)} is not loaded: it")
        assert f"        {fault}. What helps" in told
        assert f"  cpu   native: {fault}. What helps" in told


@pytest.fixture
def open_folder():
    """A folder that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_an_unreadable_file_is_told(open_folder):
    """As a user without rights, also where the tests run as root; the file, and its folder."""
    code = """
import os
from pathlib import Path
os.environ["RESAMPLE_LAYERS_BACKEND"] = "native"
from resample_layers.ops import extension
extension.FOLDER = Path({!r})
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    extension.open_library("cpu")
except extension.UnavailableError as error:
    print(error)
"""
    libraries = []
    for unreadable in ("file", "folder"):
        library = open_folder / unreadable / extension.library_path("cpu").name
        library.parent.mkdir()
        library.write_bytes(b"")
        (library if unreadable == "file" else library.parent).chmod(0)
        libraries.append(library)
    cases = [({}, code.format(str(library.parent))) for library in libraries]
    outputs = run_in_forks(PACKAGE.parent, *cases)
    libraries[1].parent.chmod(0o755)  # to be removed
    for library, told in zip(libraries, outputs, strict=True):
        reason = f"{library} is not loaded: it cannot be read: Permission denied. What helps"
        assert told.startswith(reason)


def test_a_sound_file_is_loaded_also_without_its_table_of_sections(other_library):
    shutil.copy(built(), other_library)
    subprocess.run([require("strip"), "--strip-unneeded", other_library], check=True)
    assert library_file.find_fault(other_library) is None
    data = bytearray(other_library.read_bytes())
    data[40:48] = bytes(8)  # e_shoff
    data[60:64] = bytes(4)  # e_shnum, e_shstrndx
    other_library.write_bytes(data)
    assert library_file.find_fault(other_library) is None


def test_headers_of_random_bytes_raise_nothing(other_library):
    """A few bytes of the headers or of the table of sections overwritten, again and again."""
    choose, sound = random.Random(0), built().read_bytes()
    other_library.write_bytes(sound)
    table = int.from_bytes(sound[40:48], sys.byteorder)  # e_shoff
    places = [*range(4, 600), *range(table, len(sound))]
    found = set()
    with open(other_library, "r+b", buffering=0) as file:
        for _ in range(5000):
            changed = choose.sample(places, k=choose.randrange(1, 5))
            for place in changed:
                os.pwrite(file.fileno(), bytes([choose.randrange(256)]), place)
            found.add(str(library_file.find_fault(other_library)).partition(":")[0])
            for place in changed:
                os.pwrite(file.fileno(), sound[place : place + 1], place)
    assert library_file.find_fault(other_library) is None
    assert {"None", "it is cut short", "its headers are damaged"} <= found


def test_the_report_compares_the_digest_that_the_installer_wrote(copy):
    shutil.copy(built(), library_of(copy))
    digest = base64.urlsafe_b64encode(hashlib.sha256(built().read_bytes()).digest())
    record = copy / f"resample_layers-{resample_layers.__version__}.dist-info" / "RECORD"
    record.parent.mkdir()
    name = library_of(copy).relative_to(copy)
    record.write_text(f"{name},sha256={digest.rstrip(b'=').decode()},1\n{record.name},,\n")
    more = f"""
with open({str(library_of(copy))!r}, "ab") as file:
    file.write(b"more")
"""
    same, changed = run_in_forks(copy, ({}, REPORT), ({}, more + REPORT))
    differs = "its bytes are not those that were installed"
    assert differs not in same
    assert differs in changed
    assert "cpu   extension: " in same
    assert "cpu   extension: " in changed  # a tool may have rewritten it


@pytest.fixture
def other_library(tmp_path, monkeypatch):
    """Where this process now looks for the CPU library."""
    monkeypatch.setattr(extension, "FOLDER", tmp_path)
    return extension.library_path("cpu")


def test_a_library_of_something_else(other_library):
    compile_library(other_library, "int something;")
    with pytest.raises(extension.UnavailableError, match="is not a library of resample_layers"):
        extension.open_cpu()


def test_a_library_that_needs_a_newer_torch(other_library):
    source = "int aoti_torch_of_tomorrow(void); int f(void) { return aoti_torch_of_tomorrow(); }"
    compile_library(other_library, source)
    reason = r"was built for a torch newer than .*undefined symbol: aoti_torch_of_tomorrow"
    with pytest.raises(extension.UnavailableError, match=reason) as caught:
        extension.open_cpu()
    assert f"What helps: update torch, or {extension.REBUILD}." in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"target": "2.99"}, r"was built for torch 2\.99, this is"),
        ({"version": "0.0.1"}, r"is of version 0\.0\.1"),
        ({"key": "CUDA"}, "holds kernels for the key CUDA"),
        ({"upfirdn2d": "(Tensor x) -> Tensor"}, "was built from other sources: upfirdn2d differs"),
        ({"another_op": "(Tensor x) -> Tensor"}, "built from other sources: another_op differs"),
    ],
)
def test_a_library_of_another_build(other_library, changed, reason):
    compile_description(other_library, {**DESCRIPTION, **extension.SCHEMAS, **changed})
    with pytest.raises(extension.UnavailableError, match=reason):
        extension.open_cpu()


def test_a_library_without_one_of_the_operators_serves_the_others(other_library):
    """An operator in Python alone needs no twin in C++; the report names it."""
    listed = dict(extension.SCHEMAS)
    del listed["upfirdn2d_bias_act"]
    compile_description(other_library, {**DESCRIPTION, **listed})
    _, reason = extension.open_cpu()
    assert reason == "of a test; computed natively: upfirdn2d_bias_act"


def test_the_operators_of_the_library_are_ours(compiled):
    """All that are compiled here: the sources list each once, and none is forgotten."""
    _, info = extension.open_library("cpu")
    assert set(extension._listed(info)) == set(extension.SCHEMAS) - NATIVE_ONLY


# CUDA libraries and the machines that they fit

INFO = {"cuda": "13.0", "architectures": "8.0;9.0+PTX"}
H100 = extension.Device("H100", (9, 0))


@pytest.mark.parametrize(
    ("architectures", "capability", "ptx_runs", "covered"),
    [
        ("8.0", (8, 0), False, True),
        ("8.0", (8, 6), False, True),  # newer, of the same major number
        ("8.6", (8, 0), False, False),
        ("8.0", (9, 0), True, False),
        ("8.0+PTX", (9, 0), True, True),
        ("8.0+PTX", (9, 0), False, False),  # the driver cannot compile it
        ("9.0+PTX", (8, 0), True, False),
        ("9.0a", (9, 0), False, True),
        ("10.0a", (10, 3), True, False),
        ("10.0f", (10, 3), False, True),
        ("7.5;8.6;12.0+PTX", (8, 9), False, True),
        ("7.5;8.6;12.0+PTX", (9, 0), True, False),
    ],
)
def test_architectures(architectures, capability, ptx_runs, covered):
    assert extension.covers(architectures, capability, ptx_runs) is covered


def test_architectures_that_are_none():
    with pytest.raises(ValueError, match=r"must be like 8\.0;9\.0a;12\.0\+PTX, got 'Ampere'"):
        extension.covers("Ampere", (8, 0), True)


@pytest.mark.parametrize("driver", [13000, 13020, 14000])
def test_a_machine_that_fits(driver):
    assert extension.misfit(INFO, driver, [H100, extension.Device("A100", (8, 0))]) is None


@pytest.mark.parametrize(
    ("driver", "devices", "text"),
    [
        (0, [H100], "were built with CUDA 13.0, and this machine's driver is missing"),
        (12080, [H100], "were built with CUDA 13.0, and this machine's driver serves CUDA 12.8"),
        (
            13000,
            [H100, extension.Device("T4", (7, 5))],
            "were built for architectures 8.0;9.0+PTX, and cuda:1 (T4) is 7.5. What helps: "
            f"TORCH_CUDA_ARCH_LIST=7.5 {extension.REBUILD}, or hide that device with "
            "CUDA_VISIBLE_DEVICES.",
        ),
    ],
)
def test_a_machine_that_does_not_fit(driver, devices, text):
    assert text in str(extension.misfit(INFO, driver, devices))


def test_ptx_needs_a_driver_as_new_as_the_compiler():
    b200 = extension.Device("B200", (10, 0))
    assert extension.misfit({**INFO, "cuda": "13.2"}, 13020, [b200]) is None
    assert extension.misfit({**INFO, "cuda": "13.2"}, 13000, [b200]) is not None
    assert extension.misfit({**INFO, "cuda": "13.2"}, 13000, [H100]) is None  # has machine code


def test_a_torch_without_cuda_takes_no_library(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(extension.UnavailableError, match="is not built for NVIDIA's CUDA"):
        extension.open_cuda()


# The choice at the first tensor. CPU tensors stand for CUDA tensors: only the key differs. Each
# case is a fork of one process, since a choice is made once

FORKS = """
import os, sys, threading, traceback, warnings, torch
from pathlib import Path
from resample_layers.ops import extension, upfirdn2d
OP = torch.ops.resample_layers.upfirdn2d.default
KERNEL_GRAD = torch.ops.resample_layers.upfirdn2d_kernel_grad.default

x, k = torch.ones(1, 1, 3, 4), torch.ones(2, 2)
call = lambda: upfirdn2d(x, k).sum().item()

def defer(open_it=extension.open_cpu):
    del extension.choices["cpu"]
    extension.FOLDER = Path(sys.argv[1])
    return extension.Deferred("cpu", open_it)

def nothing():
    raise extension.UnavailableError("the reason", "the cure")

def loads_the_library_once_for_all_threads():
    deferred, results, together = defer(), [], threading.Barrier(16)
    sys.setswitchinterval(1e-6)
    threads = [
        threading.Thread(target=lambda: (together.wait(), results.append(call())))
        for _ in range(16)
    ]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert results == [24] * 16
    assert deferred.stand_in is None
    assert "upfirdn2d_cpu-" in str(torch.ops.loaded_libraries)
    assert OP(x, k, None, (1, 1), (1, 1), (0, 0, 0, 0), False).sum() == 24

def begins_with_the_kernel_gradient():
    defer()
    assert KERNEL_GRAD(x, x, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)).item() == 12

def begins_with_the_registered_operator():
    defer()
    out = OP(x.requires_grad_(), k, None, (1, 1), (1, 1), (0, 0, 0, 0), False)
    assert torch.autograd.grad(out.sum(), x)[0].sum() == 24

def begins_with_a_gradient():
    defer()
    out = upfirdn2d(x, k.requires_grad_())
    assert torch.autograd.grad(out.sum(), k)[0].sum() == 24

def falls_back_with_one_warning():
    deferred = defer(nothing)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [call(), call()] == [24, 24]
    assert [str(w.message) for w in caught] == [
        "resample_layers computes natively on CPU devices, which is several times slower: the "
        "reason. What helps: the cure."
    ]
    assert deferred.stand_in is None
    assert extension.choices["cpu"].backend == "native"

def fails_at_each_call_where_forced():
    extension.FORCED = "extension"
    defer(nothing)
    for _ in range(2):
        try:
            call()
        except RuntimeError as error:
            assert str(error) == ("RESAMPLE_LAYERS_BACKEND=extension asks for compiled CPU "
                                  "kernels, but the reason. What helps: the cure.")
        else:
            raise AssertionError("no error")

for case in [f for f in list(globals().values()) if getattr(f, "__module__", "") == "__main__"]:
    if case.__name__ in ("<lambda>", "defer", "nothing"):
        continue
    worst = 0
    for _ in range(60 if "threads" in case.__name__ else 1):  # a race is seen in one of twenty
        child = os.fork()
        if child == 0:
            try:
                case()
                if "falls" not in case.__name__ and "fails" not in case.__name__:
                    assert extension.choices["cpu"].backend == "extension"
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        worst = max(worst, os.waitpid(child, 0)[1])
    print(case.__name__, worst, flush=True)
"""


def test_the_first_tensor(copy):
    result = run(copy, "-W", "error", "-c", FORKS, str(built().parent), PATH="/nowhere")
    outcomes = dict(line.split() for line in result.stdout.splitlines())
    assert len(outcomes) == 6
    assert set(outcomes.values()) == {"0"}, result.stderr


# The report


def test_the_report(copy):
    told = run(copy, "-W", "error", "-m", "resample_layers.info", PATH="/nowhere")
    lines = told.stdout.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert heads == ["versions", "libraries", "backends", "environment"]
    text = "\n".join(lines)
    assert f"resample_layers  {resample_layers.__version__}" in text
    assert f"torch            {torch.__version__}" in text
    assert str(library_of(copy)) in text
    assert "native: there are no CPU kernels here" in text
    assert "does not exist. What helps: install a C++ compiler, then pip install" in text
    assert "no variable that matters is set" in text


def test_the_report_advises_cuda_kernels_only_where_a_gpu_is(copy, tmp_path):
    """Torch sees no GPU here: one is hidden from it, or it is built for the CPU."""
    # The driver has a file for all GPUs, which may be there without any, and one for each
    files = {"no driver": (), "no GPU": ("nvidiactl",), "a GPU": ("nvidiactl", "nvidia0")}
    cases = []
    for torch_is, (name, made) in itertools.product(("CUDA", "CPU"), files.items()):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for file in made:
            (folder / file).touch()
        code = f"""
import torch
torch.version.cuda = {None if torch_is == "CPU" else "13.0"!r}
from resample_layers.ops import extension
extension.GPUS = {str(folder / "nvidia[0-9]*")!r}
"""
        cases.append(({"CUDA_VISIBLE_DEVICES": "", "PATH": "/nowhere"}, code + REPORT))
    *without, with_gpu, cpu_1, cpu_2, cpu_with_gpu = run_in_forks(copy, *cases)
    path = library_of(copy, "cuda")
    not_needed = "does not exist; it is for NVIDIA GPUs, and none is found here\n"
    absent = f"there are no CUDA kernels here: {path} does not exist. What helps: "
    for report in (*without, cpu_1, cpu_2):
        assert f"{path}\n        {not_needed}" in report
        assert "nvcc" not in report
    assert f"{absent}install nvcc, then pip install" in with_gpu
    another = "install a torch that is built for NVIDIA's CUDA, then install nvcc, then pip install"
    assert absent + another in cpu_with_gpu


def test_the_report_tells_of_libraries(copy):
    for device in ("cpu", "cuda"):
        if extension.library_path(device).exists():
            shutil.copy(extension.library_path(device), library_of(copy, device))
    built()
    text = run(copy, "-W", "error", "-m", "resample_layers.info", RESAMPLE_LAYERS_CPU="baseline")
    assert "for torch 2.11 and newer; built with the headers of torch 2." in text.stdout
    assert "extension: baseline" in text.stdout
    assert "RESAMPLE_LAYERS_CPU=baseline" in text.stdout
    if library_of(copy, "cuda").exists():
        assert re.search(r"CUDA \d+\.\d+, architectures \d", text.stdout)


# The operators of the library


@pytest.fixture
def compiled():
    """The compiled kernels serve CPU tensors in this process."""
    require("CPU library in use", found=extension.choices["cpu"].backend == "extension")


def test_the_library_serves_every_operator(compiled):
    for name in extension.SCHEMAS:
        for each in (name, f"_{name}"):
            full = f"resample_layers::{each}"
            served = torch._C._dispatch_has_kernel_for_dispatch_key(full, "CPU")
            assert served == (name not in NATIVE_ONLY)


X, K = torch.ones(1, 2, 3, 4), torch.ones(2, 2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((X[0], K, None, (1, 1), (1, 1), (0,) * 4, False), "input must have 4 dimensions"),
        ((X, X[0], None, (1, 1), (1, 1), (0,) * 4, False), "kernel must have 1 or 2 dimensions"),
        (
            (X, K, K[0], (1, 1), (1, 1), (0,) * 4, False),
            r"kernel of 2 dimensions must come without taps_y, got taps_y of shape \[2\]",
        ),
        (
            (X, K[0], None, (1, 1), (1, 1), (0,) * 4, False),
            "kernel of 1 dimension must come with taps_y, got none",
        ),
        ((X, K[0], K, (1, 1), (1, 1), (0,) * 4, False), "taps_y must have 1 dimension, got 2"),
        ((X, K[:0], None, (1, 1), (1, 1), (0,) * 4, False), "kernel must have at least one tap"),
        (
            (X, K, None, (0, 1), (1, 1), (0,) * 4, False),
            r"up must be >= 1 in both axes, got \(0, 1\)",
        ),
        (
            (X, K, None, (1, 1, 1), (1, 1), (0,) * 4, False),
            r"up must have 2 values \(x, y\), got 3",
        ),
        ((X, K, None, (1, 1), (1, 1), (0,) * 3, False), "pad must have 4 values .*, got 3"),
        ((X, K, None, (1, 1), (1, 1), (-4, 0, 0, 0), False), "output must be at least 0x0"),
        ((X.int(), K, None, (1, 1), (1, 1), (0,) * 4, False), "input must be float16, bfloat16,"),
        ((X, K.int(), None, (1, 1), (1, 1), (0,) * 4, False), "kernel must be float16, bfloat16,"),
    ],
)
def test_every_check_speaks(compiled, arguments, text):
    with pytest.raises(RuntimeError, match=text):
        OPS._upfirdn2d.default(*arguments)


def test_every_check_of_the_kernel_gradient_speaks(compiled):
    with pytest.raises(RuntimeError, match=r"grad must be \[1, 2, 2, 3\], the shape of the op's"):
        OPS._upfirdn2d_kernel_grad.default(X, X, (1, 1), (1, 1), (0,) * 4, (2, 2))
    with pytest.raises(RuntimeError, match="kernel_size must have 2 values"):
        OPS._upfirdn2d_kernel_grad.default(X, X, (1, 1), (1, 1), (0,) * 4, (2, 2, 2))


LAYOUTS = {
    "contiguous": lambda n, c, h, w: torch.randn(n, c, h, w),
    "channels_last": lambda n, c, h, w: torch.randn(n, h, w, c).permute(0, 3, 1, 2),
    "slice": lambda n, c, h, w: torch.randn(n, c, h + 2, w + 3)[:, :, 1:-1, 2:-1],
    "slice of channels_last": lambda n, c, h, w: torch.randn(n, h + 2, w + 3, c + 1).permute(
        0, 3, 1, 2
    )[:, :c, 1:-1, 2:-1],
    "rows of channels_last": lambda n, c, h, w: torch.randn(n, h + 2, w, c).permute(0, 3, 1, 2)[
        :, :, :h
    ],
    "every other": lambda n, c, h, w: torch.randn(n, c, 2 * h, 2 * w)[:, :, ::2, ::2],
    "backwards axes": lambda n, c, h, w: torch.randn(w, n, h, c).permute(1, 3, 2, 0),
    "expanded": lambda n, c, h, w: torch.randn(n, 1, h, 1).expand(n, c, h, w),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def test_compiled_and_native_agree_on_random_calls(compiled):
    """Values, shapes, dtypes and strides, for thousands of configurations."""
    choose = random.Random(0)
    dtypes = list(TOLERANCE)
    done = 0
    while done < 2000:
        size = (
            choose.choice((0, 1, 2, 3)),
            choose.randrange(1, 6),
            *choose.choices((0, *range(1, 13), 1, 1), k=2),
        )
        dtype, layout = choose.choice(dtypes), choose.choice(list(LAYOUTS))
        input = LAYOUTS[layout](*size).to(dtype)
        kw, kh = choose.randrange(1, 7), choose.randrange(1, 7)
        taps_y = None
        match choose.randrange(3):
            case 0:
                kernel = torch.randn(kw, kh).t()
            case 1:
                kernel, kh = torch.randn(kw), kw
                taps_y = kernel
            case _:
                kernel = torch.randn(2 * kw)[::2]
                taps_y = torch.randn(kh).to(choose.choice(dtypes))
        other = choose.choice(dtypes)
        same = taps_y is kernel
        kernel = kernel.to(other)
        taps_y = kernel if same else taps_y
        up, down = (tuple(choose.choices((1, 2, 3), k=2)) for _ in range(2))
        pad, flip = tuple(choose.choices(range(-2, 6), k=4)), choose.random() < 0.5
        call = (input, kernel, taps_y, up, down, pad, flip)
        out_h = (size[2] * up[1] + pad[2] + pad[3] - kh) // down[1] + 1
        out_w = (size[3] * up[0] + pad[0] + pad[1] - kw) // down[0] + 1
        if out_h < 1 or out_w < 1:
            continue
        done += 1
        ours, theirs = OPS._upfirdn2d.default(*call), native.resample(*call)
        message = f"{layout} {size} {call[1:]}"
        assert ours.dtype == theirs.dtype, message
        assert ours.stride() == theirs.stride(), message
        limit = TOLERANCE[dtype]
        torch.testing.assert_close(
            ours,
            theirs,
            rtol=limit,
            atol=20 * limit,
            msg=lambda m: f"{m}\n{message}",  # noqa: B023
        )
        grad = torch.randn_like(ours)
        other = (up, down, pad, (kw, kh))
        ours = OPS._upfirdn2d_kernel_grad.default(input, grad, *other)
        theirs = native.kernel_grad(input, grad, *other)
        limit = 1e-11 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(
            ours,
            theirs,
            rtol=limit,
            atol=20 * limit,
            msg=lambda m: f"{m}\n{message}",  # noqa: B023
        )


def test_kernels_of_another_dtype_than_input_and_grad(compiled):
    x, g = torch.randn(1, 2, 5, 6), torch.randn(1, 2, 4, 5).bfloat16()
    call = (x, g, (1, 1), (1, 1), (0,) * 4, (2, 2))
    torch.testing.assert_close(OPS._upfirdn2d_kernel_grad.default(*call), native.kernel_grad(*call))


def test_threads_of_the_caller(compiled):
    """Many Python threads at once, each with its own tensors."""
    inputs = [torch.randn(2, 3, 40, 50) for _ in range(8)]
    call = (None, (2, 2), (1, 1), (2, 1, 2, 1), False)
    kernel = torch.randn(4, 4)
    wanted = [OPS._upfirdn2d.default(x, kernel, *call) for x in inputs]
    failures = []

    def work(x, out):
        for _ in range(50):
            if not torch.equal(OPS._upfirdn2d.default(x, kernel, *call), out):
                failures.append(out)

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(inputs, wanted, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_driver_is_asked_without_initialising_cuda():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        version = extension.driver_version()
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert version == 0
    else:
        assert version >= 1000
