"""Which engines to try, and what became of each: every backend, device and precision that was asked for."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from attngan_deploy.bundles.bundle import JUDGE, MATCHER, Bundle
from attngan_deploy.engines.choice import NATIVE
from attngan_deploy.engines.facts import BACKENDS, DEVICES, PRECISIONS, EngineFacts, about_device
from attngan_deploy.engines.golden import Verification
from attngan_deploy.engines.load import combinations, load_engine
from attngan_deploy.engines.verify import verify_judge, verify_matcher, verify_model
from attngan_deploy.errors import BundleError, EngineError, MissingExtraError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.judge import GRAPH, Judge
from attngan_deploy.score.matcher import GRAPHS as MATCHER_GRAPHS
from attngan_deploy.score.matcher import Matcher

ALL, AUTO = "all", "auto"
PASSED, FAILED, REFUSED = "passed", "failed", "refused"


@dataclass(frozen=True)
class Contender:
    """What to load: a backend on a device, computing in a precision; "auto" leaves it to `TextToImage.load`."""

    backend: str
    device: str
    precision: str

    def __str__(self) -> str:
        """In words, e.g. "openvino on cpu, bf16"."""
        return f"{self.backend} on {self.device}, {self.precision}"

    def load(self, folder: Path, threads: int | None = None) -> TextToImage:
        """Open a text-to-image bundle and load it.

        Raises:
            BundleError, EngineError, MissingExtraError: the engine can't be had here, or not with this bundle.
        """
        return TextToImage.load(folder, self.backend, self.precision, threads, self.device)

    def load_judge(self, bundle: Bundle, threads: int | None = None) -> Judge:
        """Load a judge.

        Raises:
            BundleError, EngineError, MissingExtraError: the engine can't be had here, or not with this bundle.
        """
        return Judge(bundle, load_engine(bundle, GRAPH, self.backend, self.device, self.precision, threads))

    def load_matcher(self, bundle: Bundle, threads: int | None = None) -> Matcher:
        """Load a matcher.

        Raises:
            BundleError, EngineError, MissingExtraError: the engine can't be had here, or not with this bundle.
        """
        place = (self.backend, self.device, self.precision, threads)
        return Matcher(bundle, *(load_engine(bundle, key, *place) for key in MATCHER_GRAPHS))


def graph_files(bundle: Bundle, facts: EngineFacts) -> list[Path]:
    """Files that an engine reads: the text encoder's, which is always fp32, and the generator's."""
    native = facts.precision in NATIVE.get(facts.backend, ())
    stored = facts.precision in bundle.precisions("generator") and not native
    return [bundle.graph_path("text_encoder"), bundle.graph_path("generator", facts.precision if stored else "fp32")]


@dataclass(frozen=True)
class Outcome:
    """What became of a contender.

    Attributes:
        contender: what was asked for.
        status: "passed"; "failed", also where it ran into an error; or "refused": it can't be had here.
        verification: what was measured, if anything.
        why: the text of the error, if there was one.
    """

    contender: Contender
    status: str
    verification: Verification | None = None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        measured = self.verification and self.verification.to_json()
        return {**asdict(self.contender), "status": self.status, "why": self.why, "verification": measured}


def contenders(backend: str = AUTO, device: str = AUTO, precision: str = AUTO) -> list[Contender]:
    """What was asked for: one contender, or every combination that the backends know, whether installed or not.

    Each argument is a name, "auto", names with commas between them, or "all". As soon as one of them is more than
    one name, "auto" in the others is "all" too.

    Raises:
        EngineError: a name is unknown, or no backend knows such a combination.
    """
    asked = [
        _names("backend", backend, BACKENDS),
        _names("device", device, DEVICES),
        _names("precision", precision, PRECISIONS),
    ]
    if all(len(names) == 1 and names[0] != ALL for names in asked):
        combinations(backend, device, precision)  # refuses what no machine can do
        return [Contender(backend, device, precision)]
    found: list[tuple[str, str, str]] = []
    problem = EngineError("no backend does that")
    for names in product(*asked):
        try:
            found += combinations(*(AUTO if name == ALL else name for name in names))
        except EngineError as error:  # some of several don't go together
            problem = error
    if not found:
        raise problem
    return [Contender(*names) for names in dict.fromkeys(found)]


def _names(what: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    if unknown := [name for name in names if name not in (AUTO, ALL, *known)]:
        raise EngineError(
            f"no {what} '{', '.join(unknown)}'{about_device(unknown[0])}",
            expected=f"{ALL}, {AUTO} or of {', '.join(known)}",
        )
    return names


def verify_contenders(bundle: Bundle, wanted: Sequence[Contender], threads: int | None = None) -> list[Outcome]:
    """Verify a bundle on each contender in turn.

    Raises:
        BundleError: the golden cases are missing or damaged, or the vocabulary does not give their words.
    """
    return [_verify(bundle, contender, threads) for contender in wanted]


def _verify(bundle: Bundle, contender: Contender, threads: int | None) -> Outcome:
    try:
        model: Judge | Matcher | TextToImage
        if bundle.kind == JUDGE:
            model = contender.load_judge(bundle, threads)
        elif bundle.kind == MATCHER:
            model = contender.load_matcher(bundle, threads)
        else:
            model = contender.load(bundle.folder, threads)
    except (BundleError, EngineError, MissingExtraError) as error:  # a bundle may lack a precision
        return Outcome(contender, REFUSED, why=str(error))
    try:
        if isinstance(model, Judge):
            found = verify_judge(model)
        else:
            found = verify_matcher(model) if isinstance(model, Matcher) else verify_model(model)
    except EngineError as error:
        return Outcome(contender, FAILED, why=str(error))
    return Outcome(contender, PASSED if found.passed else FAILED, found)


def by_reason(refusals: Sequence[tuple[Contender, str]]) -> list[tuple[str, str]]:
    """What can't run, once for each reason: ("openvino on gpu, fp32, fp16", "this machine has no ...")."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for contender, reason in refusals:
        groups.setdefault((contender.backend, contender.device, reason), []).append(contender.precision)
    return [
        (f"{backend} on {device}, {', '.join(precisions)}", reason)
        for (backend, device, reason), precisions in groups.items()
    ]
