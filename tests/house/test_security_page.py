"""The limits that docs/security.md promises are those of the code."""

from pathlib import Path

import pytest
from PIL import PngImagePlugin

from attngan_deploy.cli import options
from attngan_deploy.engines import golden
from attngan_deploy.generate import generation, manifest, replay
from attngan_deploy.media import caption_json, caption_lines, captions, decoder, picture_work, shards, tokenizer
from attngan_deploy.serve import log, protocol
from attngan_deploy.serve.server import KEEP_ALIVE_SECONDS
from attngan_deploy.serve.settings import ServerLimits
from attngan_deploy.system import files
from attngan_deploy.train.data import pictures as data_pictures
from attngan_deploy.train.data import sources as data_sources
from attngan_deploy.train.data import split as data_split
from attngan_deploy.train.imports import torch_file, unpickle

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
MIB, GIB = 2**20, 2**30
SERVER = ServerLimits()


def size(count: int) -> str:
    return f"{count // GIB} GiB" if count % GIB == 0 else f"{count // MIB} MiB"


@pytest.mark.parametrize(
    ("what", "limits"),
    [
        (
            "captions file, standard input",
            (
                size(captions.MAX_FILE_BYTES),
                f"{tokenizer.MAX_WORDS:,} known words and {tokenizer.MAX_LETTERS:,} characters",
                f"{captions.MOST_CAPTIONS:,} captions",
            ),
        ),
        ("line of a captions file", (size(caption_lines.MAX_LINE_BYTES), f"{caption_json.MAX_RECORD:,} characters")),
        ("scans of a JPEG", (f"{picture_work.MOST_SCANS}, and {picture_work.MOST_SCANNED:,} px",)),
        (
            "pieces of a picture",
            (
                f"{picture_work.MOST_CHUNKS:,} chunks",
                f"{picture_work.MOST_SEGMENTS:,} segments",
                f"{picture_work.MOST_BLOCKS:,} blocks",
                f"{size(picture_work.MOST_RUNS_BYTES)} of a packed BMP",
            ),
        ),
        (
            "list of weights in a `.pth`",
            (
                size(torch_file.LARGEST_PICKLE),
                f"{torch_file.MOST_OPERATIONS:,} operations",
                f"{size(torch_file.MOST_MEMORY)} of",
            ),
        ),
        (
            "`--threads`; `--batch-size`",
            (
                f"{options.LEAST_THREADS}, or {options.THREADS_A_CORE} a core",
                f"{size(options.BATCH_PICTURE)} a picture",
                f"{options.SCORED_PICTURE:,} bytes",
                f"{generation.LEAST_PICTURE} bytes",
            ),
        ),
        ("vocabulary", (size(tokenizer.LARGEST),)),
        ("`bundle.json`, `run.json`", (size(files.LARGEST_JSON),)),
        ("`manifest.jsonl`", (size(manifest.LARGEST_MANIFEST),)),
        ("`golden.npz` | 256", (size(golden.LARGEST),)),
        ("member of a shard", (size(shards.MAX_MEMBER_BYTES),)),
        ("picture of a shard or of a folder to score", (f"{decoder.MAX_PIXELS:,} px",)),
        ("embedded colour profile", (size(decoder.MAX_PROFILE_BYTES),)),
        (
            "text or profile in a PNG",
            (size(PngImagePlugin.MAX_TEXT_CHUNK), size(PngImagePlugin.MAX_TEXT_MEMORY)),
        ),
        ("picture of `t2i data build`", (f"{data_pictures.MAX_PIXELS:,} px",)),
        (
            "captions of one picture, lists of CUB and CSV files",
            (f"{size(data_sources.MAX_CAPTIONS_BYTES)}, {size(data_sources.MAX_LIST_BYTES)}",),
        ),
        (
            "`captions.pickle` | 256",
            (
                size(unpickle.LARGEST),
                f"{unpickle.MOST_OPERATIONS:,} operations, {size(unpickle.MOST_MEMORY)}",
            ),
        ),
        ("list of names for a split", (size(data_split.MAX_SPLIT_BYTES),)),
        ("picture of `t2i replay`", (size(replay.MAX_FILE_BYTES),)),
        ("bytes of a request's head", (f"{SERVER.head_bytes:,}; {SERVER.headers}; {SERVER.url_bytes:,} |",)),
        ("time until a head is complete", (f"{SERVER.head_seconds:g} s; {KEEP_ALIVE_SECONDS} s |",)),
        ("requests sent ahead", (f"{protocol.READ_BYTES:,} bytes",)),
        ("chunks of a body", (f"{protocol.CHUNKS:,} | 413",)),
        ("time without an answer of the worker", (f"{SERVER.quiet_seconds:g} s | `/health` turns to 503",)),
        ("time to read what was sent", (f"{SERVER.reading_seconds:g} s |",)),
        ("answers that wait to be read", (size(SERVER.unread_bytes),)),
        ("connections; of one address", (f"{SERVER.connections}; {SERVER.connections_per_address} |",)),
        ("records of errors in the log", (f"{log.RECORDS} a minute, {log.LETTERS:,} letters",)),
        ("bytes of a body", (f"{SERVER.body_bytes:,} | 413",)),
        ("time for a body to arrive", (f"{SERVER.body_seconds:g} s | 408",)),
        ("characters of a caption", (f"{SERVER.caption_letters} | 422",)),
        ("captions of a request", (f"{SERVER.captions} | 422",)),
        ("pictures of a request", (f"{SERVER.pictures}; {SERVER.attended} with attention | 422",)),
        ("pictures that wait", (f"{SERVER.queue} | 429 with Retry-After",)),
        ("time that a request waits", (f"{SERVER.seconds:g} s | 503",)),
        ("time of a batch", (f"{SERVER.hanging_seconds:g} s |",)),
    ],
)
def test_a_promised_limit_is_the_limit(what: str, limits: tuple[str, ...]) -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {what}")]
    assert len(lines) == 1, what
    for limit in limits:
        assert limit in lines[0]
