"""The explorer with a kernel: every unit of every layer, and trials on a visitor's own image."""

import contextlib
import html
import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ipywidgets as widgets
import torch
from jaxtyping import Float
from matplotlib import colormaps
from torch import Tensor

from robustbias import manifest
from robustbias.unit_explorer import trials
from robustbias.unit_explorer.atlas import Atlas, measured, paired
from robustbias.unit_explorer.cards import Sheet, picture, strip
from robustbias.unit_explorer.page import STATIC
from robustbias.unit_explorer.trials import Look, Silenced
from robustbias.unit_explorer.units import NONE, View, orders
from robustbias.units_and_cues.attribution import METHODS
from robustbias.utils import REGIMES, UserError, architecture

# -- --------------------------------------------------------------------------------------------
# What came of a visitor's trial, as pieces of a page.


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


EVERY = "all units"


NO_IMAGE = "choose a stimulus"


NO_METHOD = "none"


LEVELS = 8  # of the attack's radius, up to twice the study's


def served() -> bool:
    """Whether JupyterLab or voila started this kernel: someone is there to click."""
    return "JPY_SESSION_NAME" in os.environ or "voila" in os.environ.get("SERVER_SOFTWARE", "")


def app(atlas: Atlas | None = None) -> widgets.VBox:
    """The live explorer of all studies whose networks and images are on this machine.

    Args:
        atlas: Shown first; else the first study is read while the reader waits.
    """
    return App(atlas).root


def here() -> list[str]:
    """Studies with an S and an R of one architecture on this machine."""
    return [name for name in manifest.studies() if paired(name)]


class App:
    """Widgets and what they do. `root` is what a notebook shows."""

    def __init__(self, atlas: Atlas | None = None):
        self.atlas: Atlas | None = None
        self._image: Tensor | None = None
        self._held = 0  # changes that are being made by the app itself
        # the first attribution would wait for it
        threading.Thread(target=importlib.import_module, args=("captum.attr",), daemon=True).start()
        self._build(here() if atlas is None else list(dict.fromkeys([atlas.study.name, *here()])))
        if atlas is not None:
            self._adopt(atlas)
        elif self.study.options:
            # the page appears at once and says what it waits for
            threading.Thread(target=self._load, daemon=True).start()
        else:
            self._tell("No networks are here: run `make train STUDY=iconworld`.", "alert")

    # -- what is on the page -----------------------------------------------------------------

    def _build(self, names: list[str]) -> None:
        def chooser(title: str, kind: str, options: tuple[str, ...] = ()) -> widgets.Dropdown:
            found = widgets.Dropdown(options=options, description=title)
            return found.add_class(f"unit-{kind}").add_class("unit-chooser")

        self.study = chooser("Study", "study", tuple(names))
        self.network = chooser("Network", "architecture")
        self.layer = chooser("Layer", "layer")
        self.detects = chooser("Detects", "detects")
        self.order = chooser("Order", "view")
        self.units = {r: chooser(f"{r[0].upper()}, rank", f"{r}-rank") for r in SIDES}
        self.back, self.forward = (
            widgets.Button(description=sign, tooltip=f"{word} rank").add_class("unit-step")
            for sign, word in (("‹", "previous"), ("›", "next"))
        )
        self.cards = {regime: widgets.HTML() for regime in SIDES}
        self.sheet = widgets.HTML()
        self.status = widgets.HTML().add_class("unit-status-live")
        self.progress = widgets.FloatProgress(min=0, max=1).add_class("unit-progress")
        self.upload = widgets.FileUpload(
            accept="image/*", multiple=False, description="Your image"
        ).add_class("unit-upload")
        self.stimulus = chooser("or", "stimulus")
        self.eps = widgets.FloatSlider(
            min=0, max=1, step=0.125, value=0, description="Attack", continuous_update=False
        ).add_class("unit-eps")
        self.method = chooser("Attribution", "method", (NO_METHOD, *METHODS))
        self.trials = {regime: widgets.HTML() for regime in SIDES}
        self.silence = widgets.Button(description="Silence these units").add_class("unit-silence")
        self.losses = {regime: widgets.HTML() for regime in SIDES}
        css = (STATIC / "explorer.css").read_text(encoding="utf-8")
        choosers = [self.study, self.network, self.layer, self.detects, self.order]
        ranks = [self.units["standard"], self.units["robust"], self.back, self.forward]
        self.root = widgets.VBox(
            [
                widgets.HTML(f"<style>{css}</style>"),
                self.sheet,
                _row(choosers),
                _row(ranks),
                _row([self.progress, self.status]),
                _pair(self.cards),
                _title("An image of your own, attacked"),
                _row([self.upload, self.stimulus, self.eps, self.method]),
                _pair(self.trials),
                _title("Without these units"),
                _row([self.silence]),
                _pair(self.losses),
            ]
        ).add_class("unit-explorer")
        self.study.observe(self._on(lambda: self._load()), "value")
        self.network.observe(self._on(self._choose_network), "value")
        self.layer.observe(self._on(self._rank), "value")
        for one in (self.detects, self.order):
            one.observe(self._on(self._rank), "value")
        for one in self.units.values():
            one.observe(self._on(self._show), "value")
        self.back.on_click(lambda _: self._step(-1))
        self.forward.on_click(lambda _: self._step(1))
        self.upload.observe(self._on(self._uploaded), "value")
        self.stimulus.observe(self._on(self._picked), "value")
        for one in (self.eps, self.method):
            one.observe(self._on(self._try), "value")
        self.silence.on_click(lambda _: self._silence())

    def _on(self, action: Callable[[], None]) -> Callable[[Any], None]:
        """The action as a callback that stays quiet while the app itself changes widgets."""

        def callback(_change: Any) -> None:
            if not self._held:
                action()

        return callback

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def _tell(self, text: str, role: str = "status") -> None:
        self.status.value = f"<p role={role} class=unit-said>{html.escape(text)}</p>"

    @contextlib.contextmanager
    def _working(self, what: str) -> Iterator[Callable[[float], None]]:
        """Says what is done, how far it is, and how long it took; an error is one message."""
        started = time.perf_counter()
        self._tell(f"{what} …")
        self.progress.value = 0.1
        try:
            yield lambda share: setattr(self.progress, "value", share)
        except UserError as error:
            self._tell(str(error), "alert")
        except Exception as error:
            self._tell(f"{what} failed: {type(error).__name__}: {error}", "alert")
            raise
        else:
            self._tell(f"{what}: done in {time.perf_counter() - started:.1f} s.")
        finally:
            self.progress.value = 1.0

    # -- which units -------------------------------------------------------------------------

    def _load(self) -> None:
        name = self.study.value
        # one at a time: two threads must not look into the same network
        self.study.disabled = True
        try:
            with self._working(f"reading the tables of {name}, or measuring them (minutes, once)"):
                self._adopt(measured(name))
        finally:
            self.study.disabled = False

    def _adopt(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self._conflicts = trials.Conflicts(atlas.study)
        threat = atlas.study.entry.threat
        with self._quiet():
            self.network.options = [(architecture(name), name) for name in atlas.pairs]
            self.network.index = 0
            self.detects.options = [EVERY, *atlas.images.categories, NONE]
            self.order.options = [(one.title, i) for i, one in enumerate(orders(atlas.table))]
            self.detects.index = self.order.index = 0
            self.eps.value = 0
            self.eps.max, self.eps.step = 2 * threat.eps, 2 * threat.eps / LEVELS
            self.eps.description = f"Attack, {threat.norm.upper()}"
            names = self._conflicts.stimuli.names[:12]
            self.stimulus.options = [(NO_IMAGE, -1), *((name, i) for i, name in enumerate(names))]
            self.stimulus.index = 0
            self._image = None
        self._choose_network()

    def _choose_network(self) -> None:
        with self._quiet():
            self.layer.options = self.atlas.shared_layers(self.network.value)
            self.layer.index = 0
        with self._working("looking for what excites the units") as reached:
            for done, entry in enumerate(self._pair.values(), 1):
                self.atlas.sights(entry.name)
                reached(done / 2)
        self._rank()

    @property
    def _pair(self) -> dict[str, Any]:
        return self.atlas.pairs[self.network.value]

    def _rank(self) -> None:
        order = orders(self.atlas.table)[self.order.value]
        wanted = "" if self.detects.value == EVERY else self.detects.value
        view = View("", order.by, order.descending, wanted)
        with self._quiet():
            for regime, entry in self._pair.items():
                own = self.atlas.layer(entry.name, self.layer.value).set_index("unit")
                ranked = view.ranked(own.reset_index())
                self.units[regime].options = [
                    (f"{rank}. unit {u}: {_word(own.loc[u])}", u)
                    for rank, u in enumerate(ranked, 1)
                ]
                self.units[regime].index = 0 if ranked else None
        self._show()

    def _step(self, by: int) -> None:
        with self._quiet():
            for one in self.units.values():
                if one.index is not None:
                    one.index = min(max(one.index + by, 0), len(one.options) - 1)
        self._show()

    def _show(self) -> None:
        chosen = {r: self.units[r].value for r in SIDES}
        layer = self.layer.value
        with self._working("drawing") as reached:
            images = [
                image
                for regime, entry in self._pair.items()
                if chosen[regime] is not None
                for image in self.atlas.sights(entry.name)[layer].images[chosen[regime]].tolist()
            ]
            sheet = Sheet(self.atlas.images.pixels, images)
            self.sheet.value = f"<style>{sheet.css(quality=90)}</style>"
            for regime, entry in self._pair.items():
                unit = chosen[regime]
                if unit is None:
                    self.cards[regime].value = "<p>No unit of this layer is of this kind.</p>"
                else:
                    self.cards[regime].value = self.atlas.card(entry, layer, unit, sheet)
            for one in self.losses.values():
                one.value = ""
            reached(1.0)
        if self._image is not None:
            self._try()

    # -- trials ------------------------------------------------------------------------------

    def _uploaded(self) -> None:
        if not self.upload.value:
            return
        file = self.upload.value[0]
        with self._working(f"reading {file['name']}"):
            side = next(iter(self._pair.values())).size
            pixels = trials.square(bytes(file["content"]), file["name"], side)
            self._image = pixels.float() / 255
            with self._quiet():
                self.stimulus.index = 0
            self._try()
        with self._quiet():
            self.upload.value = ()  # so that the same file can be chosen again

    def _picked(self) -> None:
        if self.stimulus.value is not None and self.stimulus.value >= 0:
            self._image = self._conflicts.stimuli.pixels[self.stimulus.value].float().cpu() / 255
            self._try()

    def _try(self) -> None:
        if self._image is None:
            self._tell("Choose an image first: your own or a stimulus.")
            return
        study, layer, eps = self.atlas.study, self.layer.value, self.eps.value
        with self._working("attacking S and R" if eps else "looking at the image") as reached:
            for done, (regime, entry) in enumerate(self._pair.items(), 1):
                unit = self.units[regime].value
                if unit is None:
                    continue
                before = trials.look(study, entry, layer, unit, self._image)
                after = heat = None
                if eps:
                    changed = trials.attacked(study, entry, self._image, eps)
                    after = trials.look(study, entry, layer, unit, changed)
                if self.method.value != NO_METHOD:
                    heat = trials.attributed(study, entry, self._image, self.method.value)
                self.trials[regime].value = trial(regime, unit, before, after, heat, eps)
                reached(done / 2)

    def _silence(self) -> None:
        with self._working("silencing") as reached:
            for done, (regime, entry) in enumerate(self._pair.items(), 1):
                unit = self.units[regime].value
                if unit is None:
                    continue
                found = self._conflicts.silenced(entry, self.layer.value, unit)
                self.losses[regime].value = ablation(regime, unit, found)
                reached(done / 2)


SIDES = ("standard", "robust")


def _row(children: list) -> widgets.Box:
    return widgets.Box(children).add_class("unit-controls")


def _pair(sides: dict[str, widgets.HTML]) -> widgets.Box:
    return widgets.Box(list(sides.values())).add_class("unit-pair")


def _title(text: str) -> widgets.HTML:
    return widgets.HTML(f"<h2>{text}</h2>")


def _word(unit: Any) -> str:
    """A unit in a list: its concept, if it detects one, and its IoU."""
    return f"{unit['concept'] if unit['detector'] else NONE} {unit['iou']:.3f}"
