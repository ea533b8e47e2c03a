"""Weights and vocabularies that ask for much with little: one line each, in little time and memory.

Sound ones are read as they were written.
"""

import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attngan_deploy.errors import CheckpointError, DataError, T2IError
from attngan_deploy.train.imports.torch_file import load_state
from attngan_deploy.train.imports.unpickle import load_plain
from benchmarks.robustness.fuzz_weights import KINDS, feed, text
from tests.makers.memory import little_memory

MODULUS = 2**61 - 1  # of the hashes of numbers: multiples of it look alike


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def many_keys(count: int = 100_000) -> bytes:
    """A dict of numbers that all have one hash."""
    return b"\x80\x02}(" + b"".join(number(place * MODULUS) + b"N" for place in range(count)) + b"u."


def nested(begin: bytes, end: bytes, depth: int) -> bytes:
    return b"\x80\x02" + begin * depth + end * depth + b"."


ATTACKS = {
    "tuples in tuples": nested(b"(", b"t", 1_000_000),
    "tuples in tuples, a thousand deep": nested(b"(", b"t", 1000),
    "tuples of one": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "lists in lists": b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b".",
    "dicts in dicts": b"\x80\x02}" + (text(b"a") + b"}") * 200_000 + b"s" * 200_000 + b".",
    "an array of 4 GB": b"\x80\x02c__builtin__\nbytearray\n" + number(2**32) + b"\x85R.",
    "an array that is not there": b"\x80\x05\x96" + struct.pack("<Q", 2**32) + b".",
    "keys that collide": many_keys(),
    "keys that collide, of tuples": b"\x80\x02}("
    + b"".join(number(n * MODULUS) + b"\x85N" for n in range(9999))
    + b"u.",
    "a key in a tuple a million deep": b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.",
    "a million empty dicts": b"\x80\x02](" + b"}" * 1_500_000 + b"e.",
    "a number of a million digits": b"\x80\x02\x8b" + struct.pack("<I", 400_000) + b"\x7f" * 400_000 + b".",
}


def as_stream(path: Path, pickled: bytes) -> None:
    """The format of torch before 1.6."""
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    path.write_bytes(head + pickled + pickle.dumps([], 2))


def as_archive(path: Path, pickled: bytes) -> None:
    """The format of torch 1.6 and later."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("write", [as_stream, as_archive])
def test_weights_that_ask_for_much(tmp_path: Path, attack: str, write: Callable[[Path, bytes], None]) -> None:
    write(tmp_path / "w.pth", ATTACKS[attack])
    with little_memory(seconds=10), pytest.raises(CheckpointError) as caught:
        load_state(tmp_path / "w.pth")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("attack", ATTACKS)
def test_vocabularies_that_ask_for_much(tmp_path: Path, attack: str) -> None:
    (tmp_path / "a.pickle").write_bytes(ATTACKS[attack])
    with little_memory(300 * 2**20, seconds=20):
        try:
            load_plain(tmp_path / "a.pickle")  # lists and dicts of texts are plain data, however deep
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
        else:
            assert attack in ("lists in lists", "dicts in dicts", "a million empty dicts")


def test_a_vocabulary_of_more_than_memory(tmp_path: Path) -> None:
    (tmp_path / "a.pickle").write_bytes(b"\x80\x02](" + b"}" * 11_000_000 + b"e.")
    with little_memory(1200 * 2**20, seconds=60), pytest.raises(DataError, match="is too large"):
        load_plain(tmp_path / "a.pickle")


def test_an_archive_with_a_long_list_of_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        for place in range(60_000):
            archive.writestr(zipfile.ZipInfo(f"{'a' * 20}/data/{place}"), b"")
    with little_memory(), pytest.raises(CheckpointError, match="or a damaged one"):
        load_state(tmp_path / "w.pth")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_is_packed(tmp_path: Path, method: int) -> None:
    torch.save({"a": torch.rand(9)}, tmp_path / "whole.pth")
    whole = zipfile.ZipFile(tmp_path / "whole.pth")
    with whole, zipfile.ZipFile(tmp_path / "w.pth", "w", method) as packed:
        packed.writestr("more", random.Random(0).randbytes(9999))
        for item in whole.infolist():
            packed.writestr(item.filename, whole.read(item))
    with pytest.raises(CheckpointError, match=r"(or a damaged one|unpack to).*\. Next: "):
        load_state(tmp_path / "w.pth")


def test_a_tensor_beyond_its_numbers(tmp_path: Path) -> None:
    """Shapes and strides are compared with what is stored, in both formats, before a tensor is made."""
    torch.save({"a": torch.arange(6.0)}, tmp_path / "whole.pth")
    whole = zipfile.ZipFile(tmp_path / "whole.pth")
    folder = whole.namelist()[0].split("/")[0]
    for old, new in ((b"K\x06\x85", b"K\x07\x85"), (b"K\x01\x85", b"K\x02\x85"), (b"QK\x00", b"QK\x01")):
        with zipfile.ZipFile(tmp_path / "w.pth", "w") as changed:
            for name in whole.namelist():
                content = whole.read(name)
                if name == f"{folder}/data.pkl":
                    assert content.count(old) == 1
                    content = content.replace(old, new)
                changed.writestr(name, content)
        with pytest.raises(CheckpointError, match="or a damaged one"):
            load_state(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_sound_weights_are_read_as_they_were(tmp_path: Path, zipped: bool, protocol: int) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.LSTM(3, 4))
    whole = torch.rand(4, 6)
    kinds = (
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.int32,
        torch.bool,
    )
    states: list[Any] = [
        network.state_dict(),
        dict(network.named_parameters()),
        {
            "a": whole,
            "b": whole[1:, ::2],
            "c": whole.T,
            "d": whole[:, :0],
            "e": torch.tensor(3),
            "f": torch.rand(1, 2, 1),
        },
        OrderedDict((str(kind), (torch.rand(7) * 3).to(kind)) for kind in kinds),
    ]
    for state in states:
        torch.save(state, tmp_path / "w.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        ours = load_state(tmp_path / "w.pth")
        assert list(ours) == list(state)
        for name, tensor in state.items():
            assert ours[name].dtype == tensor.dtype and ours[name].shape == tensor.shape
            assert torch.equal(ours[name], tensor), name


def test_odd_pickles(tmp_path: Path) -> None:
    """A short form of `benchmarks/robustness/fuzz_weights.py`."""
    told = feed(seed=7, inputs=1500, folder=tmp_path)
    assert not [what for what in told["found"] if what.startswith("fault")], told["found"]
    for kind in KINDS:
        assert told["found"][f"{kind}, taken"] and told["found"][f"{kind}, refused"]
    assert told["slowest"] < 5 and told["grown"] < 200


def test_every_refusal_is_ours(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(T2IError):
        load_state(tmp_path / "w.pth")
