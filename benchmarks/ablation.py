"""All units of a layer silenced one at a time, against a plain loop and against captum.

    python benchmarks/ablation.py [cpu|cuda]

Same network, same images, same decisions (checked before timing), one run. `naive` is one forward
pass of the whole network per unit. captum's LayerFeatureAblation is given the layer, one feature a
unit and as many units in a forward pass as ours has (and asked for one logit: with a target an
image it takes one unit at a time); FeatureAblation is given more than it asks for, our cached
activations and our second half of the network. The limit is the second half alone, once for every
unit and image; what can be saved grows with the depth of the layer. One JSON line a row; pairs of
a unit and an image a second.
"""

import sys
import warnings

import torch
from timing import device, paired, row

from robustbias import studies
from robustbias.images import floats
from robustbias.networks import hooks
from robustbias.networks.zoo import Network
from robustbias.units_and_cues.ablation import CHUNK, unit_answers

N = 64
LAYERS = {"googlenet": ("inception4c", "inception4e"), "resnet50": ("layer3",)}


def answer(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(1)


@torch.no_grad()
def ours(network: Network, layer: str, pixels: torch.Tensor) -> torch.Tensor:
    return unit_answers(network, layer, hooks.prefix(network, layer, pixels), answer)


@torch.no_grad()
def naive(network: Network, layer: str, pixels: torch.Tensor, units: int) -> torch.Tensor:
    answers = []
    for unit in range(units):

        def silenced(a: torch.Tensor, unit: int = unit) -> torch.Tensor:
            a = a.clone()
            a[:, unit] = 0
            return a

        with hooks.edited(network, layer, silenced):
            answers.append(answer(network(pixels)))
    return torch.stack(answers)


def layer_rows(network: Network, layer: str, pixels: torch.Tensor, on: torch.device) -> None:
    from captum import attr

    with torch.no_grad():
        activations = hooks.prefix(network, layer, pixels)
    units = activations.shape[1]
    feature = torch.arange(units, device=on)[None, :, None, None].expand(activations[:1].shape)
    together = CHUNK // N
    by_layer = attr.LayerFeatureAblation(network, hooks.module(network, layer))
    by_input = attr.FeatureAblation(lambda a: hooks.resumed(network, layer, a))

    @torch.no_grad()
    def captum_layer():
        return by_layer.attribute(pixels, 0, 0, layer_mask=feature, perturbations_per_eval=together)

    @torch.no_grad()
    def captum_cached():
        return by_input.attribute(
            activations, 0, 0, feature_mask=feature, perturbations_per_eval=together
        )

    @torch.no_grad()
    def limit():
        pairs = activations.repeat(together, 1, 1, 1).contiguous(memory_format=torch.channels_last)
        for _ in range(-(-units // together)):
            hooks.resumed(network, layer, pairs)

    expected = naive(network, layer, pixels, units)
    if not torch.equal(ours(network, layer, pixels), expected):
        raise SystemExit(f"{layer}: ours and naive decide differently")
    works = {
        "naive, one full forward pass a unit": lambda: naive(network, layer, pixels, units),
        "captum LayerFeatureAblation": captum_layer,
        "captum FeatureAblation on cached activations": captum_cached,
    }
    own, bare, *others = paired(
        [lambda: ours(network, layer, pixels), limit, *works.values()], on, repeats=3
    )
    for peer, took in zip(works, others, strict=True):
        row(
            f"{units} units of {layer} silenced, {network.entry.name}, {N} images",
            units * N / own, peer=units * N / took, peer_name=peer, limit=units * N / bare,
            unit="units x images/s", on=on,
        )  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the peers' own
    on = device(sys.argv)
    study = studies.load("iconworld", device=str(on))
    stimuli = study.source.cue_conflict()
    shown = floats(stimuli.pixels[:: len(stimuli) // N][:N])
    for architecture, layers in LAYERS.items():
        for layer in layers:
            layer_rows(study.network(architecture, "robust"), layer, shown, on)
