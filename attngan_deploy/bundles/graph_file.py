"""An ONNX file, and whether it is all that is read: its weights may lie in other files, which no hash covers."""

from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING

from attngan_deploy.errors import BundleError

if TYPE_CHECKING:
    import onnx

KEY = b"location"  # of an entry that names another file, in ONNX's external_data: "location", "offset", "length"
ANOTHER = "give another file, or export it again with its weights inside"
LENGTHS = (0x08, 0x00)  # bytes that may stand before it: its length, as protobuf writes it, or in a longer form


def names_other_files(path: Path) -> bool:
    """Whether a graph, or anything in it, says that some of its weights are in another file.

    The bytes are searched, so that it does not depend on how a parser reads them: whoever looks for a file looks for
    this key. A name that only ends in it, such as "attention.location", has another letter before it.
    """
    if not path.stat().st_size:
        return False
    with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as data:
        place = data.find(KEY)
        while place >= 0:
            if data[place - 1] in LENGTHS:
                return True
            place = data.find(KEY, place + 1)
    return False


def check_alone(path: Path) -> None:
    """Refuse a graph of a bundle that engines would read other files for, by a BundleError: no hash is of those."""
    if path.suffix != ".onnx" or names_other_files(path):
        other = "is no .onnx file" if path.suffix != ".onnx" else "names other files for its weights"
        raise BundleError(
            f"bundle {path.parent} is refused: {path.name} {other}",
            expected="graphs that hold their weights",
            next_step="export the bundle again",
        )


def read_graph(path: Path, check: bool = True) -> "onnx.ModelProto":
    """A graph as onnx has it, with its weights; needs the package onnx.

    Args:
        check: whether it must be a sound graph, and not only weights by their names.

    Raises:
        BundleError: it can't be read, is no ONNX graph or a damaged one, or its weights are in other files.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if names_other_files(path):
            raise BundleError(
                f"{path} is refused: it names other files for its weights", expected="one .onnx file", next_step=ANOTHER
            )
        model = onnx.load(path, load_external_data=False)
        if check:
            onnx.checker.check_model(model)
    except OSError as error:
        what = f"{path} can't be read: {error.strerror or error}"
        raise BundleError(what, expected="an .onnx file", next_step=ANOTHER) from error
    except (DecodeError, onnx.checker.ValidationError, ValueError, RecursionError) as error:
        what = f"{path} can't be read: it is no ONNX model, or a damaged one: {str(error)[:200]}"
        raise BundleError(what, next_step=ANOTHER) from error
    return model
