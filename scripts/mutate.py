# SPDX-License-Identifier: BSD-3-Clause
"""Changes the formulas, the argument checks and the gradient rules, and sees whether a test fails.

    python scripts/mutate.py                          # all of MODULES; this takes hours
    python scripts/mutate.py resample_layers/geometry.py --folder runs/mutants

cosmic-ray makes the mutants, one change each, in a copy of the tree. What survives is printed as a
patch. A survivor is no error: read whether it is equivalent, or a test is missing. The results lie
in the folder: a second call with the same folder goes on where the first one stopped, unless the
module or its tests have changed.

A fresh process would import torch for seconds before the first test. So one process imports it
once, and forks for each mutant: ``serve`` and ``ask`` below are its two ends. Neither has imported
anything of this package before the fork.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("resample_layers", "tests", "scripts", "examples", "pyproject.toml")
# The server has imported hypothesis before pytest could rewrite its plugin, which does not matter
QUIET = "ignore::pytest.PytestAssertRewriteWarning"
WITHOUT = ("cacheprovider", "logging", "unraisableexception")
PLUGINS = [f"-pno:{name}" for name in WITHOUT]
PYTEST = ("-x", "-q", "--tb=no", "-k", "not cuda", *PLUGINS, "-W", QUIET)  # natively, on the CPU
SECONDS = 15  # of a processor; a mutant that takes more counts as found
MEMORY = 4 * 2**30  # bytes that the tests of a mutant may take beyond the libraries


def tests_of(file: str, *names: str) -> tuple[str, ...]:
    """Tests of one file, as pytest takes them."""
    return tuple(f"tests/{file}.py::{name}" for name in names)


def left_out(*names: str) -> tuple[str, ...]:
    """Tests of the defaults of public functions."""
    test = "test_optional_arguments_left_out"
    return tests_of("test_public_calls", *(f"{test}[ops.{name}]" for name in names))


# The tests of gradients take a second for each mutant, or a few. The fastest come first
GRADIENTS = (
    *tests_of(
        "test_gradients",
        "test_adjoint_identity",
        "test_gradients_have_the_dtypes_of_their_tensors",
        "test_gradients_of_some_tensors_are_those_of_all",
        "test_only_what_is_asked_for_is_saved",
        "test_the_kernel_may_be_rewritten_between_forward_and_backward",
        "test_gradients_through_empty_batches",
        "test_expanded_gradients",
        "test_kernel_gradient_function",
        "test_first_and_second_order[cpu-axes-separable-upfirdn2d]",
    ),
    *tests_of(
        "test_transforms",
        "test_vmap",
        "test_vmap_of_the_input_alone_is_one_call",
        "test_vmap_of_separable_taps",
        "test_vmap_of_the_kernel_gradient",
    ),
    *tests_of("test_bias_act", "test_a_meta_operand_is_refused_by_the_operator"),
    *tests_of("test_doors", "test_subclasses_are_asked_first"),
    *tests_of("test_devices", "test_ops_on_meta[upfirdn2d, separable]"),
    *left_out("upfirdn2d"),
)
EPILOGUE = (
    *tests_of(
        "test_bias_act",
        "test_one_pass_gives_the_gradients_of_the_composition",
        "test_bias_act_alone",
        "test_pieces_make_the_whole",
        "test_native_works_in_pieces_where_nothing_learns",
        "test_the_limit_of_the_gradient_is_that_of_the_result",
        "test_operand_gradients_have_the_shapes_and_dtypes_of_the_operands",
        "test_gradients_about_one_tap",
        "test_gradients_of_bias_act",
        "test_transforms_of_bias_act",
        "test_gradients_of_some_tensors_are_those_of_all",
        "test_third_order_equals_native",
        "test_gradients_of_half_types",
        "test_gradients_of_any_scale",
        "test_gradient_of_a_scale_has_the_range_of_float32",
        "test_the_gain_is_not_rounded_into_the_gradient",
        "test_gradients_of_an_empty_batch",
        "test_dtypes_that_the_gradient_refuses",
        "test_gradients_that_nobody_asks_for_are_not_made",
        "test_sums_that_nobody_asks_for_are_not_made",
        "test_only_values_that_gradients_read_are_kept",
        "test_writing_into_the_result_before_backward_raises",
        "test_the_gradient_of_what_was_clamped_is_zero_and_that_of_infinity_is_not",
        "test_operands_are_never_rounded_to_the_inputs_dtype",
        "test_half_types_are_rounded_once",
        "test_nan_passes_through_to_where_it_belongs",
        "test_only_padding",
        "test_batched_gradients",
        "test_a_meta_operand_is_refused_by_the_operator",
        "test_subclasses_get_every_argument",
        "test_errors",
        "test_fake_tensors_and_tracers",
        "test_vmap_of_the_operators",
        "test_transforms",
        "test_opcheck_and_vmap_of_the_gradient",
    ),
    *tests_of("test_devices", "test_ops_on_meta[upfirdn2d_bias_act]"),
    *left_out("upfirdn2d_bias_act", "bias_act"),
)
FILTERED = (
    *tests_of(
        "test_filtered_act",
        "test_values[cpu-axes, continued-1]",
        "test_values[cpu-crop, continued-1]",
        "test_values[cpu-wider border in x-1]",
        "test_values[cpu-axes-0]",
        "test_values[cpu-axes-2]",
        "test_values[cpu-axes-3]",
        "test_the_fused_gradient[cpu-axes, continued-torch.float64-0]",
        "test_the_fused_gradient[cpu-axes-torch.float64-1]",
        "test_the_fused_gradient[cpu-bare-torch.float16-2]",
        "test_the_fused_gradient[cpu-bare-torch.float64-3]",
        "test_values[cpu-bigvgan-1]",
        "test_values[cpu-empty batch-1]",
        "test_values[cpu-no channels-1]",
        "test_every_choice_of_sums",
        "test_gradients_of_some_tensors_are_those_of_all",
        "test_bigvgan_as_its_code_has_it",
        "test_half_types_are_rounded_once",
        "test_padding_is_zero_and_not_activated",
        "test_a_snake_of_zero_beta_is_finite_where_it_can_be",
        "test_the_sums_of_half_types_are_not_rounded",
        "test_gradient_where_clamped_and_at_zero",
        "test_taps_may_be_written_between_forward_and_backward",
        "test_one_number_for_alpha_and_beta_is_rounded_once",
        "test_strides_of_any_kind",
        "test_batched_gradients",
        "test_errors",
        "test_a_meta_operand_is_refused_by_the_operator",
        "test_one_kernel_of_float64_makes_all_sums_float64",
        "test_an_operand_of_float64_leaves_the_sums_in_float32",
        "test_a_subclass_is_asked_first_wherever_it_stands",
        "test_snake_alone_has_one_number_per_channel",
        "test_gradients_of_both_orders[cpu-axes, continued-1]",
        "test_gradients_of_both_orders[cpu-axes-0]",
        "test_transforms",
        "test_vmap_of_the_input_and_one_other_tensor",
    ),
    *tests_of(
        "test_devices", "test_ops_on_meta[filtered_lrelu]", "test_ops_on_meta[filtered_snake]"
    ),
    *left_out("filtered_lrelu", "filtered_snake"),
)
# By module, the tests that must find its mutants
MODULES = {
    "resample_layers/geometry.py": ("tests/test_geometry.py",),
    "resample_layers/ops/arguments.py": (
        "tests/test_arguments.py",
        "tests/test_errors.py",
        "tests/test_dimensions.py::test_error",
        "tests/test_bias_act.py::test_errors",
        "tests/test_filtered_act.py::test_errors",
    ),
    "resample_layers/ops/upfirdn2d.py": GRADIENTS,
    "resample_layers/ops/activation_grad.py": EPILOGUE,
    "resample_layers/ops/epilogue.py": EPILOGUE,
    "resample_layers/ops/activation.py": EPILOGUE,
    "resample_layers/ops/autograd.py": ("tests/test_functions.py",),
    "resample_layers/ops/leaky_relu.py": (
        *tests_of("test_layers", "test_fused_leaky_relu"),
        *tests_of("test_errors", "test_error"),
        *tests_of("test_bias_act", "test_subclasses_get_every_argument"),
        *left_out("fused_leaky_relu", "FusedLeakyReLU"),
    ),
    "resample_layers/ops/nonlinearity.py": tests_of(
        "test_filtered_act",
        "test_the_derivatives_of_the_nonlinearities",
        *(f"test_values[cpu-axes-{activation}]" for activation in range(4)),
        "test_a_snake_of_zero_beta_is_finite_where_it_can_be",
        "test_gradient_where_clamped_and_at_zero",
    ),
    "resample_layers/ops/filtered_act.py": FILTERED,
}
CONFIG = """
[cosmic-ray]
module-path = {module}
timeout = {timeout}
excluded-modules = []
test-command = {command}
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = [
    "core/ReplaceBinaryOperator_(BitOr_.*|.*_(Bit.*|.Shift|Pow|Mod|Div))",
    "core/ReplaceComparisonOperator_((?!Is).*_Is.*|Is(Not)?_(?!Is).*)",
]
"""  # An arithmetic sign becomes + - * or //: a test finds the others as it finds these. The sign |
# stands in annotations, which nothing executes. `is` becomes `is not` alone, and nothing else
# becomes `is`: small ints that are equal are one object in CPython


def serve(path: str) -> None:
    """For each connection, run pytest with the arguments that it brings, in a fork."""
    import resource

    import functorch.compile  # noqa: F401
    import hypothesis  # noqa: F401
    import numpy  # noqa: F401
    import pytest
    import scipy.signal  # noqa: F401
    import torch._dynamo.testing

    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    gc.collect()
    gc.freeze()  # what no fork looks at is not copied
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            break
        connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    sys.dont_write_bytecode, *arguments = json.loads(connection.makefile().readline())
    listener.close()
    sys.path.insert(0, os.getcwd())
    code = pytest.main(arguments)
    connection.sendall(b"%d\n" % code)
    os._exit(0)  # what was forked together ends without the parent's cleaning up


def ask(path: str, is_mutant: bool, *arguments: str) -> int:
    """The code with which pytest ends: 0 where all pass.

    Each file has a pytest of its own, and none comes after one that fails: most mutants are found
    in the first file, and to collect the others takes longer than to run them.
    """
    for _, tests in itertools.groupby(arguments, lambda test: test.partition("::")[0]):
        code = ask_once(path, is_mutant, *tests)
        if code:
            return code
    return 0


def ask_once(path: str, is_mutant: bool, *arguments: str) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(json.dumps([is_mutant, *PYTEST, *arguments]).encode() + b"\n")
        answer = connection.makefile().readline()
    return int(answer or 1)  # without an answer it was killed


def copy(folder: Path) -> None:
    """The tree as it is, without compiled files: tests of mutants run natively."""
    leave_out = shutil.ignore_patterns("__pycache__", "lib")
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_file():
            shutil.copy2(source, target)
        else:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=leave_out)


def start_server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    path = str(folder / "socket")
    Path(path).unlink(missing_ok=True)
    environment = {
        **os.environ,
        "RESAMPLE_LAYERS_BACKEND": "native",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # other packages' plugins take time in each fork
    }
    command = [sys.executable, __file__, "serve", path]
    with (folder / "tests.log").open("wb") as log:
        # In a session of its own: Ctrl-C stops the mutants, and then the server is asked once more
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    while not Path(path).exists():
        if server.poll() is not None:
            raise SystemExit(f"nothing serves the tests: see {folder / 'tests.log'}")
        time.sleep(0.1)
    return server, path


def results_of(module: str, folder: Path) -> Path:
    """The file of results. They hold for one state of module, tests and tests' helpers."""
    digest = hashlib.sha256(repr((CONFIG, MODULES[module])).encode())
    tests = {test.partition("::")[0] for test in MODULES[module]}
    helpers = {f"tests/{p.name}" for p in folder.glob("tests/*.py") if p.name[:5] != "test_"}
    for name in (module, *sorted(tests | helpers)):
        digest.update((folder / name).read_bytes())
    return folder / f"{Path(module).stem}-{digest.hexdigest()[:12]}.sqlite"


def forget(results: Path, kept: set[str]) -> None:
    """Delete the results of all mutants but ``kept``."""
    with closing(sqlite3.connect(results)) as session, session:
        for job in finished(results) - kept:
            session.execute("delete from work_results where job_id = ?", (job,))


def finished(results: Path) -> set[str]:
    with closing(sqlite3.connect(results)) as session, session:
        return {job for (job,) in session.execute("select job_id from work_results")}


def mutate(module: str, folder: Path, path: str) -> Path:
    """Try the mutants of a module that have no result in this folder; where the results are."""
    tests = MODULES[module]
    results = results_of(module, folder)

    def pass_unchanged() -> bool:
        return not subprocess.call([sys.executable, __file__, "ask", path, "0", *tests], cwd=folder)

    # This also writes the bytecode of all that no mutant changes
    if not pass_unchanged():
        raise SystemExit(f"tests fail without a mutant: see {folder / 'tests.log'}")
    command = [sys.executable, "-S", __file__, "ask", path, "1", *tests]
    config = CONFIG.format(
        module=json.dumps(module), timeout=20.0 * SECONDS, command=json.dumps(shlex.join(command))
    )
    settings = results.with_suffix(".toml")
    settings.write_text(config)

    def tool(program: str, *arguments: str) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        command = shutil.which(program, path=path)
        if command is None:
            raise SystemExit(f"there is no {program}: pip install cosmic-ray")
        subprocess.run([command, *arguments], cwd=folder, check=True)

    if not results.exists():
        new = results.with_suffix(".new")
        new.unlink(missing_ok=True)
        tool("cosmic-ray", "init", settings.name, new.name)
        tool("cr-filter-operators", new.name, settings.name)
        new.rename(results)
    source = (folder / module).read_bytes()
    before = finished(results)
    try:
        tool("cosmic-ray", "exec", settings.name, results.name)
    finally:
        # A mutant counts as found when pytest gives no answer, also where nobody has run it
        (folder / module).write_bytes(source)
        if not pass_unchanged():
            forget(results, before)
            raise SystemExit(
                f"tests no longer pass without a mutant: see {folder / 'tests.log'}. "
                "The results of this call are deleted"
            )
    return results


def report(module: str, results: Path) -> None:
    """Print what survived, and say how many did."""
    with closing(sqlite3.connect(results)) as session, session:
        (total,) = session.execute("select count(*) from mutation_specs").fetchone()
        rows = session.execute(
            "select test_outcome, diff from work_results where worker_outcome = 'NORMAL'"
        ).fetchall()
        (skipped,) = session.execute(
            "select count(*) from work_results where worker_outcome = 'SKIPPED'"
        ).fetchone()
    survived = [diff for outcome, diff in rows if outcome == "SURVIVED"]
    print(*survived, sep="\n\n")
    print(f"{module}: {len(rows):,} of {total - skipped:,} tried, {len(survived)} survived")


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    if sys.argv[1:2] == ["ask"]:
        return ask(sys.argv[2], sys.argv[3] == "1", *sys.argv[4:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", default=list(MODULES))
    parser.add_argument("--folder", type=Path, default=ROOT / "build/mutants")
    arguments = parser.parse_args()
    if unknown := set(arguments.modules) - set(MODULES):
        parser.error(f"MODULE must be one of {', '.join(MODULES)}, got {', '.join(unknown)}")
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    copy(folder)
    server, path = start_server(folder)
    try:
        for module in arguments.modules:
            report(module, mutate(module, folder, path))
    finally:
        server.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
