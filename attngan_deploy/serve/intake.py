"""From a request to the orders of its pictures, or one sentence that says what is wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.errors import T2IError
from attngan_deploy.generate.run import Run
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import CaptionList
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.serve.messages import Order
from attngan_deploy.serve.schemas import GenerateRequest, UnknownWord, WordsAnswer
from attngan_deploy.serve.settings import ServerLimits

LOOKED_UP = 5  # unknown words of a caption whose nearest known word is looked up: each takes some 20 ms
SHOWN = 40  # letters of what a request said that a sentence repeats


class RefusedError(T2IError):
    """A request that can't be answered as it is."""


@dataclass(frozen=True)
class ServedModel:
    """A model that is served: its facts and vocabulary; the engine is the worker's."""

    name: str
    bundle: Bundle
    tokenizer: Tokenizer


@dataclass(frozen=True)
class AcceptedRequest:
    """A request that was accepted."""

    served: ServedModel
    request: GenerateRequest
    orders: list[Order]  # a picture each
    run: Run  # what names the pictures and says what made them
    unknown: list[list[str]]  # the words of each caption that are left out


def open_models(folders: Mapping[str, Path]) -> dict[str, ServedModel]:
    """Open and check the bundles of a server; raises what `open_bundle` does."""
    bundles = {name: open_bundle(folder) for name, folder in folders.items()}
    return {name: ServedModel(name, bundle, Tokenizer.load(bundle.vocabulary)) for name, bundle in bundles.items()}


def choose_model(models: Mapping[str, ServedModel], name: str | None) -> ServedModel:
    """The model of a name, the first where none is named; raise RefusedError where no model has it."""
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        raise RefusedError(f"no model '{shorten(name)}'", expected=" or ".join(models))
    return models[name]


def accept(request: GenerateRequest, models: Mapping[str, ServedModel], limits: ServerLimits) -> AcceptedRequest:
    """Check a request; what is wrong with it is a RefusedError."""
    served = choose_model(models, request.model)
    _check_size(request, limits)
    unknown = [_unknown_words(text, place, served) for place, text in enumerate(request.captions)]
    orders = [
        Order(text.strip(), request.seed, (place, sample), request.shared_noise, request.stream, request.attention)
        for place, text in enumerate(request.captions)
        for sample in range(request.n)
    ]
    lines = [Caption(text.strip(), line) for line, text in enumerate(request.captions, start=1)]
    run = Run.of(served.bundle, CaptionList(lines), request.seed, request.shared_noise)
    return AcceptedRequest(served, request, orders, run, unknown)


def find_unknown(caption: str, served: ServedModel, limits: ServerLimits) -> WordsAnswer:
    """Words of a caption that a model lacks, the first with their nearest; raise RefusedError where it is too long."""
    _check_letters("the caption", caption, limits)
    encoded = served.tokenizer.encode(caption)
    unknown = [
        UnknownWord(word=word, nearest=served.tokenizer.nearest(word) if number < LOOKED_UP else None)
        for number, word in enumerate(encoded.unknown)
    ]
    return WordsAnswer(known=len(encoded.ids), unknown=unknown)


def explain(errors: Sequence[Any]) -> str:
    """The first of pydantic's errors as a sentence."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    kind, what = first["type"], str(first["msg"])
    if kind == "json_invalid":
        return f"the body is not JSON: {first.get('ctx', {}).get('error', what)}"
    if kind == "missing":
        return f"'{where}' is missing" if where else "the body is missing; expected JSON"
    if kind == "extra_forbidden":
        return f"there is no field '{shorten(where)}'"
    what = what[:1].lower() + what[1:]
    if not where:
        return "the body must be a JSON object, sent as application/json"
    return f"'{shorten(where)}' can't be used: {what}"


def shorten(text: str) -> str:
    """What a request said, fit to stand in a sentence."""
    cut = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return cut.encode("utf-8", "replace").decode("utf-8")


def _check_size(request: GenerateRequest, limits: ServerLimits) -> None:
    if len(request.captions) > limits.captions:
        raise RefusedError("too many captions", found=str(len(request.captions)), expected=f"at most {limits.captions}")
    pictures = len(request.captions) * request.n
    if pictures > limits.pictures:
        raise RefusedError("too many pictures", found=_number(pictures), expected=f"at most {limits.pictures}")
    if request.format != "json" and pictures > 1:
        raise RefusedError(
            f"{request.format} answers one picture", found=f"{pictures} pictures", expected="format json for several"
        )
    if request.format != "json" and (request.stream or request.attention):
        what = "a stream" if request.stream else "attention"
        raise RefusedError(f"{what} comes as JSON", found=f"format {request.format}", expected="format json")
    if request.attention and pictures > limits.attended:
        raise RefusedError(
            "too many pictures with attention", found=str(pictures), expected=f"at most {limits.attended}"
        )
    for place, text in enumerate(request.captions):
        _check_letters(f"caption {place}", text, limits)


def _check_letters(what: str, text: str, limits: ServerLimits) -> None:
    if len(text) > limits.caption_letters:
        raise RefusedError(
            f"{what} is too long", found=f"{len(text)} characters", expected=f"at most {limits.caption_letters}"
        )


def _unknown_words(text: str, place: int, served: ServedModel) -> list[str]:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RefusedError(f"caption {place} is not text", found="half of a surrogate pair")
    encoded = served.tokenizer.encode(text)
    if not encoded.ids:
        if not encoded.unknown:
            raise RefusedError(f"caption {place} has no words", found=f"'{shorten(text)}'")
        words = ", ".join(f"'{shorten(word)}'" for word in encoded.unknown[:LOOKED_UP])
        raise RefusedError(
            f"caption {place} has only words that model {served.name} does not know",
            found=words,
            expected="known words; POST /words names the nearest ones",
        )
    return encoded.unknown


def _number(value: int) -> str:
    return str(value) if value < 10**9 else "more than 10^9"
