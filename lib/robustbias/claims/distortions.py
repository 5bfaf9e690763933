"""C2: R networks do better without texture; C2c: that they resist corruption was never claimed.

The paper does not say that R generalises better to ImageNet-C as a whole, and for ImageNet's
ResNet-50 it does not (data_manifest/published.csv); C2c states this, to be seen beside C2.
"""

from collections.abc import Iterator

import pandas as pd

from robustbias.claims.registry import claim
from robustbias.claims.verdicts import Claim

SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373, abstract"
PUBLISHED = (
    "ResNet-50, L2 eps 3, in paulgavrikov/biases_vs_generalization (CC BY-SA 4.0); not a claim of "
    "the paper"
)
# condition of `measures.ood` -> the part's id and the images in words
PARTS = {
    "stylized": ("C2.stylized", "stylized images"),
    "silhouettes": ("C2.silhouettes", "silhouettes"),
    "black silhouettes": ("C2.black", "black silhouettes on white"),
}
ZHANG = "Zhang and Zhu 2019, arXiv 1905.09797"
# condition -> the part's id, whether R is claimed above S, and the claim; among images that both
# name rightly as they are, since S starts from the higher accuracy
KEPT = {
    "saturated, p = inf": (
        "C2.saturated", True,
        "R networks keep more of their right answers than S networks on saturated images.",
    ),
    "scrambled 4 x 4": (
        "C2.scrambled", False,
        "R networks lose more of their right answers than S networks when patches are scrambled.",
    ),
}  # fmt: skip
# in this order: where a set of images has labels for both, the finer one decides
DECISIONS = {"top1_difference": "top-1", "entry_level_difference": "entry-level accuracy"}


@claim("C2", "R does better without texture, S without shape")
def distortions(table: pd.DataFrame) -> Iterator[Claim]:
    """Paired differences of accuracy from `measures.ood`, with texture or shape taken away."""
    for condition, (id, images) in PARTS.items():
        shown = table[(table["condition"] == condition) & table["metric"].isin(DECISIONS)]
        shown = shown.sort_values("metric", key=lambda m: m.map(list(DECISIONS).index))
        for row in shown.drop_duplicates("architecture").sort_index().itertuples():
            yield Claim.of(
                row,
                id=id,
                statement=f"R networks beat S networks on {images}.",
                source=SOURCE,
                statistic=f"{DECISIONS[row.metric]} on {images}, R minus S",
                threshold=0.0,
            )
    for condition, (id, above, statement) in KEPT.items():
        shown = (table["condition"] == condition) & (
            table["metric"] == "top1_conditional_difference"
        )
        for row in table[shown].itertuples():
            yield Claim.of(
                row,
                id=id,
                statement=statement,
                source=ZHANG,
                statistic=f"top-1 ({condition}; both right when clean), R minus S",
                threshold=0.0,
                above=above,
            )


@claim("C2c", "R does not withstand corruptions better as a whole")
def corruptions(table: pd.DataFrame) -> Iterator[Claim]:
    """Difference of the mean corruption error; above 0 the robust network is the worse one."""
    for row in table[table["metric"] == "mce_difference"].itertuples():
        yield Claim.of(
            row,
            id="C2c",
            statement="R networks do not generalise better to ImageNet-C's corruptions as a whole.",
            source=PUBLISHED,
            statistic=f"mCE (in per cent of {row.reference}), R minus S",
            threshold=0.0,
        )
