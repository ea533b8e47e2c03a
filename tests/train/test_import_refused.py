"""Published files that can't be imported: one clear line each, no code run, nothing left behind."""

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.errors import CheckpointError, DataError
from attngan_deploy.train.imports.published_files import read_published, read_vocabulary
from attngan_deploy.train.imports.torch_file import load_state
from attngan_deploy.train.imports.unpickle import load_plain
from tests.makers.published import Published
from tests.makers.published_model import PublishedFiles, captions_content

register("import_", "models")  # a lone command would need no name

Change = Callable[[dict[str, Tensor]], Any]


class Hostile:
    """Makes a file when a pickle of it is read by an unpickler that runs code."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


@pytest.fixture
def files(tmp_path: Path) -> PublishedFiles:
    """Published files of two stages."""
    return PublishedFiles(tmp_path)


def refused(files: PublishedFiles, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """Run a command that must fail and leave nothing; its line on standard error that is not progress."""
    before = sorted(files.folder.iterdir())
    arguments = ["import", *files.arguments, "-o", str(files.folder / "bundle"), *more]
    assert report_errors(lambda: app(arguments, standalone_mode=False)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if not line.startswith("importing ")]
    assert len(errors) == 1 and errors[0].startswith("t2i: ")
    assert sorted(files.folder.iterdir()) == before
    return errors[0]


def spoil(path: Path, change: Change) -> None:
    torch.save(change(torch.load(path, weights_only=True)), path)


# Pickles


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_vocabulary_runs_nothing(
    files: PublishedFiles, capsys: pytest.CaptureFixture[str], protocol: int
) -> None:
    proof = files.folder / "proof"
    hostile = pickle.dumps([[], [], {0: Hostile(proof)}, {}], protocol)
    files.captions.write_bytes(hostile)
    line = refused(files, capsys)
    assert f"{files.captions} is refused: reading it could run code; found '{os.system.__module__}.system'" in line
    pickle.loads(hostile)
    assert proof.exists()  # it would have run


@pytest.mark.parametrize("name", ["collections OrderedDict", "__builtin__ eval", "numpy.core.multiarray scalar"])
def test_every_import_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "captions.pickle"
    path.write_bytes(b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n.")
    with pytest.raises(DataError, match=f"could run code; found '.*{name.split()[1]}'"):
        load_plain(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02r\xff\xff\xff\x7f.",  # a memo of 2**31 places
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # a byte array of a terabyte
        b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",  # a text of a terabyte
        b"\x80\x02\x82\x05.",  # a registered extension
        b"\x80\x02Pnobody\n.",  # something kept outside
        b"\x80\x02]b.",
        b"]" * 1000,
        b"I" + b"9" * 5000 + b"\n.",
        b"\x80\x02}](}](s.",
        b"",
        b"a text, no pickle",
        b"\x80\x63.",
    ],
)
def test_damaged_pickles_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "captions.pickle"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"captions\.pickle"):
        load_plain(path)


def test_no_cut_and_no_changed_byte_of_a_pickle_gets_through(tmp_path: Path) -> None:
    """It is read or refused; whatever stands in it, nothing else is raised."""
    path = tmp_path / "captions.pickle"
    whole = pickle.dumps(captions_content(6), protocol=2)
    for place in range(len(whole)):
        path.write_bytes(whole[:place])
        with pytest.raises(DataError):
            read_vocabulary(path)
        for value in (0, whole[place] ^ 1, ord("R"), ord("b"), 0xFF):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                assert len(read_vocabulary(path)) > 1
            except DataError as error:
                assert "\n" not in str(error)


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    """There `<end>` is a byte string and the words are unicode; \\xe9 is Latin-1."""
    path = tmp_path / "captions.pickle"
    words = b"}(K\x00U\x05<end>K\x01X\x03\x00\x00\x00redK\x02U\x04caf\xe9u"
    indices = b"}(U\x05<end>K\x00X\x03\x00\x00\x00redK\x01U\x04caf\xe9K\x02u"
    path.write_bytes(b"\x80\x02](](](K\x01K\x02ee]" + words + indices + b"e.")
    assert read_vocabulary(path) == ["<end>", "red", "café"]


def with_words(*words: Any) -> list[Any]:
    word_of = dict(enumerate(words))
    return [[], [], word_of, {word: index for index, word in word_of.items()}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "is no captions.pickle of the published code; found dict of 1; expected [train captions"),
        ([[], []], "found list of 2"),
        (3, "found int"),
        ([[], [], ["<end>", "red"], {}], "its vocabulary is no pair of dicts; found list and dict"),
        ([[], [], {}, {}], "unusual vocabulary; found no words"),
        (with_words("red", "blue"), "unusual vocabulary; found 'red', 'blue'; expected '<end>' and then words"),
        (with_words("<end>", "two words"), "index 1 has no word; found 'two words'"),
        (with_words("<end>", "line\u2028break"), "index 1 has no word; found 'line\\u2028break'"),
        (with_words("<end>", "\ud800"), "index 1 has no word"),
        (with_words("<end>", b"red"), "index 1 has no word; found b'red'"),
        ([[], [], {0: "<end>", 2: "red"}, {"<end>": 0, "red": 2}], "index 1 has no word; found None"),
        ([[], [], {0: "<end>", 1: "red", 2: "red"}, {"<end>": 0, "red": 2}], "word 'red' has another index; found 2"),
        ([[], [], {0: "<end>", 1: "red"}, {"<end>": 0}], "word 'red' has another index; found None; expected 1"),
    ],
)
def test_other_pickles_are_no_vocabulary(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "captions.pickle"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError) as caught:
        read_vocabulary(path)
    assert message in str(caught.value)


def test_a_vocabulary_of_another_size_is_one_line(files: PublishedFiles, capsys: pytest.CaptureFixture[str]) -> None:
    files.save_captions(captions_content(61))
    line = refused(files, capsys)
    assert f"the vocabulary of {files.captions} does not fit the embedding of {files.text_encoder}" in line
    assert "found 61 words with '<end>'; expected 60" in line


# Weights


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_weights_run_nothing(files: PublishedFiles, capsys: pytest.CaptureFixture[str], zipped: bool) -> None:
    proof = files.folder / "proof"
    torch.save({"h_net1.fc.0.weight": Hostile(proof)}, files.generator, _use_new_zipfile_serialization=zipped)
    line = refused(files, capsys)
    assert f"{files.generator} is refused: it holds more than weights, and loading that could run code" in line
    assert f"found {os.system.__module__}.system" in line
    assert not proof.exists()


def test_a_whole_network_is_refused(files: PublishedFiles, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(torch.nn.Linear(2, 2), files.generator)
    line = refused(files, capsys)
    assert "found torch.nn.modules.linear.Linear" in line and "Next: torch.save(network.state_dict(), ...)" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: [*state], "holds no weights; found list; expected a state dict"),
        (lambda state: {}, "holds no weights"),
        (lambda state: {"epoch": 3, "weights": state}, "holds other things than weights; found 'epoch': int"),
        (lambda state: {1: torch.zeros(1)}, "holds other things than weights; found 1: Tensor"),
        (lambda state: state | {"x": torch.zeros(2, 2).to_sparse()}, "'x' is no plain tensor"),
        (lambda state: state | {"x": torch.zeros(2, device="meta")}, "'x' is no plain tensor"),
        (lambda state: state | {"x": torch.zeros(1).expand(10**6)}, "tensors claim to be larger than the file"),
        (lambda state: {"fc.weight": torch.zeros(1)}, "is no generator of the published code; found 'fc.weight'"),
        (lambda state: state | {"h_net2.A.weight": torch.zeros(1)}, "a weight that AttnGAN's generator has not"),
        (lambda state: state | {"module.ca_net.fc.bias": torch.zeros(1)}, "found 'module.ca_net.fc.bias'"),
        (lambda state: state | {"ca_net.fc.bias": torch.full([48], torch.nan)}, "not finite; found augmentation"),
        (
            lambda state: state | {"h_net1.fc.1.running_var": torch.full([2048], -1.0)},
            "a negative variance; found first.norm.running_var",
        ),
        (
            lambda state: state | {"h_net1.fc.1.bias": torch.zeros(3)},
            "'first.norm.bias' does not fit the other weights; found (3,); expected (2048,)",
        ),
        (lambda state: state | {"h_net1.fc.0.weight": torch.zeros(2048, 12)}, "condition of 12 and 0 numbers of noise"),
        (lambda state: state | {"ca_net.fc.weight": torch.zeros(3, 32)}, "a condition of 0 and 28 numbers of noise"),
        (
            lambda state: {name: value for name, value in state.items() if name != "ca_net.fc.bias"},
            "'augmentation.linear.bias' does not fit the other weights; found nothing; expected (48,)",
        ),
        (
            lambda state: {name: value for name, value in state.items() if name != "ca_net.fc.weight"},
            "'augmentation.linear.weight' is missing",
        ),
        (
            lambda state: {name: value for name, value in state.items() if "net2" not in name},
            "has another number of stages; found 1; expected 2 or 3",
        ),
        (
            lambda state: state | {f"h_net{stage}.upsample.1.weight": torch.zeros(1) for stage in (3, 4)},
            "has another number of stages; found 4",
        ),
        (
            lambda state: state | {"h_net2.x.mhatt.linear_v.bias": torch.zeros(32)},
            "is of no known variant; found the added blocks self_attention",
        ),
    ],
)
def test_generators_that_are_none(
    files: PublishedFiles, capsys: pytest.CaptureFixture[str], change: Change, message: str
) -> None:
    spoil(files.generator, change)
    line = refused(files, capsys)
    assert message in line and str(files.generator) in line


def test_files_in_each_others_place_are_named(files: PublishedFiles, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(Published("d_net128").state, files.generator)
    assert "is no generator of the published code; found a discriminator" in refused(files, capsys)
    files.generator = files.text_encoder
    assert "found a text encoder; expected a generator, as in netG_epoch_N.pth" in refused(files, capsys)
    files.generator = files.captions
    assert f"{files.captions} is no file of weights" in refused(files, capsys)


def as_gru(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value if name == "encoder.weight" else value[: len(value) * 3 // 4] for name, value in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (as_gru, "is another recurrent network; found a GRU of 1 layer(s) in two directions"),
        (
            lambda state: {name: value for name, value in state.items() if "reverse" not in name},
            "found an LSTM of 1 layer(s) in one direction; expected an LSTM of 1 layer in two directions",
        ),
        (lambda state: state | {"rnn.weight_hh_l1": torch.zeros(64, 16)}, "found an LSTM of 2 layer(s)"),
        (
            lambda state: (
                {
                    name: value if name == "encoder.weight" else value.repeat(2, *[2] * (value.ndim - 1))
                    for name, value in state.items()
                }
                | {name: state[name].repeat(2, 1) for name in ("rnn.weight_ih_l0", "rnn.weight_ih_l0_reverse")}
            ),
            "does not fit {generator}; found 64 text features; expected 32",
        ),
    ],
)
def test_other_text_encoders(
    files: PublishedFiles, capsys: pytest.CaptureFixture[str], change: Change, message: str
) -> None:
    spoil(files.text_encoder, change)
    assert message.format(generator=files.generator) in refused(files, capsys)


def test_other_files_are_described_in_our_words(tmp_path: Path) -> None:
    path = tmp_path / "netG.pth"
    found = {b"": "an empty file", b"page": "b'page'", b"PKcut": "like a zip archive", b"\x80\x02}q": "a pickle"}
    found |= {b"<!DOCTYPE html>": "a web page", b"version https://git-lfs.github.com/spec/v1": "git lfs pull brings"}
    for data, words in found.items():
        path.write_bytes(data)
        with pytest.raises(
            CheckpointError, match=rf"no file of weights that torch saved, .*; found .*{words}; expected"
        ):
            load_state(path)
        with pytest.raises(DataError, match=rf"is no pickle, or a damaged one; found .*{words}; expected"):
            load_plain(path)


def test_no_cut_and_no_changed_byte_of_weights_raises_anything_else(tmp_path: Path) -> None:
    state = OrderedDict(a=torch.arange(4.0), b=torch.zeros(2, 3))
    path, broken = tmp_path / "whole.pth", tmp_path / "broken.pth"
    for zipped in (True, False):
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for place in range(0, len(whole), 5):
            for data in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :]):
                broken.write_bytes(data)
                try:
                    load_state(broken)
                except CheckpointError as error:
                    assert "\n" not in str(error)


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path: Path) -> None:
    path, bomb = tmp_path / "whole.pth", tmp_path / "bomb.pth"
    torch.save({"a": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for item in whole.infolist():
            packed.writestr(item.filename, whole.read(item))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"bomb\.pth is refused: .* that unpack to 4,"):
        load_state(bomb)


def test_weights_saved_by_torch_0_3_are_read(tmp_path: Path) -> None:
    """The published files' own format: Python 2, tensors from a graphics card, `_rebuild_tensor`."""
    values = [1.5, -2.0, 0.25, 8.0, 3.0, 4.0]
    numbers = b"U\x07storageq\x01ctorch.cuda\nFloatStorage\nU\x0239U\x06cuda:0K\x06Ntq\x02Q"
    tensor = b"ctorch._utils\n_rebuild_tensor\n((" + numbers + b"K\x00K\x02K\x03\x86K\x03K\x01\x86tR"
    path = tmp_path / "netG.pth"
    path.write_bytes(
        pickle.dumps(0x1950A86A20F9469CFC6C, 2)
        + pickle.dumps(1001, 2)
        + pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}, 2)
        + (b"\x80\x02ccollections\nOrderedDict\n](](U\x10img_net1.img.0.w" + tensor + b"ee\x85R.")
        + b"\x80\x02]U\x0239a."
        + struct.pack("<q6f", 6, *values)
    )
    state = load_state(path)
    torch.testing.assert_close(state["img_net1.img.0.w"], torch.tensor(values).view(2, 3))


# Places


@pytest.mark.parametrize("missing", ["generator", "text_encoder", "captions"])
def test_a_missing_file_is_named(files: PublishedFiles, capsys: pytest.CaptureFixture[str], missing: str) -> None:
    setattr(files, missing, files.folder / "nowhere")
    assert f"{files.folder / 'nowhere'} can't be read: No such file or directory" in refused(files, capsys)
    setattr(files, missing, files.folder)
    assert f"{files.folder} can't be read: Is a directory" in refused(files, capsys)


@pytest.mark.parametrize("place", ["bundle", "bundle-checkpoint"])
def test_other_peoples_folders_are_left_alone(
    files: PublishedFiles, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (files.folder / place).mkdir()
    (files.folder / place / "thesis.txt").write_text("mine")
    assert f"{files.folder / place} holds other files and is left alone" in refused(files, capsys)
    assert (files.folder / place / "thesis.txt").read_text() == "mine"


def test_outputs_keep_apart(files: PublishedFiles, capsys: pytest.CaptureFixture[str]) -> None:
    for checkpoint in ("bundle", "bundle/checkpoint", "."):
        line = refused(files, capsys, "--checkpoint", str(files.folder / checkpoint))
        assert "are inside one another" in line
    line = refused(files, capsys, "-o", str(files.folder), "--checkpoint", str(files.folder.parent / "other"))
    assert f"{files.generator} is inside the output, which is replaced" in line


@pytest.mark.parametrize("name", ["", "../up", "two words", "-o", "a\nb"])
def test_names_that_no_command_could_use(files: PublishedFiles, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert "a bundle can't have this name" in refused(files, capsys, f"--name={name}")


def test_more_stages_than_there_are(files: PublishedFiles, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has another number of stages; found 2; expected 3" in refused(files, capsys, "--stages", "3")


def test_an_earlier_import_is_replaced_and_a_failed_one_changes_nothing(
    files: PublishedFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["import", *files.arguments, "-o", str(files.folder / "bundle")]
    for _ in range(2):
        assert report_errors(lambda: app(arguments, standalone_mode=False)) == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in files.folder.rglob("*") if path.is_file()}
    spoil(files.generator, lambda state: state | {"ca_net.fc.bias": torch.full([48], 1e30)})
    assert "of another" in refused(files, capsys)
    assert "has values that are not finite" in refused(files, capsys, "--force")
    before[files.generator] = files.generator.read_bytes()
    assert {path: path.read_bytes() for path in files.folder.rglob("*") if path.is_file()} == before


def test_reading_needs_no_bundle(files: PublishedFiles) -> None:
    assert len(read_published(files.generator, files.text_encoder, files.captions).files) == 3
