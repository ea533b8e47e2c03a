"""Golden cases: read, compared, and every way in which they can be wrong."""

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.engines.facts import Engine, EngineFacts
from attngan_deploy.engines.golden import check_engines, load_golden, psnr_db
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import REFERENCE
from attngan_deploy.errors import BundleError, EngineError
from attngan_deploy.generate.pipeline import TextToImage, verify_model
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.verify import open_any, verify_judge
from tests.makers.golden_bundle import with_golden, with_manifest
from tests.makers.tiny_judge import make_tiny_judge

NPY = (
    b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".ljust(117)
    + b"\n"
    + bytes(4)
)


def load(bundle: Path) -> TextToImage:
    return TextToImage.load(bundle, backend="onnxruntime", precision="fp32", threads=1)


class Disturbed:
    """An engine that computes in another precision than fp32, as far as one can see from outside."""

    def __init__(self, engine: Engine, precision: str, noise: float, single: float = 0.0) -> None:
        self.engine, self.precision, self.noise, self.single = engine, precision, noise, single

    @property
    def facts(self) -> EngineFacts:
        return replace(self.engine.facts, precision=self.precision)

    def run(self, inputs: Any) -> Any:
        outputs = self.engine.run(inputs)
        noise = self.single if len(inputs["z"]) == 1 else self.noise
        rng = np.random.default_rng(0)
        return {
            name: value + noise * rng.choice([-1, 1], value.shape).astype(np.float32)
            if name.startswith("image")
            else value
            for name, value in outputs.items()
        }


def disturbed(bundle: Bundle, precision: str, noise: float, single: float | None = None) -> TextToImage:
    text, generator = (load_engine(bundle, key, replace(REFERENCE, threads=1)) for key in ("text_encoder", "generator"))
    return TextToImage(bundle, text, Disturbed(generator, precision, noise, noise if single is None else single))


def test_a_bundle_makes_its_golden_pictures(tiny_bundle: Path) -> None:
    found = verify_model(load(tiny_bundle))
    golden = load_golden(open_bundle(tiny_bundle))
    assert found.passed
    assert found.pictures == len(golden) == len(golden.captions) > 1
    assert found.worst_level is not None and found.worst_level <= 1
    assert found.psnr_db is None or found.psnr_db > 60
    assert found.to_json()["engine"]["backend"] == "onnxruntime"
    assert "passed (fp32 asks for at most 1 level)" in str(found)


@pytest.mark.parametrize("name", ["captions", "ids", "lengths", "z", "eps", "image_128"])
def test_golden_cases_of_which_one_is_no_array(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    """numpy gives bytes where an archive has anything else."""
    folder = with_golden(tiny_bundle, tmp_path / "bundle", lambda arrays: arrays.pop(name))
    with zipfile.ZipFile(folder / "golden.npz", "a") as archive:
        archive.writestr(f"{name}.npy", b"no array")
    with pytest.raises(BundleError, match=f"'{name}' is no array"):
        load_golden(open_bundle(with_manifest(folder)))


def test_an_engine_of_other_weights_fails(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    engine, generator = (
        load_engine(bundle, key, replace(REFERENCE, threads=1)) for key in ("text_encoder", "generator")
    )
    assert check_engines(bundle, engine, generator).passed

    class Deaf:
        facts = engine.facts

        def run(self, inputs: Any) -> Any:
            return {name: value * 0 if name != "mask" else value for name, value in engine.run(inputs).items()}

    assert not check_engines(bundle, Deaf(), generator).passed


@pytest.mark.parametrize(
    ("precision", "decibels", "passes"),
    [
        ("fp16", 42, True),
        ("fp16", 38, False),
        ("bf16", 38, True),
        ("bf16", 33, False),
        ("int8", 33, True),
        ("int8", 28, False),
    ],
)
def test_floors(tiny_bundle: Path, precision: str, decibels: float, passes: bool) -> None:
    found = verify_model(disturbed(open_bundle(tiny_bundle), precision, 2 * 10 ** (-decibels / 20)))
    assert found.psnr_db == pytest.approx(decibels, abs=1.0)
    assert found.passed is passes
    assert ("FAILED" in str(found)) is not passes


def test_fp32_has_no_floor_but_one_level(tiny_bundle: Path) -> None:
    found = verify_model(disturbed(open_bundle(tiny_bundle), "fp32", 2.2 * 2 / 255))
    assert found.psnr_db is not None and found.psnr_db > 38  # enough for bf16, and for int8
    assert (found.worst_level, found.passed) in [(2, False), (3, False)]


def test_pictures_made_alone_are_compared_too(tiny_bundle: Path) -> None:
    assert not verify_model(disturbed(open_bundle(tiny_bundle), "fp32", 0.0, single=0.1)).passed


def test_the_manifests_floor_counts(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "strict"))
    strict = with_manifest(folder, floors={"int8": 50.0})
    assert not verify_model(disturbed(open_bundle(strict), "int8", 0.01)).passed
    assert verify_model(disturbed(open_bundle(tiny_bundle), "int8", 0.01)).passed


def test_values_that_are_not_finite(tiny_bundle: Path) -> None:
    with pytest.raises(EngineError, match="not finite"):
        verify_model(disturbed(open_bundle(tiny_bundle), "fp16", float("nan")))


def test_psnr() -> None:
    black, grey = np.zeros((1, 3, 2, 2), np.float32), np.full((1, 3, 2, 2), 0.2, np.float32)
    assert psnr_db(black, black) is None
    assert psnr_db(black, grey) == pytest.approx(20.0, abs=0.01)
    assert psnr_db(np.zeros(4, np.uint8), np.full(4, 255, np.uint8), 255.0) == 0.0


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda arrays: arrays.pop(name)


def put(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda arrays: arrays.update({name: np.array(value)})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("captions"), "captions"),
        (without("image_128"), "image_128"),
        (put("captions", [1, 2]), "it has no captions"),
        (put("captions", np.array([{"a": 1}], object)), "golden.npz: it holds Python objects. Next: "),
        (put("captions", np.array([], "U5")), "it has no captions"),
        (put("lengths", [1]), "do not fit each other"),
        (put("ids", np.zeros(3)), "do not fit each other"),
        (put("z", np.zeros((1, 4))), "'z' is not"),
        (put("z", "text"), "can't be read"),
        (put("eps", np.full((4, 4), np.nan)), "'eps' is not"),
        (put("image_128", np.zeros((4, 3, 64, 64))), "'image_128' is not"),
        (put("lengths", [-1, 10**18, 0, 2]), "do not fit each other"),
    ],
)
def test_golden_cases_that_do_not_fit(
    tiny_bundle: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    bundle = open_bundle(with_golden(tiny_bundle, tmp_path / "odd", change))
    with pytest.raises(BundleError, match=r"is damaged: golden\.npz: ") as caught:
        load_golden(bundle)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no archive", NPY, b"\x93NUMPY\x01\x00v\x00{'descr': 1}", None])
def test_golden_files_that_are_none(tiny_bundle: Path, tmp_path: Path, data: bytes | None) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "odd"))
    golden = folder / "golden.npz"
    whole = golden.read_bytes()
    golden.write_bytes(whole[:200] + bytes(100) + whole[300:] if data is None else data)
    with pytest.raises(BundleError, match=r"is damaged: golden\.npz: it can't be read") as caught:
        load_golden(open_bundle(with_manifest(folder)))
    assert "pickle" not in str(caught.value)


def test_no_golden_cases(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = with_manifest(Path(shutil.copytree(tiny_bundle, tmp_path / "bare")), golden=None)
    with pytest.raises(BundleError, match="has no golden cases"):
        load_golden(open_bundle(folder))


def test_a_vocabulary_that_numbers_words_otherwise(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "mixed"))
    padding, *words = (folder / "vocabulary.txt").read_text().splitlines()
    (folder / "vocabulary.txt").write_text("\n".join([padding, *reversed(words)]) + "\n")
    model = load(with_manifest(folder))
    with pytest.raises(BundleError, match="does not give the numbers of golden caption"):
        verify_model(model)


def test_a_judge_must_only_answer(tmp_path: Path) -> None:
    bundle = open_any(str(make_tiny_judge(tmp_path / "judge")))
    found = verify_judge(Judge(bundle, load_engine(bundle, "judge", replace(REFERENCE, threads=1))))
    assert (found.passed, found.pictures, found.psnr_db) == (True, 0, None)
    assert "no golden pictures in a judge" in str(found)


def test_a_bundle_of_an_unknown_kind(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = with_manifest(Path(shutil.copytree(tiny_bundle, tmp_path / "song")), kind="text-to-song")
    with pytest.raises(BundleError, match="is of an unknown kind; found text-to-song"):
        open_any(str(folder))
