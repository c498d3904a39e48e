"""How many examples a property is tried on: a fixed set in the suite, more and new ones on request."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings

_ASKED = int(os.environ.get("VELARIA_EXAMPLES", "0"))


def examples(count: int) -> Callable[[Any], Any]:
    """Settings for a property that the suite tries on `count` examples."""
    return settings(
        max_examples=_ASKED or count,
        derandomize=not _ASKED,
        deadline=None,
        # Explaining a failure costs more than finding it.
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
