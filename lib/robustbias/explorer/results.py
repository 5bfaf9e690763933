"""What came of a visitor's trial, as pieces of a page."""

import html

import torch
from jaxtyping import Float
from matplotlib import colormaps
from torch import Tensor

from robustbias.explorer.pictures import picture, strip
from robustbias.explorer.trials import Look, Silenced
from robustbias.names import REGIMES

SHOWN = 12  # stimuli with a changed answer


def trial(
    regime: str,
    unit: int,
    before: Look,
    after: Look | None,
    heat: Float[Tensor, "h w"] | None = None,
    eps: float = 0.0,
) -> str:
    """An image in one network: what it says, the unit's map, and both after an attack."""
    looks = [("as it is", before)] + ([(f"attacked, radius {eps:g}", after)] if after else [])
    top = max(float(one.map.max()) for _, one in looks)
    figures = "".join(_figure(title, one, top, unit) for title, one in looks)
    if heat is not None:
        figures += (
            f"<figure><img src='{picture(overlaid(before.pixels, heat))}' alt='where its decision "
            "comes from'><figcaption>where the decision comes from</figcaption></figure>"
        )
    words = ""
    if after:
        same = before.answers[0][0] == after.answers[0][0]
        words = "keeps its answer" if same else "<b>changes its answer</b>"
        words = f"<p>Under attack it {words}.</p>"
    return (
        f"<section class='unit unit-{regime}'><h4>{REGIMES[regime]}, unit {unit}</h4>"
        f"<div class=unit-looks>{figures}</div>{words}</section>"
    )


def _figure(title: str, one: Look, top: float, unit: int) -> str:
    first = "".join(f"<li>{html.escape(name)} {share:.2f}</li>" for name, share in one.answers[:3])
    peak = float(one.map.max())
    return (
        f"<figure><img src='{picture(one.pixels)}' alt='the image, {title}'>"
        f"<img src='{strip(one.map[None], top)}' alt='map of unit {unit}'>"
        f"<figcaption>{title}<ol>{first}</ol>unit's peak {peak:.2f}</figcaption></figure>"
    )


def overlaid(pixels: Float[Tensor, "3 h w"], heat: Float[Tensor, "h w"]) -> Float[Tensor, "3 h w"]:
    """A grey image under a map in [0, 1]."""
    grey = pixels.mean(0, keepdim=True).expand(3, -1, -1)
    colour = torch.from_numpy(colormaps["inferno"](heat.sqrt().numpy())[..., :3]).permute(2, 0, 1)
    return 0.35 * grey + 0.65 * colour.float()


def ablation(regime: str, unit: int, found: Silenced) -> str:
    """How many answers change without a unit, and some of those that do."""
    counts = found.counts()
    changed = sum(change for change, _ in counts.values())
    total = len(found.before)
    parts = "; ".join(f"{change} of {all} by {cue}" for cue, (change, all) in counts.items())
    names = found.stimuli.categories
    figures = "".join(
        f"<figure><img src='{picture(found.stimuli.pixels[i].float().cpu() / 255)}' "
        f"alt='{html.escape(found.stimuli.names[i], quote=True)}'><figcaption>"
        f"{names[found.before[i]]} → {names[found.after[i]]}</figcaption></figure>"
        for i in found.changed[:SHOWN].tolist()
    )
    return (
        f"<section class='unit unit-{regime}'><h4>{REGIMES[regime]} without unit {unit}</h4>"
        f"<p>{changed} of {total} answers to cue conflicts change ({parts}).</p>"
        f"<div class='unit-looks unit-changes'>{figures}</div></section>"
    )
