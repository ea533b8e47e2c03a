"""A caption in, a picture out, with onnxruntime and numpy alone.

python generate.py edge.onnx "a small red bird" bird.ppm [SEED]
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def noise(seed: int, stream: int, size: int) -> np.ndarray:
    # The noise contract of attngan_deploy/noise.py, for the first sample of the first caption: Philox, then Box-Muller.
    philox = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=[0, stream, 0, 0])
    bits = philox.random_raw(size + size % 2).reshape(-1, 2) >> np.uint64(11)
    uniform, turn = ((bits + 0.5) * 2.0**-53).T
    radius, angle = np.sqrt(-2 * np.log(uniform)), 2 * np.pi * turn
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(1, -1)[:, :size].astype(np.float32)


graph, caption, path, seed = sys.argv[1:] if len(sys.argv) == 5 else [*sys.argv[1:], "0"]
session = onnxruntime.InferenceSession(graph)
size = {node.name: node.shape[-1] for node in session.get_inputs()}
inputs = {name: noise(int(seed), stream, size[name]) for stream, name in enumerate(["z", "eps"])}
pictures, known = session.run(["pictures", "known"], {"captions": np.array([caption], object), **inputs})
if known[0] == 0:
    sys.exit("no word of the caption is known")
header = "P6\n{1} {0}\n255\n".format(*pictures.shape[1:])
Path(path).write_bytes(header.encode() + pictures.tobytes())
