"""The generator as an ONNX graph, built from a generator whose BatchNorms are folded (`rewrite.fold_batch_norms`)."""

import math
from collections.abc import Callable

import onnx
from torch import Tensor, nn

from attngan_deploy.export.graphs.graph import GraphBuilder
from attngan_deploy.export.graphs.rewrite import DEFAULT_OPTIONS, GraphOptions, split_glu
from attngan_deploy.train.attention import Cbam, McanLayerNorm, WordAttention, WordSelfAttention
from attngan_deploy.train.generator import (
    NEAREST_AS_TRANSPOSED,
    ConditioningAugmentation,
    ConvGlu,
    FirstStage,
    Generator,
    NextStage,
    Residual,
    Upsample,
)

FIRST_SIDE, FIRST_SIZE = 4, 64  # of the map that the first stage begins with, and of its image
Layer = Callable[[str, str, Tensor, Tensor], str]  # name, input, weight, bias to output


def build_generator(generator: Generator, options: GraphOptions = DEFAULT_OPTIONS) -> onnx.ModelProto:
    """Graph: sentence, words, mask, z, eps to image_64, image_128, image_256 and attention, attention_128.

    There is one image a stage, f32 [N, 3, S, S] in [-1, 1], and one attention a later stage, f32 [N, T, S, S];
    "attention" is that of the second stage. Batch and caption length are dynamic.

    Args:
        generator: with folded BatchNorms; its weights are taken as they are.
        options: `split_glu` and `transposed_upsampling`.

    Raises:
        ValueError: a BatchNorm is not folded.
    """
    return _GeneratorGraph(options).build(generator)


def attention_name(size: int) -> str:
    """Name of the output that holds the attention of a map `size` places wide."""
    return "attention" if size == FIRST_SIZE else f"attention_{size}"


class _GeneratorGraph:
    def __init__(self, options: GraphOptions) -> None:
        self.graph, self.options = GraphBuilder("generator"), options

    def build(self, generator: Generator) -> onnx.ModelProto:
        config, graph = generator.config, self.graph
        sentence = graph.input("sentence", "float32", ["batch", config.features])
        words = graph.input("words", "float32", ["batch", config.features, "words"])
        mask = graph.input("mask", "bool", ["batch", "words"])
        z = graph.input("z", "float32", ["batch", config.noise])
        eps = graph.input("eps", "float32", ["batch", config.condition])

        condition = self._condition(generator.augmentation, sentence, eps)
        h = self._first(generator.first, graph.node("Concat", condition, z, name="condition_and_noise", axis=1))
        images, maps = [self._image(0, h, generator)], []
        for place, stage in enumerate(generator.later, start=1):
            h, attention = self._next(f"stage{place + 1}", stage, h, words, mask, config.sizes[place - 1])
            images.append(self._image(place, h, generator))
            maps.append(attention)

        for image, size in zip(images, config.sizes, strict=True):
            graph.output(image, f"image_{size}", "float32", ["batch", 3, size, size])
        for attention, size in zip(maps, config.sizes, strict=False):
            graph.output(attention, attention_name(size), "float32", ["batch", "words", size, size])
        return graph.finish()

    # Stages

    def _condition(self, augmentation: ConditioningAugmentation, sentence: str, eps: str) -> str:
        """Section 3.2 of StackGAN: mu + exp(logvar / 2) * eps."""
        graph, linear = self.graph, augmentation.linear
        both = self._glu("condition", sentence, linear.weight, linear.bias, self._linear)
        mu, logvar = graph.nodes("Split", both, name="condition/mu_logvar", outputs=2, axis=1)
        half = graph.node("Mul", logvar, graph.constant(0.5, "float32"), name="condition/half")
        spread = graph.node("Mul", graph.node("Exp", half, name="condition/sigma"), eps, name="condition/spread")
        return graph.node("Add", mu, spread, name="condition/sample")

    def _first(self, first: FirstStage, x: str) -> str:
        x = self._glu("first/linear", x, first.linear.weight, _folded_bias(first.norm), self._linear)
        shape = self.graph.constant([0, -1, FIRST_SIDE, FIRST_SIDE], "int64")
        x = self.graph.node("Reshape", x, shape, name="first/reshape")
        for place, block in enumerate(first.upsample):
            x = self._upsample(f"first/upsample{place}", block, x)
        return x

    def _next(self, name: str, stage: NextStage, h: str, words: str, mask: str, side: int) -> tuple[str, str]:
        graph = self.graph
        if stage.self_attention is not None:
            words = self._self_attention(f"{name}/self_attention", stage.self_attention, words, mask)
        if stage.cbam is not None:
            h = graph.node("Add", h, self._cbam(f"{name}/cbam", stage.cbam, h), name=f"{name}/cbam/add")
        context, attention = self._word_attention(f"{name}/attention", stage.attention, h, words, mask, side)
        x = graph.node("Concat", h, context, name=f"{name}/concat", axis=1)
        if stage.fuse is not None:
            x = self._conv_glu(f"{name}/fuse", stage.fuse, x)
        for place, block in enumerate(stage.residual):
            x = self._residual(f"{name}/residual{place}", block, x)
        return self._upsample(f"{name}/upsample", stage.upsample, x), attention

    def _image(self, place: int, h: str, generator: Generator) -> str:
        name = f"to_image{place}"
        x = self._conv(name, h, generator.to_image[place].conv.weight, None)
        return self.graph.node("Tanh", x, name=f"{name}/tanh")

    # Blocks

    def _conv_glu(self, name: str, block: ConvGlu, x: str) -> str:
        return self._glu(name, x, block.conv.weight, _folded_bias(block.norm), self._conv)

    def _upsample(self, name: str, block: Upsample, x: str) -> str:
        if self.options.transposed_upsampling:
            return self._glu(name, x, block.conv.weight, _folded_bias(block.norm), self._transposed)
        scales = self.graph.constant([1, 1, 2, 2], "float32")
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        x = self.graph.node("Resize", x, "", scales, name=f"{name}/nearest", **how)
        return self._conv_glu(name, block, x)

    def _residual(self, name: str, block: Residual, x: str) -> str:
        inner = self._conv_glu(f"{name}/gated", block.gated, x)
        inner = self._conv(name, inner, block.conv.weight, _folded_bias(block.norm))
        return self.graph.node("Add", x, inner, name=f"{name}/add")

    def _word_attention(
        self, name: str, block: WordAttention, h: str, words: str, mask: str, side: int
    ) -> tuple[str, str]:
        """Equations 1 to 4 of AttnGAN, with words before places, so that nothing large is transposed."""
        graph = self.graph
        flat = graph.node("Reshape", h, graph.constant([0, 0, -1], "int64"), name=f"{name}/flat")  # [N, C, HW]
        weight = graph.weight(f"{name}/project", block.project.weight.squeeze(2))
        e = graph.node("MatMul", weight, words, name=f"{name}/words")  # (1): [N, C, T]
        scores = graph.node("MatMul", self._swap(f"{name}/words", e), flat, name=f"{name}/scores")  # (2): [N, T, HW]
        inside = graph.node("Unsqueeze", mask, graph.constant([2], "int64"), name=f"{name}/mask")
        outside = graph.constant(-math.inf, "float32")
        scores = graph.node("Where", inside, scores, outside, name=f"{name}/masked")
        beta = graph.node("Softmax", scores, name=f"{name}/beta", axis=1)  # (3)
        context = graph.node("MatMul", e, beta, name=f"{name}/context")  # (4): [N, C, HW]
        square = graph.constant([0, 0, side, side], "int64")
        return (
            graph.node("Reshape", context, square, name=f"{name}/context_map"),
            graph.node("Reshape", beta, square, name=f"{name}/map"),
        )

    def _self_attention(self, name: str, block: WordSelfAttention, words: str, mask: str) -> str:
        """Section 3.1 of MCAN: multi-head attention over words, then a feed-forward layer."""
        graph = self.graph
        x = self._swap(f"{name}/words", words)  # [N, T, D]
        features = block.merge.out_features
        split = graph.constant([0, 0, block.heads, features // block.heads], "int64")
        heads = {}
        for part, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            made = graph.node(
                "Reshape", self._dense(f"{name}/{part}", x, getattr(block, part)), split, name=f"{name}/{part}_heads"
            )
            heads[part] = graph.node("Transpose", made, name=f"{name}/{part}_first", perm=perm)
        scores = graph.node("MatMul", heads["query"], heads["key"], name=f"{name}/dot")
        scale = graph.constant((features // block.heads) ** -0.5, "float32")
        scores = graph.node("Mul", scores, scale, name=f"{name}/scores")  # [N, heads, T, T]
        inside = graph.node("Unsqueeze", mask, graph.constant([1, 2], "int64"), name=f"{name}/mask")
        scores = graph.node("Where", inside, scores, graph.constant(-math.inf, "float32"), name=f"{name}/masked")
        beta = graph.node("Softmax", scores, name=f"{name}/beta", axis=-1)
        attended = graph.node("MatMul", beta, heads["value"], name=f"{name}/attended")
        attended = graph.node("Transpose", attended, name=f"{name}/heads_last", perm=[0, 2, 1, 3])
        attended = graph.node("Reshape", attended, graph.constant([0, 0, features], "int64"), name=f"{name}/joined")
        merged = self._dense(f"{name}/merge", attended, block.merge)
        x = self._layer_norm(f"{name}/norm1", block.norm1, graph.node("Add", x, merged, name=f"{name}/add1"))
        grown = graph.node("Relu", self._dense(f"{name}/expand", x, block.expand), name=f"{name}/relu")
        fed = self._dense(f"{name}/contract", grown, block.contract)
        x = self._layer_norm(f"{name}/norm2", block.norm2, graph.node("Add", x, fed, name=f"{name}/add2"))
        return self._swap(f"{name}/result", x)

    def _layer_norm(self, name: str, norm: McanLayerNorm, x: str) -> str:
        """MCAN's: unbiased standard deviation and eps outside the root, so ONNX LayerNormalization does not fit."""
        graph, features = self.graph, norm.weight.numel()
        mean = graph.node("ReduceMean", x, name=f"{name}/mean", axes=[-1], keepdims=1)
        centred = graph.node("Sub", x, mean, name=f"{name}/centred")
        square = graph.node("Mul", centred, centred, name=f"{name}/square")
        biased = graph.node("ReduceMean", square, name=f"{name}/biased", axes=[-1], keepdims=1)
        unbiased = graph.constant(features / (features - 1), "float32")
        variance = graph.node("Mul", biased, unbiased, name=f"{name}/variance")
        deviation = graph.node("Sqrt", variance, name=f"{name}/deviation")
        divisor = graph.node("Add", deviation, graph.constant(norm.eps, "float32"), name=f"{name}/divisor")
        scaled = graph.node("Mul", centred, graph.weight(f"{name}/weight", norm.weight), name=f"{name}/scaled")
        normed = graph.node("Div", scaled, divisor, name=f"{name}/normed")
        return graph.node("Add", normed, graph.weight(f"{name}/bias", norm.bias), name=name)

    def _cbam(self, name: str, block: Cbam, x: str) -> str:
        """Sections 3.1 and 3.2 of CBAM: which channels, then which places."""
        graph = self.graph
        pools = [
            graph.node(f"Global{kind}Pool", x, name=f"{name}/channel_{kind.lower()}") for kind in ("Average", "Max")
        ]
        pooled = graph.node("Concat", *pools, name=f"{name}/channel_pools", axis=2)  # [N, C, 2, 1]
        pooled = graph.node("Squeeze", pooled, graph.constant([3], "int64"), name=f"{name}/channel_squeezed")
        hidden = self._dense(f"{name}/reduce", self._swap(f"{name}/channel_pools", pooled), block.reduce)
        hidden = graph.node("Relu", hidden, name=f"{name}/relu")
        both = self._dense(f"{name}/restore", hidden, block.restore)  # [N, 2, C]
        gate = graph.node("ReduceSum", both, graph.constant([1], "int64"), name=f"{name}/channel_sum", keepdims=0)
        gate = graph.node("Sigmoid", gate, name=f"{name}/channel_gate")
        gate = graph.node("Unsqueeze", gate, graph.constant([2, 3], "int64"), name=f"{name}/channel_gate_map")
        x = graph.node("Mul", x, gate, name=f"{name}/channel")
        places = [
            graph.node(f"Reduce{kind}", x, name=f"{name}/place_{kind.lower()}", axes=[1], keepdims=1)
            for kind in ("Max", "Mean")
        ]
        pooled = graph.node("Concat", *places, name=f"{name}/place_pools", axis=1)
        gate = self._conv(f"{name}/spatial", pooled, block.spatial.weight, _folded_bias(block.norm))
        return graph.node("Mul", x, graph.node("Sigmoid", gate, name=f"{name}/place_gate"), name=f"{name}/place")

    # Layers

    def _glu(self, name: str, x: str, weight: Tensor, bias: Tensor, layer: Layer) -> str:
        """GLU(layer(x)), as two layers or as one whose channels are then split."""
        graph = self.graph
        if self.options.split_glu:
            (value_weight, gate_weight), (value_bias, gate_bias) = split_glu(weight), split_glu(bias)
            value = layer(f"{name}/value", x, value_weight, value_bias)
            gate = layer(f"{name}/gate", x, gate_weight, gate_bias)
        else:
            both = layer(f"{name}/both", x, weight, bias)
            value, gate = graph.nodes("Split", both, name=f"{name}/split", outputs=2, axis=1)
        return graph.node("Mul", value, graph.node("Sigmoid", gate, name=f"{name}/sigmoid"), name=f"{name}/glu")

    def _conv(self, name: str, x: str, weight: Tensor, bias: Tensor | None) -> str:
        inputs = [x, self.graph.weight(f"{name}/weight", weight)]
        if bias is not None:
            inputs.append(self.graph.weight(f"{name}/bias", bias))
        kernel = list(weight.shape[2:])
        pads = [side // 2 for side in kernel] * 2
        return self.graph.node("Conv", *inputs, name=f"{name}/conv", kernel_shape=kernel, pads=pads)

    def _transposed(self, name: str, x: str, weight: Tensor, bias: Tensor) -> str:
        """Nearest x2 and a 3x3 convolution; an engine makes the 4x4 kernel of the 3x3 one when it loads the graph."""
        graph = self.graph
        matrix = graph.constant(NEAREST_AS_TRANSPOSED.numpy(), "float32")
        across = graph.constant(NEAREST_AS_TRANSPOSED.T.contiguous().numpy(), "float32")
        kernel = graph.node("MatMul", matrix, graph.weight(f"{name}/weight", weight), name=f"{name}/kernel_rows")
        kernel = graph.node("MatMul", kernel, across, name=f"{name}/kernel_columns")
        kernel = graph.node("Transpose", kernel, name=f"{name}/kernel", perm=[1, 0, 2, 3])
        shift = graph.weight(f"{name}/bias", bias)
        how = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        return graph.node("ConvTranspose", x, kernel, shift, name=f"{name}/conv", **how)

    def _linear(self, name: str, x: str, weight: Tensor, bias: Tensor) -> str:
        """A linear layer on [N, in]."""
        graph = self.graph
        inputs = x, graph.weight(f"{name}/weight", weight), graph.weight(f"{name}/bias", bias)
        return graph.node("Gemm", *inputs, name=f"{name}/gemm", transB=1)

    def _dense(self, name: str, x: str, linear: nn.Linear) -> str:
        """A linear layer on the last dimension of [N, T, in]."""
        graph = self.graph
        weight = graph.node(
            "Transpose", graph.weight(f"{name}/weight", linear.weight), name=f"{name}/columns", perm=[1, 0]
        )
        product = graph.node("MatMul", x, weight, name=f"{name}/matmul")
        return graph.node("Add", product, graph.weight(f"{name}/bias", linear.bias), name=f"{name}/add")

    def _swap(self, name: str, x: str) -> str:
        return self.graph.node("Transpose", x, name=f"{name}/swapped", perm=[0, 2, 1])


def _folded_bias(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    if norm.eps != 0.0:
        raise ValueError("the generator's BatchNorms are not folded: use rewrite.fold_batch_norms first")
    return norm.bias
