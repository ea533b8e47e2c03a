"""Files that claim more than they hold, or lead elsewhere: one clear line, little memory, nothing outside touched."""

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.bundles.bundle import read_manifest as read_bundle
from attngan_deploy.engines.golden import load_golden
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import BundleError, CaptionError, CheckpointError, DataError, EngineError, T2IError
from attngan_deploy.generate.manifest import read_manifest
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.generate.storage import TarShards
from attngan_deploy.media.captions import read_captions
from attngan_deploy.media.images import decode_picture
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.score.pictures import find_pictures
from attngan_deploy.system.files import read_file, read_json
from attngan_deploy.train.data.picture_set import read_pictures
from attngan_deploy.train.data.pictures import prepare_picture, refuse_decompression_bombs
from attngan_deploy.train.data.split import read_split_names
from attngan_deploy.train.image_encoder import BirdMobileNet
from attngan_deploy.train.imports.torch_file import load_state
from attngan_deploy.train.imports.unpickle import load_plain
from attngan_deploy.train.runs.checkpoint import Checkpoint, load_checkpoint
from tests.makers.golden_bundle import with_manifest
from tests.makers.memory import little_memory
from tests.makers.tiny_bundle import make_tiny_checkpoint

DEEP = b"[" * 200_000
TERABYTE = 10**12


def picture(size: int = 8, file_format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (200, 30, 30)).save(stream, file_format)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb_png(side: int) -> bytes:
    """A small PNG of many pixels: its rows are there, and are zeros."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packer, packed = zlib.compressobj(9), []
    for _ in range(side):
        packed.append(packer.compress(bytes(1 + 3 * side)))
    packed.append(packer.flush())
    end = chunk(b"IDAT", b"".join(packed)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


def text_bomb_png() -> bytes:
    """A PNG whose text unpacks to 64 MB."""
    text = chunk(b"zTXt", b"t2i\0\0" + zlib.compress(bytes(64 * 2**20), 9))
    whole = picture()
    return whole[:33] + text + whole[33:]


def write_tar(path: Path, *members: tuple[str, bytes | None, dict[str, object]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data, facts in members:
            member = tarfile.TarInfo(name)
            for key, value in facts.items():
                setattr(member, key, value)
            member.size = len(data or b"")
            tar.addfile(member, io.BytesIO(data or b""))
    return path


def huge_safetensors(path: Path) -> Path:
    """A header that declares a tensor of a terabyte, and eight bytes of it."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [TERABYTE // 4], "data_offsets": [0, TERABYTE]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    return path


def huge_torch_file(path: Path) -> Path:
    """A state dict whose tensor has strides of 0: a terabyte of shape on four bytes."""
    torch.save({"w": torch.zeros(1).expand(TERABYTE // 4)}, path)
    return path


def packed_torch_file(path: Path) -> Path:
    """A state dict in an archive that unpacks to a thousand times its size."""
    torch.save({"w": torch.zeros(2_000_000)}, path.with_suffix(".whole"))
    whole = zipfile.ZipFile(path.with_suffix(".whole"))
    with whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for item in whole.infolist():
            packed.writestr(item.filename, whole.read(item))
    return path


def huge_npy(path: Path) -> Path:
    """An archive of arrays, one of which says that it has a terabyte."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (TERABYTE // 4,)})
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("captions", "ids", "lengths", "z", "eps", "image_128"):
            archive.writestr(f"{name}.npy", stream.getvalue() + bytes(8))
    return path


def packed_npy(path: Path) -> Path:
    """An archive of arrays of 512 MB of zeros in half a MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("captions.npy", "w") as member:
        facts = {"descr": "<U1", "fortran_order": False, "shape": (2**27,)}
        np.lib.format.write_array_header_1_0(member, facts)
        for _ in range(32):
            member.write(bytes(2**24))
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_tiny_checkpoint(tmp_path / "checkpoint")


def test_a_declared_terabyte_of_weights(tmp_path: Path, checkpoint: Path) -> None:
    huge_safetensors(checkpoint / "generator.safetensors")
    with little_memory():
        with pytest.raises(CheckpointError, match=r"generator\.safetensors is damaged"):
            load_checkpoint(checkpoint).tensors("generator")
        with pytest.raises(CheckpointError, match="no backbone can be read"):
            BirdMobileNet.load(checkpoint / "generator.safetensors")
        with pytest.raises(CheckpointError, match="claim to be larger than the file"):
            load_state(huge_torch_file(tmp_path / "w.pth"))
        with pytest.raises(CheckpointError, match=r"is refused: [\d,]+ bytes that unpack to"):
            load_state(packed_torch_file(tmp_path / "w.pth"))


def test_a_checkpoint_whose_configuration_asks_for_a_terabyte(checkpoint: Path) -> None:
    description = json.loads((checkpoint / "checkpoint.json").read_text())
    with little_memory(), pytest.raises(CheckpointError, match="does not fit its configuration"):
        load_checkpoint(checkpoint).check_fits("generator", lambda: torch.nn.Linear(10**6, 10**6))
    assert description == load_checkpoint(checkpoint).document


@pytest.mark.parametrize("make", [huge_npy, packed_npy])
def test_golden_cases_of_a_terabyte(tiny_bundle: Path, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    make(folder / "golden.npz")
    bundle = open_bundle(with_manifest(folder))
    with little_memory(), pytest.raises(BundleError, match=r"is damaged: golden\.npz: it can't be read"):
        load_golden(bundle)


@pytest.mark.parametrize("header", ["{'descr': (", "a" * 9000, "{'descr': '<f4'\n    , \n  'shape'"])
def test_a_header_of_an_array_that_is_none(tiny_bundle: Path, tmp_path: Path, header: str) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    with zipfile.ZipFile(folder / "golden.npz", "w") as archive:
        text = header.encode() + b"\n"
        archive.writestr("captions.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    bundle = open_bundle(with_manifest(folder))
    with pytest.raises(BundleError, match=r"is damaged: golden\.npz: it can't be read") as caught:
        load_golden(bundle)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("side", [5000, 14_000])
def test_a_picture_of_too_many_pixels(tmp_path: Path, side: int) -> None:
    data = bomb_png(side)
    assert len(data) < side * side / 200
    shard = write_tar(tmp_path / "a.tar", ("b.png", data, {}), ("b.json", b'{"captions": ["a bird"]}', {}))
    (tmp_path / "b.png").write_bytes(data)
    with little_memory(300 * 2**20):
        with pytest.raises(OSError, match=r"too many to be decoded safely|could be decompression bomb"):
            decode_picture(data)
        with pytest.raises(DataError, match="no usable picture"):
            read_pictures([shard])
        with pytest.raises(T2IError, match="too large to be decoded safely"):
            list(find_pictures(shard).prepared(64, 64))
        if side > 10_000:  # `data build` takes photographs, which may be larger than what is scored
            with refuse_decompression_bombs(), pytest.raises(DataError, match="too many pixels"):
                prepare_picture(tmp_path / "b.png", None, 64, 80)


def test_a_picture_whose_text_is_a_bomb(tmp_path: Path) -> None:
    with little_memory():  # the text is passed over, and the pixels are there
        assert decode_picture(text_bomb_png()).ndim == 3


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
HARD = {"type": tarfile.LNKTYPE, "linkname": "../../secret.png"}


def test_a_tar_that_leads_elsewhere(tmp_path: Path) -> None:
    """Links that lead out are told, devices passed over; a name with `..` is only a name: nothing is ever extracted."""
    (tmp_path / "secret.png").write_bytes(picture())
    inside = tmp_path / "deep" / "deeper"
    inside.mkdir(parents=True)
    shard = write_tar(
        inside / "pictures-00000.tar",
        ("../../up.png", picture(), {}),
        ("/tmp/absolute.png", picture(), {}),
        ("link.png", None, LINK),
        ("hard.png", None, HARD),
        ("device.png", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
        ("pipe.png", None, {"type": tarfile.FIFOTYPE}),
        ("good.png", picture(), {}),
    )
    before = sorted(tmp_path.rglob("*"))
    lost: list[str] = []
    assert [sample.name for sample in iter_samples(shard, lost)] == ["../../up", "/tmp/absolute", "good"]
    assert [line.split(",")[0] for line in lost] == [
        "link.png is a link to /etc/passwd",
        "hard.png is a link to ../../secret.png",
    ]
    assert len(list(find_pictures(shard).prepared(8))) == 3
    assert len(TarShards(inside).scan()) > 0
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/absolute.png").exists()


def test_a_bundle_that_leads_elsewhere(tiny_bundle: Path, tmp_path: Path) -> None:
    """A link in a bundle is as good as the file behind it, whose hash the manifest has; `..` is refused."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    shutil.move(folder / "vocabulary.txt", tmp_path / "words.txt")
    (folder / "vocabulary.txt").symlink_to("../words.txt")
    assert open_bundle(folder).hash == open_bundle(tiny_bundle).hash
    (folder / "vocabulary.txt").unlink()
    (folder / "vocabulary.txt").symlink_to("/dev/zero")
    with pytest.raises(BundleError, match=r"vocabulary\.txt is missing"):
        open_bundle(folder)


@pytest.mark.parametrize("place", ["../secret", "{folder}/secret", "link"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_whose_weights_are_elsewhere(tiny_bundle: Path, tmp_path: Path, place: str, backend: str) -> None:
    """ONNX may name another file for its weights; engines read none outside the folder of the graph."""
    pytest.importorskip(backend, reason=f"needs {backend}")
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    graph = onnx.load(folder / "generator.onnx")
    weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (tmp_path / "secret").write_bytes(weight.raw_data)
    (folder / "link").symlink_to(tmp_path / "secret")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", place.format(folder=tmp_path)), ("length", str(len(weight.raw_data)))):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    weight.ClearField("raw_data")
    (folder / "generator.onnx").write_bytes(graph.SerializeToString())
    (folder / "link").rename(tmp_path / "kept")
    with_manifest(folder)
    (tmp_path / "kept").rename(folder / "link")
    with pytest.raises(BundleError, match=r"generator\.onnx names other files for its weights"):
        TextToImage.load(folder, backend=backend, precision="fp32", threads=1)
    with pytest.raises(EngineError, match=r"generator\.onnx"):  # nor would the engine read it
        load_engine(read_bundle(folder), "generator", EngineRequest(backend, "cpu", "fp32", 1))


def test_what_never_ends_is_not_opened(tmp_path: Path, tiny_bundle: Path, checkpoint: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "manifest.jsonl")
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    (folder / "bundle.json").unlink()
    os.mkfifo(folder / "bundle.json")
    (checkpoint / "generator.safetensors").unlink()
    os.mkfifo(checkpoint / "generator.safetensors")
    readers: list[Callable[[], object]] = [
        lambda: read_file(pipe, 10),
        lambda: open_bundle(folder),
        lambda: Tokenizer.load(pipe),
        lambda: load_plain(pipe),
        lambda: load_state(pipe),
        lambda: load_checkpoint(checkpoint).tensors("generator"),
        lambda: list(iter_samples(pipe)),
        lambda: read_split_names(pipe),
        lambda: read_manifest(tmp_path / "folder"),
    ]
    for read in readers:
        with little_memory(seconds=5), pytest.raises((T2IError, ValueError), match=r"pipe|no file|no shard|no split"):
            read()
    with pytest.raises(ValueError, match="pipe or a device"):
        read_file(Path("/dev/zero"), 10)


def test_json_that_is_nested_too_deeply(tmp_path: Path, tiny_bundle: Path, checkpoint: Path) -> None:
    (tmp_path / "deep.json").write_bytes(DEEP)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "deep.json")
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    (folder / "bundle.json").write_bytes(DEEP)
    with pytest.raises(BundleError, match="nested too deeply"):
        open_bundle(folder)
    (checkpoint / "checkpoint.json").write_bytes(b'{"a":' * 100_000)
    with pytest.raises(CheckpointError, match="nested too deeply"):
        load_checkpoint(checkpoint)
    shard = write_tar(tmp_path / "a.tar", ("b.png", picture(), {}), ("b.json", DEEP, {}))
    with pytest.raises(DataError, match=r"b\.json can't be read"):
        list(iter_samples(shard))
    (tmp_path / "c.jsonl").write_bytes(b'{"caption":' * 100_000)
    with pytest.raises(CaptionError, match=r"line 1 of .* is not JSON"):
        read_captions(tmp_path / "c.jsonl")


def test_a_json_file_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as stream:
        stream.truncate(TERABYTE)  # no byte of which is stored
    with little_memory(), pytest.raises(ValueError, match="more than 67,108,864 bytes"):
        read_json(path)
    with little_memory(), pytest.raises(DataError, match="more than 268,435,456 bytes"):
        load_plain(path)
    with little_memory(), pytest.raises(CaptionError, match="is too large"):
        read_captions(path.rename(tmp_path / "large.txt"))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x96" + struct.pack("<Q", TERABYTE) + b"." * 20,  # BYTEARRAY8 of a terabyte
        b"\x80\x04]r" + struct.pack("<I", 2**32 - 1) + b".",  # a memo of four billion places
        b"\x80\x04" + b"(" * 1000 + b"t" * 1000 + b".",  # tuples in tuples
        b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b".",  # a number of two billion bytes
        pickle.dumps(os.system),
    ],
)
def test_pickles_that_ask_for_much(tmp_path: Path, data: bytes) -> None:
    for name in ("a.pickle", "b.pkl"):
        (tmp_path / name).write_bytes(data)
        with little_memory():
            with pytest.raises(DataError):
                load_plain(tmp_path / name)
            with pytest.raises(DataError):
                read_split_names(tmp_path / name)


def test_a_pickle_whose_frame_hides_an_operation(tmp_path: Path) -> None:
    """Found by fuzzing: what crosses the end of a frame moves the unpickler on, by the bytes that were in the frame.

    `pickletools` sees two texts; the unpickler would skip the head of the second, and do what is written in it: a memo
    of two billion places.
    """
    hidden = b"r\xff\xff\xff\x0f."
    inside = b"]q\x00X" + struct.pack("<I", 6) + b"in"
    data = b"\x80\x04\x95" + struct.pack("<Q", len(inside)) + inside + b"side" + b"U" + bytes([len(hidden)]) + hidden
    for name, whole in (("a.pickle", data + b"."), ("b.pkl", data + b"e.")):
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "names.pickle").write_bytes(
        data.replace(b"]q\x00", b"]q\x00(", 1).replace(struct.pack("<Q", 10), struct.pack("<Q", 11), 1) + b"e."
    )
    with little_memory():
        assert load_plain(tmp_path / "a.pickle") == hidden.decode("latin-1")
        with pytest.raises(DataError):
            load_plain(tmp_path / "b.pkl")
        assert load_plain(tmp_path / "names.pickle") == ["inside", hidden.decode("latin-1")]
        with pytest.raises(DataError, match="is not a pickled list of names"):
            read_split_names(tmp_path / "names.pickle")


def test_a_frame_of_more_bytes_than_can_be_counted(tmp_path: Path) -> None:
    for name in ("a.pickle", "b.pkl"):
        (tmp_path / name).write_bytes(b"\x80\x04\x95" + b"\xff" * 8 + b"].")
        assert load_plain(tmp_path / name) == read_split_names(tmp_path / name) == []


def test_a_sparse_member_of_a_terabyte(tmp_path: Path) -> None:
    facts = "GNU.sparse.major=1 GNU.sparse.minor=0 GNU.sparse.name=b.png GNU.sparse.realsize=1000000000000"
    member = tarfile.TarInfo("b.png")
    member.pax_headers = dict(fact.split("=") for fact in facts.split())
    member.size = 512
    body = b"1\n1000000000000\n8\n".ljust(512, b"\0")
    shard = tmp_path / "a.tar"
    shard.write_bytes(member.tobuf(tarfile.PAX_FORMAT) + body + bytes(1024))
    with little_memory(), pytest.raises(DataError, match=r"is too large|not a complete tar"):
        list(iter_samples(shard))


def test_a_checkpoint_may_hold_a_link(tmp_path: Path, checkpoint: Path) -> None:
    """Weights behind a link are weights; what is read is never more than what the file has."""
    save_file({"w": torch.zeros(3)}, tmp_path / "w.safetensors")
    (checkpoint / "extra.safetensors").symlink_to(tmp_path / "w.safetensors")
    assert load_checkpoint(checkpoint).tensors("extra")["w"].shape == (3,)
    (checkpoint / "zero.safetensors").symlink_to("/dev/zero")
    with little_memory(seconds=5), pytest.raises(CheckpointError, match="is no file"):
        Checkpoint(checkpoint, "gan", {}).tensors("zero")
