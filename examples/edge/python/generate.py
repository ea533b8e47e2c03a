"""A caption in, a picture out, with onnxruntime and numpy alone.

python generate.py edge.onnx "a small red bird" bird.ppm [SEED]
"""

import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported: it tells nobody of its use
import onnxruntime


def noise(seed: int, stream: int, size: int, clip: float, scale: float) -> np.ndarray:
    # The noise contract of attngan_deploy/generate/noise.py, for the first sample of the first caption: Philox, then
    # Box-Muller. Of four times as many numbers, those beyond the clip are left out.
    philox = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=[0, stream, 0, 0])
    uniform, turn = ((philox.random_raw(4 * size + 64).reshape(-1, 2) >> np.uint64(11)) + 0.5).T * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniform)), 2 * np.pi * turn
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()
    return (normal[np.abs(normal) <= clip][:size] * scale).astype(np.float32)[None]


if len(sys.argv) not in (4, 5) or sys.argv[3][-4:] != ".ppm" or not all(seed.isdecimal() for seed in sys.argv[4:]):
    sys.exit("usage: generate.py EDGE.onnx CAPTION PICTURE.ppm [SEED], where SEED is a whole number")
graph, caption, path, seed = [*sys.argv[1:], "0"][:4]
if not Path(graph).is_file():
    sys.exit(f"no file {graph}; make it with: t2i export --target edge --bundle base --target-out edge.onnx")
if any(key in Path(graph).read_bytes() for key in (b"\x08location", b"\0location")):  # external data of ONNX
    sys.exit(f"{graph} names other files for its weights, and is refused")
session = onnxruntime.InferenceSession(graph)
told = session.get_modelmeta().custom_metadata_map  # where normal numbers end in z, and what they are multiplied with
cut = float(told.get("truncation_clip", "inf")), float(told.get("truncation_scale", "1"))
names = enumerate(session.get_inputs()[1:])  # z is the first stream, and eps, which is never cut, the second
inputs = {node.name: noise(int(seed), stream, node.shape[1], *(cut, (np.inf, 1))[stream]) for stream, node in names}
pictures, known = session.run(["pictures", "known"], {"captions": np.array([caption], object), **inputs})
if known[0] == 0:
    sys.exit(f"the model knows no word of the caption: {caption!r}")
Path(path).write_bytes(b"P6\n%d %d\n255\n" % pictures.shape[2:0:-1] + pictures.tobytes())
