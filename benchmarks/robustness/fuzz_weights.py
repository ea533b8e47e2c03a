"""Feeds the readers of published weights with pickles made of pickles' own operations, and counts what came of it.

    python benchmarks/robustness/fuzz_weights.py --inputs 10000000 --seed 1

Unlike `fuzz.py`, which changes bytes, this puts whole operations, whole tensors and whole attacks in any order, in the
file of torch 1.6 and later, in the one before it, and in a `captions.pickle`; some bytes are changed afterwards. A
fault is an error outside the tree of `errors.py`, one that is not a line, an input that takes a second of the
processor, a process that comes to hold 200 MB more than it began with, and one that dies. Prints JSON.
"""

import argparse
import io
import json
import multiprocessing
import os
import pickle
import random
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attngan_deploy.cli import script_extra

MEMORY = 200  # MB more than it began with
PATIENCE = 1.0  # seconds of the processor, for an input
TOGETHER = 20_000  # inputs of a process
KINDS = ("archive", "stream", "captions")
NAMES = (b"collections\nOrderedDict", b"torch._utils\n_rebuild_tensor_v2", b"torch._utils\n_rebuild_parameter")
NAMES += (b"torch._utils\n_rebuild_tensor", b"torch\nFloatStorage", b"torch\nLongStorage", b"torch.cuda\nHalfStorage")
NAMES += (b"torch\nComplexFloatStorage", b"torch._utils\n_rebuild_sparse_tensor", b"torch\nSize", b"os\nsystem")
TEXTS = (b"storage", b"0", b"1", b"cpu", b"a.weight", b"", b"<end>", b"red", "é".encode(), b"\xff\xfe")
NUMBERS = (0, 1, 2, 3, 4, 6, 255, -1, 2**16, 2**31 - 1, 2**31, 2**40, 2**61 - 1, 2**63 - 1, 2**63, -(2**63), 2**127)
PLAIN = (b"(", b"]", b"}", b")", b"t", b"l", b"d", b"a", b"e", b"s", b"u", b"R", b"b", b"Q", b"N", b"\x88", b"\x89")
PLAIN += (
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x94",
    b"0",
    b"1",
    b"2",
    b".",
    b"\x81",
    b"\x92",
    b"\x93",
    b"\x8f",
    b"\x90",
    b"\x91",
)


def text(value: bytes) -> bytes:
    """A text of protocol 2."""
    return b"X" + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    """A number of protocol 2."""
    return pickle.dumps(value, 2)[2:-1]


def storage(key: bytes, count: int, kind: bytes = b"torch\nFloatStorage") -> bytes:
    """What stands for stored numbers."""
    return b"(" + text(b"storage") + b"c" + kind + b"\n" + text(key) + text(b"cpu") + number(count) + b"tQ"


def tensor(draw: random.Random) -> bytes:
    """A tensor, of a shape and strides that may ask for more than there is."""
    sizes: Sequence[int]
    strides: Sequence[int]
    sizes, strides = draw.choice((((2, 3), (3, 1)), ((6,), (1,)), ((), ()), ((1, 2, 3), (6, 3, 1)), ((2,), (3,))))
    offset, count = 0, 6
    if draw.random() < 0.3:
        odd = (0, -1, 1, 7, 2**20, 2**40, 2**62)
        sizes, strides = draw.choices(odd, k=draw.randrange(4)), draw.choices(odd, k=draw.randrange(4))
        offset, count = draw.choice((0, 1, *odd)), draw.choice((6, 6, *odd))
    stored = storage(draw.choice((b"0", b"1")), count)
    shape = b"".join(b"(" + b"".join(map(number, values)) + b"t" for values in (sizes, strides))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + number(offset) + shape + b"\x89" + NOTHING + b"tR"


NOTHING = b"ccollections\nOrderedDict\n)R"


def deep(draw: random.Random) -> int:
    """How many things are put into one another."""
    return draw.choice((5, 20, 100, 1500))


def huge(draw: random.Random, most: int) -> bytes:
    """A length that is not there, as so many bytes."""
    return draw.choice((2**31 - 1, 2**32 - 1, 2**40, 2**63)).to_bytes(8, "little")[:most] + b"ab"


COLLIDING = b"".join(number(place * (2**61 - 1)) + b"N" for place in range(100))
ATTACKS: tuple[Callable[[random.Random], bytes], ...] = (  # ways to ask for much with little
    lambda draw: b"(" * (many := deep(draw)) + b"t" * many,
    lambda draw: b")" + b"\x85" * deep(draw),
    lambda draw: b"]" * (many := deep(draw)) + b"a" * (many - 1),
    lambda draw: b"}" + (text(b"a") + b"}") * (many := deep(draw)) + b"s" * many,
    lambda draw: b"]q\x00" + b"h\x00a" * deep(draw),
    lambda draw: b"\x96" + huge(draw, 8),
    lambda draw: b"\x8d" + huge(draw, 8),
    lambda draw: b"\x8e" + huge(draw, 8),
    lambda draw: b"\x95" + huge(draw, 8),
    lambda draw: b"B" + huge(draw, 4),
    lambda draw: b"\x8b" + huge(draw, 4),
    lambda draw: b"]r" + huge(draw, 4)[:4],
    lambda draw: b"}(" + COLLIDING + b"u",
    lambda draw: b"c__builtin__\nbytearray\n" + number(2**32) + b"\x85R",
)


def pickled(draw: random.Random) -> bytes:
    """A pickle, whole or not: a state dict, a vocabulary, or operations in any order, some bytes of it changed."""
    pieces = []
    for _ in range(draw.randrange(1, 16)):
        kind = draw.random()
        if kind < 0.45:
            pieces.append(draw.choice(PLAIN))
        elif kind < 0.6:
            pieces.append(text(draw.choice(TEXTS)))
        elif kind < 0.7:
            pieces.append(number(draw.choice(NUMBERS)))
        elif kind < 0.8:
            pieces.append(draw.choice((b"q", b"h", b"K", b"P", b"\x82", b"I")) + bytes([draw.randrange(4)]))
        elif kind < 0.88:
            pieces.append(b"c" + draw.choice(NAMES) + b"\n")
        elif kind < 0.97:
            pieces.append(text(draw.choice(TEXTS)) + tensor(draw))
        else:
            pieces.append(draw.choice(ATTACKS)(draw))
    whole = draw.random()
    if whole < 0.3:  # a state dict of tensors, which is mostly taken
        items = b"".join(
            text(name) + tensor(draw) for name in draw.sample((b"a", b"b", b"c", b"d"), draw.randrange(1, 4))
        )
        begin = draw.choice((b"}", NOTHING))
        pieces = [begin, b"(", items, *pieces[: draw.choice((0, 0, 1))], b"u", draw.choice((b"", b"}" + b"b"))]
    elif whole < 0.4:
        words = dict(enumerate(["<end>", "red", "bird"]))
        content = [[[1, 2]], [[1]], words, {word: place for place, word in words.items()}]
        pieces = [pickle.dumps(content, draw.randrange(6))[:-1], *pieces[: draw.choice((0, 1))]]
    data = bytearray(b"\x80\x02" + b"".join(pieces) + b".")
    for _ in range(draw.choice((0, 0, 0, 1, 3))):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


def content(kind: str, draw: random.Random) -> bytes:
    """A file of one of `KINDS`."""
    data, floats = pickled(draw), struct.pack("<6f", *range(6))
    if kind == "captions":
        return data
    if kind == "stream":
        head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        return head + data + pickle.dumps(["0", "1"], 2) + (struct.pack("<q", 6) + floats) * 2
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, part in (("data.pkl", data), ("byteorder", b"little"), ("data/0", floats), ("data/1", floats)):
            archive.writestr(zipfile.ZipInfo(f"a/{name}"), part)
    whole = bytearray(made.getvalue())
    if draw.random() < 0.1:
        whole[draw.randrange(len(whole))] = draw.randrange(256)
    return bytes(whole)


def read(kind: str, path: Path) -> bool:
    """Whether a file is taken; raises what its reader should not have raised."""
    from attngan_deploy.errors import T2IError
    from attngan_deploy.train.imports.published_files import read_vocabulary
    from attngan_deploy.train.imports.torch_file import load_state

    try:
        if kind == "captions":
            assert len(read_vocabulary(path)) > 1
        else:
            state = load_state(path)
            assert sum(tensor.nbytes for tensor in state.values()) <= path.stat().st_size
            assert all(tensor.double().sum() is not None for tensor in state.values())
    except T2IError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 4000, "an error is one line"
        return False
    return True


def feed(seed: int, inputs: int, folder: Path) -> dict[str, Any]:
    """Read many files, made of a seed; what was taken, refused, slowest, and held at most."""
    import resource

    warnings.simplefilter("error")
    in_memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else folder
    draw, found, slowest, path = random.Random(seed), Counter[str](), 0.0, in_memory / f"weights-{os.getpid()}"
    read("stream", path)  # which imports what it needs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(inputs):
        kind = draw.choices(KINDS, (2, 5, 3))[0]
        data = content(kind, draw)
        path.write_bytes(data)
        begun = time.process_time()
        try:
            found[f"{kind}, {'taken' if read(kind, path) else 'refused'}"] += 1
        except Exception as error:
            kept = folder / f"fault-{seed}-{sum(found.values())}.{kind}"
            kept.write_bytes(data)
            found[f"fault: {type(error).__name__}, kept in {kept}"] += 1
        slowest = max(slowest, time.process_time() - begun)
    path.unlink()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    return {"found": found, "slowest": slowest, "grown": grown}


def main() -> None:
    """Read the command line; each process gets `TOGETHER` inputs of a seed of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="a folder for faults")
    options = parser.parse_args()
    with script_extra("train"):
        import torch

        torch.set_num_threads(1)
    options.keep.mkdir(parents=True, exist_ok=True)
    parts = [
        (options.seed * 10**6 + place, min(TOGETHER, options.inputs - place * TOGETHER), options.keep)
        for place in range(-(-options.inputs // TOGETHER))
    ]
    found, slowest, grown, begun = Counter[str](), 0.0, 0, time.perf_counter()
    with multiprocessing.get_context("fork").Pool(options.processes, maxtasksperchild=1) as pool:
        waiting = [pool.apply_async(feed, part) for part in parts]
        for part, made in zip(parts, waiting, strict=True):
            try:
                told = made.get(timeout=3600)
            except multiprocessing.TimeoutError:  # a process that dies never answers
                found[f"fault: the process of seed {part[0]} died or hangs"] += 1
                break
            found, slowest, grown = found + told["found"], max(slowest, told["slowest"]), max(grown, told["grown"])
            print(f"{sum(found.values()):,} inputs, {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
        pool.terminate()
    faults = {key: count for key, count in found.items() if key.startswith("fault")}
    report = {"inputs": sum(found.values()), "seed": options.seed, "found": dict(sorted(found.items()))}
    report |= {"slowest_seconds": round(slowest, 3), "grown_mb": grown, "seconds": round(time.perf_counter() - begun)}
    print(json.dumps(report, indent=2))
    sys.exit(1 if faults or slowest > PATIENCE or grown > MEMORY else 0)


if __name__ == "__main__":
    main()
