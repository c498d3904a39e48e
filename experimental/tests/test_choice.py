"""E-10: when another process pays, on estimates that the test gives."""

from __future__ import annotations

import pytest

from velaria_experimental.plans.choice import Estimate

MANY, BYTES = 100_000, 1_000_000


@pytest.mark.parametrize(
    ("estimate", "pays"),
    [
        (Estimate(MANY, BYTES, 100_000, 50_000, 5_000), True),  # much work, little overhead
        (Estimate(MANY, BYTES, 100_000, 50_000, 49_000), False),  # nothing is gained
        (Estimate(MANY, BYTES, 100_000, 90_000, 20_000), False),  # slower
        (Estimate(MANY, BYTES, 100_000, 40_000, 35_000), True),  # overhead, and still far faster
        (Estimate(10, 80, 100_000, 40_000, 35_000), False),  # the same for a few rows
        (Estimate(10, 80, 100_000, 50_000, 5_000), True),  # few rows with much work each
    ],
)
def test_the_rule(estimate: Estimate, pays: bool) -> None:
    assert estimate.pays is pays
    assert estimate.reason.startswith("another process pays" if pays else "another process does not pay")
