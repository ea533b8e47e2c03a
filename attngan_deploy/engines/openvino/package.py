"""Importing OpenVINO without its telemetry: nothing of this toolkit sends anything anywhere."""

import sys
from typing import Any

from attngan_deploy.engines.request import INSTALL
from attngan_deploy.errors import MissingExtraError

TELEMETRY = "openvino_telemetry"  # tells a server of every import; OpenVINO does without where it can't be imported


def load_openvino() -> Any:
    """The package `openvino`, with its front ends. An application that imported it before decided for itself.

    Raises:
        MissingExtraError: it is not installed, or broken.
    """
    before = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
        import openvino.frontend
    except ImportError as error:
        raise MissingExtraError(
            f"backend openvino needs the 'openvino' extra: {error}",
            next_step=INSTALL["openvino"],
        ) from error
    finally:
        if before is None:
            del sys.modules[TELEMETRY]
        else:
            sys.modules[TELEMETRY] = before
    return openvino
