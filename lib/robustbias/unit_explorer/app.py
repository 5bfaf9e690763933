"""The explorer with a kernel: every unit of every layer, and trials on a visitor's image."""

import contextlib
import html
import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ipywidgets as widgets
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib import colormaps
from torch import Tensor

from robustbias import manifest, studies
from robustbias.manifest import NetworkEntry
from robustbias.unit_explorer import trials
from robustbias.unit_explorer.cards import STATIC, Sheet, card, map_strip, picture
from robustbias.unit_explorer.data import SIDES, UnitData, book_unit_data, complete_pairs
from robustbias.unit_explorer.trials import Response, Silenced
from robustbias.unit_explorer.units import NO_CONCEPT, View, orders
from robustbias.units_and_cues.attribution import METHODS
from robustbias.utils import REGIMES, UserError, architecture

N_CHANGED = 12  # stimuli with a changed answer that are displayed
EVERY = "all units"
NO_IMAGE = "choose a stimulus"
NO_METHOD = "none"
LEVELS = 8  # of the attack's radius, up to twice the study's


def trial(
    regime: str,
    unit: int,
    before: Response,
    after: Response | None,
    heat: Float[Tensor, "h w"] | None = None,
    eps: float = 0.0,
) -> str:
    """HTML of an image in one network: its answers, the unit's map, and both after an attack."""
    responses = [("as it is", before)] + ([(f"attacked, radius {eps:g}", after)] if after else [])
    top = max(float(one.map.max()) for _, one in responses)
    figures = "".join(_figure(title, one, top, unit) for title, one in responses)
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


def _figure(title: str, one: Response, top: float, unit: int) -> str:
    first = "".join(f"<li>{html.escape(name)} {share:.2f}</li>" for name, share in one.answers[:3])
    peak = float(one.map.max())
    return (
        f"<figure><img src='{picture(one.pixels)}' alt='the image, {title}'>"
        f"<img src='{map_strip(one.map[None], top)}' alt='map of unit {unit}'>"
        f"<figcaption>{title}<ol>{first}</ol>unit's peak {peak:.2f}</figcaption></figure>"
    )


def overlaid(pixels: Float[Tensor, "3 h w"], heat: Float[Tensor, "h w"]) -> Float[Tensor, "3 h w"]:
    """A grey image under a map in [0, 1]."""
    grey = pixels.mean(0, keepdim=True).expand(3, -1, -1)
    colour = torch.from_numpy(colormaps["inferno"](heat.sqrt().numpy())[..., :3]).permute(2, 0, 1)
    return 0.35 * grey + 0.65 * colour.float()


def ablation(regime: str, unit: int, result: Silenced) -> str:
    """HTML of how many answers change without a unit, and some of those that do."""
    counts, stimuli = result.counts(), result.stimuli
    changed = sum(change for change, _ in counts.values())
    parts = "; ".join(f"{change} of {all} by {cue}" for cue, (change, all) in counts.items())
    names = stimuli.categories
    figures = "".join(
        f"<figure><img src='{picture(stimuli.pixels[i].float().cpu() / 255)}' "
        f"alt='{html.escape(stimuli.names[i], quote=True)}'><figcaption>"
        f"{names[result.before[i]]} → {names[result.after[i]]}</figcaption></figure>"
        for i in result.changed[:N_CHANGED].tolist()
    )
    return (
        f"<section class='unit unit-{regime}'><h4>{REGIMES[regime]} without unit {unit}</h4>"
        f"<p>{changed} of {len(result.before)} answers to cue conflicts change ({parts}).</p>"
        f"<div class='unit-looks unit-changes'>{figures}</div></section>"
    )


def served() -> bool:
    """Whether JupyterLab or voila started this kernel, so that a reader can use the widgets."""
    return "JPY_SESSION_NAME" in os.environ or "voila" in os.environ.get("SERVER_SOFTWARE", "")


def app(data: UnitData | None = None) -> widgets.VBox:
    """The live explorer of all studies whose networks and images are on this machine.

    Args:
        data: The study that appears first; without it the first study is read in the background.
    """
    return App(data).root


def available_studies() -> list[str]:
    """Studies with an S and an R of one architecture on this machine."""
    return [name for name in manifest.studies() if complete_pairs(studies.load(name))]


class App:
    """The widgets of the live explorer and their callbacks. A notebook displays `root`."""

    def __init__(self, data: UnitData | None = None):
        self.data: UnitData | None = None
        self._image: Tensor | None = None
        self._quiet_blocks = 0  # above 0, callbacks ignore changes
        # imported now, since the first attribution would wait for it
        threading.Thread(target=importlib.import_module, args=("captum.attr",), daemon=True).start()
        names = available_studies()
        self._build(names if data is None else list(dict.fromkeys([data.study.name, *names])))
        if data is not None:
            self._adopt(data)
        elif self.study.options:
            # the page appears at once and says what it waits for
            threading.Thread(target=self._load, daemon=True).start()
        else:
            self._tell("No networks are here: run `make train STUDY=iconworld`.", "alert")

    def _build(self, names: list[str]) -> None:
        self.study = _chooser("Study", "study", names)
        self.network = _chooser("Network", "architecture")
        self.layer = _chooser("Layer", "layer")
        self.detects = _chooser("Detects", "detects")
        self.order = _chooser("Order", "view")
        self.units = {r: _chooser(f"{r[0].upper()}, rank", f"{r}-rank") for r in SIDES}
        self.back, self.forward = (
            widgets.Button(description=sign, tooltip=f"{word} rank").add_class("unit-step")
            for sign, word in (("‹", "previous"), ("›", "next"))
        )
        self.cards, self.trials, self.ablations = (
            {regime: widgets.HTML() for regime in SIDES} for _ in range(3)
        )
        self.sheet = widgets.HTML()
        self.status = widgets.HTML().add_class("unit-status-live")
        self.progress = widgets.FloatProgress(min=0, max=1).add_class("unit-progress")
        self.upload = widgets.FileUpload(
            accept="image/*", multiple=False, description="Your image"
        ).add_class("unit-upload")
        self.stimulus = _chooser("or", "stimulus")
        self.eps = widgets.FloatSlider(
            min=0, max=1, step=0.125, value=0, description="Attack", continuous_update=False
        ).add_class("unit-eps")
        self.method = _chooser("Attribution", "method", [NO_METHOD, *METHODS])
        self.silence = widgets.Button(description="Silence these units").add_class("unit-silence")
        css = (STATIC / "explorer.css").read_text(encoding="utf-8")
        self.root = widgets.VBox(
            [
                widgets.HTML(f"<style>{css}</style>"),
                self.sheet,
                _row([self.study, self.network, self.layer, self.detects, self.order]),
                _row([*self.units.values(), self.back, self.forward]),
                _row([self.progress, self.status]),
                _pair(self.cards),
                widgets.HTML("<h2>An image of your own, attacked</h2>"),
                _row([self.upload, self.stimulus, self.eps, self.method]),
                _pair(self.trials),
                widgets.HTML("<h2>Without these units</h2>"),
                _row([self.silence]),
                _pair(self.ablations),
            ]
        ).add_class("unit-explorer")
        callbacks = {
            self._load: [self.study],
            self._choose_network: [self.network],
            self._rank: [self.layer, self.detects, self.order],
            self._show: list(self.units.values()),
            self._read_upload: [self.upload],
            self._choose_stimulus: [self.stimulus],
            self._try: [self.eps, self.method],
        }
        for action, observed in callbacks.items():
            for widget in observed:
                widget.observe(self._unless_quiet(action), "value")
        self.back.on_click(lambda _: self._step(-1))
        self.forward.on_click(lambda _: self._step(1))
        self.silence.on_click(lambda _: self._silence())

    def _unless_quiet(self, action: Callable[[], None]) -> Callable[[Any], None]:
        """The action as a callback that does nothing while the app itself changes widgets."""

        def callback(_change: Any) -> None:
            if not self._quiet_blocks:
                action()

        return callback

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        self._quiet_blocks += 1
        try:
            yield
        finally:
            self._quiet_blocks -= 1

    def _tell(self, text: str, role: str = "status") -> None:
        self.status.value = f"<p role={role} class=unit-said>{html.escape(text)}</p>"

    @contextlib.contextmanager
    def _working(self, what: str) -> Iterator[None]:
        """Shows what is being done and how long it took; an error is one message."""
        started = time.perf_counter()
        self._tell(f"{what} …")
        self.progress.value = 0.1
        try:
            yield
        except UserError as error:
            self._tell(str(error), "alert")
        except Exception as error:
            self._tell(f"{what} failed: {type(error).__name__}: {error}", "alert")
            raise
        else:
            self._tell(f"{what}: done in {time.perf_counter() - started:.1f} s.")
        finally:
            self.progress.value = 1.0

    def _load(self) -> None:
        name = self.study.value
        # disabled meanwhile: two threads must not run the same network
        self.study.disabled = True
        try:
            with self._working(f"reading the tables of {name}, or measuring them (minutes, once)"):
                self._adopt(book_unit_data(name))
        finally:
            self.study.disabled = False

    def _adopt(self, data: UnitData) -> None:
        self.data = data
        self._conflicts = trials.Conflicts(data.study)
        threat = data.study.entry.threat
        with self._quiet():
            self.network.options = [(architecture(name), name) for name in data.pairs]
            self.network.index = 0
            self.detects.options = [EVERY, *data.images.categories, NO_CONCEPT]
            self.order.options = [(one.title, i) for i, one in enumerate(orders(data.table))]
            self.detects.index = self.order.index = 0
            self.eps.value = 0
            self.eps.max, self.eps.step = 2 * threat.eps, 2 * threat.eps / LEVELS
            self.eps.description = f"Attack, {threat.norm.upper()}"
            names = self._conflicts.stimuli.names[:12]
            self.stimulus.options = [(NO_IMAGE, -1), *((name, i) for i, name in enumerate(names))]
            self.stimulus.index = 0
            self._image = None
        self._choose_network()

    @property
    def _entries(self) -> dict[str, NetworkEntry]:
        return self.data.pairs[self.network.value]

    def _sides(self) -> Iterator[tuple[str, NetworkEntry, int]]:
        """(regime, network, chosen unit) of S and R, without a side that has no unit."""
        for done, (regime, entry) in enumerate(self._entries.items(), 1):
            if self.units[regime].value is not None:
                yield regime, entry, self.units[regime].value
                self.progress.value = done / 2

    def _choose_network(self) -> None:
        with self._quiet():
            self.layer.options = self.data.shared_layers(self.network.value)
            self.layer.index = 0
        with self._working("looking for what excites the units"):
            for done, entry in enumerate(self._entries.values(), 1):
                self.data.top_images(entry.name)
                self.progress.value = done / 2
        self._rank()

    def _rank(self) -> None:
        order = orders(self.data.table)[self.order.value]
        detects = "" if self.detects.value == EVERY else self.detects.value
        view = View("", order.by, order.descending, detects)
        with self._quiet():
            for regime, entry in self._entries.items():
                table = self.data.layer(entry.name, self.layer.value)
                ranked, rows = view.ranked(table), table.set_index("unit")
                self.units[regime].options = [
                    (f"{rank}. unit {u}: {_summary(rows.loc[u])}", u)
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
        layer = self.layer.value
        with self._working("drawing"):
            images = [
                image
                for _, entry, unit in self._sides()
                for image in self.data.top_images(entry.name)[layer].images[unit].tolist()
            ]
            sheet = Sheet(self.data.images.pixels, images)
            self.sheet.value = f"<style>{sheet.css(quality=90)}</style>"
            texts = dict.fromkeys(SIDES, "<p>No unit of this layer is of this kind.</p>")
            for regime, entry, unit in self._sides():
                texts[regime] = card(self.data, entry, layer, unit, sheet)
            for regime in SIDES:
                self.cards[regime].value, self.ablations[regime].value = texts[regime], ""
        if self._image is not None:
            self._try()

    def _read_upload(self) -> None:
        if not self.upload.value:
            return
        file = self.upload.value[0]
        with self._working(f"reading {file['name']}"):
            side = next(iter(self._entries.values())).size
            pixels = trials.square(bytes(file["content"]), file["name"], side)
            self._image = pixels.float() / 255
            with self._quiet():
                self.stimulus.index = 0
            self._try()
        with self._quiet():
            self.upload.value = ()  # so that the same file can be chosen again

    def _choose_stimulus(self) -> None:
        if self.stimulus.value is not None and self.stimulus.value >= 0:
            self._image = self._conflicts.stimuli.pixels[self.stimulus.value].float().cpu() / 255
            self._try()

    def _try(self) -> None:
        if self._image is None:
            self._tell("Choose an image first: your own or a stimulus.")
            return
        study, layer, eps = self.data.study, self.layer.value, self.eps.value
        with self._working("attacking S and R" if eps else "looking at the image"):
            for regime, entry, unit in self._sides():
                before = trials.response(study, entry, layer, unit, self._image)
                after = heat = None
                if eps:
                    changed = trials.attacked(study, entry, self._image, eps)
                    after = trials.response(study, entry, layer, unit, changed)
                if self.method.value != NO_METHOD:
                    heat = trials.attributed(study, entry, self._image, self.method.value)
                self.trials[regime].value = trial(regime, unit, before, after, heat, eps)

    def _silence(self) -> None:
        with self._working("silencing"):
            for regime, entry, unit in self._sides():
                result = self._conflicts.silenced(entry, self.layer.value, unit)
                self.ablations[regime].value = ablation(regime, unit, result)


def _chooser(title: str, kind: str, options: list[str] | None = None) -> widgets.Dropdown:
    chooser = widgets.Dropdown(options=options or [], description=title)
    return chooser.add_class(f"unit-{kind}").add_class("unit-chooser")


def _row(children: list[widgets.Widget]) -> widgets.Box:
    return widgets.Box(children).add_class("unit-controls")


def _pair(sides: dict[str, widgets.HTML]) -> widgets.Box:
    return widgets.Box(list(sides.values())).add_class("unit-pair")


def _summary(row: pd.Series) -> str:
    """A unit in a list: its concept, if it detects one, and its IoU."""
    return f"{row['concept'] if row['detector'] else NO_CONCEPT} {row['iou']:.3f}"
