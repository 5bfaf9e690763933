"""What the units of a layer read from the layer below, and what an attack changes about them."""

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustbias import attacks
from robustbias.images import floats
from robustbias.manifest import NetworkEntry
from robustbias.networks import hooks
from robustbias.networks.zoo import Network
from robustbias.studies import Study, described, first_pairs, held_out_sample, paired
from robustbias.tables import measure, tidy

N_READ = 6  # units of the layer below that are kept per unit
STEPS = 10


def explored(study: Study) -> list[NetworkEntry]:
    """S and R of each architecture, of its first replicate: the networks that the explorer has."""
    return [entry for pair in first_pairs(study).values() for entry in pair.values()]


@measure(of=paired)
def connections(study: Study, *, n_images: int = 8) -> pd.DataFrame:
    """For each unit the units of the probed layer below that it reads most, N_READ at most.

    The value is gradient x activation, summed over space and averaged over images: the share of a
    unit's mean activation that comes through a unit below. Where nothing nonlinear lies between
    the layers this is weight x mean activation. Largest magnitudes first, by `place`.

    Args:
        n_images: Held-out images, drawn with the study's seed.
    """
    images = held_out_sample(study, n_images, torch.Generator().manual_seed(study.seed))
    rows = []
    for entry in explored(study):
        network = study.network_named(entry.name)
        for below, layer in zip(network.layers, network.layers[1:], strict=False):
            reads = read_from(network, below, layer, floats(images.pixels))
            index = reads.abs().topk(min(N_READ, reads.shape[1]), dim=1).indices.cpu()
            units, places = (part.flatten() for part in torch.meshgrid(
                torch.arange(len(reads)), torch.arange(index.shape[1]), indexing="ij"
            ))  # fmt: skip
            columns = {"unit": units, "place": places, "below": index.flatten()}
            columns["value"] = reads.cpu().gather(1, index).flatten().double()
            table = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
            rows.append(
                table.assign(
                    **described(study, entry), scope="unit", layer=layer, layer_below=below
                )
            )
    return tidy(pd.concat(rows, ignore_index=True))


def read_from(
    network: Network, below: str, layer: str, pixels: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, "u v"]:
    """Gradient x activation of each unit of a layer with respect to each unit of one below it."""
    with hooks.captured(network, [below, layer]) as maps, torch.enable_grad():
        # a gradient to the pixels keeps the graph although weights may need none
        network(pixels.clone().requires_grad_())
        lower, means = maps[below], maps[layer].mean((0, 2, 3))
        reads = [
            (torch.autograd.grad(mean, lower, retain_graph=True)[0] * lower.detach()).sum((0, 2, 3))
            for mean in means
        ]
    return torch.stack(reads)


@measure(of=paired)
def attacked_units(study: Study, *, n_images: int = 128) -> pd.DataFrame:
    """Mean peak of each unit on held-out images as they are and under attack.

    The attack is on the network itself, at the study's radius, STEPS steps. `condition` is `clean`
    or `attacked`; a peak is the largest activation of a unit in an image.

    Args:
        n_images: Drawn with the study's seed.
    """
    images = held_out_sample(study, n_images, torch.Generator().manual_seed(study.seed))
    threat, rows = study.entry.threat, []
    for entry in explored(study):
        network = study.network_named(entry.name)
        clean = floats(images.pixels)
        with torch.no_grad():
            predicted: Int64[Tensor, " n"] = network(clean).argmax(1)
        generator = torch.Generator(clean.device).manual_seed(study.seed)
        how = {"norm": threat.norm, "eps": threat.eps, "steps": STEPS, "generator": generator}
        changed = attacks.pgd(network, clean, predicted, bfloat16=True, **how).pixels
        for condition, pixels in (("clean", clean), ("attacked", changed)):
            with torch.no_grad(), hooks.captured(network, network.layers) as maps:
                network(pixels)
                peaks = {layer: maps[layer].amax((2, 3)).mean(0) for layer in network.layers}
            for layer, values in peaks.items():
                table = pd.DataFrame({"unit": range(len(values)), "value": values.cpu().double()})
                about = {**described(study, entry), "scope": "unit", "layer": layer}
                rows.append(table.assign(**about, condition=condition))
    return tidy(pd.concat(rows, ignore_index=True))
