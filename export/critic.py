"""A critic for `t2i generate --best-of`: how near a picture is to the kinds of real birds, as a bundle.

The pooled features of real training pictures in the frozen bird MobileNetV2, each of length 1, are brought into some
hundred clusters (spherical k-means). The score of a picture is the cosine of its features and the nearest centre. Of
150 pictures that two observers judged blind, it ranked one with a recognisable bird above one without in 74 % of pairs,
as the nearest real picture itself does; a projected discriminator's logit in 53 to 56 % (docs/training.md).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attngan_deploy.bundles.bundle import check_replaceable, write_manifest
from attngan_deploy.bundles.manifest import CRITIC
from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.errors import DataError, ParityError
from attngan_deploy.export.bundle_writer import origin
from attngan_deploy.export.cards.model_card import table
from attngan_deploy.export.deploy import round_weights
from attngan_deploy.export.final_names import new_folder
from attngan_deploy.export.graphs.graph import describe_graph, save_graph
from attngan_deploy.export.graphs.network import Shape, network_graph
from attngan_deploy.generate.critic import GRAPH, Critic
from attngan_deploy.system.files import sha256_of
from attngan_deploy.train.data.picture_set import read_pictures
from attngan_deploy.train.image_encoder import BirdMobileNet

SIZE = 128  # side of the pictures that it looks at
CLUSTERS, ROUNDS = 256, 12
BATCH = 64
TOLERANCE = 1e-4


class NearestKind(nn.Module):
    """Pictures f32 [N, S, S, 3] from 0 to 255 to scores f32 [N]: the largest cosine with a centre.

    Args:
        backbone: what looks at pictures.
        centres: f32 [K, F], each of length 1.
    """

    def __init__(self, backbone: BirdMobileNet, centres: Tensor) -> None:
        super().__init__()
        self.backbone, self.centres = backbone, nn.Parameter(centres, requires_grad=False)

    def forward(self, pictures: Tensor) -> Tensor:
        features = pooled(self.backbone, pictures)
        return (features @ self.centres.T).amax(1)


def pooled(backbone: BirdMobileNet, pictures: Tensor) -> Tensor:
    """Features [N, F] of length 1 of pictures f32 [N, S, S, 3] from 0 to 255."""
    return F.normalize(backbone.scales(pictures.permute(0, 3, 1, 2) / 127.5 - 1).pooled)


def spherical_k_means(features: Tensor, clusters: int, seed: int) -> Tensor:
    """Centres [K, F] of length 1 of features [N, F] of length 1; a centre that nothing is near stays where it was."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    centres = features[order[:clusters]].clone()
    for _ in range(ROUNDS):
        nearest = (features @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, features)
        centres = F.normalize(sums + 1e-6 * centres)
    return centres


@torch.inference_mode()
def train_critic(
    data: Path, backbone: Path, out: Path, clusters: int = CLUSTERS, seed: int = 0, force: bool = False
) -> Critic:
    """Make a critic from real pictures and write its bundle, compared with torch.

    Args:
        data: folder with `train.tar`; the centre of each picture is looked at.
        backbone: weights of the bird MobileNetV2.
        force: replace another critic.

    Returns:
        The finished critic, opened.

    Raises:
        DataError: no usable picture in the shard, or smaller ones than a critic looks at.
        CheckpointError: no backbone there.
        ParityError: ONNX Runtime does not compute what torch computes; nothing is left.
    """
    shard, name = data / "train.tar", out.resolve().name
    if shard.exists() and not shard.is_file():  # a pipe would be waited for
        raise DataError(f"{shard} is no file", next_step="make one: t2i data build birds -o data")
    network = BirdMobileNet.load(backbone)
    facts = {
        "data": {"file": shard.name, "sha256": sha256_of(shard)},
        "backbone": {"file": backbone.name, "sha256": sha256_of(backbone)},
        "clusters": clusters,
        "seed": seed,
    }
    check_replaceable(out, CRITIC, {"provenance": facts}, force)
    pictures = read_pictures([shard]).pictures
    if pictures.shape[1] < SIZE:
        raise DataError(
            f"the pictures of {shard} are too small for a critic",
            found=f"{pictures.shape[1]} px",
            expected=f"{SIZE} px or more",
            next_step="t2i data build birds -o data --size 152",
        )
    edge = (pictures.shape[1] - SIZE) // 2
    centre = pictures[:, edge : edge + SIZE, edge : edge + SIZE]
    parts = [
        pooled(network, torch.from_numpy(centre[start : start + BATCH]).float())
        for start in range(0, len(centre), BATCH)
    ]
    centres = spherical_k_means(torch.cat(parts), min(clusters, len(centre)), seed)
    stored = round_weights(NearestKind(network, centres), "fp16")
    shape: Shape = ["batch", SIZE, SIZE, 3]
    model = network_graph("critic", stored, {"pictures": ("float32", shape)}, {"score": ["batch"]}, lambda made: [made])
    with new_folder(out) as folder:
        save_graph(model, folder / f"{GRAPH}.onnx")
        worst = _check(folder / f"{GRAPH}.onnx", stored, centre)
        told = {**facts, "pictures": len(centre)}
        (folder / "README.md").write_text(_card(name, told, worst), encoding="utf-8")
        fields = {"kind": CRITIC, "name": name, "graphs": {GRAPH: {"file": f"{GRAPH}.onnx", **describe_graph(model)}}}
        write_manifest(folder, {**fields, "weights_dtype": "float16", **origin(told), "parity": {"score": worst}})
    return Critic.load(out)


def _check(path: Path, network: nn.Module, pictures: np.ndarray) -> float:
    """The largest difference of the graph's scores from torch's, on real pictures and at two batch sizes."""
    engine, worst = OnnxRuntimeEngine(path), 0.0
    for count in (1, 5):
        images = pictures[:count].astype(np.float32)
        found, wanted = engine.run({"pictures": images})["score"], network(torch.from_numpy(images)).numpy()
        worst = max(worst, float(np.abs(found - wanted).max()))
    if not worst <= TOLERANCE:
        raise ParityError(
            "scores of the critic's graph differ from torch's", found=f"{worst:.2e}", expected=f"{TOLERANCE:.0e}"
        )
    return float(np.format_float_scientific(worst, 2))


def _card(name: str, told: dict[str, object], worst: float) -> str:
    data, backbone = told["data"], told["backbone"]
    assert isinstance(data, dict) and isinstance(backbone, dict)
    rows = {
        "input": f"pictures f32 [N, {SIZE}, {SIZE}, 3], 0 to 255, RGB",
        "output": "score f32 [N], the cosine with the nearest of the centres",
        "looks through": f"{backbone['file']}, MobileNetV2 (Apache-2.0)",
        "made of": f"{told['pictures']:,} pictures of {data['file']}, {told['clusters']} centres, seed {told['seed']}",
        "graph against torch": f"within {worst:.1e}",
    }
    return f"""# Critic `{name}`

Says how much a picture is like one of the kinds of real birds. `t2i generate --best-of K` makes K candidates of each
picture and keeps the one that it ranks first. It has no part in training generators, nor in scores.

{table(("", ""), list(rows.items()))}

**What it can't do.** It does not read captions, and looks at nothing but the likeness to real pictures: what it ranks
first is more often a bird, and no more often worth keeping than the same share says. Its centres are means of some
thirty pictures each; no picture can be got out of them.
"""
