"""What is refused says what to type next, whatever command refuses it."""

from pathlib import Path

import pytest

from tests.makers.commands import t2i

REFUSED = [
    ("generate", "--caption", "red", "--threads", "100000000"),
    ("generate", "--caption", "red", "--device", "abacus"),
    ("generate", "--caption", "red", "--backend", "abacus"),
    ("generate", "--caption", "red", "--backend", "openvino", "--device", "cuda"),
    ("generate", "--caption", "red", "--n", "1000000000"),
    ("generate", "--caption", "red " * 1001),
    ("generate", "--caption", "..."),
    ("generate", "long.txt"),
    ("generate", "cut.parquet"),
    ("replay", "none.png"),
    ("replay", "long.txt"),
    ("replay", "."),
    ("verify", "none"),
    ("bench", "none"),
    ("export", "--bundle", "none", "-o", "out"),
    ("export", "--bundle", "{model}", "-o", "out", "--precision", "fp7"),
    ("export", "--bundle", "{model}", "-o", "out", "--precision", "auto"),
    ("export", "--bundle", "{model}", "-o", "out", "--target", "abacus"),
]


@pytest.mark.parametrize("command", REFUSED, ids=" ".join)
def test_what_to_type_next(
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "long.txt").write_text("a" * 5 * 2**20)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1" * 4)
    arguments = [each.format(model=tiny_bundle) for each in command]
    if command[0] == "generate":
        arguments += ["--model", str(tiny_bundle), "-o", "out"]
    assert t2i(*arguments) == 1
    told = capsys.readouterr()
    *_, last = told.err.strip().splitlines()
    assert last.startswith("t2i: ") and ". Next: " in last, told
    assert told.out == ""
