"""The explorer in a page: widgets joined by links that the browser follows, without a kernel.

A page holds the first units of every layer in every view. Each card is one widget, however many
views show it; a `Stack` shows one of its children, and links tie its index to what a reader chose.
S and R stand side by side by rank: their units do not correspond to each other.
"""

import json

import ipywidgets as widgets
from IPython.display import Javascript

from robustbias import manifest
from robustbias.unit_explorer.atlas import Atlas
from robustbias.unit_explorer.cards import LETTERS, Sheet, none
from robustbias.utils import architecture

STATIC = manifest.ROOT / "book" / "static"


ENDED = "This layer has no further unit of this kind."


Ranking = dict[tuple[str, str, int], list[int]]  # network, layer, view -> its first units


def page(atlas: Atlas, *, n_units: int = 6, show_images: bool = True) -> widgets.VBox:
    """The explorer of a page.

    Args:
        n_units: Units of a network in each view of a layer.
        show_images: False leaves out images, and maps, which may be as good as images.
    """
    views = atlas.views()
    ranking: Ranking = {
        (entry.name, layer, i): view.ranked(atlas.layer(entry.name, layer))[:n_units]
        for name, pair in atlas.pairs.items()
        for layer in atlas.shared_layers(name)
        for entry in pair.values()
        for i, view in enumerate(views)
    }
    chosen = {(name, layer, u) for (name, layer, _), own in ranking.items() for u in own}
    images = [i for name, layer, u in chosen for i in atlas.sights(name)[layer].images[u].tolist()]
    sheet = Sheet(atlas.images.pixels, images, show_images)
    # one layout and one style for all: they are widgets too, and a page holds every one
    plain = {"layout": widgets.Layout(), "style": widgets.HTML().style}
    entries = {entry.name: entry for pair in atlas.pairs.values() for entry in pair.values()}
    cards = {
        (name, layer, u): widgets.HTML(atlas.card(entries[name], layer, u, sheet), **plain)
        for name, layer, u in sorted(chosen)
    }
    return _assembled(atlas, views, ranking, cards, sheet, plain, n_units)


def _assembled(atlas, views, ranking, cards, sheet, plain, n_units) -> widgets.VBox:
    which = _chooser("Network", [architecture(name) for name in atlas.pairs], "architecture")
    view = _chooser("Show", [view.title for view in views], "view")
    rank = _chooser("Rank", [str(i + 1) for i in range(n_units)], "rank")
    box = {"layout": plain["layout"]}
    absent = {regime: widgets.HTML(none(regime, ENDED), **plain) for regime in LETTERS}
    layer_choosers, bodies = [], []
    for name, pair in atlas.pairs.items():
        layers = atlas.shared_layers(name)
        layer_choosers.append(_chooser("Layer", layers, "layer"))
        by_layer = []
        for layer in layers:
            by_view = []
            for i in range(len(views)):
                sides = []
                for regime, entry in pair.items():
                    own = ranking[entry.name, layer, i]
                    shown = [cards[entry.name, layer, u] for u in own]
                    shown += [absent[regime]] * (n_units - len(own))
                    sides.append(_stack(shown, rank, box))
                by_view.append(widgets.Box(sides, **box).add_class("unit-pair"))
            by_layer.append(_stack(by_view, view, box))
        bodies.append(_stack(by_layer, layer_choosers[-1], box))
    controls = [which, _stack(layer_choosers, which, box), view, rank]
    style = (STATIC / "explorer.css").read_text(encoding="utf-8")
    return widgets.VBox(
        [
            widgets.HTML(f"<style>{style}{sheet.css()}</style>", **plain),
            widgets.Box(controls, **box).add_class("unit-controls"),
            _stack(bodies, which, box),
        ],
        **box,
    ).add_class("unit-explorer")


def _chooser(title: str, options: list[str], kind: str) -> widgets.Dropdown:
    chooser = widgets.Dropdown(options=options, index=0, description=title)
    return chooser.add_class(f"unit-{kind}").add_class("unit-chooser")


def _stack(children: list, chooser: widgets.Dropdown, box: dict) -> widgets.Stack:
    stack = widgets.Stack(children, selected_index=0, **box)
    widgets.jslink((chooser, "index"), (stack, "selected_index"))
    return stack


def links(atlas: Atlas, *, n_units: int = 6) -> Javascript:
    """The script that adds to a page what widgets cannot: links to units (`?unit=NAME` or
    `#unit-NAME`), arrow keys, next and previous. Without it the page still works.

    Args:
        n_units: As in `page`.
    """
    views = atlas.views()
    index = {
        name: {
            layer: {
                LETTERS[regime].lower(): [
                    view.ranked(atlas.layer(entry.name, layer))[:n_units] for view in views
                ]
                for regime, entry in pair.items()
            }
            for layer in atlas.shared_layers(name)
        }
        for name, pair in atlas.pairs.items()
    }
    script = (STATIC / "explorer.js").read_text(encoding="utf-8")
    return Javascript(f"{script}\nunitExplorer({json.dumps(index, separators=(',', ':'))});")
