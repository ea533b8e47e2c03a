"""A bundle that ships, as networks that can be trained on: the way back from graphs to weights.

An export folds every BatchNorm into the layer before it. Training needs them apart again: given pictures' captions,
each BatchNorm takes the mean and the deviation that its layer has on them, with a scale and a shift that give back what
the bundle computes. In eval mode the networks then equal the bundle; in training mode, up to the batch.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.bundles.graph_file import read_graph
from attngan_deploy.errors import BundleError, CheckpointError
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.train.config import VARIANTS, GeneratorConfig, TextEncoderConfig, is_trained
from attngan_deploy.train.data.picture_set import pad_captions
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.layers import Norm, followed_layers
from attngan_deploy.train.text_encoder import TextEncoder

ZERO_CODE = 128  # of weights stored in 8 bits
SAME_CODES = 0.99  # mean cosine of the codes of one word; 8-bit storage leaves it above 0.999
STATISTICS = 256  # captions that BatchNorms are measured on
CHANNELS, FEW = 4, 16  # channels, or pictures of the last layer, that are measured at a time
EARLIER_NAMES = (  # of weights in bundles whose graphs were built by hand, and what became of them
    (r"^condition/", "augmentation/linear/"),
    (r"^stage2/", "later/0/"),
    (r"^stage3/", "later/1/"),
    (r"/both/", "/"),
    (r"(upsample|residual|to_image)(\d+)", r"\1/\2"),
    (r"(fuse|gated|residual/\d+|upsample|upsample/\d|to_image/\d)/(value/|gate/|)(weight|bias)", r"\1/conv/\2\3"),
    (r"(/attention/project)", r"\1/weight"),
)


def text_encoder_of(bundle: Bundle) -> TextEncoder:
    """The text encoder of a bundle, frozen, in eval mode.

    Raises:
        BundleError: the graph is not one of ours.
    """
    weights = _Weights(bundle, "text_encoder")
    embedding = weights.take("embedding")
    joined = {name: weights.take(f"lstm.{name}") for name in ("input", "recurrent")}  # [2, 4H, ...]
    bias = weights.take("lstm.bias")  # [2, 8H]: of the input, of the recurrence
    features = 2 * joined["recurrent"].shape[-1]
    encoder = TextEncoder(TextEncoderConfig(len(embedding), embedding.shape[1], features))
    state = {"embedding.weight": embedding}
    for place, suffix in enumerate(("", "_reverse")):
        state[f"lstm.weight_ih_l0{suffix}"] = _torch_gates(joined["input"][place])
        state[f"lstm.weight_hh_l0{suffix}"] = _torch_gates(joined["recurrent"][place])
        of_input, of_recurrence = bias[place].chunk(2)
        state[f"lstm.bias_ih_l0{suffix}"] = _torch_gates(of_input)
        state[f"lstm.bias_hh_l0{suffix}"] = _torch_gates(of_recurrence)
    encoder.load_state_dict(state)
    return encoder.requires_grad_(False).eval()


def check_same_words(bundle: Bundle, words: Sequence[str]) -> None:
    """Refuse a vocabulary that is not the bundle's: its embedding would read other words.

    Raises:
        CheckpointError: another vocabulary.
    """
    own = Tokenizer.load(bundle.vocabulary).words
    if own != list(words):
        raise CheckpointError(
            f"the vocabulary is not that of the bundle {bundle.name}",
            found=f"{len(words)} words",
            expected=f"the {len(own)} of {bundle.vocabulary}, in that order",
            next_step="copy that file over the data folder's vocabulary.txt",
        )


def check_same_text_encoder(bundle: Bundle, text: TextEncoder, words: Sequence[str]) -> None:
    """Refuse to train on with another text encoder than the bundle's: its sentences would say other things.

    Raises:
        CheckpointError: another vocabulary, or other codes for the same words (beyond what 8-bit storage costs).
    """
    check_same_words(bundle, words)
    captions, lengths = pad_captions([[place] for place in range(1, min(len(words), STATISTICS))])
    there = captions.to(text.embedding.weight.device)
    with torch.no_grad():
        ours, theirs = text_encoder_of(bundle)(captions, lengths).sentence, text(there, lengths).sentence.cpu()
    alike = float(nn.functional.cosine_similarity(ours, theirs).mean())
    if alike < SAME_CODES:
        raise CheckpointError(
            f"the DAMSM has another text encoder than the bundle {bundle.name}",
            found=f"codes of one word with a mean cosine of {alike:.3f}",
            expected=f"{SAME_CODES} or more",
            next_step=f"train one with `t2i train damsm --text-encoder {bundle.folder} --data DATA --out RUN`",
        )


def generator_of(bundle: Bundle, captions: Sequence[Sequence[int]]) -> Generator:
    """The generator of a bundle, with BatchNorms measured on captions and noise of seed 0.

    Args:
        bundle: of a variant with two stages, exported by this toolkit.
        captions: word numbers of the captions that it will be trained on; at least two.

    Raises:
        BundleError: the graph is not one of ours, or of a family that is not trained here.
    """
    if not is_trained(bundle.manifest.variant):
        raise BundleError(
            f"the generator of {bundle.folder} can't be trained here",
            found=f"variant {bundle.manifest.variant}",
            expected=", ".join(VARIANTS),
        )
    weights = _Weights(bundle, "generator")
    sizes = bundle.manifest.sizes
    blocks = {name.split(".")[3] for name in weights.stored if name.startswith("later.0.residual.")}
    config = GeneratorConfig(
        variant=bundle.manifest.variant or "",
        stages=len(sizes.stages),
        width=sizes.width,
        noise=sizes.z,
        condition=sizes.eps,
        features=sizes.features,
        residual_blocks=len(blocks),
    )
    generator = Generator(config).eval()
    norms = {norm: layer for layer, norm, _ in followed_layers(generator) if norm is not None}
    with torch.no_grad():
        for name, value in generator.state_dict().items():
            if name.rpartition(".")[0] not in norms and value.is_floating_point():
                value.copy_(weights.take(name).view_as(value))
    shifts = {}
    for norm, layer in norms.items():  # in the order of the forward pass, the last one last
        shift = weights.take(f"{layer}.bias")
        there = f"{layer}.bias" in generator.state_dict()  # then it is in the layer already
        shifts[cast(Norm, generator.get_submodule(norm))] = torch.zeros_like(shift) if there else shift
    _measure(generator, shifts, [*norms.values()][-1], text_encoder_of(bundle), captions)
    return generator


@torch.no_grad()
def _measure(
    generator: Generator,
    shifts: dict[Norm, Tensor],
    last_layer: str,
    text: TextEncoder,
    captions: Sequence[Sequence[int]],
) -> None:
    """Set every BatchNorm in the order of the forward pass: each then meets what the ones before it will give.

    The last layer has the largest outputs by far, and nothing that is measured comes after it: it is computed for a few
    pictures at a time, and the pass ends there.
    """

    def settle(norm: Norm, mean: Tensor, variance: Tensor) -> None:
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(shifts[norm].double() + mean)

    def measure(norm: Norm, inputs: tuple[Tensor, ...]) -> None:
        parts = (part.transpose(0, 1).flatten(1).double() for part in inputs[0].split(CHANNELS, 1))
        means, variances = zip(*((part.mean(1), part.var(1)) for part in parts), strict=True)
        settle(norm, torch.cat(means), torch.cat(variances))

    def measure_last(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
        for few in inputs[0].split(FEW):
            x = layer.forward(few).transpose(0, 1).flatten(1).double()
            step, more = x.mean(1) - mean, x.shape[1]
            scatter = scatter + x.var(1) * (more - 1) + step**2 * count * more / (count + more)
            mean, count = mean + step * more / (count + more), count + more
        settle(last, mean, scatter / (count - 1))
        raise _Measured

    *others, last = shifts
    hooks = [norm.register_forward_pre_hook(measure) for norm in others]
    hooks.append(generator.get_submodule(last_layer).register_forward_pre_hook(measure_last))
    rng = np.random.default_rng(0)
    chosen = [captions[place] for place in rng.permutation(len(captions))[:STATISTICS]]
    encoded = text(*pad_captions(chosen))
    config = generator.config
    noise = rng.standard_normal((len(chosen), config.noise + config.condition), np.float32)
    z, eps = torch.from_numpy(noise).split([config.noise, config.condition], dim=1)
    with suppress(_Measured):
        generator(encoded.sentence, encoded.words, encoded.mask, z, eps)
    for hook in hooks:
        hook.remove()


class _Measured(Exception):  # the end of a forward pass
    """All BatchNorms are set."""


def _present_name(stored: str) -> str:
    """The module path of a stored weight, with its stored type where that is not float32."""
    for earlier, present in EARLIER_NAMES:
        stored = re.sub(earlier, present, stored)
    return re.sub(r"/(?!(codes|scale|half)$)", ".", stored)


def _torch_gates(tensor: Tensor) -> Tensor:
    """Gates i, o, f, g of ONNX as i, f, g, o of torch."""
    i, o, f, g = tensor.chunk(4)
    return torch.cat([i, f, g, o])


class _Weights:
    """The weights of one graph in float32, by the names that the network has for them."""

    def __init__(self, bundle: Bundle, graph: str) -> None:
        self.path = bundle.graph_path(graph)
        model = read_graph(self.path, check=False)
        self.stored = {_present_name(item.name): item for item in model.graph.initializer}

    def take(self, name: str) -> Tensor:
        """One weight, from the type that it is stored in; that of a layer before a GLU also from its two halves.

        Raises:
            BundleError: the graph has no such weight.
        """
        if f"{name}/codes" in self.stored:
            codes, scales = self._array(f"{name}/codes"), self._array(f"{name}/scale")
            return torch.from_numpy((codes.astype(np.float32) - ZERO_CODE) * scales)
        for stored in (f"{name}/half", name):
            if stored in self.stored:
                return torch.from_numpy(self._array(stored).astype(np.float32))
        layer, _, kind = name.rpartition(".")
        if any(stored.startswith(f"{layer}.gate.{kind}") for stored in self.stored):
            return torch.cat([self.take(f"{layer}.{half}.{kind}") for half in ("value", "gate")])
        raise BundleError(
            f"{self.path} has no weight {name}",
            found=f"{len(self.stored)} others",
            expected="a graph that `t2i export` made",
        )

    def _array(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self.stored[name])
