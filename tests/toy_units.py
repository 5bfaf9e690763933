"""AlexNet's units with made-up numbers, for tests of what a page does with them."""

import pandas as pd

from robustbias import studies
from robustbias.studies import described, pair_of
from robustbias.unit_explorer.data import UnitData, unit_data

CONCEPTS = (("object", "dog"), ("object", "cat"), ("texture", "dots"))
LAYERS = ("features.1", "features.9")


def units() -> UnitData:
    """Nothing is measured: the IoU of unit u with concept q is (u * 7 + q) % 10 / 100."""
    study = studies.load("iconworld", device="cpu", architectures=["alexnet"], replicates=[1])
    dissection, ablation, reads = [], [], []
    for entry in pair_of(study, "alexnet").values():
        about = {**described(study, entry), "low": float("nan"), "high": float("nan")}
        for layer, units in zip(LAYERS, (9, 36), strict=True):
            for u in range(units):
                unit = {**about, "scope": "unit", "layer": layer, "unit": u}
                dissection.append(row(unit, "activation_threshold", 0.5))
                for q, (category, concept) in enumerate(CONCEPTS):
                    pair = {**unit, "category": category, "concept": concept}
                    dissection.append(row(pair, "iou", (u * 7 + q) % 10 / 100))
                    dissection.append(row(pair, "null_iou", 0.01))
                for kind, score in (("shape", u % 5), ("texture", u % 3), ("clean", 1)):
                    ablation.append(row(unit, f"{kind}_score", score))
        for u in range(36):
            below = {"below": u % 9, "place": 0, "value": 1.5, "layer_below": LAYERS[0]}
            reads.append({**about, "scope": "unit", "layer": LAYERS[1], "unit": u, **below})
    names = {"dissection": dissection, "ablation": ablation, "connections": reads}
    tables = {name: pd.DataFrame(rows) for name, rows in names.items()}
    return unit_data(study, tables, n_concepts=60)


def row(about: dict, metric: str, value: float) -> dict:
    return {**about, "metric": metric, "value": value, "n": 60}
