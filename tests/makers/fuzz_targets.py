"""Every reader of files that somebody else may have made, as functions of bytes; `tests/robustness/test_fuzz.py` and
`benchmarks/robustness/fuzz.py` feed them.

A reader may refuse whatever it likes, with an error of the tree in `attngan_deploy.errors`; anything else that is
raised is a fault.
"""

import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.engines.golden import load_golden
from attngan_deploy.errors import DataError, T2IError
from attngan_deploy.generate.folder import open_folder
from attngan_deploy.generate.manifest import read_manifest
from attngan_deploy.generate.run import Run
from attngan_deploy.generate.run_record import EngineRecord, find_record
from attngan_deploy.generate.storage import TarShards
from attngan_deploy.generate.target import MANIFEST, open_target
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import CaptionList, from_texts, read_captions
from attngan_deploy.media.images import decode_picture, encode_picture
from attngan_deploy.media.shards import iter_samples, read_facts
from attngan_deploy.media.tokenizer import PADDING, Tokenizer, tokenize
from attngan_deploy.score.pictures import find_pictures
from attngan_deploy.score.preprocessing import prepare
from attngan_deploy.train.config import GeneratorConfig, TextEncoderConfig
from attngan_deploy.train.data.split import read_split_names
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.imports.published_files import read_vocabulary
from attngan_deploy.train.imports.torch_file import load_state
from attngan_deploy.train.runs.checkpoint import load_checkpoint
from tests.makers.tiny_bundle import WORDS, make_tiny_bundle, make_tiny_checkpoint

CAPTIONS = ["a small red bird", "this bird, is blue", 'it has a "yellow" belly', "naïve CAFÉ bird — 鳥"]
LOOKED_UP = 3  # unknown words of a text, as a command names five at most


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name: what it reads.
        seeds: contents that it takes, to begin from.
        read: reads bytes as if they stood in its file.
        tokens: pieces that its files are made of.
    """

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    tokens: Sequence[bytes] = ()

    def __call__(self, data: bytes) -> bool:
        """Read; returns whether it was taken. Raises what the reader should not have raised."""
        try:
            self.read(data)
        except T2IError as error:
            message = str(error)
            assert message and "\n" not in message, "an error is one line"
            assert len(message) < 4000, "an error does not hold a whole file"
            return False
        return True


JSON_TOKENS = (b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"-1", b"1e999", b"NaN", b'"\\ud800"')
PICKLE_TOKENS = (b"\x80\x02", b"(", b"]", b"}", b"q\x00", b"r\xff\xff\xff\xff", b"\x96", b"cos\nsystem\n", b"t", b"R")


def targets(ground: Path) -> dict[str, Target]:
    """All readers, by name.

    Args:
        ground: an empty folder for the files that they read.
    """
    made = [*_captions(ground), *_bundles(ground), *_checkpoints(ground), *_pickles(ground), *_pictures(ground)]
    return {target.name: target for target in made}


def _captions(ground: Path) -> list[Target]:
    words = Tokenizer([PADDING, *WORDS])

    def read(suffix: str, data: bytes) -> None:
        path = ground / f"captions.{suffix}"
        path.write_bytes(data)
        captions = read_captions(path)
        assert captions and all(caption.text == caption.text.strip() != "" for caption in captions)
        assert all(1 <= caption.line <= data.count(b"\n") + data.count(b"\r") + 1 for caption in captions)
        assert [one.line for one in captions] == sorted({one.line for one in captions})
        tokenize(captions[:50], words)

    def split(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        encoded = words.encode(text)
        assert all(0 < number < len(words) for number in encoded.ids)
        assert not set(encoded.unknown) & set(words.index)
        for word in encoded.unknown[:LOOKED_UP]:
            words.nearest(word)
        assert words.pad([encoded.ids, [1]]).shape == (2, max(1, len(encoded.ids)))
        with suppress(T2IError):  # which may follow words that were fine
            tokenize([Caption(text, 1)], words)
        tokenize(from_texts([text]), words, strict=True)

    def vocabulary(data: bytes) -> None:
        path = ground / "vocabulary.txt"
        path.write_bytes(data)
        read = Tokenizer.load(path)
        assert len(read) >= 2
        read.nearest("reddish")

    lines = "\n".join(CAPTIONS).encode()
    quoted = "\n".join('"' + caption.replace('"', '""') + '"' for caption in CAPTIONS)
    records = "\n".join(json.dumps({"id": 1, "caption": caption}) for caption in CAPTIONS)
    return [
        Target(
            "captions.txt", [lines, b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n")], lambda data: read("txt", data)
        ),
        Target("captions.csv", [f"caption\n{quoted}\n".encode()], lambda data: read("csv", data), (b'"', b",", b"\0")),
        Target("captions.jsonl", [records.encode()], lambda data: read("jsonl", data), JSON_TOKENS),
        Target("tokenizer", [caption.encode() for caption in CAPTIONS], split, ("ß".encode(), "İ".encode(), b"_")),
        Target("vocabulary.txt", ["\n".join([PADDING, *WORDS]).encode()], vocabulary),
    ]


def _bundles(ground: Path) -> list[Target]:
    folder = make_tiny_bundle(ground / "tiny")
    manifest, golden = (folder / "bundle.json").read_bytes(), (folder / "golden.npz").read_bytes()
    whole = open_bundle(folder)
    shutil.copytree(folder, ground / "odd")
    odd = Bundle(ground / "odd", whole.manifest)

    def open_odd(data: bytes) -> None:
        (odd.folder / "bundle.json").write_bytes(data)
        bundle = open_bundle(odd.folder)
        assert len(bundle.hash) == 64 and bundle.bytes > 0 and bundle.manifest.floors
        for graph in ("text_encoder", "generator"):
            assert [bundle.graph_path(graph, precision) for precision in bundle.precisions(graph)]
        load_golden(bundle)

    def golden_cases(data: bytes) -> None:
        (odd.folder / "golden.npz").write_bytes(data)
        try:
            assert len(load_golden(odd)) > 0
        finally:
            (odd.folder / "golden.npz").write_bytes(golden)

    plain = io.BytesIO()
    with np.load(io.BytesIO(golden)) as arrays:
        small = {name: array for name, array in arrays.items() if not name.startswith("image")}
    np.savez(plain, **small)
    compact = json.dumps(json.loads(manifest)).encode()
    return [
        Target("bundle.json", [compact], open_odd, (*JSON_TOKENS, b'"files"', b'"graphs"', b'"../x"', b'"stages"')),
        Target(
            "golden.npz",
            [plain.getvalue()],
            golden_cases,
            (b"PK\x01\x02", b"PK\x05\x06", b"\x93NUMPY", b"(1000000000000,)"),
        ),
    ]


def _checkpoints(ground: Path) -> list[Target]:
    folder = make_tiny_checkpoint(ground / "checkpoint")
    described = (folder / "checkpoint.json").read_bytes()
    weights = folder / "generator.safetensors"

    def describe(data: bytes) -> None:
        (folder / "checkpoint.json").write_bytes(data)
        checkpoint = load_checkpoint(folder, "gan")
        assert checkpoint.step >= 0
        config = checkpoint.config(GeneratorConfig, "generator")
        checkpoint.config(TextEncoderConfig, "text_encoder")
        (folder / "checkpoint.json").write_bytes(described)
        checkpoint.check_fits("generator", lambda: Generator(config))

    def read_weights(data: bytes) -> None:
        (folder / "checkpoint.json").write_bytes(described)
        (folder / "odd.safetensors").write_bytes(data)
        checkpoint = load_checkpoint(folder)
        tensors = checkpoint.tensors("odd")
        assert sum(tensor.nbytes for tensor in tensors.values()) <= len(data)
        checkpoint.load_into("odd", torch.nn.Linear(2, 2))

    def state(data: bytes) -> None:
        (ground / "w.pth").write_bytes(data)
        assert sum(tensor.nbytes for tensor in load_state(ground / "w.pth").values()) <= len(data)

    linear = torch.nn.Linear(2, 2).state_dict()
    new, old = io.BytesIO(), io.BytesIO()
    torch.save(linear, new)
    torch.save(linear, old, _use_new_zipfile_serialization=False)
    sizes = (b'"shape":[1000000000000]', b'"data_offsets":[0,8]', b'"F32"', b'"__metadata__"')
    shape = json.dumps(json.loads(described)).encode()
    assert weights.is_file()
    return [
        Target("checkpoint.json", [shape], describe, (*JSON_TOKENS, b'"width": 1000000000', b'"stages"', b"1e30")),
        Target("weights.safetensors", [save(linear)], read_weights, (*JSON_TOKENS, *sizes)),
        Target("weights.pth", [new.getvalue(), old.getvalue()], state, PICKLE_TOKENS),
    ]


def _pickles(ground: Path) -> list[Target]:
    words = dict(enumerate(["<end>", "a", "red", "bird"]))
    published = [[[1, 2, 3]], [[1, 3]], words, {word: number for number, word in words.items()}]

    def vocabulary(data: bytes) -> None:
        (ground / "captions.pickle").write_bytes(data)
        assert len(read_vocabulary(ground / "captions.pickle")) > 1

    def names(data: bytes) -> None:
        (ground / "names.pickle").write_bytes(data)
        assert all(isinstance(name, str) for name in read_split_names(ground / "names.pickle"))

    protocols = (0, 2, 4)
    return [
        Target("captions.pickle", [pickle.dumps(published, each) for each in protocols], vocabulary, PICKLE_TOKENS),
        Target("names.pickle", [pickle.dumps(["001.Bird", "b"], each) for each in protocols], names, PICKLE_TOKENS),
    ]


def _pictures(ground: Path) -> list[Target]:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    files = {suffix: encode_picture(pixels, suffix, {"t2i": 1}) for suffix in ("png", "webp", "jpg")}
    palette = io.BytesIO()
    Image.fromarray(pixels).quantize(4).save(palette, "PNG", transparency=0)
    shards, pictures = ground / "shards", ground / "pictures"
    shards.mkdir()
    pictures.mkdir()
    run = Run(CaptionList([Caption("a red bird", 1)]), 0, False, "tiny", "abc")

    def shard(data: bytes) -> None:
        (shards / "pictures-00000.tar").write_bytes(data)
        with suppress(T2IError):
            TarShards(shards).scan()
        source = find_pictures(shards)
        assert source.count() >= 0
        for sample in iter_samples(shards / "pictures-00000.tar"):
            assert len(sample.picture) <= len(data)

    def picture(data: bytes) -> None:
        prepare("b", data, 8)
        try:
            decoded = decode_picture(data)
        except OSError as error:  # what it says it raises
            raise DataError(str(error)) from error
        assert decoded.ndim == 3 and decoded.shape[2] == 3

    def folder(data: bytes) -> None:
        (pictures / MANIFEST).write_bytes(data)
        for path in (pictures / "run.json",):
            path.unlink(missing_ok=True)
        records = read_manifest(pictures)
        assert all(isinstance(record["file"], str) for record in records)
        with suppress(T2IError):
            find_pictures(pictures)

    def claimed(data: bytes) -> None:
        for path in pictures.iterdir():
            path.unlink()
        (pictures / "run.json").write_bytes(data)
        (pictures / "00001_00.png").write_bytes(files["png"])  # without any, a damaged record is no loss
        find_record(open_target(str(pictures)), run.record, run.captions)
        with open_folder(open_target(str(pictures)), run):
            pass

    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as stream:
        for name, content in (
            ("a.png", files["png"]),
            ("a.json", b'{"class": 1, "captions": ["a bird"]}'),
            ("ü" * 99, b""),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            stream.addfile(member, io.BytesIO(content))
    whole = tar.getvalue()[: tar.tell()]
    sparse = (b"GNU.sparse.realsize=1000000000000", b"-1", b"\x80" + bytes(7) + b"\xff" * 4, b"../../x", b"ustar\x00")
    record = (
        json.dumps(run.picture_record((0, 0), Caption("a red bird", 1), "00001_00.png", EngineRecord())).encode()
        + b"\n"
    )
    told = replace(run.record, engine=EngineRecord("onnxruntime", precision="fp32")).json()
    return [
        Target("shard.tar", [whole], shard, sparse),
        Target(
            "picture", [*files.values(), palette.getvalue()], picture, (b"zTXt", b"iCCP", b"IDAT", b"VP8X", b"\xff\xda")
        ),
        Target(
            "facts.json", [b'{"class": 3, "captions": ["a red bird"]}'], lambda data: read_facts(data, "b"), JSON_TOKENS
        ),
        Target("manifest.jsonl", [record * 2], folder, JSON_TOKENS),
        Target("run.json", [told], claimed, JSON_TOKENS),
    ]
