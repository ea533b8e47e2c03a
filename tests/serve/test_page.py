"""The page of `t2i serve` in headless Chromium: a person's path, the keyboard alone, a phone's width, axe."""

import base64
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.attention import heat_overlay
from attngan_deploy.serve.app import PAGE, PAGE_TYPES
from benchmarks.serve.served import Served, serve
from tests.makers.alike import alike
from tests.makers.browser_page import Page, find_browser, open_page, text_of
from tests.makers.commands import wait_for
from tests.makers.tiny_bundle import make_tiny_bundle

AXE = Path(__file__).resolve().parents[2] / "examples" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
CAPTION = "a small red bird with black wings"
DONE = "document.getElementById('status').textContent.startsWith('Drawn in ')"
TYPED = "document.getElementById('unknown').textContent"
ENTER, TAB, SPACE, ESCAPE = (
    ("Enter", "Enter", 13, "\r"),
    ("Tab", "Tab", 9),
    (" ", "Space", 32, " "),
    ("Escape", "Escape", 27),
)

needs_browser = pytest.mark.skipif(not find_browser(), reason="needs Chromium: apt-get install chromium")
needs_axe = pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: npm ci --prefix examples/browser")


def test_every_file_of_the_page_is_served_and_nothing_comes_from_elsewhere() -> None:
    files = {path.name for path in PAGE.iterdir()}
    scripts = {"app.js", "command.js", "history.js", "picture.js", "server.js", "words.js"}
    assert files == scripts | {"index.html", "style.css", "made.css", "icon.svg"}
    for path in PAGE.iterdir():
        assert path.suffix in PAGE_TYPES
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert not re.search(r"""["'`(]/[a-z]""", text)  # the page may lie below a path
        assert "http:" not in text and "https:" not in text and "//cdn" not in text


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    other = make_tiny_bundle(tmp_path_factory.mktemp("other") / "tiny")
    manifest = json.loads((other / "bundle.json").read_text())
    (other / "bundle.json").write_text(json.dumps(manifest | {"name": "twin"}))
    engine = ("--backend", "onnxruntime", "--precision", "fp32", "--threads", "1")
    with serve("--model", str(tiny_bundle), "--model", str(other), "--root-path", "/birds", *engine) as server:
        yield server


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    browser = find_browser()
    assert browser
    with open_page(browser, tmp_path_factory.mktemp("browser") / "profile") as page:
        page.resize(1200, 900)
        yield page


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> TextToImage:
    return TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)


def visit(page: Page, server: Served, link: str = "") -> None:
    page.open("about:blank")
    page.open(f"{server.url}/{link}")
    page.wait_for("document.querySelectorAll('#models input').length === 2")


def type_caption(page: Page, text: str) -> None:
    page.evaluate("document.getElementById('caption').select()")
    page.insert(text)


def shown(page: Page, number: int) -> NDArray[np.uint8]:
    """What the page's canvas of this number shows, uint8 [S, S, 3]."""
    data = page.evaluate(f"""(() => {{
        const canvas = document.querySelectorAll("#columns canvas")[{number}];
        const {{ data, width }} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return {{ width, data: btoa(data.reduce((text, byte) => text + String.fromCharCode(byte), "")) }};
    }})()""")
    pixels = np.frombuffer(base64.b64decode(data["data"]), np.uint8).reshape(data["width"], data["width"], 4)
    return pixels[:, :, :3]


@needs_browser
def test_below_the_path_of_a_proxy(page: Page, server: Served) -> None:
    visit(page, server, "birds/#caption=a+red+bird&seed=1&models=tiny")
    page.wait_for(DONE)
    assert page.evaluate("document.querySelector('footer a').href") == f"{server.url}/birds/openapi.json"


@needs_browser
def test_from_caption_to_picture(page: Page, server: Served, model: TextToImage, tmp_path: Path) -> None:
    visit(page, server)
    page.evaluate("document.getElementById('caption').focus()")
    type_caption(page, "a small rad bird with black wings and a zorpqx")
    page.wait_for(f"{TYPED}.includes('rad → red')")
    marks = "[...document.querySelectorAll('#marks mark')].map((mark) => mark.textContent)"
    assert page.evaluate(marks) == ["rad", "zorpqx"]
    assert "“zorpqx”" in text_of(page, "unknown")
    page.evaluate("document.querySelector('#unknown button').click()")
    page.wait_for(f"!{TYPED}.includes('rad')")
    assert page.evaluate("document.getElementById('caption').value").startswith("a small red bird")
    assert page.evaluate(marks) == ["zorpqx"]

    type_caption(page, CAPTION)
    page.wait_for(f"{TYPED} === ''")
    page.evaluate("Object.assign(document.getElementById('seed'), { value: '18446744073709551615' })")
    page.evaluate("document.getElementById('count').value = '2'")
    page.evaluate("document.getElementById('draw').click()")
    page.wait_for(DONE)
    assert text_of(page, "error") == ""
    headings = page.evaluate("[...document.querySelectorAll('#columns h3')].map((each) => each.textContent)")
    assert headings == ["tiny", "twin"]
    expected = model.generate(CAPTION, seed=2**64 - 1, images_per_caption=2)
    for place, sample in enumerate((0, 1, 0, 1)):  # column by column, the same noise in both
        assert alike(shown(page, place), expected[sample])

    batch = next(model.stream([CAPTION], seed=2**64 - 1))
    words = page.evaluate("[...document.querySelectorAll('#words button')].map((each) => each.textContent)")
    assert words == CAPTION.split()
    hover(page, 2)
    overlay = heat_overlay(batch.pictures[0], batch.attention[0, 2])
    for place in (0, 2):
        assert np.abs(shown(page, place).astype(int) - overlay).mean() < 2 < np.abs(overlay - expected[0] + 0.0).mean()
    share = f"{round(100 * float(batch.attention[0, 2].mean()))} %"
    assert page.evaluate("document.querySelector('#columns output').value") == share
    assert "looked at “red”" in page.evaluate("document.querySelector('#columns canvas').getAttribute('aria-label')")
    page.move_to(5, 5)
    assert alike(shown(page, 0), expected[0])

    page.download_to(tmp_path)
    page.evaluate("document.querySelector('#columns a[download]').click()")
    with Image.open(downloaded(tmp_path)) as image:
        told = json.loads(image.info["t2i"])
        assert alike(np.asarray(image), expected[0])
    assert (told["caption"], told["seed"], told["model"]) == (CAPTION, 2**64 - 1, "tiny")
    link = page.evaluate("location.hash")
    visit(page, server, link)
    page.wait_for(DONE)
    assert alike(shown(page, 0), expected[0])
    assert page.problems == []


def hover(page: Page, word: int) -> None:
    box = page.evaluate(f"""(() => {{
        const box = document.querySelectorAll("#words button")[{word}].getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
    }})()""")
    page.move_to(*box)


def downloaded(folder: Path) -> Path:
    wait_for(lambda: list(folder.glob("*.png")))
    files = list(folder.glob("*.png"))
    assert files[0].name == f"bird-tiny-{2**64 - 1}-0.png"
    return files[0]


@needs_browser
def test_what_was_made_is_shown_again_and_has_a_command(page: Page, server: Served, model: TextToImage) -> None:
    visit(page, server)
    assert page.evaluate("document.getElementById('past').hidden && document.getElementById('again').hidden")
    for caption in (CAPTION, "a blue bird", CAPTION, "a blue bird"):  # what is made again is there once
        type_caption(page, caption)
        page.evaluate("document.getElementById('draw').click()")
        page.wait_for(f"{DONE} && document.getElementById('command').textContent.includes({caption!r})")
    choose = "document.querySelectorAll('#made button')[1]"
    assert page.evaluate("document.querySelectorAll('#made button').length") == 2
    page.evaluate(f"{choose}.click()")
    assert alike(shown(page, 0), model.generate(CAPTION, seed=0)[0])
    assert page.evaluate("document.getElementById('caption').value") == CAPTION
    assert CAPTION.replace(" ", "+") in page.evaluate("location.hash")
    assert page.evaluate(f"{choose}.getAttribute('aria-pressed')") == "true"
    assert page.evaluate("document.querySelectorAll('#words button').length") == len(CAPTION.split())
    commands = [shlex.split(line) for line in text_of(page, "command").splitlines()]
    for name, command in zip(("tiny", "twin"), commands, strict=True):
        options = ["--model", name, "--seed", "0", "-o", f"{name}-0-small-bird-with-black"]
        assert command == ["t2i", "generate", "--caption", CAPTION, *options]
    assert page.problems == []


@needs_browser
def test_the_command_means_the_caption_in_a_shell(page: Page, server: Served) -> None:
    visit(page, server)
    for caption in ('it\'s $(red), `a` \\ "bird"!', "two\n  lines", "a bird: red, it's (small)", "ein Kärntner; rot"):
        wanted = f"{{ caption: {json.dumps(caption)}, model: 'm', seed: 1n }}"
        script = f"import('./page/command.js').then(({{ commandFor }}) => commandFor({wanted}))"
        command = shlex.split(page.evaluate(script))
        assert command[:4] == ["t2i", "generate", "--caption", " ".join(caption.split())]
        assert command[4:8] == ["--model", "m", "--seed", "1"]


@needs_browser
def test_with_the_keyboard_alone(page: Page, server: Served, model: TextToImage) -> None:
    visit(page, server)
    tab_to(page, "document.activeElement.id === 'caption'")
    page.press("a", "KeyA", 65, modifiers=2)  # Ctrl-A
    page.insert("a rad bird")
    page.wait_for(f"{TYPED}.includes('rad → red')")
    page.press(*TAB)
    page.press(*ENTER)  # the word that it should have been
    page.wait_for("document.activeElement.id === 'caption' && document.activeElement.value === 'a red bird'")
    page.wait_for(f"{TYPED} === ''")  # the server has seen the new words: no button goes while it has the focus
    tab_to(page, "document.activeElement.value === 'twin'")
    page.press(*SPACE)  # not this model
    tab_to(page, "document.activeElement.id === 'seed'")
    page.insert("7")
    page.press(*ENTER)
    page.wait_for(DONE)
    assert page.evaluate("document.querySelectorAll('#columns canvas').length") == 1
    batch = next(model.stream(["a red bird"], seed=7))
    assert alike(shown(page, 0), batch.pictures[0])
    tab_to(page, "document.activeElement.textContent === 'red'")
    overlay = heat_overlay(batch.pictures[0], batch.attention[0, 1])
    assert np.abs(shown(page, 0).astype(int) - overlay).mean() < 2
    page.press(*ENTER)
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.press(*TAB)
    page.press(*TAB)  # past the last word: the chosen one stays
    assert np.abs(shown(page, 0).astype(int) - overlay).mean() < 2
    page.press(*ESCAPE)
    assert alike(shown(page, 0), batch.pictures[0])
    assert page.evaluate("document.activeElement.download") == "bird-tiny-7-0.png"


def tab_to(page: Page, condition: str) -> None:
    for _ in range(30):
        if page.evaluate(condition):
            return
        page.press(*TAB)
        focused = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert focused == "solid", "the focus must be seen"
    raise AssertionError(f"the keyboard does not reach {condition}")


@needs_browser
def test_what_is_wrong_is_one_sentence(page: Page, server: Served) -> None:
    visit(page, server)
    for script, sentence in (
        ("document.getElementById('caption').value = ' '", "Write a caption first."),
        ("document.getElementById('caption').value = 'zorp'", "Caption 0 has only words that model tiny does not know"),
        (
            "document.getElementById('seed').value = '-1'",
            "The seed must be a whole number from 0 to 18446744073709551615.",
        ),
        ("document.querySelectorAll('#models input').forEach((each) => each.click())", "Choose a model first."),
    ):
        visit(page, server)
        page.evaluate(script)
        page.evaluate("document.getElementById('draw').click()")
        page.wait_for("document.getElementById('error').textContent !== ''")
        assert text_of(page, "error").startswith(sentence)
        assert page.evaluate("document.getElementById('draw').hasAttribute('aria-disabled')") is False
    page.problems.clear()  # a refused request is an error of the console too


@needs_browser
def test_a_server_with_a_key_asks_for_it(
    page: Page, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T2I_API_KEY", "s3cret")
    with serve("--model", str(tiny_bundle), "--backend", "onnxruntime", "--threads", "1") as server:
        page.open(f"{server.url}/")
        page.wait_for("!document.getElementById('key-field').hidden")
        assert text_of(page, "error") == "This server wants an API key."
        assert page.evaluate("document.activeElement.id") == "key"
        page.insert("s3cret")
        page.press(*ENTER)
        page.wait_for(DONE)
        assert text_of(page, "error") == ""
    page.problems.clear()


@needs_browser
@needs_axe
def test_everybody_can_use_it_and_it_fits(page: Page, server: Served, tmp_path: Path) -> None:
    try:
        for width, height, dark in ((1200, 900, False), (1200, 900, True), (360, 740, False)):
            page.resize(width, height, dark=dark)
            check_use(page, server, tmp_path / "page.png", dark)
    finally:
        page.resize(1200, 900)


def check_use(page: Page, server: Served, shot: Path, dark: bool) -> None:
    visit(page, server)
    check_axe(page)
    page.evaluate("document.getElementById('caption').focus()")
    type_caption(page, f"{CAPTION} and a rad zorpqx {'w' * 80}")
    page.wait_for(f"{TYPED}.includes('rad → red')")
    page.evaluate("document.getElementById('draw').click()")
    page.wait_for(DONE)
    page.evaluate("document.querySelectorAll('#words button')[2].focus()")
    check_axe(page)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    heights = [page.evaluate(f"document.getElementById('{part}').scrollHeight") for part in ("caption", "marks")]
    assert abs(heights[0] - heights[1]) <= 4  # marks lie under their words
    page.screenshot(shot)
    with Image.open(shot) as image:
        grey = np.asarray(image.convert("L"))
    assert grey.std() > 10
    assert (np.median(grey) < 64) == dark


def check_axe(page: Page) -> None:
    page.evaluate(f"{AXE.read_text()};0")
    found: list[dict[str, Any]] = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(({violations, passes}) => "
        "violations.map(({id, help, nodes}) => ({id, help, where: nodes.map(({html}) => html)}))"
        ".concat(passes.length > 20 ? [] : [{id: 'nothing was checked'}]))"
    )
    assert found == []
