"""The explorer in a page: widgets joined by links that the browser follows, without a kernel.

A page has the first units of every layer in every view. Each card is one widget, however many views
contain it; a `Stack` shows one of its children, and links tie its index to the reader's choice.
S and R stand side by side by rank: their units do not correspond to each other.
"""

import json
from typing import Any

import ipywidgets as widgets
from IPython.display import Javascript

from robustbias.unit_explorer.cards import LETTERS, STATIC, Sheet, card, empty_card
from robustbias.unit_explorer.data import UnitData
from robustbias.utils import architecture

ENDED = "This layer has no further unit of this kind."

Ranking = dict[str, dict[str, dict[str, list[list[int]]]]]


def page(data: UnitData, *, n_units: int = 6, show_images: bool = True) -> widgets.VBox:
    """The explorer of a page.

    Args:
        n_units: Units of a network in each view of a layer.
        show_images: False leaves out images, and maps, which may be as good as images.
    """
    ranking = _ranking(data, n_units)
    entries = {
        (entry.name, layer, unit): entry
        for name, layers in ranking.items()
        for layer, sides in layers.items()
        for entry, views in zip(data.pairs[name].values(), sides.values(), strict=True)
        for units in views
        for unit in units
    }
    images = [i for n, layer, u in entries for i in data.top_images(n)[layer].images[u].tolist()]
    sheet = Sheet(data.images.pixels, images, show_images)
    # layouts and styles are widgets that the page stores, so all share one of each
    box = {"layout": widgets.Layout()}
    plain = {**box, "style": widgets.HTML().style}
    cards = {
        (name, layer, unit): widgets.HTML(card(data, entry, layer, unit, sheet), **plain)
        for (name, layer, unit), entry in entries.items()
    }
    empty = {regime: widgets.HTML(empty_card(regime, ENDED), **plain) for regime in LETTERS}

    network = _chooser("Network", [architecture(name) for name in ranking], "architecture")
    view = _chooser("Show", [view.title for view in data.views()], "view")
    rank = _chooser("Rank", [str(i + 1) for i in range(n_units)], "rank")
    choosers = {name: _chooser("Layer", list(layers), "layer") for name, layers in ranking.items()}

    def side(name: str, layer: str, regime: str, units: list[int]) -> widgets.Stack:
        children = [cards[data.pairs[name][regime].name, layer, unit] for unit in units]
        return _stack(children + [empty[regime]] * (n_units - len(units)), rank, box)

    def layer_stack(name: str, layer: str) -> widgets.Stack:
        by_view = zip(*ranking[name][layer].values(), strict=True)
        pairs = [
            [side(name, layer, r, units) for r, units in zip(data.pairs[name], both, strict=True)]
            for both in by_view
        ]
        return _stack([widgets.Box(p, **box).add_class("unit-pair") for p in pairs], view, box)

    bodies = [
        _stack([layer_stack(name, layer) for layer in layers], choosers[name], box)
        for name, layers in ranking.items()
    ]
    controls = [network, _stack(list(choosers.values()), network, box), view, rank]
    style = (STATIC / "explorer.css").read_text(encoding="utf-8")
    return widgets.VBox(
        [
            widgets.HTML(f"<style>{style}{sheet.css()}</style>", **plain),
            widgets.Box(controls, **box).add_class("unit-controls"),
            _stack(bodies, network, box),
        ],
        **box,
    ).add_class("unit-explorer")


def _ranking(data: UnitData, n_units: int) -> Ranking:
    """Architecture -> layer -> "s" or "r" -> the first units of each view, in order."""
    return {
        name: {
            layer: {
                LETTERS[regime].lower(): [
                    view.ranked(data.layer(entry.name, layer))[:n_units] for view in data.views()
                ]
                for regime, entry in pair.items()
            }
            for layer in data.shared_layers(name)
        }
        for name, pair in data.pairs.items()
    }


def _chooser(title: str, options: list[str], kind: str) -> widgets.Dropdown:
    chooser = widgets.Dropdown(options=options, index=0, description=title)
    return chooser.add_class(f"unit-{kind}").add_class("unit-chooser")


def _stack(
    children: list[widgets.Widget], chooser: widgets.Dropdown, box: dict[str, Any]
) -> widgets.Stack:
    stack = widgets.Stack(children, selected_index=0, **box)
    widgets.jslink((chooser, "index"), (stack, "selected_index"))
    return stack


def links(data: UnitData, *, n_units: int = 6) -> Javascript:
    """The script that adds to a page what widgets cannot: links to units (`?unit=NAME` or
    `#unit-NAME`), arrow keys, next and previous. Without it the page still works.

    Args:
        n_units: As in `page`.
    """
    script = (STATIC / "explorer.js").read_text(encoding="utf-8")
    index = json.dumps(_ranking(data, n_units), separators=(",", ":"))
    return Javascript(f"{script}\nunitExplorer({index});")
