"""Captions that are hard to read, and a vocabulary for them."""

import json
import random
import shutil
import unicodedata
from pathlib import Path

from attngan_deploy.bundles.bundle import Bundle, open_bundle, write_manifest
from tests import DATA

CAPTIONS = [
    "a small red bird with black wings",
    "This BIRD is yellow, and has a long bill.",
    "red",
    "a qwertz bird xyzzy with blue zzz wings",
    "zzz zzz zzz the",
]
ODD_CAPTIONS = [
    "",
    "   ",
    "...",
    "zebra",
    "don't a'b bird's",
    "red_bird red _ a_",
    "12 birds, 3.5 red wings 7",
    "red\tblue\nblack\x0b\u2028white\u00a0bird\u200bhead",
    "red—bird red\u2019s “blue” bird… head·bill",
    "naïve CAFÉ-bird Éclair ÉCLAIR éclair STRASSE straße ß",
    "中文 red 鳥bird ½ ² ٣ Ⅻ bird²",
    "nai\u0308ve re\u0301d red\u0301",
    "😀red😀blue",
    "<end> end red",
    "(red) [blue] {black} red/blue red-blue",
    "red " * 500,
    "x" * 5000 + " red",
    "zzz " * 2000 + "a red bird",
    "ÀRED red",
    "\u212aelvin \u01c5 \ufb01 \u1e9e",
]
ODD_WORDS = ["red", "bird", "café", "naïve", "éclair", "straße", "bird_", "red_bird", "_", "12", "7", "½", "中文"]
ODD_WORDS += ["t", "k", "ve", "nai"]
# Captions with their words: every tokenizer reads them alike.
CASES: list[tuple[str, list[str]]] = json.loads((DATA / "words.json").read_text(encoding="utf-8"))
CASE_WORDS = sorted({word for _, words in CASES for word in words})


def signs() -> list[str]:
    """Characters up to U+3000 that Unicode has had for so long that everyone knows whether they are letters."""
    old = unicodedata.ucd_3_2_0
    return [chr(code) for code in range(1, 0x3000) if old.category(chr(code)) not in ("Cn", "Cs")]


def drawn_captions(words: list[str], count: int) -> list[str]:
    """Captions of these words as people type them: in any case, with commas, hyphens, apostrophes and full stops."""
    between = {" ": 20, ", ": 3, "-": 1, "'s ": 1, "\u2019s ": 1, " & ": 1, "/": 1, "; ": 1, ". ": 1}
    chance, captions = random.Random(0), []
    for _ in range(count):
        drawn = chance.choices(words, k=chance.randint(1, 20))
        typed = [chance.choice([word, word, word.title(), word.upper()]) for word in drawn]
        ends = chance.choices(list(between), list(between.values()), k=len(typed))
        captions.append("".join(word + end for word, end in zip(typed, ends, strict=True)))
    return captions


def with_vocabulary(tiny_bundle: Path, folder: Path, words: list[str]) -> Bundle:
    """The tiny bundle with other words in the places of the first ones."""
    shutil.copytree(tiny_bundle, folder)
    path = folder / "vocabulary.txt"
    rest = path.read_text(encoding="utf-8").split("\n")[1 + len(words) :]
    path.write_text("\n".join(["<end>", *words, *rest]), encoding="utf-8")
    hash_again(folder, "golden")
    return open_bundle(folder)


def hash_again(folder: Path, *without: str) -> None:
    """Make a bundle's manifest fit its files again, leaving out some of its fields."""
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    write_manifest(folder, {key: manifest[key] for key in manifest if key not in ("schema", "files", *without)})
