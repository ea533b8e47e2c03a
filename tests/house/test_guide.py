"""The README and the guide: short, with links that lead somewhere, and errors that the program has."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MOST_LINES, MOST_WORDS = 150, 1100
LINK = re.compile(r"\]\(([^()\s]+)\)")


def anchors(page: Path) -> set[str]:
    """What a link to a heading of a page may end in."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= MOST_LINES and len(text.split()) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_error_of_the_guide_is_one_of_the_program() -> None:
    page = (ROOT / "docs/guide/troubleshooting.md").read_text()
    told = [text for cell in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for text in re.findall("`(.*?)`", cell)]
    files = [path for room in ("attngan_deploy", "train", "export") for path in (ROOT / room).rglob("*.py")]
    source = "\n".join(path.read_text() for path in files)
    assert len(told) > 40
    assert [text for text in told if not all(part.strip() in source for part in text.split("..."))] == []
