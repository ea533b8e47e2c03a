"""What the worker process of `t2i serve` makes: the pictures of `t2i generate`, whatever shares their batch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.attention import heat_overlay
from attngan_deploy.media.images import to_uint8
from attngan_deploy.serve.messages import (
    HEAD,
    BatchOrder,
    BatchResult,
    Failure,
    Load,
    LoadResult,
    Message,
    Order,
    pack,
    unpack,
)
from attngan_deploy.serve.worker import UNSOUND, answer, load_models, make
from attngan_deploy.serve.worker_process import START
from tests.makers.alike import alike
from tests.makers.commands import PATIENCE

CAPTIONS = ["a small red bird", "this bird is blue with black wings and a long bill", "the red bird"]


@pytest.fixture(scope="module")
def load(tiny_bundle: Path) -> Load:
    return Load({"tiny": tiny_bundle}, EngineRequest("onnxruntime", precision="fp32", threads=1))


@pytest.fixture(scope="module")
def model(load: Load) -> TextToImage:
    return load_models(load)["tiny"]


def test_pictures_of_several_requests_are_those_of_each_alone(model: TextToImage) -> None:
    first = [Order(text, 5, (place, 1)) for place, text in enumerate(CAPTIONS)]
    second = [Order(CAPTIONS[1], 2**64 - 1, (0, 0)), Order(CAPTIONS[0], 2**64 - 1, (1, 0), shared_noise=True)]
    made = make(model, [*first, *second])
    expected = model.generate(CAPTIONS, seed=5, images_per_caption=2)[1::2]
    expected = [*expected, *model.generate([CAPTIONS[1]], seed=2**64 - 1)]
    expected += [model.generate(CAPTIONS[1::-1], seed=2**64 - 1, shared_noise=True)[1]]
    assert len(made) == len(expected) == 5
    for found, reference in zip(made, expected, strict=True):
        assert alike(found.picture, reference)
        assert found.preview is None and found.attention is None


def test_few_pictures_with_attention_are_made_together(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines keep the memory of the most; the others in the batch are made as if these were not there."""
    orders = [Order(CAPTIONS[n % 2], n, (0, 0), attention=n % 3 > 0, preview=n % 5 == 1) for n in range(16)]
    wanted = [make(model, [order])[0] for order in orders]
    sizes: list[int] = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda features, z, eps: sizes.append(len(z)) or decode(features, z, eps))
    made = make(model, orders)
    assert sizes == [4, 4, 3]
    for order, one, alone in zip(orders, made, wanted, strict=True):
        assert alike(one.picture, alone.picture)
        assert (one.attention is not None, one.preview is not None) == (order.attention, order.preview)


def test_previews_and_attention_come_where_they_were_ordered(model: TextToImage) -> None:
    plain, full = Order(CAPTIONS[0], 1, (0, 0)), Order(f"{CAPTIONS[1]} zorp", 1, (1, 0), preview=True, attention=True)
    made = make(model, [plain, full])
    assert made[0].preview is None and made[0].attention is None
    batch = next(model.stream([CAPTIONS[0], CAPTIONS[1]], seed=1))
    z, eps = noise_batch(1, [(1, 0)], model.z_size, model.eps_size)
    first_stage = to_uint8(model.decode(model.encode(CAPTIONS[1]), z, eps).images[64])[0]
    assert made[1].preview is not None and alike(made[1].preview, first_stage)
    attention = made[1].attention
    assert attention is not None
    assert attention.words == CAPTIONS[1].split()
    assert attention.shares == pytest.approx(batch.attention[1].mean(axis=(1, 2)).tolist(), abs=1e-4)
    assert attention.maps.shape == (len(attention.words), 64, 64)
    assert (attention.maps.max(axis=(1, 2)) == 255).all()
    for place in (0, 5):  # what the page shows is what attention/ of `t2i generate` shows
        ours = heat_overlay(batch.pictures[1], attention.maps[place].astype(np.float32))
        assert np.abs(ours.astype(int) - heat_overlay(batch.pictures[1], batch.attention[1, place])).max() <= 2


def test_an_error_is_an_answer(model: TextToImage) -> None:
    done = answer({"tiny": model}, BatchOrder("tiny", [Order("a bird", 1, (0, 0))]))
    assert isinstance(done, BatchResult) and done.seconds > 0
    failed = answer({"tiny": model}, BatchOrder("tiny", [Order("zorp", 1, (0, 0))]))
    assert isinstance(failed, Failure) and "unknown words" in failed.why


def test_the_process_speaks_only_messages_and_ends_with_its_pipe(load: Load, tiny_bundle: Path) -> None:
    orders = [Order("a bird", 1, (0, 0))]
    said = talk(pack(load) + pack(BatchOrder("tiny", orders)) + pack(BatchOrder("tiny", orders)))
    assert [type(each) for each in said] == [LoadResult, BatchResult, BatchResult]
    assert isinstance(said[0], LoadResult)
    assert (said[0].engines["tiny"].backend, said[0].engines["tiny"].precision) == ("onnxruntime", "fp32")
    said = talk(pack(Load({"tiny": tiny_bundle.parent / "none"})))
    assert [type(each) for each in said] == [Failure]
    assert talk(b"") == []
    assert len(talk(pack(load) + pack(BatchOrder("tiny", orders))[:-3])) == 1  # cut short: the server is gone


FAILING = """
from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.errors import EngineError
from attngan_deploy.serve.worker import main

run, runs = OnnxRuntimeEngine._run, []


def fail(self, *arguments, **options):
    runs.append(1)
    if {first} < len(runs) <= {last}:
        raise EngineError("CUDA failure 700: an illegal memory access was encountered")
    return run(self, *arguments, **options)


OnnxRuntimeEngine._run = fail
main()
"""


@pytest.mark.parametrize("lasting", [False, True])
def test_a_worker_whose_engine_fails_for_good_leaves(load: Load, lasting: bool) -> None:
    """One error is an answer; where all that follows fails too, a new process has to go on."""
    order = pack(BatchOrder("tiny", [Order("a bird", 1, (0, 0))]))
    first = 4  # runs that loading takes: a check of the embedding, a picture, and the text encoder of an order
    code = FAILING.format(first=first, last=10**6 if lasting else first + 1)
    done = subprocess.run(
        [sys.executable, "-c", code], input=pack(load) + 2 * order, capture_output=True, timeout=PATIENCE, check=False
    )
    kinds = [type(each) for each in unpacked(done.stdout)]
    if lasting:
        assert (done.returncode, kinds) == (UNSOUND, [LoadResult])
        assert done.stderr.count(b"\n") == 1 and b"CUDA failure 700" in done.stderr
    else:
        assert (done.returncode, kinds) == (0, [LoadResult, Failure, BatchResult])
        assert done.stderr == b""


def talk(data: bytes) -> list[Message]:
    done = subprocess.run([sys.executable, "-c", START], input=data, capture_output=True, timeout=PATIENCE, check=True)
    assert done.stderr == b""
    return unpacked(done.stdout)


def unpacked(left: bytes) -> list[Message]:
    said: list[Message] = []
    while left:
        (size,) = HEAD.unpack(left[: HEAD.size])
        said.append(unpack(left[HEAD.size : HEAD.size + size]))
        left = left[HEAD.size + size :]
    return said
