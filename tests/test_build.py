# SPDX-License-Identifier: BSD-3-Clause
"""The build: what it makes, where it makes less, and the last lines of each failure."""

import ctypes
import ensurepip
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from resample_layers import __version__
from resample_layers.ops import extension

from . import test_new_op as new_op
from .cpu_kernels import harness
from .tools import require, run_group

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "build_backend"))
toolchain = pytest.importorskip("toolchain", reason="no checkout: the build is tested there")
from readme import read_readme  # noqa: E402

SETUP = (ROOT / "setup.py").read_text()
CONTENT = ("csrc", "build_backend", "resample_layers", "setup.py", "pyproject.toml", "LICENSE",
           "README.md", "MANIFEST.in")  # fmt: skip
OURS = ("RESAMPLE_LAYERS_", "CUDA_", "TORCH_CUDA", "CXX", "CC", "LDFLAGS", "MAX_JOBS")


@pytest.fixture
def source(tmp_path) -> Path:
    """A copy of the sources, nothing built."""
    return copy_sources(tmp_path / "source")


def copy_sources(folder: Path) -> Path:
    folder.mkdir()
    ignore = shutil.ignore_patterns("lib", "__pycache__")
    for name in CONTENT:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=ignore)
        elif path.exists():
            shutil.copy(path, folder)
    return folder


@pytest.fixture
def no_compilers(tmp_path) -> str:
    """A PATH with nothing on it."""
    (tmp_path / "empty").mkdir()
    return str(tmp_path / "empty")


def run(folder: Path, *arguments: str, check: bool = True, **environment: str):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=check,
    )


def build(folder: Path, *arguments: str, check: bool = True, **environment: str) -> str:
    """What ``setup.py`` says."""
    result = run(folder, "setup.py", *arguments, check=False, **environment)
    assert (result.returncode == 0) == check, result.stdout
    return result.stdout


# Without a compiler


def test_without_a_compiler_the_wheel_is_native(source, no_compilers, tmp_path):
    said = build(source, "-q", "bdist_wheel", "-d", str(tmp_path / "dist"), PATH=no_compilers)
    assert "no C++ compiler was found" in said
    assert "computes natively" in said
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "resample_layers/ops/native.py" in names
    assert not [name for name in names if "/lib/" in name or name.endswith(".so")]


def test_an_editable_install_is_found_from_every_folder(no_compilers, tmp_path):
    """Also from the folder above a clone, where the clone looks like a package without a file."""
    clone, site = copy_sources(tmp_path / "resample_layers"), tmp_path / "site"
    code = f"import backend; backend.build_editable({str(tmp_path)!r})"
    run(clone, "-c", code, PATH=no_compilers, PYTHONPATH=str(clone / "build_backend"))
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    code = f"""
import importlib.util, site
site.addsitedir({str(site)!r})
print(importlib.util.find_spec("resample_layers").origin)
"""
    for folder in (tmp_path, clone, site):  # without the packages that are installed here
        found = run(folder, "-S", "-c", code, PYTHONPATH="").stdout.strip()
        assert found == str(clone / "resample_layers" / "__init__.py")


BACKEND = "import backend; print(backend.get_requires_for_build_wheel())"


def test_torch_is_asked_for_only_where_there_is_a_compiler(source, no_compilers):
    paths = {"PYTHONPATH": str(source / "build_backend")}
    assert "torch" not in run(source, "-c", BACKEND, PATH=no_compilers, **paths).stdout
    assert "torch" not in run(source, "-c", BACKEND, RESAMPLE_LAYERS_EXTENSION="0", **paths).stdout
    require("c++")
    last = run(source, "-c", BACKEND, **paths).stdout.splitlines()[-1]
    assert all(repr(each) in last for each in toolchain.BUILD_REQUIREMENTS)


def test_the_bound_on_torch_is_said_once():
    assert (
        f'dependencies = ["{toolchain.BUILD_REQUIREMENTS[0]}"]'
        in (ROOT / "pyproject.toml").read_text()
    )
    major, minor = re.findall(r"torch>=(\d+)\.(\d+)", toolchain.BUILD_REQUIREMENTS[0])[0]
    assert f'"0x{int(major):02x}{int(minor):02x}000000000000"' in SETUP


def test_sources_are_listed():
    """Each file of csrc by name, where a compiler starts."""
    for suffix in (".cpp", ".cu"):
        found = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob(f"*{suffix}")}
        assert found == set(re.findall(rf'"(csrc/.*\{suffix})"', SETUP))


@pytest.mark.parametrize("document", ["ci.yml", "release.yml", "CONTRIBUTING.md"])
def test_the_make_targets_that_are_named_exist(document):
    folder = ROOT if document.endswith(".md") else ROOT / ".github" / "workflows"
    require("workflows", found=folder.is_dir())  # a source distribution has none
    found = re.findall(r"(?:run: |`)make ((?:[a-z-]+(?: |\b))+)", (folder / document).read_text())
    named = {target for targets in found for target in targets.split()}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert named <= targets


# What an index shows and serves


README = """
[page](docs/a.md#part), [![picture](docs/a.png)](docs/b.md), [web](https://example.org/c), [x](#y)
<a href="docs/d.md"><img src="docs/d.png"></a> <img src="https://example.org/e.png">
"""
LINKED = """
[page](T/blob/v1.2/docs/a.md#part), [![picture](T/raw/v1.2/docs/a.png)](T/blob/v1.2/docs/b.md), \
[web](https://example.org/c), [x](#y)
<a href="T/blob/v1.2/docs/d.md"><img src="T/raw/v1.2/docs/d.png"></a> \
<img src="https://example.org/e.png">
""".replace("\\\n", "").replace("T/", "https://example.org/t/")


def test_links_are_absolute_where_the_project_has_an_address(tmp_path):
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "pyproject.toml").write_text("[project]")
    assert read_readme(tmp_path, "1.2") == README
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nSource = "https://example.org/t/"\n')
    assert read_readme(tmp_path, "1.2") == LINKED


def test_the_source_distribution(tmp_path):
    """It holds every file of the repository but CI's, and its tests run in its own folder."""
    require("git checkout", found=(ROOT / ".git").exists() and shutil.which("git") is not None)
    base = ("egg_info", "--egg-base", str(tmp_path))
    build(ROOT, "-q", *base, "sdist", "--formats=gztar", "-d", str(tmp_path / "dist"))
    (archive,) = (tmp_path / "dist").iterdir()
    shutil.unpack_archive(archive, tmp_path)
    folder = tmp_path / archive.name.removesuffix(".tar.gz")
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    wanted = {name for name in tracked if (ROOT / name).is_file() and not name.startswith(".")}
    packed = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert packed >= wanted
    made = {name for name in packed - wanted if ".egg-info/" not in name}
    assert made <= {"PKG-INFO", "setup.cfg"} | set(untracked())
    metadata = (folder / "PKG-INFO").read_text()
    assert "\nDescription-Content-Type: text/markdown\n" in metadata
    assert (ROOT / "README.md").read_text().splitlines()[0] in metadata
    options = ("-q", "-p", "no:cacheprovider", "tests/test_errors.py")
    run(folder, "-m", "pytest", *options, RESAMPLE_LAYERS_BACKEND="native")


def untracked() -> list[str]:
    """Files of the checkout that git neither tracks nor ignores: work that is not committed."""
    command = ["git", "ls-files", "--others", "--exclude-standard"]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()


# Failures: cause and cure are the last words


def assert_last_words(said: str, cause: str, cure: str) -> None:
    title, first, second = said.strip().splitlines()[-3:]
    assert title == "resample_layers: the build failed."
    assert re.match(rf"  Cause: .*{cause}", first), first
    assert re.match(rf"  Cure: .*{cure}", second), second


@pytest.mark.parametrize(
    ("environment", "cause", "cure"),
    [
        (
            {"RESAMPLE_LAYERS_EXTENSION": "1", "PATH": "/nowhere"},
            "there is no C\\+\\+ compiler",
            "install g\\+\\+ 11 or clang\\+\\+ 14, or newer, or name one in CXX",
        ),
        ({"CXX": "g++-that-is-not"}, "CXX=g\\+\\+-that-is-not is not a program", "install g\\+\\+"),
        (
            {"CXX": "false"},
            "compiler false .* does not compile the kernels .exit status 1",
            "install g\\+\\+ 11 or clang\\+\\+ 14, or newer, and name it in CXX",
        ),
        (
            {"CXX": "g++ '"},
            "CXX=g\\+\\+ ' cannot be split into words .No closing q",
            "correct or unset",
        ),
        ({"RESAMPLE_LAYERS_EXTENSION": "yes"}, "must be 0 or 1, or not set, got 'yes'", "set"),
        ({"RESAMPLE_LAYERS_CUDA": "on"}, "RESAMPLE_LAYERS_CUDA must be 0 or 1, .* got 'on'", "set"),
        # CUDA kernels are asked for, and no compiler of C++ is used
        (
            {"RESAMPLE_LAYERS_CUDA": "1", "PATH": "/nowhere"},
            "RESAMPLE_LAYERS_CUDA=1 asks for CUDA kernels, and there is no C\\+\\+ compiler",
            "install g\\+\\+ 11 or .*RESAMPLE_LAYERS_EXTENSION=0, with RESAMPLE_LAYERS_CUDA unset",
        ),
        (
            {"RESAMPLE_LAYERS_CUDA": "1", "RESAMPLE_LAYERS_EXTENSION": "0"},
            "RESAMPLE_LAYERS_CUDA=1 asks for CUDA .* RESAMPLE_LAYERS_EXTENSION=0 for no compiled",
            "unset one of the two",
        ),
        (
            {"RESAMPLE_LAYERS_CUDA": "yes", "RESAMPLE_LAYERS_EXTENSION": "0"},
            "RESAMPLE_LAYERS_CUDA must be 0 or 1, or not set, got 'yes'",
            "set RESAMPLE_LAYERS_CUDA to 0 or 1",
        ),
    ],
)
def test_last_words_on_the_compiler(source, environment, cause, cure):
    assert_last_words(build(source, "bdist_wheel", check=False, **environment), cause, cure)


def test_a_compiler_of_spaces_is_none(clean):
    """It ended in an IndexError: it is as if CXX were not set."""
    require("c++")
    clean.setenv("CXX", " ")
    assert toolchain.find_cxx() == ["c++"]
    clean.setenv("PATH", "/nowhere")
    assert toolchain.find_cxx() is None


def test_last_words_on_a_compiler_that_is_too_old(source):
    """The sources themselves are read, and not a test of the standard's number."""
    require("c++")
    file = source / "csrc" / "cpu" / "kernels_baseline.cpp"
    file.write_text('static_assert(__GNUC__ >= 99, "of tomorrow");\n' + file.read_text())
    said = build(source, "bdist_wheel", check=False)
    cause = "does not compile the kernels .*kernels_baseline.cpp:1:.*of tomorrow"
    assert_last_words(said, cause, "install g\\+\\+ 11 or clang\\+\\+ 14")


def test_last_words_on_an_old_setuptools(source):
    """That of a new environment, before Python 3.12; without isolation pip takes it."""
    old = sorted(Path(ensurepip.__file__).parent.glob("_bundled/setuptools-*.whl"))
    require("old setuptools", found=bool(old))
    said = build(source, "egg_info", check=False, PYTHONPATH=str(old[0]))
    assert_last_words(said, "setuptools .* is too old", "pip install --upgrade 'setuptools>=77'")
    assert 'requires = ["setuptools>=77"]' in (source / "pyproject.toml").read_text()


OTHER_SYSTEM = "import backend, toolchain, sys; sys.platform = 'darwin'; "


def test_outside_linux_nothing_is_compiled_unless_asked_for(source):
    """A compiler is found there too, and its linker knows other flags."""
    require("c++")
    ask = OTHER_SYSTEM + "print(toolchain.find_cxx(), backend._requirements([]))"
    paths = {"PYTHONPATH": str(source / "build_backend")}
    lines = run(source, "-c", ask, **paths).stdout.splitlines()
    assert lines[0] == (
        "resample_layers: no kernels are compiled: this system is darwin, and the build is tested "
        "on Linux only; RESAMPLE_LAYERS_EXTENSION=1 tries it all the same"
    )
    assert lines[-1] == "None []"
    lines = run(source, "-c", ask, RESAMPLE_LAYERS_EXTENSION="1", **paths).stdout.splitlines()
    assert lines == [f"['c++'] {toolchain.BUILD_REQUIREMENTS}"]


@pytest.fixture
def only_cxx(tmp_path) -> str:
    """A PATH with a C++ compiler and what it starts, and no nvcc."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for tool in ("c++", "as", "ld"):
        (folder / tool).symlink_to(require(tool))
    return str(folder)


def test_last_words_where_cuda_is_wanted_and_missing(source, only_cxx):
    said = build(source, "bdist_wheel", check=False, PATH=only_cxx, RESAMPLE_LAYERS_CUDA="1")
    assert_last_words(said, "asks for CUDA kernels, and there is no nvcc", "install the CUDA")


def test_last_words_on_a_wrong_cuda_home(source, only_cxx):
    said = build(source, "bdist_wheel", check=False, PATH=only_cxx, CUDA_HOME="/nowhere")
    assert_last_words(said, "CUDA_HOME=/nowhere holds no bin/nvcc", "point CUDA_HOME at")


def test_last_words_without_torch(source, only_cxx):
    (source / "torch.py").write_text("raise ImportError('no torch here')")
    said = build(source, "bdist_wheel", check=False, PATH=only_cxx, PYTHONPATH=str(source))
    assert_last_words(said, "torch cannot be imported .no torch here", "install torch, setuptools")


# CUDA toolkits, made up


@pytest.fixture
def toolkit(tmp_path) -> Path:
    """A toolkit whose nvcc knows three architectures."""
    home = tmp_path / "cuda-12.9"
    (home / "bin").mkdir(parents=True)
    (home / "lib64").mkdir()
    (home / "lib64" / "libcudart_static.a").touch()
    script(home / "bin" / "nvcc", f"""
case "$*" in
  *--dryrun*) echo '#$ _HERE_={home}/bin' >&2; echo '#$ TOP={home}/bin/..' >&2;;
  --version) echo 'Cuda compilation tools, release 12.9, V12.9.1';;
  --list-gpu-code) printf 'sm_75\\nsm_90\\nsm_100\\n';;
esac""")  # fmt: skip
    return home


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def clean(monkeypatch):
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_wrapped_nvcc_is_followed_to_its_toolkit(clean, toolkit, tmp_path):
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "nvcc", f'exec {toolkit}/bin/nvcc "$@"')
    clean.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    cuda = toolchain.find_cuda()
    assert cuda == toolchain.Cuda(toolkit, "12.9", ("7.5", "9.0", "10.0"))
    assert cuda.library_dir == toolkit / "lib64"


def test_cuda_home_is_believed(clean, toolkit):
    clean.setenv("CUDA_HOME", str(toolkit))
    assert toolchain.find_cuda().home == toolkit


def test_architectures(clean, toolkit):
    clean.setenv("CUDA_HOME", str(toolkit))
    cuda = toolchain.find_cuda()
    for text in ("7.5;9.0+PTX", "7.5 9.0+PTX"):
        clean.setenv("TORCH_CUDA_ARCH_LIST", text)
        assert toolchain.choose_architectures(cuda) == ["7.5", "9.0+PTX"]
    # All of a wheel: those that this compiler knows, PTX for what is newer
    clean.setenv("TORCH_CUDA_ARCH_LIST", "all")
    assert toolchain.choose_architectures(cuda) == ["7.5", "9.0", "10.0+PTX"]
    newer = cuda._replace(architectures=("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0", "12.1"))
    assert toolchain.choose_architectures(newer) == ["7.5", "8.0", "9.0", "10.0", "12.0+PTX"]
    assert toolchain.code_flags(["7.5", "9.0+PTX"]) == [
        "-gencode=arch=compute_75,code=sm_75",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    ]


@pytest.mark.parametrize(
    ("listed", "architectures"),
    [
        (None, ["9.0"]),  # no such program
        ("exit 9", ["9.0"]),  # no driver
        ("echo 'Field \"compute_cap\" is not a valid field to query.'", ["9.0"]),
        ("echo 9.0; echo 7.5; echo 9.0", ["7.5", "9.0"]),
        ("echo 12.0; echo 7.5", ["7.5", "10.0+PTX"]),  # newer than the toolkit
        ("echo 10.0; echo 12.0", ["10.0+PTX"]),
        ("echo 6.1", ["9.0"]),  # older than the toolkit serves
    ],
)
def test_architectures_of_the_gpus(clean, toolkit, tmp_path, listed, architectures):
    """A source install compiles for the GPUs that nvidia-smi lists."""
    (tmp_path / "bin").mkdir()
    if listed is not None:
        check = f'[ "$*" = "--query-gpu=compute_cap --format=csv,noheader" ] || exit 1\n{listed}'
        script(tmp_path / "bin" / "nvidia-smi", check)
    clean.setenv("PATH", str(tmp_path / "bin"))
    clean.setenv("CUDA_HOME", str(toolkit))
    cuda = toolchain.Cuda(toolkit, "12.9", ("7.5", "9.0", "10.0"))
    assert toolchain.choose_architectures(cuda) == architectures


def test_make_wheel_takes_all_architectures(clean, tmp_path):
    """And nothing else in the environment changes that; words after ``make wheel`` do."""
    make = require("make")
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "python", 'echo "list=$TORCH_CUDA_ARCH_LIST"')
    (tmp_path / ".build").touch()
    (tmp_path / ".release").touch()
    clean.setenv("TORCH_CUDA_ARCH_LIST", "8.0")
    command = [make, "--silent", "-C", str(ROOT), "wheel", f"VENV={tmp_path}"]
    for words, expected in (([], "all"), (["TORCH_CUDA_ARCH_LIST=8.6"], "8.6"),
                            (["TORCH_CUDA_ARCH_LIST="], "")):  # fmt: skip
        told = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
        assert f"list={expected}\n" in told.stdout


@pytest.mark.parametrize(
    ("named", "cause", "cure"),
    [
        ("Hopper", "names Hopper, which is no architecture", 'set it to all, or to numbers such'),
        ("9.0;12.0", r"names 12\.0, and .*nvcc of CUDA 12\.9 does not know it",
         r"choose among 7\.5;9\.0;10\.0"),
    ],
)  # fmt: skip
def test_last_words_on_architectures(clean, toolkit, named, cause, cure):
    clean.setenv("CUDA_HOME", str(toolkit))
    clean.setenv("TORCH_CUDA_ARCH_LIST", named)
    with pytest.raises(SystemExit) as caught:
        toolchain.choose_architectures(toolchain.find_cuda())
    assert_last_words(str(caught.value), cause, cure)


@pytest.mark.parametrize(
    ("told", "cause"),
    [("", "its version"), ("Cuda compilation tools, release 10.0, V10.0.1", "its architectures")],
)
def test_last_words_on_a_toolkit_that_tells_nothing(clean, toolkit, told, cause):
    script(toolkit / "bin" / "nvcc", f"echo '{told}'")
    clean.setenv("CUDA_HOME", str(toolkit))
    with pytest.raises(SystemExit) as caught:
        toolchain.find_cuda()
    assert_last_words(str(caught.value), f"nvcc does not tell {cause}", "point CUDA_HOME at")


def test_last_words_on_a_compiler_that_nvcc_refuses(clean, toolkit):
    script(toolkit / "bin" / "nvcc", "echo 'error: unsupported GNU version!' >&2; exit 1")
    cuda = toolchain.Cuda(toolkit, "12.9", ("9.0",))
    with pytest.raises(SystemExit) as caught:
        toolchain.check_nvcc(cuda, ["9.0"])
    assert_last_words(str(caught.value), "unsupported GNU version", "name a host compiler")


# A build for the source tree ends with all of its kernels in place, or with those of before


EARLIER = ("cpu-0.0.1", f"cpu-{__version__}", f"cuda-{__version__}")
EARLIER = {f"upfirdn2d_{name}.so": name for name in EARLIER}
INPLACE = ("build_ext", "--inplace")


@pytest.fixture
def earlier(source) -> Path:
    """Sources that compile in no time, for they are empty, and the kernels of earlier builds."""
    for name in re.findall(r'"(csrc/.*\.(?:cpp|cu))"', SETUP):
        (source / name).write_text("")
    (source / "resample_layers" / "lib").mkdir()
    for name, text in EARLIER.items():
        (source / "resample_layers" / "lib" / name).write_text(text)
    return source


def kernels(source: Path) -> dict[str, str]:
    folder = source / "resample_layers" / "lib"
    return {path.name: path.read_text(errors="replace") for path in folder.iterdir()}


EDITABLE = "import backend; backend.build_editable('dist')"


def build_editable(source: Path, check: bool = True, **environment: str) -> str:
    paths = {"PYTHONPATH": f"{source / 'build_backend'}{os.pathsep}{source}"}
    result = run(source, "-c", EDITABLE, check=False, **paths, **environment)
    assert (result.returncode == 0) == check, result.stdout
    return result.stdout


@pytest.mark.parametrize(
    ("environment", "file", "text", "words"),
    [
        ({"CXX": "g+++"}, "", "", "CXX=g+++ is not a program"),
        ({"CXX": "false"}, "", "", "does not compile the kernels"),
        ({}, "torch.py", "raise ImportError('no torch here')", "torch cannot be imported"),
        ({"RESAMPLE_LAYERS_CUDA": "yes"}, "", "", "RESAMPLE_LAYERS_CUDA must be 0 or 1"),
        # The build has chosen to compile nothing, and fails after that
        (
            {"RESAMPLE_LAYERS_EXTENSION": "0"},
            "pyproject.toml",
            "[project]\nname = 3",
            "invalid pyproject.toml config",
        ),
    ],
)
def test_a_build_that_fails_leaves_the_kernels(earlier, environment, file, text, words):
    require("c++")
    if file:
        (earlier / file).write_text(text)
    assert words in build_editable(earlier, check=False, **environment)
    assert kernels(earlier) == EARLIER


def test_a_build_replaces_all_kernels_or_none(earlier, toolkit):
    """The first build fails in the second library, and the second build makes one library.

    After that the kernels of CUDA are gone, since they would serve with the new sources, and those
    of another version.
    """
    require("c++")
    script(toolkit / "bin" / "nvcc", """
case "$*" in
  *csrc*) echo "no second library" >&2; exit 1;;
  *--version*) echo 'Cuda compilation tools, release 12.9, V12.9.1';;
  *--list-gpu-code*) echo 'sm_90';;
esac""")  # fmt: skip
    said = build(earlier, *INPLACE, check=False, CUDA_HOME=str(toolkit))
    assert "no second library" in said
    assert list(earlier.glob("build/lib*/resample_layers/lib/upfirdn2d_cpu-*.so"))
    assert kernels(earlier) == EARLIER
    build_editable(earlier, RESAMPLE_LAYERS_CUDA="0")
    ((name, text),) = kernels(earlier).items()
    assert name == extension.library_path("cpu").name
    assert text.startswith("\x7fELF")


# A compiler that is interrupted, with all that the build has started, when it compiles a kernel
INTERRUPTED = f"""#!{sys.executable}
import os, signal, sys
if "-c" in sys.argv:
    os.killpg(os.getsid(0), signal.SIGINT)
    signal.pause()
os.execvp("c++", ["c++", *sys.argv[1:]])
"""


def test_ctrl_c_in_a_build_leaves_the_kernels(earlier):
    require("c++")
    compiler = earlier / "compiler"
    compiler.write_text(INTERRUPTED)
    compiler.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    switches = {"RESAMPLE_LAYERS_CUDA": "0", "CXX": str(compiler)}
    command = [sys.executable, "setup.py", *INPLACE]
    status, _, said = run_group(command, 100, cwd=earlier, env={**kept, **switches})
    assert status != 0
    assert said.endswith("interrupted\n"), said
    assert kernels(earlier) == EARLIER


@pytest.mark.parametrize("editable", [True, False])
def test_a_build_without_kernels_removes_those_of_before(earlier, editable):
    """When it has succeeded: they would serve with the new sources."""
    if editable:
        build_editable(earlier, RESAMPLE_LAYERS_EXTENSION="0")
    else:
        build(earlier, *INPLACE, RESAMPLE_LAYERS_EXTENSION="0")
    assert kernels(earlier) == {}


@pytest.mark.parametrize("command", [("bdist_wheel", "-d", "dist"), (*INPLACE, "--help")])
def test_what_builds_nothing_for_the_source_tree_leaves_its_kernels(earlier, command):
    build(earlier, *command, RESAMPLE_LAYERS_EXTENSION="0")
    assert kernels(earlier) == EARLIER
    for wheel in earlier.glob("dist/*.whl"):
        assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]


# With a compiler. The rest of the way, to a wheel in fresh environments: make test-matrix


def test_only_what_changed_is_compiled_again(source):
    require("c++")
    pytest.importorskip("ninja", reason="no ninja")
    # Flags that compile quickly: which ones they are does not matter here
    switches = {"RESAMPLE_LAYERS_CUDA": "0", "CXXFLAGS": "-O0 -DRESAMPLE_LAYERS_CPU_PLAIN"}
    said = build(source, *INPLACE, **switches)
    compiled = r"^\[\d+/(\d+)\]"
    sources = set(re.findall(r'"(csrc/.*\.cpp)"', SETUP))
    assert set(re.findall(compiled, said, re.MULTILINE)) == {str(len(sources))}
    (library,) = (source / "resample_layers" / "lib").iterdir()
    assert library.name == extension.library_path("cpu").name

    (source / "csrc" / "upfirdn2d_ops.cpp").touch()
    said = build(source, *INPLACE, **switches)
    assert set(re.findall(compiled, said, re.MULTILINE)) == {"1"}

    # A wheel of the same sources and flags takes what was compiled
    dist, site = source / "dist", source / "site"
    said = build(source, "bdist_wheel", "-d", str(dist), **switches)
    assert not re.findall(compiled, said, re.MULTILINE)
    (wheel,) = dist.iterdir()
    assert re.search(r"-py3-none-linux_\w+\.whl$", wheel.name)
    zipfile.ZipFile(wheel).extractall(site)
    told = run(site, "-m", "resample_layers.info", RESAMPLE_LAYERS_BACKEND="extension").stdout
    assert f"  cpu   {site}/resample_layers/lib/{library.name}\n" in told
    assert "  cpu   extension: " in told

    (source / "csrc" / "upfirdn2d_ops.cpp").write_text("#error on purpose")
    said = build(source, *INPLACE, check=False, **switches)
    assert_last_words(said, "a compiler or the linker failed, its words are above", "CXX")
    told = run(source, "-m", "resample_layers.info", RESAMPLE_LAYERS_BACKEND="extension").stdout
    assert "  cpu   extension: " in told  # by the kernels of the build before


VALUES = """
import torch
from resample_layers.ops import upfirdn2d, upfirdn2d_native
kernel = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    for up, down in ((1, 1), (2, 1), (1, 2), (3, 2)):
        x = torch.randn(2, 3, 17, 37).to(dtype)
        ours = upfirdn2d(x, kernel, up=up, down=down, pad=(2, 1))
        theirs = upfirdn2d_native(x, kernel, up, up, down, down, 2, 1, 2, 1)
        torch.testing.assert_close(ours, theirs)
print("right")
"""


@pytest.mark.parametrize(
    "compiler", [name.replace(" ", "-") for name in toolchain.OLDEST_COMPILERS.split(" or ")]
)
def test_the_oldest_compilers_that_are_promised(source, compiler):
    require(compiler)
    switches = {"RESAMPLE_LAYERS_CUDA": "0", "CXX": compiler, "CXXFLAGS": "-O0"}
    build(source, *INPLACE, **switches)
    for level in ("baseline", ""):  # and the best of this processor
        used = {"RESAMPLE_LAYERS_BACKEND": "extension", "RESAMPLE_LAYERS_CPU": level}
        result = run(source, "-c", VALUES, check=False, **used)
        assert result.stdout.endswith("right\n"), result.stdout


# CONTRIBUTING's last step for an op, for that of test_new_op.py: a function and a row
PRODUCT = """
Tensor product(const Tensor& input, const Tensor& weight, double gain) {
  const Tensor a = as_dense(input, ScalarType::Double), b = as_dense(weight, ScalarType::Double);
  Tensor result = as_dense(torch::stable::clone(a), ScalarType::Double);
  double* to = static_cast<double*>(result.mutable_data_ptr());
  const double* by = static_cast<const double*>(b.const_data_ptr());
  for (int64_t i = 0; i < result.numel(); ++i) to[i] *= by[i % b.numel()] * gain;
  return result;
}

"""
PRODUCT_ROW = """
    {"product", "(Tensor input, Tensor weight, float gain) -> Tensor", TORCH_BOX(&product)},
"""


def test_an_op_with_a_compiled_kernel(source):
    require("c++")
    new_op.add(source / "resample_layers")
    table = "constexpr Operator kOperators[] = {\n"
    operators = source / "csrc" / "upfirdn2d_ops.cpp"
    new_op.replace(operators, table, f"{table}{PRODUCT_ROW}")
    before = "// The operators of this library. A new one is one more row.\n"
    new_op.replace(operators, before, f"{PRODUCT}{before}")
    flags = "-O0 -DRESAMPLE_LAYERS_CPU_PLAIN"  # one set of vector units
    build(source, *INPLACE, RESAMPLE_LAYERS_CUDA="0", CXXFLAGS=flags)
    result = run(source, "-c", COMPILED_OP + new_op.TESTS, "extension", check=False)
    assert result.stdout.endswith("passed\n"), result.stdout


COMPILED_OP = """
import torch, resample_layers
for name in ("product", "_product"):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"resample_layers::{name}", "CPU")
"""


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory) -> Path:
    """The sources, compiled under AddressSanitizer and UBSan: once, for it takes a minute."""
    compiler = require("g++")
    require("asan", found=all(path.is_absolute() for path in runtimes()))  # else the bare name
    folder = copy_sources(tmp_path_factory.mktemp("sanitized") / "source")
    switches = {"RESAMPLE_LAYERS_CUDA": "0", "CXX": compiler, "CXXFLAGS": " ".join(SANITIZE)}
    build(folder, *INPLACE, **switches)
    return folder


# At -O0 GCC takes a fifth of the time of -O1
SANITIZE = ["-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def runtimes() -> list[Path]:
    """The libraries of the sanitizers, to be loaded before Python."""
    names = ("asan", "ubsan")
    return [Path(lines("g++", f"-print-file-name=lib{name}.so")[0]) for name in names]


def under_sanitizers() -> dict[str, str]:
    return {
        "LD_PRELOAD": " ".join(map(str, runtimes())),
        "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0",  # Python's own
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def test_the_library_under_sanitizers(sanitized):
    """Random calls, in a process in which reading one byte too many ends it."""
    shutil.copytree(ROOT / "tests", sanitized / "tests")
    names = "random or check or serves or dtype or threads or (cut and signals)"
    result = run(
        sanitized,
        *("-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-k", names),
        *("tests/test_extension.py", "tests/test_bias_act.py"),
        "tests/test_filtered_act_blocks.py",
        check=False,
        RESAMPLE_LAYERS_BACKEND="extension",
        **under_sanitizers(),
    )
    assert result.returncode == 0, result.stdout[:8000]


def test_the_cpu_kernels_under_sanitizers(sanitized, tmp_path):
    """The sweep of cpu_kernels, on each vector unit, by the same compiled files."""
    objects = list(sanitized.glob("build/torch-*/upfirdn2d_cpu/csrc/cpu/*.o"))
    assert {path.stem for path in objects} >= {f"kernels_{level}" for level in harness.LEVELS}
    library = harness.build(tmp_path, *SANITIZE, objects=objects)
    for level in harness.LEVELS:
        harness.sweep(
            library,
            max(50, harness.COUNT // 5),
            2,
            RESAMPLE_LAYERS_CPU=level,
            PYTHONMALLOC="malloc",
            **under_sanitizers(),
        )


@pytest.fixture(params=["cpu", "cuda"])
def library(request) -> Path:
    path = extension.library_path(request.param)
    require(f"{request.param.upper()} library", found=path.exists())
    return path


def lines(tool: str, *arguments) -> list[str]:
    command = [require(tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_needed_libraries(library):
    """Torch's two names and the system's: no Python, no CUDA runtime, no C++ part of torch."""
    dynamic = lines("readelf", "--dynamic", "--wide", library)
    needed = [re.findall(r"\[(.*)\]", line)[0] for line in dynamic if "(NEEDED)" in line]
    assert {"libtorch.so", "libtorch_cpu.so"} <= set(needed)
    system = re.compile(
        r"(libstdc\+\+|libgcc_s|libc|libm|libdl|librt|libpthread|ld-linux.*)\.so\.\d"
    )
    assert [n for n in needed if not system.fullmatch(n)] in (
        ["libtorch_cpu.so", "libtorch.so"],
        ["libtorch.so", "libtorch_cpu.so"],
    )
    assert not [line for line in dynamic if "RPATH" in line or "RUNPATH" in line]


# The policy manylinux_2_28, which torch's wheels keep: the newest versions that it allows
MANYLINUX = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}


def test_the_systems_on_which_a_library_runs(library):
    """Every function of the system's libraries has a version that the oldest system has too."""
    needed = re.findall(r"Name: (\w+?)_([\d.]+)", "\n".join(lines("readelf", "-V", library)))
    assert {"GLIBC", "GLIBCXX"} <= {name for name, _ in needed}
    for name, version in needed:
        assert tuple(map(int, version.split("."))) <= MANYLINUX[name], (name, version)


def test_the_linker_takes_versions_that_the_oldest_glibc_has(tmp_path):
    """With a program that it binds to newer versions where it is left alone."""
    compiler = require("c++")
    require("readelf")
    newest = lines(compiler, "-print-file-name=libc.so.6")
    require("glibc newer than 2.34", found=b"GLIBC_2.34" in Path(newest[0]).read_bytes())
    source, alone, older = (tmp_path / name for name in ("all.cpp", "alone.so", "older.so"))
    functions = ("dlsym", "pthread_create", "sem_post", "shm_open", "exp", "erfc", "memcpy")
    called = [f'extern "C" void {name}(); auto to_{name} = &{name};' for name in functions]
    source.write_text("\n".join([*called, "extern char** environ; auto to = &environ;"]))
    flags = ["-shared", "-fPIC", "-fno-builtin", "-Wl,--no-undefined", str(source)]
    lines(compiler, *flags, "-o", alone)
    lines(compiler, *flags, "-o", older, *toolchain.link_with_older_glibc([compiler], tmp_path))

    def versions(library):
        told = "\n".join(lines("readelf", "-V", library))
        return [tuple(map(int, v.split("."))) for v in re.findall(r"Name: GLIBC_([\d.]+)", told)]

    assert max(versions(alone)) > toolchain.OLDEST_GLIBC
    assert max(versions(older)) <= toolchain.OLDEST_GLIBC
    names = [line.split()[-1] for line in lines("nm", "--dynamic", "--undefined-only", older)]
    assert not [name for name in names if name in functions]  # each has a version
    ctypes.CDLL(str(older))  # this system still has all of them


def test_undefined_symbols(library):
    """From torch nothing but its C functions; what is in libtorch_cuda is weak."""
    names = []
    for line in lines("nm", "--dynamic", "--undefined-only", library):
        kind, name = line.split()[-2:]
        if re.match("_ITM_|__gmon_start__|__cxa_finalize", name):
            continue
        if "cuda_stream" in name:
            assert kind == "w"
        else:
            assert re.match("(aoti_)?torch_[a-z]", name) or "@" in name, line  # of a system library
            assert "Py" not in name
        names.append(name)
    assert "torch_library_impl" in names
    assert ("aoti_torch_get_current_cuda_stream" in names) == ("cuda" in library.name)


def test_exported_symbols(library):
    exported = [line.split()[-1] for line in lines("nm", "--dynamic", "--defined-only", library)]
    assert exported
    assert all(name.startswith("resample_layers_") for name in exported), exported


def test_no_path_of_this_machine(library):
    content = library.read_bytes()
    for folder in {ROOT, Path.home(), Path(sys.prefix)} - {Path("/")}:
        assert not re.search(re.escape(os.fsencode(folder)) + rb"/[\w./]*\.(h|cpp|cu)", content)
