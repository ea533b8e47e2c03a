"""How far TF32 would move pictures: ONNX Runtime's TensorRT can't be told to leave it out."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.engines.golden import golden_inputs, load_golden, psnr_db
from attngan_deploy.engines.onnxruntime.engine import reference_engine
from attngan_deploy.media.images import to_uint8
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.imports.from_bundle import generator_of


def as_tf32(x: Tensor) -> Tensor:
    """Rounded to the 10 bits that TF32 keeps of a product's factors, ties to even."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def use_tf32(net: nn.Module) -> None:
    """Round what convolutions and linear layers multiply; sums stay in fp32, as on a GPU."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.weight.data = as_tf32(module.weight.data)
            module.register_forward_pre_hook(lambda _, inputs: tuple(map(as_tf32, inputs)))


def test_rounding() -> None:
    ulp = 2.0**-10
    values = torch.tensor([1.0, 1 + ulp, 1 + 0.49 * ulp, 1 + 0.51 * ulp, 1 + 0.5 * ulp, 1 + 1.5 * ulp, -3.0])
    assert as_tf32(values).tolist() == [1.0, 1 + ulp, 1.0, 1 + ulp, 1.0, 1 + 2 * ulp, -3.0]


def test_golden_pictures_of_the_model_that_ships_stay_within_a_level() -> None:
    bundle = open_bundle("base")
    golden = load_golden(bundle)
    given = golden_inputs(bundle, golden, reference_engine(bundle, "text_encoder"))
    tensors = [
        torch.from_numpy(np.ascontiguousarray(given[name])) for name in ("sentence", "words", "mask", "z", "eps")
    ]
    generator = generator_of(bundle, golden.ids)

    def pictures(net: Generator) -> NDArray[np.float32]:
        with torch.no_grad():
            return net(*tensors).images[-1].numpy().clip(-1, 1)  # type: ignore[no-any-return]

    exact = pictures(generator)
    use_tf32(generator)
    rough = pictures(generator)
    assert 0 < np.abs(exact - rough).max() < 1 / 127.5
    assert np.abs(to_uint8(rough).astype(int) - to_uint8(golden.images)).max() <= 1
    assert (psnr_db(rough, exact) or 0) > 70
