"""Inception-v3 weights that the user has become a judge: the graph is compared with torch."""

from pathlib import Path

from attngan_deploy.errors import BundleError
from attngan_deploy.export.deploy import fold_batch_norms
from attngan_deploy.export.import_judge import JudgeOptions, write_judge
from attngan_deploy.export.judge import check_parity, graph_facts, judge_graph
from attngan_deploy.score.judge import Judge
from attngan_deploy.system.files import sha256_of
from attngan_deploy.train.backbones.inception import SIZE, load_inception

BATCHES = (1, 2)
# torchvision's: its transform_input turns ImageNet's normalisation into this one. TensorFlow's: (x - 128) / 128.
INPUT = {False: 127.5, True: 128.0}
NOTES = {
    False: "Papers that measure FID on birds by torchvision's Inception-v3 often normalise pictures in another way, "
    "which gives other numbers.",
    True: "This is TensorFlow's Inception of 2015. The bias of its classifier is left out, as the published Inception "
    "Score does. Pictures are resized to 299 px by PIL's bilinear filter, not by TensorFlow 1's, so that distances are "
    "near to published ones and not equal to them.",
}


def import_inception_judge(file: Path, out: Path, options: JudgeOptions) -> Judge:
    """Make a bundle of Inception-v3 weights; see `train.inception.load_inception` for which.

    Args:
        options: name, classes, dropped outputs and licence; the rest is known and must not be given.

    Raises:
        CheckpointError: the file can't be used.
        BundleError: an option that does not apply.
        ParityError: ONNX Runtime does not compute what torch computes.
        OutputError: something else is at `out`.
    """
    given = {
        "--size": options.size,
        "--mean": options.mean,
        "--std": options.std,
        "--logits": options.logits,
        "--features": options.features,
        "--from-probabilities": options.from_probabilities,
    }
    if extra := [name for name, value in given.items() if value]:
        raise BundleError(f"{', '.join(extra)} can't be chosen for Inception-v3", next_step="leave it out")
    net = load_inception(file)
    folded = fold_batch_norms(net, next_step="copy the file again")
    model = judge_graph(folded, SIZE)
    facts = {
        "network": "Inception-v3 of TensorFlow (2015), as the Frechet Inception Distance has it"
        if net.fid
        else "Inception-v3 of torchvision",
        "note": NOTES[net.fid],
        "weights_dtype": "float32",
        "provenance": {"file": file.name, "sha256": sha256_of(file)},
        **graph_facts(check_parity(model, net, SIZE, BATCHES, relative=True), BATCHES),
    }
    side = [INPUT[net.fid]] * 3
    return write_judge(model, out, options, facts, size=SIZE, mean=side, std=side)
