"""Does a bundle of any kind answer as it should here, on each engine that was asked for? Needs no torch and no data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.bundles.manifest import CRITIC, GRAPHS, JUDGE, MATCHER
from attngan_deploy.engines.facts import EngineFacts
from attngan_deploy.engines.golden import Verification
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import BundleError, EngineError, MissingExtraError, ScoreError
from attngan_deploy.generate.critic import GRAPH as CRITIC_GRAPH
from attngan_deploy.generate.critic import Critic
from attngan_deploy.generate.pipeline import TextToImage, verify_model
from attngan_deploy.score.judge import GRAPH, Judge
from attngan_deploy.score.matcher import GRAPHS as MATCHER_GRAPHS
from attngan_deploy.score.matcher import Matcher

PASSED, FAILED, REFUSED = "passed", "failed", "refused"


@dataclass(frozen=True)
class Outcome:
    """What became of a request."""

    request: EngineRequest  # what was asked for
    status: str  # "passed"; "failed", also where it ran into an error; or "refused": it can't be had here
    verification: Verification | None = None  # what was measured, if anything
    why: str = ""  # the text of the error, if there was one

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        measured = self.verification and self.verification.to_json()
        return {**self.request.names, "status": self.status, "why": self.why, "verification": measured}


def verify_bundle(bundle: Bundle, requests: Sequence[EngineRequest]) -> list[Outcome]:
    """Verify a bundle on each engine in turn; errors of a text-to-image bundle are those of `verify_model`."""
    return [_verify(bundle, request) for request in requests]


def _verify(bundle: Bundle, request: EngineRequest) -> Outcome:
    verify: Callable[[], Verification]
    try:
        if bundle.kind == JUDGE:
            verify = partial(verify_judge, Judge(bundle, load_engine(bundle, GRAPH, request)))
        elif bundle.kind == MATCHER:
            engines = (load_engine(bundle, key, request) for key in MATCHER_GRAPHS)
            verify = partial(verify_matcher, Matcher(bundle, *engines))
        elif bundle.kind == CRITIC:
            verify = partial(verify_critic, Critic(bundle, load_engine(bundle, CRITIC_GRAPH, request)))
        else:
            verify = partial(verify_model, TextToImage.load_on(bundle, request))
    except (BundleError, EngineError, MissingExtraError) as error:  # a bundle may lack a precision
        return Outcome(request, REFUSED, why=str(error))
    try:
        result = verify()
    except EngineError as error:
        return Outcome(request, FAILED, why=str(error))
    return Outcome(request, PASSED if result.passed else FAILED, result)


def open_any(name_or_folder: str) -> Bundle:
    """Like `open_bundle`, of whatever known kind the bundle says it is."""
    bundle = open_bundle(name_or_folder, None)
    if bundle.kind not in GRAPHS:
        expected = " or ".join(GRAPHS)
        raise BundleError(f"bundle {bundle.folder} is of an unknown kind", found=bundle.kind, expected=expected)
    return bundle


def verify_judge(judge: Judge) -> Verification:
    """A judge has no golden cases: a ScoreError where its graph does not give finite numbers of the right shape."""
    judge.look(np.full((1, judge.size, judge.size, 3), 128, np.uint8))
    return _answers(judge.bundle, judge.engine.facts)


def verify_critic(critic: Critic) -> Verification:
    """Nor has a critic: an EngineError where its graph does not give finite numbers."""
    critic.rank(np.full((2, critic.size, critic.size, 3), 128, np.uint8))
    return _answers(critic.bundle, critic.engine.facts)


def verify_matcher(matcher: Matcher) -> Verification:
    """Nor has a matcher: a ScoreError where its graphs do not give finite numbers that can be compared."""
    word = matcher.tokenizer.words[-1]
    sentence, code = matcher.sentences([word]), matcher.codes(np.ones((1, matcher.features), np.float32))
    if sentence.shape != code.shape:
        found = f"sentences {list(sentence.shape)}, codes {list(code.shape)}"
        raise ScoreError(f"matcher {matcher.name} can't compare captions with pictures", found=found)
    return _answers(matcher.bundle, matcher.picture_encoder.facts)


def _answers(bundle: Bundle, facts: EngineFacts) -> Verification:
    """A bundle without golden cases has answered as it should."""
    return Verification(bundle.name, bundle.hash, facts, 0, None, None, "finite numbers", True)
