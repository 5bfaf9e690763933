"""How the networks of a study came about."""

from typing import Any

import pandas as pd

from robustbias import campaign
from robustbias.measures.registry import pairs


def training_records(study: Any, *, series: bool = False) -> pd.DataFrame:
    """A row an epoch of every S and R, as written beside their weights.

    Args:
        series: Those of the series over training radii, instead of the pairs.

    Columns: network, architecture, regime, eps, epoch, loss, clean and adversarial (held-out
    accuracies, NaN in epochs without a test), seconds, rate.
    """
    entries = [entry for pair in pairs(study).values() for entry in pair.values()]
    if series:
        own = study.entry.dose_architecture
        entries = [e for e in study.entries if e.cue == "both" and e.architecture == own]
    return campaign.records(entry.name for entry in entries)
