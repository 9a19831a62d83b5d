"""Libraries that tell a foreign server of their use unless they are forbidden to: forbidden, before they are imported.

OpenVINO and NNCF send events through the package `openvino_telemetry` and do without where it is missing; ONNX Runtime
asks its environment. Both write an identifier into the home folder first. A test looks for it.
"""

from __future__ import annotations

import os
import sys


def tell_nobody() -> None:
    """Call it before the first import of onnxruntime, openvino or nncf; for the rest of this process."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # its import fails, as where it is missing
