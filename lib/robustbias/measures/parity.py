"""Whether shape and texture are equally easy to learn, without which a shape bias means little."""

from typing import Any

import pandas as pd

from robustbias import stats
from robustbias.measures.accuracy import correct
from robustbias.measures.registry import described, measure, tidy

COLUMNS = ["study", "network", "architecture", "cue", "metric", "value", "low", "high", "n"]


@measure
def cue_parity(study: Any, *, n_images: int = 800, batch: int = 200) -> pd.DataFrame:
    """Accuracy of networks that learned from one cue alone, on held-out images with that cue alone.

    One row a network (column `cue`: shape | texture), with Wilson's interval; no rows where a
    study has no such networks.
    """
    rows = []
    for entry in study.entries:
        if entry.cue != "both":
            held_out = study.source.single_cue(entry.cue, n_images).to(study.device)
            hits = correct(study.network_named(entry.name), held_out, batch)
            interval = vars(stats.wilson(int(hits.sum()), len(hits)))
            named = described(study, entry) | {"cue": entry.cue, "metric": "top1"}
            rows.append(named | interval)
    return tidy(pd.DataFrame(rows, columns=COLUMNS))
