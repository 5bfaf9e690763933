"""The explorer with a kernel: the front end of the page as a widget, and the answers it asks for.

The widget sends {id, ask, about} and gets {id, answer} or {id, error}. Pictures in answers are data
URIs.
"""

import os
from collections.abc import Callable
from typing import Any

import anywidget
import torch
import traitlets
from jaxtyping import Float
from matplotlib import colormaps
from torch import Tensor

from robustbias import manifest, studies
from robustbias.manifest import ROOT, NetworkEntry
from robustbias.unit_explorer import files, sprites, trials
from robustbias.unit_explorer.data import UnitData, book_unit_data, complete_pairs
from robustbias.unit_explorer.files import SIDES, data_uri, encoded
from robustbias.unit_explorer.trials import Response, Silenced
from robustbias.units_and_cues.attribution import METHODS
from robustbias.utils import UserError

STATIC = ROOT / "book" / "static"
N_CHANGED = 12  # stimuli with a changed answer that are displayed
N_STIMULI = 12  # that a reader may choose from
Buffer = bytes | memoryview
EXPORT = "\nexport default { render: globalThis.unitExplorer.render };\n"


def served() -> bool:
    """Whether JupyterLab or voila started this kernel, so that a reader can use the widget."""
    return "JPY_SESSION_NAME" in os.environ or "voila" in os.environ.get("SERVER_SOFTWARE", "")


def available_studies() -> list[str]:
    """Studies with an S and an R of one architecture on this machine."""
    return [name for name in manifest.studies() if complete_pairs(studies.load(name))]


class App(anywidget.AnyWidget):
    """The live explorer of all studies whose networks and images are on this machine.

    Args:
        data: A study that appears first; others are read, or measured, when they are chosen.
    """

    _esm = (STATIC / "explorer.js").read_text(encoding="utf-8") + EXPORT
    _css = (STATIC / "explorer.css").read_text(encoding="utf-8")
    studies = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, data: UnitData | None = None):
        first = [] if data is None else [data.study.name]
        super().__init__(studies=list(dict.fromkeys([*first, *available_studies()])))
        self._data = {} if data is None else {data.study.name: data}
        self._conflicts: dict[str, trials.Conflicts] = {}
        self._upload: Tensor | None = None
        self.on_msg(self._asked)

    def _asked(self, _: Any, message: dict[str, Any], buffers: list[Buffer]) -> None:
        try:
            self.send({"id": message["id"], "answer": self.answer(message, buffers)})
        except UserError as error:
            self.send({"id": message["id"], "error": str(error)})
        except Exception as error:
            self.send({"id": message["id"], "error": f"{type(error).__name__}: {error}"})
            raise

    def answer(self, message: dict[str, Any], buffers: list[Buffer]) -> Any:
        """What a message of the front end gets.

        Raises:
            UserError: Something a reader gave is refused, or there is no such question.
        """
        about = message["about"]
        parts: dict[str, Callable[..., Any]] = {
            "index": self._index,
            "layer": self._layer,
            "sheet": self._sheet,
            "images": self._images,
        }
        acts = {"upload": self._read, "trial": self._trial, "silence": self._silence}
        if (ask := message["ask"]) in parts:
            return parts[ask](*about["about"])
        if ask not in acts:
            raise UserError(f"unknown question {ask!r}; valid: {', '.join([*parts, *acts])}.")
        return acts[ask](about, *buffers)

    def data(self, study: str) -> UnitData:
        """The units of a study, read or measured on the first call."""
        if study not in self._data:
            self._data[study] = book_unit_data(study)
        return self._data[study]

    def conflicts(self, study: str) -> trials.Conflicts:
        """Its cue conflicts, drawn on the first call."""
        if study not in self._conflicts:
            self._conflicts[study] = trials.Conflicts(self.data(study).study)
        return self._conflicts[study]

    def _index(self, study: str) -> dict[str, Any]:
        names = self.conflicts(study).stimuli.names[:N_STIMULI]
        live = {"stimuli": list(names), "methods": list(METHODS)}
        return files.index(self.data(study)) | {"live": live}

    def _layer(self, study: str, key: str) -> dict[str, Any]:
        return files.layer(self.data(study), *key.split("/", 1))

    def _sheet(self, study: str, network: str, layer: str) -> str:
        path = sprites.FOLDER / study / f"{network}-{layer}.avif"
        return data_uri(path.read_bytes(), "AVIF")

    def _images(self, study: str) -> str:
        return data_uri(files.images(self.data(study), "JPEG", 90), "JPEG")

    def _read(self, about: dict[str, Any], content: Buffer) -> bool:
        pair = self.data(about["study"]).pairs[about["architecture"]]
        size = pair["standard"].size
        self._upload = trials.square(bytes(content), about["name"], size).float() / 255
        return True

    def _sides(self, about: dict[str, Any]) -> list[tuple[str, NetworkEntry, int]]:
        pair = self.data(about["study"]).pairs[about["architecture"]]
        return [(s, pair[r], about[s]) for s, r in SIDES.items() if about[s] is not None]

    def _trial(self, about: dict[str, Any]) -> dict[str, Any]:
        study, chosen = self.data(about["study"]).study, about["stimulus"]
        image = self._upload
        if chosen is not None:
            image = self.conflicts(about["study"]).stimuli.pixels[chosen].float().cpu() / 255
        if image is None:
            raise UserError("there is no image yet; choose one of your own or a stimulus.")
        sides = []
        for side, entry, unit in self._sides(about):
            where = study, entry, about["layer"], unit
            responses = {"as it is": trials.response(*where, image)}
            if eps := about["eps"]:
                changed = trials.attacked(study, entry, image, eps)
                responses[f"attacked, radius {eps:g}"] = trials.response(*where, changed)
            one = {"side": side, "unit": unit, "views": _views(responses), "words": ""}
            if eps:
                kept = len({each.answers[0][0] for each in responses.values()}) == 1
                words = "keeps" if kept else "changes"
                one["words"] = f"Under attack it {words} its answer."
            if about["method"]:
                heat = trials.attributed(study, entry, image, about["method"])
                title = "where the decision comes from"
                one["views"].append({"title": title, "image": _png(overlaid(image, heat))})
            sides.append(one)
        return {"sides": sides}

    def _silence(self, about: dict[str, Any]) -> dict[str, Any]:
        conflicts = self.conflicts(about["study"])
        return {
            "sides": [
                {"side": side, "unit": unit}
                | _changes(conflicts.silenced(entry, about["layer"], unit))
                for side, entry, unit in self._sides(about)
            ]
        }


def _png(pixels: Float[Tensor, "3 h w"]) -> str:
    return data_uri(encoded(pixels, "PNG"), "PNG")


def _views(responses: dict[str, Response]) -> list[dict[str, Any]]:
    """Images with the network's first answers, and maps of the unit on one scale."""
    top = max(float(one.map.max()) for one in responses.values())
    return [
        {
            "title": title,
            "image": _png(one.pixels),
            "map": _png(coloured((one.map / max(top, 1e-12)).clamp(0, 1), "viridis")),
            "answers": one.answers[:3],
            "peak": float(one.map.max()),
        }
        for title, one in responses.items()
    ]


def coloured(map: Float[Tensor, "h w"], colours: str) -> Float[Tensor, "3 h w"]:
    """A map in [0, 1] in the colours of matplotlib's map of that name."""
    return torch.from_numpy(colormaps[colours](map.cpu().numpy())[..., :3]).permute(2, 0, 1).float()


def overlaid(pixels: Float[Tensor, "3 h w"], heat: Float[Tensor, "h w"]) -> Float[Tensor, "3 h w"]:
    """A grey image under a map in [0, 1]."""
    grey = pixels.mean(0, keepdim=True).expand(3, -1, -1)
    return 0.35 * grey + 0.65 * coloured(heat.sqrt(), "inferno")


def _changes(result: Silenced) -> dict[str, Any]:
    """How many answers change without a unit, in words, and some of those that do."""
    counts, stimuli = result.counts(), result.stimuli
    changed = sum(change for change, _ in counts.values())
    parts = "; ".join(f"{change} of {all} by {cue}" for cue, (change, all) in counts.items())
    names = stimuli.categories
    return {
        "words": f"{changed} of {len(result.before)} answers to cue conflicts change ({parts}).",
        "changes": [
            {
                "image": _png(stimuli.pixels[i].float().cpu() / 255),
                "name": stimuli.names[i],
                "answer": f"{names[result.before[i]]} → {names[result.after[i]]}",
            }
            for i in result.changed[:N_CHANGED].tolist()
        ],
    }
