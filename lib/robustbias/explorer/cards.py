"""One unit as a piece of a page: what excites it, what it detects, how smooth, what it serves."""

import html
from collections.abc import Iterable

import pandas as pd

from robustbias.explorer.pictures import CANVAS, Sheet, bars, filter_picture, outline, strip
from robustbias.explorer.sights import Sights
from robustbias.explorer.units import FACTS
from robustbias.names import REGIMES

LETTERS = {regime: REGIMES[regime][0] for regime in ("standard", "robust")}


def card(
    unit: pd.Series,
    *,
    name: str,
    regime: str,
    of: int,
    seen: Sights,
    sheet: Sheet,
    ious: pd.DataFrame,
    words: Iterable[str],
    filter: object = None,
) -> str:
    """HTML of one unit.

    Args:
        unit: A row of `units.joined`.
        name: Under which a link finds it.
        regime: Of its network.
        of: How many units its layer has.
        ious: Its concepts with the highest IoU: category, concept, iou, null.
        words: For each image of `seen`, what is on it, for those who cannot see it.
        filter: Its weights (3 a b) where it looks at the image itself.
    """
    number = int(unit["unit"])
    title = f"{LETTERS[regime]}, unit {number}"
    parts = [
        f"<section class='unit unit-{regime}' data-unit='{name}' aria-label='{title}'>",
        f"<h3>{REGIMES[regime]} <b>unit {number}</b> <small>of {of}</small> ",
        f"<a class='unit-link' href='#unit-{name}' aria-label='link to {title}'>#</a></h3>",
        _label(unit),
        _sights(unit, seen, sheet, list(words)),
        _bars(ious),
        _facts(unit),
        f"<div class=unit-foot>{_filter(filter)}{_histogram(unit, seen)}</div>",
        "</section>",
    ]
    return "".join(parts)


def none(regime: str, what: str) -> str:
    """A card in place of a unit that is not there."""
    return (
        f"<section class='unit unit-{regime} unit-none'><h3>{REGIMES[regime]}</h3>"
        f"<p>{html.escape(what)}</p></section>"
    )


def _label(unit: pd.Series) -> str:
    if not unit["detector"]:
        return "<p class='unit-label'>detects no concept</p>"
    return (
        f"<p class='unit-label'>detects <b>{html.escape(str(unit['concept']))}</b> "
        f"<small>({html.escape(str(unit['category']))})</small></p>"
    )


def _sights(row: pd.Series, seen: Sights, sheet: Sheet, words: list[str]) -> str:
    unit = int(row["unit"])
    top = float(seen.maps[unit].max())
    if top <= 0:
        return "<p>Silent on every image.</p>"
    threshold = float(row["threshold"])
    tiles = []
    for image, map in zip(seen.images[unit].tolist(), seen.maps[unit], strict=True):
        path = outline(map, threshold)
        tiles.append(
            f"<i style='{sheet.style(image)}'>"
            f"<svg viewBox='0 0 {CANVAS} {CANVAS}'><path d='{path}'/></svg></i>"
        )
    alt = html.escape("; ".join(words), quote=True)
    found = (
        f"<div class=unit-tiles role=img aria-label='Its top images, its region outlined: {alt}'>"
        f"{''.join(tiles)}</div>"
    )
    if sheet.shown:  # a map of a first layer is nearly the image itself
        source = strip(seen.maps[unit], top)
        found += f"<img class=unit-maps src='{source}' alt='its activation maps of these images'>"
    return found


def _bars(ious: pd.DataFrame) -> str:
    scale = max(0.05, float(ious["iou"].max())) if len(ious) else 1.0
    rows = "".join(
        f"<tr><th>{html.escape(row.concept)} <small>{html.escape(row.category)}</small></th>"
        f"<td><i style=width:{100 * row.iou / scale:.0f}%></i>"
        f"<b style=left:{100 * min(1.0, row.null / scale):.0f}%></b></td>"
        f"<td>{row.iou:.3f}</td></tr>"
        for row in ious.itertuples()
    )
    return (
        "<table class=unit-ious><caption>IoU with concepts "
        f"<small>(line: by chance)</small></caption>{rows}</table>"
    )


def _facts(unit: pd.Series) -> str:
    rows = []
    for fact in FACTS:
        if fact.title and fact.column in unit and pd.notna(unit[fact.column]):
            text = fact.form(unit[fact.column])
            if fact.measure == "ablation":
                text += f"/{unit['n_decisions']:.0f}"
            rows.append(f"<dt>{fact.title}</dt><dd data-fact={fact.column}>{text}</dd>")
    return f"<dl class=unit-facts>{''.join(rows)}</dl>" if rows else ""


def _histogram(row: pd.Series, seen: Sights) -> str:
    counts, low, high = seen.histogram(int(row["unit"]))
    if high <= low:
        return ""
    width, threshold = 4 * len(counts), float(row["threshold"])
    at = width * (threshold - low) / (high - low)
    n = seen.peaks.shape[1]
    return (
        f"<svg class=unit-histogram viewBox='0 0 {width} 25' role=img aria-label='Histogram of the "
        f"strongest activation in each of {n} images, from {low:.2g} to {high:.2g}; threshold "
        f"{threshold:.2g}'><path d='{bars(counts, 20)}'/>"
        f"<path class=unit-threshold d='M{at:.1f} 0V20'/><text x=0 y=24>{low:.2g}</text>"
        f"<text x={width} y=24 text-anchor=end>{high:.2g}</text><text x={width / 2:g} y=24 "
        f"text-anchor=middle>strongest activation in {n} images</text></svg>"
    )


def _filter(weights: object) -> str:
    if weights is None:
        return ""
    return f"<img class=unit-filter src='{filter_picture(weights)}' alt='its filter on colours'>"
