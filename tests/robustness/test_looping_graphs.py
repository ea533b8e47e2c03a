"""Graphs that loop for ever: Ctrl-C is heard in each, and what that takes costs next to nothing."""

import gc
import shutil
import statistics
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.errors import BundleError
from attngan_deploy.export.targets.edge import build_edge
from attngan_deploy.system import signals
from attngan_deploy.system.signals import IN_C, interruptibly
from tests.makers.commands import PATIENCE
from tests.makers.golden_bundle import with_manifest

ROOT = Path(__file__).resolve().parents[2]
FOR_EVER = np.iinfo(np.int64).max
# A process presses Ctrl-C when one thread was in C for a second, and says when that was.
PRESS_IN_C = """
import os, signal, threading, time
from attngan_deploy.__main__ import main
from attngan_deploy.system.signals import IN_C
def press():
    begun = time.monotonic()
    while time.monotonic() < begun + 1:
        time.sleep(0.01)
        if all(thread.name != IN_C for thread in threading.enumerate()):
            begun = time.monotonic()
    print(time.monotonic(), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press, daemon=True).start()
main()
"""


def make_it_loop(folder: Path, graph: str, name: str) -> Path:
    """Let a graph's input go round in a loop that never ends; the graph stays as valid as it was."""
    model = onnx.load(folder / graph)
    (value,) = (value for value in model.graph.input if value.name == name)
    for node in model.graph.node:
        node.input[:] = ["went_round" if each == name else each for each in node.input]
    kind, going = value.type.tensor_type.elem_type, TensorProto.BOOL
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still_on"]), helper.make_node("Identity", ["x"], ["same_x"])],
        "round",
        [
            helper.make_tensor_value_info("times", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", going, []),
            helper.make_tensor_value_info("x", kind, None),
        ],
        [helper.make_tensor_value_info("still_on", going, []), helper.make_tensor_value_info("same_x", kind, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(FOR_EVER), "most_times"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "begins"))
    model.graph.node.insert(0, helper.make_node("Loop", ["most_times", "begins", name], ["went_round"], body=body))
    (folder / graph).write_bytes(model.SerializeToString())
    with_manifest(folder)
    return folder


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("graph", "name"), [("text_encoder.onnx", "captions"), ("generator.onnx", "z")])
def test_ctrl_c_is_heard_in_a_graph_that_loops(
    tiny_bundle: Path, tmp_path: Path, backend: str, graph: str, name: str
) -> None:
    """One caption, one picture: few rows may take for ever too."""
    pytest.importorskip(backend)
    folder = make_it_loop(Path(shutil.copytree(tiny_bundle, tmp_path / "tiny")), graph, name)
    command = ["generate", "--caption", "a red bird", "--model", str(folder), "-o", str(tmp_path / "out")]
    command += ["--backend", backend, "--precision", "fp32", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", PRESS_IN_C, *command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    ended = time.monotonic()
    assert done.returncode == 130, done
    assert done.stderr.splitlines()[-1].startswith("t2i: stopped") and "Traceback" not in done.stderr
    assert ended - float(done.stdout.splitlines()[-1]) < 5  # 0.1 s on a machine that does nothing else


def test_an_embedding_that_is_no_table(tiny_bundle: Path, tmp_path: Path) -> None:
    """The edge file needs one, and a loop's number of rounds is a weight without sizes."""
    folder = make_it_loop(Path(shutil.copytree(tiny_bundle, tmp_path / "tiny")), "text_encoder.onnx", "captions")
    with pytest.raises(BundleError, match="does not fit its embedding"):
        build_edge(open_bundle(folder))


def test_one_thread_does_one_work_after_another() -> None:
    interruptibly(lambda: None)
    before = threading.active_count()
    threads = {interruptibly(threading.get_ident) for _ in range(50)}
    assert len(threads) == 1 and threading.get_ident() not in threads
    assert threading.active_count() == before


def test_a_thread_that_still_works_gets_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C the work goes on; the thread is idle again when that has ended."""
    released, begun = threading.Event(), threading.Event()
    at_work: list[threading.Thread] = []

    class Pressed:
        """Ctrl-C, where the main thread waits."""

        def __init__(self) -> None:
            self.put = lambda ended: None

        def get(self, timeout: float) -> None:
            begun.wait()
            raise KeyboardInterrupt

    def work() -> None:
        at_work.append(threading.current_thread())
        begun.set()
        released.wait()

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        signals.interruptibly(lambda: None)  # there is an idle one
        patch.setattr(signals, "SimpleQueue", Pressed)
        interruptibly(work)
    (busy,) = at_work
    assert busy.name == IN_C
    others = {interruptibly(threading.current_thread) for _ in range(5)}
    assert busy not in others and len(others) == 1
    released.set()
    while busy.name == IN_C:
        time.sleep(0.001)
    assert all(thread.name != IN_C for thread in others)
    assert {interruptibly(threading.current_thread) for _ in range(5)} <= {busy, *others}


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_a_work_is_kept(fails: bool) -> None:
    """Neither by the thread that waits for the next, nor by a circle that only a collection would find."""
    taken = np.zeros(10)
    kept = weakref.ref(taken)

    def work(given: np.ndarray) -> np.ndarray:
        if fails:
            raise ZeroDivisionError
        return given + 1

    gc.disable()
    try:
        try:
            interruptibly(lambda given=taken: work(given))  # type: ignore[misc]
        except ZeroDivisionError:
            assert fails
        del taken
        interruptibly(lambda: None)  # the thread has let go of what it did before
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs processes that are copies")
def test_a_copy_of_the_process_has_a_thread_of_its_own() -> None:
    code = """
import os, warnings
from attngan_deploy.system.signals import interruptibly
warnings.simplefilter("ignore")  # that there are threads is the case that is looked at
interruptibly(lambda: None)
child = os.fork()
if not child:
    os._exit(interruptibly(lambda: 7))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), interruptibly(lambda: 8))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["7", "8"], done


def test_a_kept_thread_is_faster_than_a_new_one() -> None:
    """In turns, so that a busy machine makes both slower."""
    kept, anew = [], []
    for _ in range(300):
        begun = time.perf_counter()
        interruptibly(lambda: None)
        kept.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        thread = threading.Thread(target=lambda: None, daemon=True)
        thread.start()
        thread.join()
        anew.append(time.perf_counter() - begun)
    assert statistics.median(kept) < statistics.median(anew)
