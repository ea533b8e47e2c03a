"""A bundle that ships, as networks that can be trained on: the way back from graphs to weights.

An export folds every BatchNorm into the layer before it. Training needs them apart again: given pictures' captions,
each BatchNorm takes the mean and the deviation that its layer has on them, with a scale and a shift that give back what
the bundle computes. In eval mode the networks then equal the bundle; in training mode, up to the batch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.errors import BundleError, CheckpointError
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.train.attention import McanLayerNorm
from attngan_deploy.train.config import GeneratorConfig, TextEncoderConfig
from attngan_deploy.train.data.picture_set import pad_captions
from attngan_deploy.train.generator import ConvGlu, Generator, Residual
from attngan_deploy.train.text_encoder import TextEncoder

ZERO_CODE = 128  # of weights stored in 8 bits
SAME_CODES = 0.99  # mean cosine of the codes of one word; 8-bit storage leaves it above 0.999
STATISTICS = 256  # captions at a time that BatchNorms are measured on
Norm = nn.BatchNorm1d | nn.BatchNorm2d


def text_encoder_of(bundle: Bundle) -> TextEncoder:
    """The text encoder of a bundle, frozen, in eval mode.

    Raises:
        BundleError: the graph is not one of ours.
    """
    weights = _Weights(bundle, "text_encoder")
    embedding = weights.take("embedding")
    joined = {name: weights.take(f"lstm/{name}") for name in ("input", "recurrent")}  # [2, 4H, ...]
    bias = weights.take("lstm/bias")  # [2, 8H]: of the input, of the recurrence
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
    captions = pad_captions([[place] for place in range(1, min(len(words), STATISTICS))])
    with torch.no_grad():
        ours, theirs = text_encoder_of(bundle)(*captions).sentence, text(*captions).sentence
    alike = float(nn.functional.cosine_similarity(ours, theirs).mean())
    if alike < SAME_CODES:
        raise CheckpointError(
            f"the DAMSM has another text encoder than the bundle {bundle.name}",
            found=f"codes of one word with a mean cosine of {alike:.3f}",
            expected=f"{SAME_CODES} or more",
            next_step=f"train one with `t2i train damsm --text-encoder {bundle.folder}`",
        )


def generator_of(bundle: Bundle, captions: Sequence[Sequence[int]]) -> Generator:
    """The generator of a bundle, with BatchNorms measured on captions and noise of seed 0.

    Args:
        bundle: of a variant with two stages, exported by this toolkit.
        captions: word numbers of the captions that it will be trained on; at least two.

    Raises:
        BundleError: the graph is not one of ours.
    """
    weights = _Weights(bundle, "generator")
    sizes = bundle.manifest.sizes
    config = GeneratorConfig(
        variant=bundle.manifest.variant,
        stages=len(sizes.stages),
        width=sizes.width,
        noise=sizes.z,
        condition=sizes.eps,
        features=sizes.features,
        residual_blocks=weights.count("stage2/residual{}/bias"),
    )
    generator = Generator(config).eval()
    shifts: dict[Norm, Tensor] = {}
    with torch.no_grad():
        for module, name in _named(generator):
            _fill(module, name, weights, shifts)
    _measure(generator, shifts, text_encoder_of(bundle), captions)
    return generator


def _named(generator: Generator) -> Iterator[tuple[nn.Module, str]]:
    """Modules that own weights, with the names that the graph has for them."""
    yield generator.augmentation, "condition"
    yield generator.first, "first/linear"
    for place, block in enumerate(generator.first.upsample):
        yield block, f"first/upsample{place}"
    for place, image in enumerate(generator.to_image):
        yield image.conv, f"to_image{place}"
    for number, stage in enumerate(generator.later, start=2):
        name = f"stage{number}"
        if stage.self_attention is not None:
            for part, layer in stage.self_attention.named_children():
                if not isinstance(layer, nn.Dropout):
                    yield layer, f"{name}/self_attention/{part}"
        if stage.cbam is not None:
            yield stage.cbam.reduce, f"{name}/cbam/reduce"
            yield stage.cbam.restore, f"{name}/cbam/restore"
            yield stage.cbam, f"{name}/cbam/spatial"
        yield stage.attention.project, f"{name}/attention/project"
        if stage.fuse is not None:
            yield stage.fuse, f"{name}/fuse"
        for place, block in enumerate(stage.residual):
            yield block.gated, f"{name}/residual{place}/gated"
            yield block, f"{name}/residual{place}"
        yield stage.upsample, f"{name}/upsample"


def _fill(module: nn.Module, name: str, weights: "_Weights", shifts: dict[Norm, Tensor]) -> None:
    """Copy a module's weights; the bias that is left of a folded BatchNorm goes into `shifts`."""
    if isinstance(module, nn.Conv1d):
        module.weight.copy_(weights.take(name)[:, :, None])
    elif isinstance(module, nn.Conv2d):
        module.weight.copy_(weights.take(f"{name}/weight"))
    elif isinstance(module, nn.Linear | McanLayerNorm):
        module.weight.copy_(weights.take(f"{name}/weight"))
        module.bias.copy_(weights.take(f"{name}/bias"))
    elif isinstance(module, ConvGlu):
        module.conv.weight.copy_(weights.gated(name, "weight"))
        shifts[module.norm] = weights.gated(name, "bias")
    elif isinstance(module, Residual):
        module.conv.weight.copy_(weights.take(f"{name}/weight"))
        shifts[module.norm] = weights.take(f"{name}/bias")
    elif hasattr(module, "spatial"):  # CBAM
        module.spatial.weight.copy_(weights.take(f"{name}/weight"))
        shifts[module.norm] = weights.take(f"{name}/bias")
    elif hasattr(module, "norm"):  # the first stage
        module.linear.weight.copy_(weights.gated(name, "weight"))
        shifts[module.norm] = weights.gated(name, "bias")
    else:  # conditioning augmentation
        module.linear.weight.copy_(weights.gated(name, "weight"))
        module.linear.bias.copy_(weights.gated(name, "bias"))


@torch.no_grad()
def _measure(
    generator: Generator, shifts: dict[Norm, Tensor], text: TextEncoder, captions: Sequence[Sequence[int]]
) -> None:
    """Set every BatchNorm in the order of the forward pass: each then meets what the ones before it will give."""

    def settle(norm: Norm, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].transpose(0, 1).flatten(1).double()
        mean, variance = x.mean(1), x.var(1)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(shifts[norm].double() + mean)

    hooks = [norm.register_forward_pre_hook(settle) for norm in shifts]
    rng = np.random.default_rng(0)
    chosen = [captions[place] for place in rng.permutation(len(captions))[:STATISTICS]]
    encoded = text(*pad_captions(chosen))
    config = generator.config
    noise = rng.standard_normal((len(chosen), config.noise + config.condition), np.float32)
    z, eps = torch.from_numpy(noise).split([config.noise, config.condition], dim=1)
    generator(encoded.sentence, encoded.words, encoded.mask, z, eps)
    for hook in hooks:
        hook.remove()


def _torch_gates(tensor: Tensor) -> Tensor:
    """Gates i, o, f, g of ONNX as i, f, g, o of torch."""
    i, o, f, g = tensor.chunk(4)
    return torch.cat([i, f, g, o])


class _Weights:
    """The weights of one graph by the names that the export gave them, in float32."""

    def __init__(self, bundle: Bundle, graph: str) -> None:
        self.path = bundle.graph_path(graph)
        try:
            model = onnx.load(self.path)
        except (DecodeError, OSError) as error:
            raise BundleError(f"{self.path} can't be read: {error}") from error
        self.stored = {item.name: item for item in model.graph.initializer}

    def count(self, pattern: str) -> int:
        """How many names there are, counted up from 0."""
        found = 0
        while pattern.format(found) in self.stored:
            found += 1
        return found

    def gated(self, name: str, part: str) -> Tensor:
        """Weight or bias of a layer before a GLU, whether it was split for the graph or not."""
        if any(f"{name}/both/{part}{end}" in self.stored for end in ("", "/half", "/codes")):
            return self.take(f"{name}/both/{part}")
        return torch.cat([self.take(f"{name}/value/{part}"), self.take(f"{name}/gate/{part}")])

    def take(self, name: str) -> Tensor:
        """One weight, from the type that it is stored in.

        Raises:
            BundleError: the graph has no such weight.
        """
        if f"{name}/codes" in self.stored:
            codes, scales = self._array(f"{name}/codes"), self._array(f"{name}/scale")
            return torch.from_numpy((codes.astype(np.float32) - ZERO_CODE) * scales)
        for stored in (f"{name}/half", name):
            if stored in self.stored:
                return torch.from_numpy(self._array(stored).astype(np.float32))
        raise BundleError(
            f"{self.path} has no weight {name}",
            found=f"{len(self.stored)} others",
            expected="a graph that `t2i export` made",
        )

    def _array(self, name: str) -> NDArray[np.generic]:
        return numpy_helper.to_array(self.stored[name])
