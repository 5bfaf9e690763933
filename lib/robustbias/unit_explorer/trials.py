"""Trials of a visitor on S and R: an attack, an attribution map, a silenced unit, an upload."""

import dataclasses
import io
import struct
import warnings

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from robustbias import attacks
from robustbias.images import CueConflict, floats
from robustbias.manifest import NetworkEntry
from robustbias.networks import hooks
from robustbias.studies import Study
from robustbias.units_and_cues.ablation import decision_rule, spread_sample, unit_answers
from robustbias.units_and_cues.attribution import attributions, category_scores
from robustbias.utils import UserError

STEPS = 10
KEPT_LAYERS = 4  # whose activations `Conflicts` keeps: S and R of two layers


@dataclasses.dataclass(frozen=True)
class Response:
    """One network's response to one image: categories by probability, best first; a unit's map."""

    pixels: Float[Tensor, "3 h w"]
    answers: list[tuple[str, float]]
    map: Float[Tensor, "a b"]


@torch.no_grad()
def response(
    study: Study, entry: NetworkEntry, layer: str, unit: int, pixels: Float[Tensor, "3 h w"]
) -> Response:
    """The network's answers to an image in [0, 1], and the map of one unit.

    A category's share is the mean probability of its classes over the sum of these means: the rule
    that decisions are made by.
    """
    network = study.network_named(entry.name)
    membership = study.membership(network).to(study.device)
    with hooks.captured(network, [layer]) as maps:
        logits = network(pixels[None].to(study.device))
    scores = (logits.softmax(1) @ membership / membership.sum(0))[0]
    share, order = (scores / scores.sum()).sort(descending=True)
    names = [study.categories[i] for i in order.tolist()]
    answers = list(zip(names, share.tolist(), strict=True))
    return Response(pixels.cpu(), answers, maps[layer][0, unit].cpu())


def attacked(
    study: Study,
    entry: NetworkEntry,
    pixels: Float[Tensor, "3 h w"],
    eps: float,
    steps: int = STEPS,
) -> Float[Tensor, "3 h w"]:
    """The image after an attack on the class that the network predicts, under the study's norm.

    The image is the same for each call: the random start is drawn with the study's seed.
    """
    network = study.network_named(entry.name)
    start = pixels[None].to(study.device)
    with torch.no_grad():
        predicted = network(start).argmax(1)
    generator = torch.Generator(start.device).manual_seed(study.seed)
    how = {"norm": study.entry.threat.norm, "eps": eps, "steps": steps, "generator": generator}
    return attacks.pgd(network, start, predicted, **how).pixels[0].cpu()


def attributed(
    study: Study, entry: NetworkEntry, pixels: Float[Tensor, "3 h w"], method: str
) -> Float[Tensor, "h w"]:
    """|attribution| of the network's decision, summed over colours, 1 at its largest."""
    network = study.network_named(entry.name)
    scores = category_scores(network, study.membership(network).to(study.device))
    image = pixels[None].to(study.device)
    with torch.no_grad():
        chosen = scores(image).argmax(1)
    map = attributions(scores, image, chosen, method)[0].abs().sum(0)
    return (map / map.max().clamp_min(1e-12)).cpu()


@dataclasses.dataclass(frozen=True)
class Silenced:
    """Answers to cue conflicts with all units and without one, as indices of categories."""

    stimuli: CueConflict
    before: Int64[Tensor, " n"]
    after: Int64[Tensor, " n"]

    @property
    def changed(self) -> Int64[Tensor, " k"]:
        """Indices of the stimuli whose answer differs without the unit."""
        return (self.before != self.after).nonzero()[:, 0]

    def counts(self) -> dict[str, tuple[int, int]]:
        """(changed, all) of the answers that followed shape, texture, and neither."""
        cues = {"shape": self.before == self.stimuli.shape.cpu()}
        cues["texture"] = (self.before == self.stimuli.texture.cpu()) & ~cues["shape"]
        cues["neither"] = ~cues["shape"] & ~cues["texture"]
        change = self.before != self.after
        return {cue: (int((of & change).sum()), int(of.sum())) for cue, of in cues.items()}


class Conflicts:
    """Some cue conflicts of a study, and what silencing single units changes about the answers.

    Args:
        n: How many, spread over shape images; at most all.
    """

    def __init__(self, study: Study, n: int = 240):
        self.study = study
        every = study.source.cue_conflict(min(study.entry.sizes))
        conflict = (every.shape != every.texture).nonzero()[:, 0].cpu()
        generator = torch.Generator().manual_seed(study.seed)
        index = spread_sample(every.names, conflict, min(n, len(conflict)), generator)
        self.stimuli = CueConflict(
            every.pixels[index],
            every.shape[index],
            every.texture[index],
            every.categories,
            tuple(every.names[i] for i in index.tolist()),
        )
        self._activations: dict[tuple[str, str], Tensor] = {}

    def silenced(self, entry: NetworkEntry, layer: str, unit: int) -> Silenced:
        """The network's answers with all units and without one.

        Raises:
            UserError: A layer or unit that the network does not have.
        """
        network = self.study.network_named(entry.name)
        activations = self._activations_of(entry.name, layer)
        answer = decision_rule(self.study, network)
        with torch.no_grad():
            parts = activations.split(256)
            before = torch.cat([answer(hooks.resumed(network, layer, part)) for part in parts])
        after = unit_answers(network, layer, activations, answer, units=torch.tensor([unit]))[0]
        return Silenced(self.stimuli, before.cpu(), after.cpu())

    @torch.no_grad()
    def _activations_of(self, name: str, layer: str) -> Tensor:
        """The layer's output on the stimuli, computed once for all its units."""
        if (name, layer) not in self._activations:
            while len(self._activations) >= KEPT_LAYERS:
                self._activations.pop(next(iter(self._activations)))
            network = self.study.network_named(name)
            parts = [
                hooks.prefix(network, layer, floats(part.to(self.study.device)))
                for part in self.stimuli.pixels.split(128)
            ]
            self._activations[name, layer] = torch.cat(parts)
        return self._activations[name, layer]


# A visitor's image: its dimensions are read from the header and checked before anything is decoded,
# so that a small file that unpacks to gigabytes costs nothing.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


MAX_BYTES = 10 * 2**20


MAX_PIXELS = 24_000_000  # what a good phone takes


MIN_SIDE = 16


GROUND = (128, 128, 128)  # what shows through where an image is transparent


def square(content: bytes, name: str, side: int) -> UInt8[Tensor, "3 side side"]:
    """The middle of an image, turned as its camera said, without transparency, `side` wide.

    Greyscale, palette, CMYK and 16-bit images become RGB; of an animation the first frame counts.

    Args:
        content: The file as it was uploaded.
        name: Its name, for the message.

    Raises:
        UserError: Not an image of FORMATS, damaged, too large or too small.
    """
    if len(content) > MAX_BYTES:
        raise UserError(
            f"{name} has {len(content) / 2**20:.0f} MB; expected at most {MAX_BYTES / 2**20:.0f}. "
            "Save it smaller and try again."
        )
    try:
        with warnings.catch_warnings():
            # pillow warns of far larger images than are taken here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise UserError(_too_large(name)) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        known = ", ".join(FORMATS[:-1])
        raise UserError(
            f"{name} is not an image that can be read here; expected {known} or {FORMATS[-1]}."
        ) from None
    if image.width * image.height > MAX_PIXELS:
        raise UserError(_too_large(name, f"{image.width} x {image.height} pixels"))
    if min(image.size) < MIN_SIDE:
        raise UserError(
            f"{name} is {image.width} x {image.height} pixels; expected {MIN_SIDE} or more a side."
        )
    try:
        image.draft("RGB", (2 * side, 2 * side))  # a large JPEG is decoded at a fraction
        image = ImageOps.exif_transpose(image)
        image = ImageOps.fit(_rgb(image), (side, side), Image.Resampling.BICUBIC)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UserError(f"{name} is damaged ({error}); save it again and retry.") from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _too_large(name: str, size: str = "far too many pixels") -> str:
    return (
        f"{name} has {size}; expected at most {MAX_PIXELS // 10**6} million. Scale it down "
        "and try again."
    )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel, which convert() would cut off at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, GROUND), above).convert("RGB")
    return image.convert("RGB")
