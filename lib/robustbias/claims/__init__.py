"""Claims of the paper, judged by our tables.

A claim is one `@claim` function in a module of this folder; importing it here makes it found.
"""

from robustbias.claims import (  # noqa: F401  (they register their claims)
    concepts,
    cue_units,
    distortions,
    input_types,
    robustness,
    shape,
    smoothness,
)
from robustbias.claims.registry import TESTS, TITLES, claim, tested
from robustbias.claims.verdicts import Claim, Verdicts, joint

__all__ = ["TESTS", "TITLES", "Claim", "Verdicts", "claim", "joint", "tested"]
