"""`t2i score`: the number and its passport, and one clear line for each thing that can't be scored."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.metrics.frechet import FeatureStatistics, frechet_distance
from attngan_deploy.score.metrics.inception_score import inception_score
from attngan_deploy.score.metrics.kernel import kernel_distance_of_subsets
from tests.makers.alarm import alarm
from tests.makers.tiny_judge import SIZE, make_tiny_judge

register("models", "score")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_judge(tmp_path_factory.mktemp("judges") / "colours")


@pytest.fixture
def birds(tmp_path: Path) -> np.ndarray:
    """Forty pictures of three tints, also as files in `out`."""
    rng = np.random.default_rng(0)
    tints = np.eye(3)[rng.integers(0, 3, 40)][:, None, None, :] * 160
    pictures = (tints + rng.uniform(0, 90, (40, SIZE, SIZE, 3))).astype(np.uint8)
    (tmp_path / "out").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "out" / f"{number:05d}_00.png")
    return pictures


def run(*arguments: str | Path) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["score", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout, result.stderr


def passport(*arguments: str | Path) -> dict[str, object]:
    return json.loads(run(*arguments, "--json")[0])


def error(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert report_errors(lambda: app(["score", *map(str, arguments)], standalone_mode=False)) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_pictures_whose_profile_can_not_be_used_are_counted(tmp_path: Path, birds: np.ndarray, judge: Path) -> None:
    before = passport(tmp_path / "out", "--judge", judge)
    for number in (3, 5, 8, 9):
        Image.fromarray(birds[number]).save(tmp_path / f"out/{number:05d}_00.png", icc_profile=b"damaged")
    told = run(tmp_path / "out", "--judge", judge)[1]
    files = "00003_00.png, 00005_00.png, 00008_00.png, ..."
    assert f"warning: 4 pictures have a colour profile that can't be used: read as sRGB ({files})\n" in told
    assert passport(tmp_path / "out", "--judge", judge)["scores"] == before["scores"]


def test_the_number_is_that_of_the_array_functions(tmp_path: Path, birds: np.ndarray, judge: Path) -> None:
    facts = passport(tmp_path / "out", "--judge", judge, "--splits", "4", "--batch-size", "7", "--no-shuffle")
    expected = inception_score(Judge.load(judge).predict(birds)[0], 4)
    score = facts["scores"]["inception_score"]
    assert score["mean"] == pytest.approx(expected.mean, rel=1e-6)
    assert score["deviation"] == pytest.approx(expected.deviation, rel=1e-5)
    assert score["per_split"] == pytest.approx(expected.per_split.tolist(), rel=1e-6)
    assert score["one_split"] == pytest.approx(inception_score(Judge.load(judge).predict(birds)[0], 1).mean, rel=1e-6)
    assert score["pictures_per_split"] == [10, 10, 10, 10] and score["ddof"] == 0
    assert 1.5 < score["mean"] < 3
    assert facts["judge"]["name"] == "colours" and facts["judge"]["hash"] == Judge.load(judge).hash
    assert facts["pictures"]["order"] == "name" and facts["pictures"]["resize"] == "none"


def test_pictures_are_shuffled_as_torch_fidelity_does(tmp_path: Path, birds: np.ndarray, judge: Path) -> None:
    facts = passport(tmp_path / "out", "--judge", judge)
    order = np.random.RandomState(2020).permutation(40)
    expected = inception_score(Judge.load(judge).predict(birds[order])[0], 10)
    assert facts["scores"]["inception_score"]["mean"] == pytest.approx(expected.mean, rel=1e-6)
    assert facts["pictures"]["shuffle_seed"] == 2020


def test_pictures_sorted_by_class_are_noticed(tmp_path: Path, birds: np.ndarray, judge: Path) -> None:
    by_class = np.argsort(Judge.load(judge).predict(birds)[0].argmax(axis=1), kind="stable")
    for place, number in enumerate(by_class):
        Image.fromarray(birds[number]).save(tmp_path / "out" / f"{place:05d}_00.png")
    kept, shuffled = (passport(tmp_path / "out", "--judge", judge, *more) for more in (("--no-shuffle",), ()))
    assert kept["scores"]["inception_score"]["mean"] < 0.7 * shuffled["scores"]["inception_score"]["mean"]
    assert any("seem to be sorted" in warning for warning in kept["warnings"])
    assert not any("seem to be sorted" in warning for warning in shuffled["warnings"])


@pytest.mark.usefixtures("birds")
def test_batches_and_threads_change_nothing(tmp_path: Path, judge: Path) -> None:
    one = passport(tmp_path / "out", "--judge", judge, "--batch-size", "1", "--threads", "1")
    other = passport(tmp_path / "out", "--judge", judge, "--batch-size", "40", "--threads", "3")
    a, b = (facts["scores"]["inception_score"]["per_split"] for facts in (one, other))
    assert a == pytest.approx(b, rel=1e-6)


@pytest.mark.usefixtures("birds")
def test_the_table_says_how(tmp_path: Path, judge: Path) -> None:
    (tmp_path / "out" / "grid.png").write_bytes((tmp_path / "out" / "00000_00.png").read_bytes())
    out, err = run(tmp_path / "out", "--judge", judge)
    for part in ("Inception Score", "10 of 4 pictures, ddof 0", "as one split", "colours", "75.0% of held-out", "name"):
        assert part in out
    assert "40 used of 40 found: 40 png" in out and "grid.png" in out
    assert "not with scores by other judges" in out.replace("\n", " ")
    assert "warning: only 40 pictures" in err


def test_broken_pictures_are_skipped_counted_and_listed(
    tmp_path: Path, birds: np.ndarray, judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (tmp_path / "out" / "00007_00.png").read_bytes()
    (tmp_path / "out" / "00007_00.png").write_bytes(whole[:-100])
    facts = passport(tmp_path / "out", "--judge", judge, "--no-shuffle")
    assert (facts["pictures"]["found"], facts["pictures"]["used"]) == (40, 39)
    assert facts["pictures"]["skipped"][0].startswith("00007_00.png: can't be decoded")
    assert any("1 of 40 pictures are broken" in warning for warning in facts["warnings"])
    rest = Judge.load(judge).predict(np.delete(birds, 7, axis=0))[0]
    assert facts["scores"]["inception_score"]["mean"] == pytest.approx(inception_score(rest).mean, rel=1e-6)
    assert "00007_00.png" in error(capsys, tmp_path / "out", "--judge", judge, "--strict")


@pytest.mark.usefixtures("birds")
def test_what_a_manifest_names_and_is_gone_is_listed(tmp_path: Path, judge: Path) -> None:
    names = [f"{number:05d}_00.png" for number in range(39, 19, -1)] + ["99999_00.png"]
    (tmp_path / "out" / "manifest.jsonl").write_text("".join(json.dumps({"file": name}) + "\n" for name in names))
    facts = passport(tmp_path / "out", "--judge", judge)["pictures"]
    assert (facts["order"], facts["used"], facts["found"]) == ("manifest", 20, 21)
    assert facts["skipped"] == ["99999_00.png: in the manifest, but not there"]
    assert "00003_00.png" in facts["other_files"]


def test_a_tar_of_larger_pictures_is_cropped(tmp_path: Path, birds: np.ndarray, judge: Path) -> None:
    with tarfile.open(tmp_path / "real.tar", "w") as tar:
        for number, bird in enumerate(birds):
            stream = io.BytesIO()
            Image.fromarray(np.pad(bird, ((2, 2), (2, 2), (0, 0)))).save(stream, "PNG")
            member = tarfile.TarInfo(f"{number}.png")
            member.size = stream.tell()
            tar.addfile(member, io.BytesIO(stream.getvalue()))
    facts = passport(tmp_path / "real.tar", "--judge", judge, "--crop", str(SIZE))
    assert facts["scores"] == passport(tmp_path / "out", "--judge", judge)["scores"]
    assert (facts["pictures"]["width"], facts["pictures"]["crop"], facts["pictures"]["order"]) == (20, SIZE, "stored")
    resized = passport(tmp_path / "real.tar", "--judge", judge)
    assert resized["pictures"]["resize"] == "PIL bilinear 20 -> 16"


def test_distances_to_a_reference(tmp_path: Path, birds: np.ndarray, judge: Path) -> None:
    (tmp_path / "real").mkdir()
    real = np.clip(birds.astype(int) + 30, 0, 255).astype(np.uint8)
    for number, picture in enumerate(real):
        Image.fromarray(picture).save(tmp_path / "real" / f"{number:03d}.webp", lossless=True)
    facts = passport(
        tmp_path / "out",
        "--judge",
        judge,
        "--metric",
        "is,fid,kid",
        "--reference",
        tmp_path / "real",
        "--batch-size",
        "9",
    )
    a, b = (Judge.load(judge).predict(pictures)[1] for pictures in (birds, real))
    expected = frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))
    assert facts["scores"]["frechet_distance"]["value"] == pytest.approx(expected, rel=1e-5)
    kernel = kernel_distance_of_subsets(a, b, 100, 40)
    assert facts["scores"]["kernel_distance"]["mean"] == pytest.approx(kernel.mean, rel=1e-4)
    assert facts["scores"]["kernel_distance"]["subset_size"] == 40
    assert facts["reference"]["formats"] == {"webp": 40}
    table, _ = run(tmp_path / "out", "--judge", judge, "--metric", "fid", "--reference", tmp_path / "real")
    assert "Frechet distance" in table and "Inception Score" not in table and "reference" in table


@pytest.mark.usefixtures("birds")
def test_too_few_pictures_for_a_covariance_are_warned_about(tmp_path: Path, judge: Path) -> None:
    for number in range(3, 40):
        (tmp_path / "out" / f"{number:05d}_00.png").unlink()
    options = ("--judge", judge, "--metric", "fid", "--reference", tmp_path / "out")
    assert any("rank-deficient" in warning for warning in passport(tmp_path / "out", *options)["warnings"])


@pytest.mark.parametrize("count", [1, 8, 12])
def test_few_pictures_are_scored_and_said_to_be_few(tmp_path: Path, birds: np.ndarray, judge: Path, count: int) -> None:
    """Without --splits there are as many as there are pictures for."""
    for number in range(count, len(birds)):
        (tmp_path / "out" / f"{number:05d}_00.png").unlink()
    told = passport(tmp_path / "out", "--judge", judge)
    assert told["scores"]["inception_score"]["splits"] == min(count, 10)
    assert any(f"only {count} picture" in warning for warning in told["warnings"])
    assert any("so few pictures say nothing" in warning for warning in told["warnings"]) == (count < 10)
    _, said = run(tmp_path / "out", "--judge", judge, "--no-shuffle")
    assert ("so few pictures say nothing" in " ".join(said.split())) == (count < 10)


@pytest.mark.usefixtures("birds")
@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--splits", "41"), "fewer pictures than splits; found 40 pictures, 41 splits"),
        (("--crop", "17"), "smaller than the crop"),
        (("--metric", "fid"), "distances to a reference"),
        (("--metric", "lpips"), "no metric 'lpips'"),
        (("--metric", "is,"), ""),
        (("--reference", "out"), "a reference is given, but not used"),
        (("--order", "random"), "no order 'random'"),
        (("--judge", "nobody"), "no model 'nobody'"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path, judge: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], what: str
) -> None:
    arguments = (tmp_path / "out", "--judge", judge, *options)
    if what:
        assert what in error(capsys, *arguments)
    else:
        passport(*arguments)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda folder: None, "has no pictures; found an empty folder"),
        (lambda folder: folder.rmdir(), "no folder or tar at"),
        (lambda folder: (folder / "a.png").write_bytes(b"x"), "has no usable picture; found a.png: can't be decoded"),
        (lambda folder: (folder / "a.txt").write_bytes(b"x"), "has no pictures; found a.txt"),
        (lambda folder: (folder / "a.bmp").write_bytes(b"x"), "no pictures that can be scored; found a.bmp"),
        (
            lambda folder: [
                (folder / name).parent.mkdir(parents=True, exist_ok=True) or (folder / name).write_bytes(b"x")
                for name in ("A/1.bmp", "A/2.bmp", "B/c/1.tiff")
            ],
            "no pictures that can be scored; found A/, B/ (2 .bmp, 1 .tiff); expected .png, .webp or .jpg files, "
            "or tar shards of them. Next: make PNGs of them",
        ),
        (
            lambda folder: [Image.new("RGB", (side, side)).save(folder / f"{side}.png") for side in (16, 24)],
            "16.png of 16 x 16 px and 24.png of 24 x 24 px",
        ),
    ],
)
def test_bad_folders_are_one_line(
    tmp_path: Path, judge: Path, capsys: pytest.CaptureFixture[str], make: object, what: str
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    make(folder)  # type: ignore[operator]
    assert what in error(capsys, folder, "--judge", judge)


@pytest.mark.usefixtures("birds")
def test_a_judge_that_fails_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = make_tiny_judge(tmp_path / "nan", broken="nan")
    assert "16 of 16 pictures, the first 00000_00.png" in error(capsys, tmp_path / "out", "--judge", broken)


def test_what_other_programs_left_is_noted(tmp_path: Path, birds: np.ndarray, judge: Path) -> None:
    options = ("--judge", judge, "--crop", str(SIZE))
    expected = passport(tmp_path / "out", *options)
    assert expected["pictures"]["decoder"] == "upright, 8-bit sRGB, on white" and expected["pictures"]["notes"] == []
    for number, bird in enumerate(birds):
        place = tmp_path / "set" / f"{number % 3:03d}"
        place.mkdir(parents=True, exist_ok=True)
        wide = np.pad(bird, ((number % 2,) * 2, (2 * (number % 2),) * 2, (0, 0)))
        Image.fromarray(wide).save(place / f"{number:05d}.png")
    (tmp_path / "set" / "manifest.jsonl").write_text('{"image": "000/00000.png"}\n')
    facts = passport(tmp_path / "set", *options, "--no-shuffle")
    assert facts["pictures"]["used"] == 40 and (facts["pictures"]["width"], facts["pictures"]["height"]) == (16, 16)
    for told in ("manifest.jsonl is not of t2i generate", "3 sub-folders", "2 sizes, from 16 x 16 px up"):
        assert any(told in note for note in facts["pictures"]["notes"]), told
        assert any(told in warning for warning in facts["warnings"]), told


def test_statistics_of_others_are_a_reference(
    tmp_path: Path, birds: np.ndarray, judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = Judge.load(judge).predict(255 - birds)[1].astype(np.float64)
    mu, sigma = features.mean(axis=0), np.cov(features, rowvar=False)
    for name, arrays in {
        "pytorch_fid": {"mu": mu, "sigma": sigma},
        "float32": {"mu": mu.astype(np.float32), "sigma": sigma.astype(np.float32), "arr_0": np.zeros(3, object)},
    }.items():
        np.savez_compressed(tmp_path / f"{name}.npz", **arrays)
        options = ("--judge", judge, "--metric", "is,fid", "--reference", tmp_path / f"{name}.npz")
        facts = passport(tmp_path / "out", *options)
        own = FeatureStatistics.of(Judge.load(judge).predict(birds)[1])
        expected = frechet_distance(own, FeatureStatistics.of(features))
        assert facts["scores"]["frechet_distance"]["value"] == pytest.approx(expected, rel=1e-4)
        assert facts["reference"]["source"] == f"{name}.npz" and facts["reference"]["sha256"]
        assert any("which network and pictures made them is not known" in line for line in facts["warnings"])
        assert not any("only 0 pictures" in line or "of another size" in line for line in facts["warnings"])
    what = {"mean": {"mean": mu}, "shape": {"mu": mu, "sigma": mu}, "nan": {"mu": mu * np.nan, "sigma": sigma}}
    skew, odd = np.triu(sigma), np.zeros(len(mu), "M8[s]")
    what |= {"negative": {"mu": mu, "sigma": -sigma}, "complex": {"mu": mu, "sigma": sigma * 1j}}
    what |= {"skew": {"mu": mu, "sigma": skew}, "dates": {"mu": odd, "sigma": sigma}}
    what |= {"mixed": {"mu": mu, "sigma": np.diag([1.0, -1.0, *[1.0] * (len(mu) - 2)])}}
    for name, arrays in what.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "text.npz").write_text("no archive")
    for name in (*what, "text", "nowhere"):
        options = ("--judge", judge, "--metric", "fid", "--reference", tmp_path / f"{name}.npz")
        told = error(capsys, tmp_path / "out", *options)
        assert "holds no statistics of features" in told and "'mu' [F] and 'sigma' [F, F]" in told, name
    np.savez(tmp_path / "inception.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    options = ("--judge", judge, "--reference", tmp_path / "inception.npz", "--metric")
    assert "another judge; found 2048 features" in error(capsys, tmp_path / "out", *options, "fid")
    assert "kid needs the features of every reference" in error(capsys, tmp_path / "out", *options, "fid,kid")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe that has a name")
def test_a_reference_that_never_ends_is_not_opened(
    tmp_path: Path, birds: np.ndarray, judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    options = ("--judge", judge, "--metric", "fid", "--reference")
    for name in ("pipe", "zero"):
        with alarm():
            told = error(capsys, tmp_path / "out", *options, tmp_path / f"{name}.npz")
        assert "it is a pipe or a device, no file" in told
    (tmp_path / "real").mkdir()
    (tmp_path / "out").rename(tmp_path / "real" / "below")
    os.mkfifo(tmp_path / "real" / "below" / "pipe.png")
    with alarm():
        facts = passport(tmp_path / "real", *options, tmp_path / "real")
    assert facts["reference"]["used"] == 40 and "pipe.png" in facts["reference"]["skipped"][0]
