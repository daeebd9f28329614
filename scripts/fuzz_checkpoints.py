# SPDX-License-Identifier: BSD-3-Clause
"""Gives broken and malicious files to the reader of checkpoints.

    python scripts/fuzz_checkpoints.py --files 100000
    python scripts/fuzz_checkpoints.py --read FILE ...

Files are made from a seed: real ones with bytes or opcodes changed, pickles of random opcodes, and
archives whose directories and headers lie. ``--read`` takes files that exist instead. Each must be
loaded, or refused with a CheckpointError that names it, within a second of the processor's time, a
few times its size in memory and a stack of 512 KiB. Of an archive that is accepted, Python's and
torch's own readers must see the same records. What does not hold is printed, and its file is kept.

The files are read in a child process; where that ends early, the file that it was at is to blame.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import io
import itertools
import json
import os
import pickle
import pickletools
import re
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from scripts.options import count, positive  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures" / "checkpoints"
HANG = 30  # seconds after which a child ends itself
STACK = 512 * 1024  # bytes
TIMES = 8  # of a file's size may be in memory
LARGEST = 300_000  # bytes, of what opcodes are repeated to
CHUNK = 5_000  # files of one child

# Files


def seeds() -> dict[str, bytes]:
    """Real files, as small as they can be."""
    import torch

    from examples.stylegan.checkpoints import save_basicsr
    from examples.stylegan.discriminator import Discriminator
    from examples.stylegan.generator import Generator

    torch.manual_seed(0)
    generator = Generator(8, 4, 1, channels={4: 4, 8: 4})
    discriminator = Discriminator(8, channels={4: 4, 8: 4})
    names = ("ada_32.pkl", "stylegan3-stylegan2_32.pkl")
    found = {name: (FIXTURES / name).read_bytes() for name in names}
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "g"), Path(folder, "d")
        save_basicsr(paths[0], generator, discriminator, torch.zeros(4), paths[1])
        found["basicsr"] = paths[0].read_bytes()
        found["basicsr discriminator"] = paths[1].read_bytes()
        state = torch.load(paths[0], weights_only=True)
    wrapped = {f"decoder.module.{key}": value for key, value in state["params_ema"].items()}
    file = {
        "state_dict": wrapped,
        "args": argparse.Namespace(lr=0.1),
        "latent_avg": torch.ones(4, 4),
    }
    for name, zipped in (("wrapped", True), ("old", False)):
        stream = io.BytesIO()
        torch.save(file, stream, _use_new_zipfile_serialization=zipped)
        found[name] = stream.getvalue()
    return found


def change_bytes(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 30))):
        at, length = rng.randrange(len(changed) + 1), int(2 ** rng.uniform(0, 12))
        kind = rng.randrange(5)
        if kind == 0:
            del changed[at : at + length]
        elif kind == 1:
            changed[at:at] = changed[rng.randrange(len(changed) + 1) :][:length]
        elif kind == 2:
            changed[at : at + 4] = rng.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f")
            )
        else:
            changed[at : at + 1] = rng.randbytes(1)
    return bytes(changed)


@functools.cache
def opcodes_of(pickled: bytes) -> list[bytes]:
    starts = [at for _, _, at in pickletools.genops(pickled)]
    return [pickled[a:b] for a, b in itertools.pairwise([*starts, len(pickled)])]


def change_opcodes(rng: Random, pickled: bytes) -> bytes:
    parts = list(opcodes_of(pickled))
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, other = rng.randrange(1, len(parts)), rng.randrange(1, len(parts))
        kind = rng.randrange(6)
        if kind == 0:
            parts[at : at + rng.choice((1, 1, 5))] = []
        elif kind == 1:
            parts[at], parts[other % len(parts)] = parts[other % len(parts)], parts[at]
        elif kind == 2:
            some = parts[at : at + rng.choice((1, 2, 9))]
            size = sum(map(len, some)) or 1
            parts[at:at] = some * min(int(10 ** rng.uniform(0, 5)), LARGEST // size)
        elif kind == 3:
            parts[at] = random_value(rng, 3)
        else:
            parts.insert(at, random_opcode(rng))
        if len(parts) < 2:
            break
    return b"".join(parts)


def random_opcode(rng: Random) -> bytes:
    """An opcode with an argument, that may not be what the stack is ready for."""
    opcode = rng.choice(pickletools.opcodes)
    code = opcode.code.encode("latin-1")
    if opcode.name in ("GLOBAL", "INST"):
        return code + rng.choice(NAMES).encode().replace(b".", b"\n", 1) + b"\n"
    if opcode.arg is None:
        return code
    if opcode.arg.n >= 0:
        return code + rng.choice((bytes(opcode.arg.n), rng.randbytes(opcode.arg.n)))
    length = {"1": "<B", "4": "<I", "8": "<Q"}.get(opcode.arg.name[-1])
    if length is None:
        return code + b"1\n"
    claimed = rng.choice((0, 3, 3, 3, 255, 2**31 - 1))
    return code + struct.pack(length, claimed & (256 ** struct.calcsize(length) - 1)) + b"abc"


NAMES = (
    *("collections.OrderedDict", "collections.Counter", "argparse.Namespace", "torch.Size"),
    *("builtins.set", "builtins.bytearray", "_codecs.encode", "torch.FloatStorage"),
    *("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "numpy.dtype"),
    *("torch.storage._load_from_bytes", "torch_utils.persistence._reconstruct_persistent_obj"),
    *("numpy.core.multiarray.scalar", "torch.float32", "dnnlib.util.EasyDict", "os.system"),
)
KEYS = (
    *("g_ema", "params", "state_dict", "G_ema", "D", "module", "latent_avg", "settings", "state"),
    *("_parameters", "_buffers", "_modules", "to_rgbs.0.bias", "style_mlp.1.bias", "input.input"),
)


def random_value(rng: Random, deepest: int) -> bytes:
    """Opcodes that push one value."""
    inner = [random_value(rng, deepest - 1) for _ in range(rng.randrange(4))] if deepest else []
    key = rng.choice(KEYS)
    word = b"X" + struct.pack("<I", len(key)) + key.encode()
    name = b"c" + b"\n".join(part.encode() for part in rng.choice(NAMES).rsplit(".", 1)) + b"\n"
    reference = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0aX\x03\0\0\0cpuK\x02tQ"
    number = rng.randbytes(rng.choice((1, 4, 9, 40)))
    value = rng.choice(
        [
            *(
                b"N",
                b"\x88",
                b"K" + number[:1],
                b"\x8a" + bytes([len(number)]) + number,
                word,
                word,
            ),
            *(b"G" + rng.randbytes(8), b"C\x03abc", b")", b"]", b"}", reference, name),
            *(b"h" + bytes([rng.randrange(4)]), b"(" + b"".join(inner) + b"t"),
            b"](" + b"".join(inner) + b"e",
            b"}(" + b"".join(rng.choice((word, item)) + item for item in inner) + b"u",
            name + b"(" + b"".join(inner) + b"tR",
            name + b")\x81}(" + b"".join(word + item for item in inner) + b"ub",
        ]
    )
    return value + rng.choice((b"", b"", b"q" + bytes([rng.randrange(4)])))


def random_pickle(rng: Random) -> bytes:
    """A dict of random values, of which some are repeated very often."""
    block = random_value(rng, rng.randrange(5))
    shared = rng.choice(
        (b"h\0h\0\x86q\0", b"\x85", b"h\0\x85h\0\x86q\0", b"(h\0h\0h\0tq\0", b"K\x01a")
    )
    repeated = shared * int(10 ** rng.uniform(0, 4.5)) if rng.random() < 0.3 else b""
    items = b"".join(
        b"X" + struct.pack("<I", len(key)) + key.encode() + random_value(rng, 4)
        for key in rng.sample(KEYS, rng.randrange(4))
    )
    return b"\x80\x02}(" + items + b"K\x01" + block + b"q\0" + repeated + b"u."


def as_stream(pickled: bytes) -> bytes:
    """Torch's old format around a pickle that refers to a storage named a."""
    system = {"protocol_version": 1001, "little_endian": True}
    parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system)]
    if b"storage" in pickled:
        return b"".join(parts) + pickled + pickle.dumps(["a"], 2) + struct.pack("<q2f", 2, 1, 1)
    return b"".join(parts) + pickled + pickle.dumps([], 2)


def as_archive(rng: Random, pickled: bytes, odd: float) -> bytes:
    """An archive around a pickle, in which each thing is wrong with probability ``odd``."""

    def pick(usual: Any, *others: Any) -> Any:
        return rng.choice(others) if rng.random() < odd else usual

    names = ["a/data.pkl", "a/byteorder", "a/data/a", "a/version"]
    names += pick([], ["a/data.PKL"], ["a/data.pkl"], ["/etc/passwd"], ["a/../b"], ["b/x"], ["a/"])
    contents = {"a/data.pkl": pickled, "a/byteorder": pick(b"little", b"big"), "a/version": b"3\n"}
    file, directory = pick(b"", b"x", b"PK\x03\x04" + bytes(26)), b""
    for name in names:
        data = contents.get(name, struct.pack("<2f", 1, 1))
        size = pick(len(data), 0, 2**32 - 1, len(data) + 1, len(data) // 2)
        sizes = (pick(0, 1), size, pick(size, size - 1 & 0xFFFFFFFF, 2 * size & 0xFFFFFFFF))
        method, flags = pick(0, 8, 99), pick(0, 8, 1, 0x800)
        encoded, extra = name.encode(), bytes(pick(0, 4, 40))
        inside = pick(encoded, b"a/other", encoded[::-1])
        at = pick(len(file), 0, len(file) + 1, 2**32 - 1)
        kind = pick(0o100644, 0o120777, 0o040755) << 16
        head = struct.pack("<5H3I2H", 20, flags, method, 0, 0, *sizes, len(inside), len(extra))
        file += b"PK\x03\x04" + head + inside + extra + data + bytes(pick(0, 16, 24, 31))
        entry = (20, 20, flags, method, 0, 0, *sizes, len(encoded), 0, 0, 0, 0, kind, at)
        directory += b"PK\x01\x02" + struct.pack("<6H3I5H2I", *entry) + encoded
    count, size, at = pick(len(names), 1, 9), pick(len(directory), 0), pick(len(file), 0, 99)
    comment = pick(b"", b"x", b"PK\x05\x06" + bytes(18))
    large = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, at)
    where = pick(len(file) + len(directory), 0)
    large = pick(b"", large + struct.pack("<4sIQI", b"PK\x06\x07", 0, where, 1))
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, size, at, len(comment))
    return file + directory + large + end + comment + pick(b"", b"x", file + directory + end)


def records_of(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def change_pickle(rng: Random, archive: bytes, change: Callable[[Random, bytes], bytes]) -> bytes:
    """An archive with its pickle changed, and nothing else."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        for name, data in records_of(archive).items():
            new.writestr(name, change(rng, data) if name.endswith("/data.pkl") else data)
    return file.getvalue()


def make(rng: Random, real: dict[str, bytes]) -> tuple[str, bytes]:
    """What kind of file it is, and the file."""
    large = rng.random() < 0.1
    name = rng.choice([name for name in real if name.endswith(".pkl") == large])
    data, kind = real[name], rng.randrange(8)
    if kind < 2:
        return f"bytes of {name}", change_bytes(rng, data)
    if kind < 4 and data.startswith(b"PK"):
        return f"opcodes of {name}", change_pickle(rng, data, change_opcodes)
    if kind < 4 and name != "old":
        return f"opcodes of {name}", change_opcodes(rng, data)
    pickled = random_pickle(rng)
    if kind < 6:
        return "archive", as_archive(rng, pickled, rng.choice((0, 0.02, 0.1)))
    return ("pickle", pickled) if kind == 6 else ("stream", as_stream(pickled))


# Reading


def broken(path: Path, data: bytes, seconds: float, megabytes: float) -> tuple[str, list[str]]:
    """What became of a file, and what should not have: it is in a process without other work."""
    from examples.stylegan.checkpoints import CheckpointError, archives, load

    outcome, problems = "", list[str]()

    def read() -> None:
        nonlocal outcome
        start = time.thread_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                load(path)
            outcome = "loaded"
        except CheckpointError as error:
            outcome = str(error)
            if not outcome.startswith(f"{path} "):
                problems.append(f"it was not named: {outcome[:300]}")
            if len(outcome) > 20_000 or not outcome.isprintable():
                problems.append(f"the sentence is not fit to be printed: {outcome[:300]!r}")
        except BaseException as error:
            problems.append(f"{type(error).__name__}: {error}"[:300])
        spent = time.thread_time() - start
        if spent > seconds:
            problems.append(f"it took {spent:.2f} s")

    path.write_bytes(data)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    reached = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = reached * 1024 - resident
    if reached > highest and grown > megabytes * 1e6 + TIMES * len(data):
        problems.append(f"it took {grown / 1e6:.0f} MB for {len(data):,} bytes")
    if data.startswith(b"PK"):
        try:
            found = {name: bytes(part) for name, part in archives.records_of(data).items()}
        except Exception:
            return outcome, problems
        problems += other_views(data, found)
    return outcome, problems


def other_views(data: bytes, found: dict[str, bytes]) -> Iterator[str]:
    """What Python's and torch's own readers of archives see otherwise than ours."""
    import torch

    for reader in ("Python's", "torch's"):
        try:
            if reader == "Python's":
                seen = records_of(data)
            else:
                file = torch._C.PyTorchFileReader(io.BytesIO(data))
                seen = {name: file.get_record(name) for name in file.get_all_records()}
                top = next(iter(found)).partition("/")[0]
                seen = {f"{top}/{name}": content for name, content in seen.items()}
        except Exception as error:
            # They check sums of the bytes, or want other records too; they do not see others
            if not re.search(
                "CRC|file in archive is not in a subdirectory|version|invalid", str(error)
            ):
                yield f"{reader} reader does not read it: {error}"[:300]
            continue
        if seen != found:
            yield f"{reader} reader sees {sorted(seen)} instead of {sorted(found)}, or other bytes"


def child(args: argparse.Namespace) -> int:
    import torch

    from examples.stylegan.checkpoints import load

    torch.set_num_threads(1)
    threading.stack_size(STACK)
    faulthandler.enable()
    real = {} if args.read else seeds()
    load(FIXTURES / "ada_32.pkl")  # so that what is made once is there
    outcomes: Counter[str] = Counter()
    total, failed = len(args.read) or args.files, 0
    path = args.folder / "file"
    for number in range(args.first, args.first + total):
        if args.read:
            kind, data = str(args.read[number]), args.read[number].read_bytes()
        else:
            kind, data = make(Random(f"{args.seed} {number}"), real)
        (args.folder / "at").write_text(f"{number} {kind}")
        faulthandler.dump_traceback_later(HANG, exit=True)
        outcome, problems = broken(path, data, args.seconds, args.megabytes)
        faulthandler.cancel_dump_traceback_later()
        if args.read:
            print(outcome)
        for problem in problems:
            failed += 1
            kept = args.keep / f"{args.seed}_{number}"
            kept.write_bytes(data)
            print(f"FAILED: file {number}, {kind}: {problem}; kept as {kept}", flush=True)
        said = re.sub(r"[\d,]*\d|'.*'", "N", outcome.removeprefix(f"{path} "))
        outcomes[f"{kind.split()[0] if not args.read else 'file'}: {said[:60]}"] += 1
    print(f"OUTCOMES {json.dumps(outcomes)}")
    return min(failed, 100)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--files", type=count, default=1000, help="how many to make")
    add("--seed", type=int, default=0)
    add("--read", type=Path, nargs="+", default=[], metavar="FILE", help="read these instead")
    add("--seconds", type=positive, default=1.0, help="of the processor's time for a file")
    add("--megabytes", type=positive, default=64.0, help=f"beside {TIMES} times its size")
    add(
        "--keep",
        type=Path,
        default=Path("runs", "fuzz_checkpoints"),
        help="where files that fail go",
    )
    add("--child", action="store_true", help=argparse.SUPPRESS)
    add("--first", type=int, default=0, help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args)
    for path in args.read:
        if not path.is_file() or not os.access(path, os.R_OK):
            parser.error(f"--read must name files that can be read, got {path}")
    try:
        args.keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--keep must be a folder that can be written to: {error}")
    failed, outcomes, start = 0, Counter[str](), time.time()
    total = len(args.read) or args.files
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, total, total if args.read else CHUNK):
            command = [
                sys.executable,
                __file__,
                "--child",
                "--folder",
                folder,
                "--first",
                str(first),
            ]
            command += ["--files", str(min(CHUNK, total - first)), "--seed", str(args.seed)]
            command += ["--seconds", str(args.seconds), "--megabytes", str(args.megabytes)]
            command += ["--keep", str(args.keep)]
            command += ["--read", *map(str, args.read)] if args.read else []
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            *lines, last = ended.stdout.splitlines() or [""]
            print("\n".join(lines) + "\n" * bool(lines), end="")
            failed += ended.returncode != 0
            if last.startswith("OUTCOMES "):
                outcomes.update(json.loads(last.removeprefix("OUTCOMES ")))
            else:
                at = Path(folder, "at").read_text()
                print(f"FAILED: the process ended with {ended.returncode} at file {at}")
                (args.keep / at.replace(" ", "_").replace("/", "_")).write_bytes(
                    Path(folder, "file").read_bytes()
                )
    for outcome, times in outcomes.most_common(60):
        print(f"{times:7} {outcome}")
    said = "FAILED" if failed else "all as promised"
    print(f"{total:,} files in {time.time() - start:.0f} s: {said}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
