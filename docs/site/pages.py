"""What mkdocs.yml hooks into a build: the site is made of the files of the repository, each where it stands.

`README.md` is the first page. A file outside `docs/` that a page links to becomes a part of the site under its own
path, and links lead there, so that one file serves a reader of the repository and one of the site.
"""

import os
import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
import commands  # it stands beside this file, which mkdocs loads by its path

ROOT = Path(__file__).resolve().parents[2]
FIRST, INDEX = "README.md", "index.md"
LINK = re.compile(r"\]\(([^()\s#]+)(#[\w-]+)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are generated, and the files outside `docs/` that are linked to."""
    files.append(File.generated(config, "commands.md", content=commands.page()))
    known = {_place_in_repository(file.src_uri) for file in files}
    left = [FIRST, *sorted(place for place in known if place.endswith(".md"))]
    while left:
        place = left.pop()
        if place not in known:
            known.add(place)
            files.append(File.generated(config, _place_in_site(place), abs_src_path=str(ROOT / place)))
        if place.endswith(".md") and (ROOT / place).is_file():
            linked = (_target(place, found[1]) for found in LINK.finditer((ROOT / place).read_text(encoding="utf-8")))
            left += [each for each in linked if each not in known and (ROOT / each).is_file()]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where the site has their files."""
    here = _place_in_repository(page.file.src_uri)
    folder = posixpath.dirname(page.file.src_uri)

    def led(found: re.Match[str]) -> str:
        target = _place_in_site(_target(here, found[1]))
        is_here = files.get_file_from_path(target) is not None
        return f"]({posixpath.relpath(target, folder or '.')}{found[2] or ''})" if is_here else found[0]

    return LINK.sub(led, markdown)


def _target(place: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), link))


def _place_in_site(place: str) -> str:
    return INDEX if place == FIRST else place.removeprefix("docs/")


def _place_in_repository(src_uri: str) -> str:
    if src_uri == INDEX:
        return FIRST
    inside = f"docs/{src_uri}"
    return inside if os.path.lexists(ROOT / inside) or not (ROOT / src_uri).is_file() else src_uri
