"""One process that makes all of a run: captions of any number in flat memory, each checked before a picture is made."""

import subprocess
import sys
from pathlib import Path

RUN = """
import resource, sys
from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import CaptionError
from attngan_deploy.generate.generation import generate
from attngan_deploy.generate.run import Run
from attngan_deploy.media.captions import open_captions
bundle = open_bundle(sys.argv[1])
with open_captions(sys.argv[2]) as captions:
    engine = EngineRequest("onnxruntime", "cpu", "fp32", 1)
    try:
        generate(Run.of(bundle, captions, engine=engine), sys.argv[3], say=lambda line: None)
    except CaptionError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def run(bundle: Path, folder: Path, captions: int) -> tuple[str, int]:
    """What is wrong with the last caption of many, and the most memory that was in use."""
    path = folder / f"{captions}.txt"
    with path.open("w") as stream:
        stream.writelines(f"this small red bird has wings, a short bill and a belly {n}\n" for n in range(captions))
        stream.write("quick fox\n")
    command = [sys.executable, "-c", RUN, str(bundle), str(path), str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    error, peak = done.stdout.splitlines()
    return error, int(peak)


def test_captions_are_checked_in_flat_memory_before_the_first_picture(tiny_bundle: Path, tmp_path: Path) -> None:
    error, few = run(tiny_bundle, tmp_path, 5000)
    assert "the caption on line 5001 has only unknown words" in error
    error, many = run(tiny_bundle, tmp_path, 60_000)
    assert "the caption on line 60001 has only unknown words" in error
    assert many - few < 8e6  # held as texts and numbers they take 20 MB
    assert not (tmp_path / "out").exists()
