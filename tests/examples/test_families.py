"""examples/ with bundles of DM-GAN and DF-GAN: pictures as the command line makes them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from attngan_deploy.bundles.truncation import Truncation
from attngan_deploy.cli import app, register
from attngan_deploy.export.targets.edge import EDGE, write_edge
from attngan_deploy.generate.noise import EPS_STREAM, LARGEST_SEED, Z_STREAM
from tests.examples import test_edge_python
from tests.examples.test_browser import batch_of, build, differ, needs_browser, needs_package, runtime, save
from tests.examples.test_browser_modules import pytestmark as needs_node
from tests.examples.test_browser_modules import run_script
from tests.examples.test_examples_c import ENGINES, SANITIZED, check_refused, run
from tests.examples.test_examples_c import build as build_c
from tests.examples.test_examples_c import pytestmark as needs_compiler
from tests.makers.alike import alike
from tests.makers.browser_page import Page, Server, canvas, draw, find_browser, open_page, open_site, text_of
from tests.makers.one_noise import noise_for

register("generate", "models")  # a lone command would need no name

CAPTION = "a small red bird with black wings"
SEEDS = (3, LARGEST_SEED)
LEVELS = 2  # of 255: how far pictures may be from the command line's

Generate = Callable[[int], NDArray[np.uint8]]


@pytest.fixture
def wanted(family_bundle: Path, tmp_path: Path) -> Generate:
    """The picture that the command line makes of `CAPTION` and a seed."""

    def generate(seed: int) -> NDArray[np.uint8]:
        out = tmp_path / f"wanted-{seed}"
        arguments = [
            "generate",
            "--caption",
            CAPTION,
            "--model",
            str(family_bundle),
            "-o",
            str(out),
            "--seed",
            str(seed),
        ]
        result = CliRunner().invoke(
            app, [*arguments, "--backend", "onnxruntime", "--precision", "fp32", "--threads", "1"]
        )
        assert result.exit_code == 0, result.stderr
        with Image.open(out / "00001_00.png") as image:
            return np.asarray(image.convert("RGB"))

    return generate


def check_picture(path: Path, expected: NDArray[np.uint8], other: NDArray[np.uint8]) -> None:
    with Image.open(path) as image:
        found = np.asarray(image.convert("RGB"))
    assert differ(found, expected) <= LEVELS
    assert not alike(found, other)


@pytest.fixture(scope="module", params=ENGINES)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_c(tmp_path_factory.mktemp("c") / "built", request.param)


@needs_compiler
def test_the_c_program(program: Path, family_bundle: Path, wanted: Generate, tmp_path: Path) -> None:
    pictures = [wanted(seed) for seed in SEEDS]
    for seed, expected, other in zip(SEEDS, pictures, pictures[::-1], strict=True):
        done = run(program, family_bundle, CAPTION, tmp_path / "bird.png", str(seed))
        assert (done.returncode, done.stderr) == (0, "")
        check_picture(tmp_path / "bird.png", expected, other)
    check_refused(
        program, family_bundle, tmp_path / "none.png", "only unknown words; the first is 'zebra'", "zebra gnu"
    )


@needs_compiler
def test_the_c_program_reads_and_writes_within_bounds(family_bundle: Path, tmp_path: Path) -> None:
    checked = build_c(tmp_path / "checked", "onnxruntime", f"CFLAGS={SANITIZED}")  # OpenVINO does not start under it
    done = run(checked, family_bundle, CAPTION, tmp_path / "bird.ppm")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_edge_script(family_bundle: Path, wanted: Generate, tmp_path: Path) -> None:
    edge = write_edge(family_bundle, tmp_path / EDGE).path
    pictures = [wanted(seed) for seed in SEEDS]
    for seed, expected, other in zip(SEEDS, pictures, pictures[::-1], strict=True):
        done = test_edge_python.run(edge, CAPTION, tmp_path / "bird.ppm", str(seed))
        assert (done.returncode, done.stderr) == (0, "")
        check_picture(tmp_path / "bird.ppm", expected, other)


@needs_node
@pytest.mark.parametrize("cut", [Truncation(2.0, 0.88), Truncation(0.5, 0.1), Truncation(2.0, 0.0)])
def test_truncated_noise_of_the_page_is_that_of_the_runtime(cut: Truncation) -> None:
    script = """
        import { noiseFor } from "./noise.js";
        const noise = ([seed, ...rest]) => [...noiseFor(BigInt(seed), ...rest, values.cut)];
        console.log(JSON.stringify(values.cases.map(noise)));
    """
    cases = [
        (seed, caption, sample, size, stream)
        for seed in (0, 7, 2**53 + 1, LARGEST_SEED)
        for caption, sample, size in ((0, 0, 100), (0, 0, 3), (4_000_000_000, 17, 31), (1, 2, 1000))
        for stream in (Z_STREAM, EPS_STREAM)
    ]
    given = {"cut": {"clip": cut.clip, "scale": cut.scale}, "cases": [[str(seed), *rest] for seed, *rest in cases]}
    for case, values in zip(cases, run_script(script, given), strict=True):
        expected = noise_for(*case, truncation=cut)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)
        assert np.abs(expected).max() <= cut.clip * cut.scale + 1e-6
        if cut.scale and len(expected) == 1000:  # some of so many are cut
            assert np.abs(expected - cut.scale * noise_for(*case)).max() > 1e-3


@pytest.fixture(scope="module")
def page(family_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, str]]:
    """A page with the family's model, and the address of its site."""
    root, browser = tmp_path_factory.mktemp("host"), find_browser()
    done = build("-o", root / "site", "--models", family_bundle)
    assert done.returncode == 0 and browser, done.stderr
    server = Server(root)
    with open_page(browser, tmp_path_factory.mktemp("browser") / "profile") as opened:
        opened.resize(1200, 900)
        yield opened, f"{server.url}/site"
    server.end()


@needs_browser
@needs_package
def test_the_page(page: tuple[Page, str], family: str, family_bundle: Path, tmp_path: Path) -> None:
    opened, site = page
    model = runtime(family_bundle)
    open_site(opened, site, model=family, caption="the blue bird", seed="3")
    assert differ(canvas(opened), model.generate("the blue bird", seed=3)[0]) <= LEVELS
    draw(opened, CAPTION, LARGEST_SEED, family)
    assert text_of(opened, "error") == ""
    batch = batch_of(model, CAPTION, LARGEST_SEED)
    assert differ(canvas(opened), batch.pictures[0]) <= LEVELS
    assert opened.evaluate("document.querySelectorAll('#words button').length") == (7 if family == "dmgan" else 0)
    file = save(opened, tmp_path)
    with Image.open(file) as image:
        told = json.loads(image.info["t2i"])
    assert told.get("truncation") == (0.88 if family == "dfgan" else None)
    assert opened.problems == []
