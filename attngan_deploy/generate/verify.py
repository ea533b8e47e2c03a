"""Does a text-to-image bundle make its golden pictures here, on this engine? Needs no torch and no data."""

from dataclasses import replace

from attngan_deploy.engines.golden import GoldenCases, Verification, check_engines, load_golden
from attngan_deploy.errors import BundleError
from attngan_deploy.generate.pipeline import TextToImage


def verify_model(model: TextToImage) -> Verification:
    """See that the vocabulary gives the words of the golden captions, and the engines the golden pictures.

    Raises:
        BundleError: the golden cases are missing or damaged, or the vocabulary does not give their words.
        EngineError: an engine failed, or made values that are not finite.
    """
    _check_words(model, load_golden(model.bundle))
    return replace(check_engines(model.bundle, model.text_encoder, model.generator), engine=model.facts)


def _check_words(model: TextToImage, golden: GoldenCases) -> None:
    for caption, ids in zip(golden.captions, golden.ids, strict=True):
        if (found := model.tokenizer.encode(caption).ids) != ids:
            raise BundleError(
                f"the vocabulary of {model.bundle.folder} does not give the numbers of golden caption {caption[:40]!r}",
                found=str(found),
                expected=str(ids),
                next_step="export the bundle again",
            )
