"""Weights in files that torch saved (`.pth`), by any version of it, read without running code."""

import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attngan_deploy.errors import CheckpointError
from attngan_deploy.train.imports import unpickle

STATE_DICT = "a state dict: names and tensors"
# How torch 0.3 and older saved a tensor. It puts a shape on stored numbers, as its successor does, which torch trusts.
TRUSTED: list[Any] = [torch._utils._rebuild_tensor]
# what a damaged file makes torch.load raise
DAMAGED = (*unpickle.DAMAGED, RuntimeError, AssertionError, struct.error, zipfile.BadZipFile)


def load_state(path: Path, unwrap: Callable[[object], object] = lambda loaded: loaded) -> dict[str, Tensor]:
    """Read a state dict on the CPU.

    Args:
        unwrap: finds it in what the file holds.

    Raises:
        CheckpointError: missing, damaged, hostile (it names code, or unpacks to more than it holds), or no state dict.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
        raise CheckpointError(f"{path} is no file", expected=STATE_DICT)
    try:
        size = path.stat().st_size
        _check_archive(path, size)
        with torch.serialization.safe_globals(TRUSTED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it may not understand what it then refuses, or reads
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}", expected=STATE_DICT) from error
    except DAMAGED as error:
        raise _refusal(path, error) from error
    return _checked(path, unwrap(loaded), size)


def _check_archive(path: Path, size: int) -> None:
    """torch never compresses what it saves, so an archive that unpacks to more than it has bytes is a bomb."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":
                raise zipfile.BadZipFile("it begins like an archive")
        return  # the format of torch before 1.6, or no such file at all: torch will tell
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(item.file_size for item in archive.infolist())
    if unpacked > size:
        raise CheckpointError(f"{path} is refused: {size:,} bytes that unpack to {unpacked:,}", expected=STATE_DICT)


def _refusal(path: Path, error: Exception) -> CheckpointError:
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        return CheckpointError(
            f"{path} is refused: it holds more than weights, and loading that could run code",
            found=named[1][:80],
            expected=STATE_DICT,
            next_step="torch.save(network.state_dict(), ...) where the file was made",
        )
    with path.open("rb") as stream:
        found = unpickle.describe_bytes(stream.read(40), path.stat().st_size)
    return CheckpointError(
        f"{path} is no file of weights that torch saved, or a damaged one",
        found=found,
        expected=STATE_DICT,
        next_step="download or copy it again",
    )


def _checked(path: Path, loaded: object, size: int) -> dict[str, Tensor]:
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(f"{path} holds no weights", found=type(loaded).__name__, expected=STATE_DICT)
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} holds other things than weights",
                found=f"{ascii(name)[:80]}: {type(value).__name__}",
                expected=STATE_DICT,
            )
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_complex():
            raise CheckpointError(f"{path}: {ascii(name)[:80]} is no plain tensor", expected=STATE_DICT)
    if sum(value.nbytes for value in loaded.values()) > size:
        raise CheckpointError(f"{path} is refused: its tensors claim to be larger than the file", expected=STATE_DICT)
    return dict(loaded)
