"""Pictures and captions to training shards: `train.tar`, `test.tar`, `vocabulary.txt`, `classes.txt`, `report.json`.

The same input gives the same bytes: entries keep the order of their source, and tar members carry no time or owner.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from shlex import quote
from typing import Any

import PIL
from nltk.tokenize import RegexpTokenizer  # type: ignore[import-untyped]

from attngan_deploy.errors import DataError, OutputError
from attngan_deploy.media.packed import tars_line
from attngan_deploy.media.tokenizer import PADDING, split_words
from attngan_deploy.system.files import atomic_folder, entries, sha256_of
from attngan_deploy.system.threads import results_ahead
from attngan_deploy.train.data import metadata, sources
from attngan_deploy.train.data.pictures import PreparedPicture, prepare_picture, refuse_decompression_bombs
from attngan_deploy.train.data.sides import split_by_folders, take_folders
from attngan_deploy.train.data.sources import HELP, Entry, Skip, Source
from attngan_deploy.train.data.split import SplitRule, class_of, split_entries
from attngan_deploy.train.data.table import read_csv

SCHEMA_VERSION = 1
SPLITS = ("train", "test")
REPORT = "report.json"
OUTPUT_FILES = ("train.tar", "test.tar", "vocabulary.txt", "classes.txt", REPORT)
ORDER = "most frequent first, equally frequent words alphabetically"  # of the vocabulary
MOST_TEXTS = 100  # of a folder, that are looked at for a table of captions
MISSING = "missing picture"
ELSEWHERE = "if the pictures lie in another folder, name it with --root"
CHUNK = 64  # pictures decoded ahead of the tar

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BuildOptions:
    """What to build, and how."""

    source: Path  # a CUB-200-2011 folder, a folder of pictures with captions beside them, or a CSV
    output: Path  # the folder to make
    kind: str | None = None  # "cub", "folder" or "csv"; None looks
    captions: Path | None = None  # folder of caption files, CUB only
    root: Path | None = None  # another folder in which a CSV's pictures may lie
    split: SplitRule = field(default_factory=SplitRule)  # how to split into train and test
    size: int = 152  # side of the stored pictures in pixels
    quality: int = 80  # WebP quality, 1 to 100
    min_count: int = 1  # a word found less often is left out of the vocabulary
    force: bool = False  # replace an earlier build at `output`


def build(options: BuildOptions, progress: Progress | None = None) -> dict[str, Any]:
    """Build shards; the output folder appears whole at the end, and one that was there stays until then.

    Args:
        progress: called with pictures done and pictures in all, from this thread.

    Returns:
        What `report.json` holds: options, counts, and what was skipped and why.

    Raises:
        DataError: the source can't be read, or no picture of it can be used.
        OutputError: something is at `output` and may not be replaced.
    """
    _check_output(options)
    source = read_source(options)
    if not source.entries:
        raise _nothing_usable(options.source, source.skipped)
    splits, unsplit, how = split_entries(source.entries, options.split)
    source.skipped += unsplit
    entries = [entry for entry in source.entries if entry.name in splits]
    classes = source.classes or sorted({class_of(entry) for entry in entries})
    with atomic_folder(options.output, marker=REPORT) as folder:
        kept = _write_shards(folder, entries, splits, classes, source, options, progress)
        wanted = set(splits.values()) | {"train"}
        if wanted - set(map(splits.get, (entry.name for entry in kept))):
            raise _nothing_usable(options.source, source.skipped)
        texts = (text for entry in kept for text in entry.captions)
        vocabulary, differing = build_vocabulary(texts, options.min_count)
        source.notes["caption that nltk cuts into other words"] += differing
        if len(vocabulary) < 2:
            raise DataError(f"no word is found {options.min_count} times", next_step="a smaller --min-count")
        (folder / "vocabulary.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8", newline="\n")
        (folder / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8", newline="\n")
        report = _report(options, source, kept, splits, how, len(vocabulary))
        made = [folder / name for name in OUTPUT_FILES if name != REPORT]
        report["files"] = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in made}
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="ascii", newline="\n")
    return report


def nltk_words(caption: str) -> list[str]:
    """Words of one caption as the published code takes them, by nltk.

    From nltk 3.10 on, these have combining marks (Hindi vowels, "i" and a dot from a lower-cased "İ"), which the
    runtime's have not. Training and generation look words up with the runtime's tokenizer, so there its words count.
    """
    return [str(word) for word in RegexpTokenizer(r"\w+").tokenize(caption.lower())]


def build_vocabulary(captions: Iterable[str], min_count: int = 1) -> tuple[list[str], int]:
    """List the padding word, then each word found at least `min_count` times.

    The order is that of `ORDER`, so it depends on the captions but not on the order in which they come.

    Args:
        captions: captions of train and of test together, as in the published `captions.pickle`; a word that only test
            captions use has an embedding that is never trained, but it keeps its row.
        min_count: a rarer word is left out.

    Returns:
        The vocabulary, and the number of captions that nltk cuts into other words than the runtime does.
    """
    counts: Counter[str] = Counter()
    differing = 0
    for caption in captions:
        words = split_words(caption)
        differing += nltk_words(caption) != words
        counts.update(words)
    frequent = (word for word, count in counts.items() if count >= min_count)
    return [PADDING, *sorted(frequent, key=lambda word: (-counts[word], word))], differing


def read_source(options: BuildOptions) -> Source:
    """List the pictures and captions of `options.source`.

    Raises:
        DataError: it can't be read, or an option does not belong to its kind.
    """
    kind = options.kind or sources.detect_kind(options.source)
    for option, value, owner in (("--captions", options.captions, "cub"), ("--root", options.root, "csv")):
        if value is not None and kind != owner:
            near = sources.cub_near(options.source) if owner == "cub" and options.kind is None else None
            raise DataError(
                f"{option} belongs to --kind {owner}",
                found=f"--kind {kind}",
                next_step=f"name the CUB-200-2011 folder, {near}" if near else HELP,
            )
    if not (options.source.is_file() if kind == "csv" else options.source.is_dir()):
        raise DataError(f"no {'file' if kind == 'csv' else 'folder'} at {options.source}", next_step=HELP)
    is_free = options.split.file is None and options.split.test_classes is None  # to be split as the source says
    if kind == "cub":
        return sources.read_cub(options.source, options.captions)
    if kind == "folder":
        source = sources.read_folder(options.source)
        if is_free and not any(entry.split for entry in source.entries):
            split_by_folders(source, [entry.name.rpartition("/")[0] for entry in source.entries])
        return source
    if kind == "csv":
        source = read_csv(options.source, options.root)
        take_folders(source, is_free)
        return source
    raise DataError(f"no kind of data is called {kind!r}", expected=", ".join(sources.KINDS), next_step=HELP)


def _check_output(options: BuildOptions) -> None:
    """Refuse, before any work, what must not be replaced."""
    output = options.output
    if options.source.resolve() in output.resolve().parents:
        raise OutputError(
            f"{output} is inside {options.source}, whose next build would read it as captions",
            next_step="another -o",
        )
    if not output.is_dir():
        return
    names = [path.name for path in entries(output)]
    if names and not options.force:
        raise OutputError(
            f"{output} is not empty",
            found=", ".join(names[:3]),
            expected="a new or empty folder",
            next_step="another -o, or --force to replace an earlier build",
        )
    foreign = [name for name in names if name not in OUTPUT_FILES]
    if foreign:
        raise OutputError(
            f"{output} holds what t2i data build did not make, so --force leaves it alone",
            found=", ".join(foreign[:3]),
            next_step="another -o",
        )


def _write_shards(
    folder: Path,
    entries: list[Entry],
    splits: dict[str, str],
    classes: list[str],
    source: Source,
    options: BuildOptions,
    progress: Progress | None,
) -> list[Entry]:
    """Write both tars; return the entries that went in, and add skips and notes to `source`."""
    class_ids = {name: number for number, name in enumerate(classes)}
    kept = []
    with ExitStack() as stack:
        tars = {
            split: stack.enter_context(tarfile.open(folder / f"{split}.tar", "w", format=tarfile.GNU_FORMAT))
            for split in SPLITS
        }
        for done, (entry, prepared) in enumerate(_prepared(entries, options), 1):
            if isinstance(prepared, Skip):
                source.skipped.append(prepared)
            else:
                facts = {"class": class_ids[class_of(entry)], "captions": entry.captions}
                _add(tars[splits[entry.name]], f"{entry.name}.webp", prepared.data)
                _add(tars[splits[entry.name]], f"{entry.name}.json", json.dumps(facts).encode())
                source.notes.update(prepared.notes)
                kept.append(entry)
            if progress:
                progress(done, len(entries))
    return kept


def _prepared(entries: list[Entry], options: BuildOptions) -> Iterator[tuple[Entry, PreparedPicture | Skip]]:
    """Pictures in the order of `entries`, decoded on all cores."""

    def prepare(entry: Entry) -> PreparedPicture | Skip:
        try:
            return prepare_picture(entry.picture, entry.box, options.size, options.quality)
        except DataError as error:
            return Skip(entry.name, error.what, error.found)

    with refuse_decompression_bombs():
        yield from zip(entries, results_ahead((partial(prepare, entry) for entry in entries), CHUNK), strict=True)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # owner 0, time 0, mode 0644
    member.size = len(data)
    tar.addfile(member, BytesIO(data))


def _report(
    options: BuildOptions, source: Source, kept: list[Entry], splits: dict[str, str], how: str, words: int
) -> dict[str, Any]:
    parts = {split: [entry for entry in kept if splits[entry.name] == split] for split in SPLITS}
    return {
        "schema": SCHEMA_VERSION,
        "made_by": "t2i data build",
        "kind": source.kind,
        "size": options.size,
        "encoding": f"WebP quality {options.quality}, Lanczos, Pillow {PIL.__version__}",
        "split": how,
        **{
            split: {
                "pictures": len(part),
                "classes": len(set(map(class_of, part))),
                "captions": sum(len(entry.captions) for entry in part),
            }
            for split, part in parts.items()
        },
        "classes_in_both": sorted(set.intersection(*(set(map(class_of, part)) for part in parts.values()))),
        "vocabulary": {
            "words": words - 1,
            "min_count": options.min_count,
            "from": "train and test captions",
            "order": ORDER,
        },
        "skipped": {
            "count": len(source.skipped),
            "reasons": dict(sorted(Counter(skip.reason for skip in source.skipped).items())),
            "list": [{"name": skip.name, "reason": skip.reason, "detail": skip.detail} for skip in source.skipped],
        },
        "notes": {note: count for note, count in sorted(source.notes.items()) if count},
    }


def _nothing_usable(path: Path, skipped: list[Skip]) -> DataError:
    tables: list[Path] = []
    if path.is_dir():
        tables = sorted([*path.rglob("*.[ct]sv"), *path.rglob("*caption*.json"), *path.glob("dataset_*.json")])
        tables += [text for text in sorted(path.glob("*.txt"))[:MOST_TEXTS] if metadata.is_table(text)]
    # Of several, such as COCO's for each side of its split, that for training.
    table = min(tables, key=lambda table: ("train" not in table.name, table), default=None)
    tars = tars_line(path) if path.is_dir() and any(path.glob("*.tar")) else ""
    cub = sources.cub_near(path) if path.is_dir() and not table else None
    reasons = Counter(skip.reason for skip in skipped).most_common(3)
    return DataError(
        f"no usable picture in {path}, or none left for one side of the split",
        found=", ".join(f"{reason} ({count})" for reason, count in reasons) or "no pictures",
        expected="pictures with captions, such as a/bird.jpg and a/bird.txt, or a .csv with picture and caption",
        next_step=f"name the list in it: t2i data build {quote(str(table))} -o data"
        if table
        else (f"name the CUB-200-2011 folder, {cub}" if cub else tars)
        or ELSEWHERE * (path.is_file() and {skip.reason for skip in skipped} == {MISSING})
        or HELP,
    )
