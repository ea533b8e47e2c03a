"""The browser page: the same words, noise, pictures and attention as the Python runtime, also without a network."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from attngan_deploy.generate.noise import LARGEST_SEED
from attngan_deploy.generate.pipeline import Batch, TextToImage
from attngan_deploy.generate.run import Run
from attngan_deploy.generate.run_record import EngineRecord
from attngan_deploy.media.attention import heat_overlay
from attngan_deploy.media.captions import CaptionList, from_texts
from tests.makers.browser_page import IDLE, Page, Server, canvas, draw, find_browser, open_page, open_site, text_of
from tests.makers.commands import wait_for
from tests.makers.odd_captions import hash_again
from tests.makers.tiny_bundle import WORDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "examples" / "browser"
SCRIPT = PAGE / "build.py"
LEVELS = 2  # of 255: how far pixels may be from the Python runtime's
CAPTION = "a small red bird with black wings"

needs_package = pytest.mark.skipif(
    not (PAGE / "node_modules" / "onnxruntime-web").is_dir(),
    reason="needs onnxruntime-web: npm ci --prefix examples/browser",
)
needs_browser = pytest.mark.skipif(not find_browser(), reason="needs Chromium: apt-get install chromium")


def build(*arguments: str | Path, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's build.py, with files of the right names in the place of onnxruntime-web's."""
    folder = tmp_path_factory.mktemp("page") / "browser"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("node_modules"))
    package = folder / "node_modules" / "onnxruntime-web" / "dist"
    package.mkdir(parents=True)
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (package / name).write_text(f"stands for {name}")
    return folder / SCRIPT.name


def test_the_site_holds_what_it_needs_and_no_more(script: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    done = build("-o", tmp_path / "site", "--models", tiny_bundle, script=script)
    assert done.returncode == 0, done.stderr
    listed = read_list(tmp_path / "site")
    files = {
        path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*") if path.is_file()
    }
    assert files == {*listed, "files.js"}
    for path, entry in listed.items():
        data = (tmp_path / "site" / path).read_bytes()
        assert entry == {"sha256": sha256(data).hexdigest(), "bytes": len(data)}
    for path in (tmp_path / "site").glob("*.js"):  # every module that a page's file imports is there
        assert set(re.findall(r'from "\./(.+?)"', path.read_text())) <= files
    assert {path.name for path in PAGE.glob("*.js")} <= files
    assert not [path for path in listed if "golden" in path or "README" in path]
    again = build("-o", tmp_path / "site", "--models", tiny_bundle, script=script)  # over the old one
    assert again.returncode == 0


@needs_package
def test_the_sizes_in_the_readme(tmp_path: Path) -> None:
    assert build("-o", tmp_path / "site", "--models", "base").returncode == 0
    sizes = {"engine": 0, "models": 0, "page": 0}
    for path, entry in read_list(tmp_path / "site").items():
        sizes[path.split("/")[0] if "/" in path else "page"] += entry["bytes"]
    engine, model, page, total = (
        size / 1e6 for size in (sizes["engine"], sizes["models"], sizes["page"], sum(sizes.values()))
    )
    said = f"{total:.1f} MB: engine {engine:.1f}, model `base` {model:.1f}, the page itself {page:.2f};"
    assert said in (PAGE / "README.md").read_text(encoding="utf-8")


def test_what_build_refuses(script: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    site, thesis = tmp_path / "site", tmp_path / "full" / "thesis.txt"
    damaged, twice = (shutil.copytree(tiny_bundle, tmp_path / name) for name in ("damaged", "twice"))
    (damaged / "generator.onnx").write_bytes(b"cut")
    (twice / "vocabulary.txt").write_text("\n".join(["<end>", "red", *WORDS[1:-1], "red"]))
    hash_again(twice)
    for arguments, message in (
        (("-o", site, "--models", "none"), "no model 'none'"),
        (("-o", site, "--models", tmp_path / "none"), "no bundle at "),
        (("-o", site, "--models", tmp_path / "empty"), "empty is not a bundle; expected a bundle.json in it"),
        (("-o", site, "--models", damaged), "generator.onnx has 3 bytes instead of "),
        (
            ("-o", site, "--models", twice),
            f"model {twice} can't be used: the vocabulary has the word 'red' more than once",
        ),
        (("-o", site, "--models", "judge"), "kind 'judge'"),
        (("-o", site, "--models", tiny_bundle, tiny_bundle), "two models have the same name"),
        (("-o", tmp_path / "full", "--models", tiny_bundle), "holds other files"),
        (("-o", thesis, "--models", tiny_bundle), "thesis.txt is not a folder"),
        (("-o", "/proc/site", "--models", tiny_bundle), "/proc/site can't be written: No such file or directory. Next"),
        (("-o", thesis / "site", "--models", tiny_bundle), "thesis.txt"),
    ):
        check_refused(build(*arguments, script=script), message)
    assert not site.exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    assert thesis.read_text() == "mine"


@pytest.mark.parametrize("text", ["", "<end>\n", "<end>"])
def test_a_bundle_without_words_is_refused(tiny_bundle: Path, tmp_path: Path, text: str) -> None:
    model = shutil.copytree(tiny_bundle, tmp_path / "wordless")
    (model / "vocabulary.txt").write_text(text)
    manifest = json.loads((model / "bundle.json").read_text())
    manifest["sizes"]["words"] = 1  # the table that `open_bundle` compares with has no words either
    (model / "bundle.json").write_text(json.dumps(manifest))
    hash_again(model, "golden")
    done = build("-o", tmp_path / "site", "--models", model)
    check_refused(done, f"model {model} can't be used: the vocabulary is empty; found ")
    assert [path.name for path in tmp_path.iterdir()] == ["wordless"]


def test_without_the_package_the_next_step_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copy(SCRIPT, tmp_path)
    done = build("-o", tmp_path / "site", "--models", tiny_bundle, script=tmp_path / SCRIPT.name)
    check_refused(done, f"onnxruntime-web is not installed; expected {tmp_path / 'node_modules'}")
    assert f"Next: npm ci --prefix {tmp_path}\n" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [SCRIPT.name]


def check_refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def read_list(site: Path) -> dict[str, dict[str, Any]]:
    text = (site / "files.js").read_text()
    listed: dict[str, dict[str, Any]] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return listed


def write_list(site: Path, listed: dict[str, dict[str, Any]]) -> None:
    (site / "files.js").unlink()
    (site / "files.js").write_text(f"export const FILES = {json.dumps(listed)};")


@pytest.fixture(scope="module")
def root(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's folder, with the site in the folder `site`."""
    root = tmp_path_factory.mktemp("host")
    done = build("-o", root / "site", "--models", tiny_bundle, "base")
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    server = Server(root)
    yield server
    server.end()


@pytest.fixture(scope="module")
def page(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    browser = find_browser()
    assert browser
    with open_page(browser, tmp_path_factory.mktemp("browser") / "profile") as page:
        page.resize(1200, 900)
        yield page


READY = "document.getElementById('offline').textContent === 'Ready to work offline.'"


def runtime(model: str | Path) -> TextToImage:
    """The reference: full precision, whatever this machine would choose."""
    return TextToImage.load(model, backend="onnxruntime", precision="fp32", threads=1)


def differ(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> int:
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected).max())


def batch_of(model: TextToImage, caption: str, seed: int) -> Batch:
    return next(model.stream([caption], seed=seed))


@needs_browser
@needs_package
def test_pictures_attention_and_files_are_those_of_the_runtime(
    page: Page, server: Server, tiny_bundle: Path, tmp_path: Path
) -> None:
    open_site(page, f"{server.url}/site", model="tiny", caption="the blue bird", seed="3")
    tiny = runtime(tiny_bundle)
    assert differ(canvas(page), tiny.generate("the blue bird", seed=3)[0]) <= LEVELS

    draw(page, f"{CAPTION} zorp", LARGEST_SEED, "tiny")
    assert text_of(page, "error") == ""
    assert f"Seed {LARGEST_SEED} · tiny" in text_of(page, "facts")
    assert "“zorp”" in text_of(page, "unknown")
    expected = batch_of(tiny, CAPTION, LARGEST_SEED)
    assert differ(canvas(page), expected.pictures[0]) <= LEVELS

    labels = page.evaluate("[...document.querySelectorAll('#words button')].map((button) => button.textContent)")
    shares = expected.attention[0].mean(axis=(1, 2))
    assert [label.split()[0] for label in labels] == CAPTION.split()
    for label, share in zip(labels, shares, strict=True):
        assert abs(int(label.split()[1].rstrip("%")) - 100 * share) < 0.51
    for word in (2, 6):
        page.evaluate(f"document.querySelectorAll('#words button')[{word}].click()")
        overlay = heat_overlay(expected.pictures[0], expected.attention[0, word])
        assert differ(overlay, expected.pictures[0]) > 20
        assert differ(canvas(page), overlay) <= LEVELS
    pressed = "[...document.querySelectorAll('#words [aria-pressed=true]')].length"
    assert page.evaluate(pressed) == 1
    page.press("Escape", "Escape", 27)
    assert page.evaluate(pressed) == 0
    assert differ(canvas(page), expected.pictures[0]) <= LEVELS

    file = save(page, tmp_path)
    run = Run(CaptionList(items := from_texts([f"{CAPTION} zorp"])), LARGEST_SEED, False, "tiny", tiny.bundle.hash)
    with Image.open(file) as image:
        assert json.loads(image.text["t2i"]) == run.picture_record((0, 0), items[0], file.name, EngineRecord())  # type: ignore[attr-defined]
        assert np.array_equal(np.asarray(image.convert("RGB")), canvas(page))

    draw(page, "a yellow bird", 1, "base")
    base = runtime("base").generate("a yellow bird", seed=1)[0]
    assert differ(canvas(page), base) <= LEVELS
    assert text_of(page, "command") == (
        't2i generate --caption "a yellow bird" --model base --seed 1 -o base-1-yellow-bird'
    )
    page.evaluate("document.querySelectorAll('#made button')[1].click()")  # what was made before
    assert differ(canvas(page), expected.pictures[0]) <= LEVELS
    assert page.evaluate("[...document.querySelectorAll('#seed, #model')].map((each) => each.value)") == [
        str(LARGEST_SEED),
        "tiny",
    ]
    page.evaluate("document.querySelector('#made button').click()")
    assert page.problems == []
    check_looks(page, tmp_path)


def save(page: Page, folder: Path) -> Path:
    """Press "Save as PNG" and return the file that the browser downloaded."""
    page.download_to(folder)
    page.evaluate("document.getElementById('save').click()")
    wait_for(lambda: list(folder.glob("*.png")))
    files = list(folder.glob("*.png"))
    return files[0]


def check_looks(page: Page, folder: Path) -> None:
    """At the width of a desktop and of a phone, the page is not blank, and nothing sticks out."""
    for width, height, dark in ((1200, 900, False), (360, 740, True)):
        page.resize(width, height, dark=dark)
        shot = folder / f"{width}.png"
        page.screenshot(shot)
        with Image.open(shot) as image:
            grey = np.asarray(image.convert("L"))
        assert grey.shape[1] <= width
        assert grey.std() > 10
        assert (np.median(grey) < 64) == dark
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.resize(1200, 900)


@needs_browser
@needs_package
def test_it_works_without_a_host_after_the_first_visit(page: Page, server: Server, tiny_bundle: Path) -> None:
    open_site(page, f"{server.url}/site", model="tiny", caption="the blue bird", seed="3")
    page.wait_for(READY)
    assert page.evaluate("crossOriginIsolated") == page.evaluate("!!navigator.serviceWorker.controller")
    server.stop()
    try:
        open_site(page, f"{server.url}/site", model="tiny", caption="a red bird", seed="5")
        assert text_of(page, "error") == ""
        assert page.evaluate("crossOriginIsolated")  # the service worker's headers allow threads
        expected = runtime(tiny_bundle).generate("a red bird", seed=5)[0]
        assert differ(canvas(page), expected) <= LEVELS
        page.wait_for(READY)
    finally:
        server.start()


@needs_browser
@needs_package
def test_a_new_version_comes_with_a_reload_and_fetches_what_changed(page: Page, server: Server, root: Path) -> None:
    site = root / "growing"
    shutil.copytree(root / "site", site, copy_function=os.link)
    open_site(page, f"{server.url}/growing", model="tiny")
    page.wait_for(READY)
    data = (site / "index.html").read_bytes().replace(b"<title>", b"<title>New: ")
    (site / "index.html").unlink()  # it is a link to the other site's file
    (site / "index.html").write_bytes(data)
    write_list(site, read_list(site) | {"index.html": {"sha256": sha256(data).hexdigest(), "bytes": len(data)}})
    server.requests.clear()
    open_site(page, f"{server.url}/growing", model="tiny")
    page.wait_for("document.getElementById('offline').textContent.startsWith('A new version')")
    page.open("about:blank")
    page.open(f"{server.url}/growing/")
    page.wait_for("document.title.startsWith('New: ')")
    scripts = {"/growing/service-worker.js", "/growing/files.js", "/growing/store.js"}
    ours = {path for path in server.requests if path.startswith("/growing/")}  # not an update check of the other site
    assert ours - scripts == {"/growing/index.html"}


@needs_browser
@needs_package
def test_models_side_by_side(page: Page, server: Server, tiny_bundle: Path) -> None:
    open_site(page, f"{server.url}/site", model="tiny", caption="the blue bird", seed="3")
    page.evaluate("document.getElementById('every').click()")
    page.wait_for(f"{IDLE} && document.querySelectorAll('#side canvas').length === 2")
    page.wait_for("document.getElementById('facts').textContent.includes('· tiny ·')")  # as was chosen before
    names = page.evaluate("[...document.querySelectorAll('#side figcaption')].map((each) => each.textContent)")
    assert names == ["tiny", "base"]
    for place, model in enumerate((tiny_bundle, "base")):
        expected = runtime(model).generate("the blue bird", seed=3)[0]
        assert differ(canvas(page, f"#side figure:nth-child({place + 1}) canvas"), expected) <= LEVELS
    assert differ(canvas(page), runtime(tiny_bundle).generate("the blue bird", seed=3)[0]) <= LEVELS
    draw(page, "a bird", 1, "tiny")
    assert page.evaluate("document.querySelectorAll('#side canvas').length") == 0


@needs_browser
@needs_package
def test_keyboard(page: Page, server: Server) -> None:
    open_site(page, f"{server.url}/site", model="tiny", caption="zorp", seed="1")
    assert text_of(page, "error") == "This model knows none of these words: zorp."
    page.evaluate("document.getElementById('caption').value = 'a bird'; document.getElementById('caption').focus()")
    page.press("Enter", "Enter", 13, "\r")
    page.wait_for(f"{IDLE} && document.getElementById('facts').textContent.includes('Seed 1 ')")
    assert text_of(page, "error") == ""
    assert page.evaluate("document.activeElement.id") == "caption"
    page.evaluate("document.querySelector('#words button').focus()")
    page.press(" ", "Space", 32, " ")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    draw(page, "a bird", -1, "tiny")
    assert "whole number from 0 to 18446744073709551615" in text_of(page, "error")
    draw(page, "!?", 1, "tiny")
    assert "Write a caption first" in text_of(page, "error")


@needs_browser
@needs_package
def test_what_is_wrong_is_one_clear_line(page: Page, server: Server, root: Path) -> None:
    for fault, message in (
        ("missing", "models/tiny/generator.onnx can't be loaded: the server answers 404. Is the site complete?"),
        ("changed", "models/tiny/vocabulary.txt is not the file that this site was built with."),
        ("newer", "Model tiny was made for a newer version of this page: it has schema 99, and this page knows 2."),
        ("broken", "Model tiny can't be started: "),
    ):
        check_fault(page, server, root, fault, message)


def check_fault(page: Page, server: Server, root: Path, fault: str, message: str) -> None:
    site = root / fault
    shutil.copytree(root / "site", site, copy_function=os.link)
    listed = read_list(site)
    model = site / "models" / "tiny"

    def rewrite(file: str, data: bytes) -> None:
        (model / file).unlink()  # it is a link to the good site's file
        (model / file).write_bytes(data)
        listed[f"models/tiny/{file}"] = {"sha256": sha256(data).hexdigest(), "bytes": len(data)}

    if fault == "missing":
        (model / "generator.onnx").unlink()
    elif fault == "newer":
        rewrite("bundle.json", json.dumps(json.loads((model / "bundle.json").read_bytes()) | {"schema": 99}).encode())
    elif fault == "broken":
        rewrite("generator.onnx", (model / "generator.onnx").read_bytes()[:-2000])
    else:
        honest = listed["models/tiny/vocabulary.txt"]
        rewrite("vocabulary.txt", (model / "vocabulary.txt").read_bytes().replace(b"red", b"der"))
        listed["models/tiny/vocabulary.txt"] = honest
    write_list(site, listed)
    open_site(page, f"{server.url}/{fault}", model="tiny")
    error = text_of(page, "error")
    assert error.startswith(message)
    assert "\n" not in error
    assert text_of(page, "facts") == ""
