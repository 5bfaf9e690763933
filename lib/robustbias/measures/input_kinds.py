"""How many kinds of images a unit responds to most, from responses alone; tensors in and out."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from robustbias.errors import UserError
from robustbias.images import floats
from robustbias.networks import hooks
from robustbias.networks.zoo import Network


@torch.no_grad()
def peaks(
    network: Network, pixels: UInt8[Tensor, "n 3 h w"], layers: Sequence[str], batch: int = 200
) -> dict[str, Float[Tensor, "n u"]]:
    """The largest activation of each unit anywhere in each image."""
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    with hooks.captured(network, layers) as maps:
        for part in pixels.split(batch):
            network(floats(part))
            for layer in layers:
                found[layer].append(maps[layer].amax((2, 3)))
    return {layer: torch.cat(parts) for layer, parts in found.items()}


@torch.no_grad()
def features(
    network: Network, pixels: UInt8[Tensor, "n 3 h w"], batch: int = 200
) -> Float[Tensor, "n d"]:
    """Spatial means of the network's last probed layer, centred over the images, of length one.

    Without centring, what all images share would make them all alike.
    """
    layer, found = network.layers[-1], []
    with hooks.captured(network, [layer]) as maps:
        for part in pixels.split(batch):
            network(floats(part))
            found.append(maps[layer].mean((2, 3)))
    own = torch.cat(found)
    own = own - own.mean(0)
    return own / own.norm(dim=1, keepdim=True).clamp_min(1e-12)


def top_images(
    peaks: Float[Tensor, "n u"], k: int
) -> tuple[Int64[Tensor, "u k"], Bool[Tensor, "u k"]]:
    """The k images each unit responds to most, and which of them it responds to at all.

    A unit does not respond to an image on which it is no larger than on the image it likes least:
    after a ReLU that is mostly 0, and a dead unit responds to nothing.

    Raises:
        UserError: k below 2 or above the number of images.
    """
    if not 2 <= k <= len(peaks):
        raise UserError(f"k = {k} top images of {len(peaks)}; expected 2 to as many.")
    top = peaks.T.topk(k, dim=1)
    return top.indices, top.values > peaks.amin(0)[:, None]


def effective_classes(
    labels: Int64[Tensor, " n"], index: Int64[Tensor, "u k"], active: Bool[Tensor, "u k"]
) -> Float[Tensor, " u"]:
    """Number of classes that would give the entropy of those among a unit's images.

        exp(-Σ p log p), p the share of each class

    1 where all images are of one class, k where each is of another; NaN without two active images.
    """
    counts = torch.zeros(len(index), int(labels.max()) + 1, device=labels.device)
    counts.scatter_add_(1, labels[index], active.float())
    m = counts.sum(1, keepdim=True)
    entropy = -torch.special.xlogy(counts / m, counts / m).sum(1)
    return entropy.exp().masked_fill(m[:, 0] < 2, torch.nan)


def mean_distance(
    features: Float[Tensor, "n d"], index: Int64[Tensor, "u k"], active: Bool[Tensor, "u k"]
) -> Float[Tensor, " u"]:
    """Mean of 1 - cosine over pairs of a unit's images, over that of all pairs of images.

    1 for images no more alike than any; NaN without two active images.

    Args:
        features: Of length one.
    """
    total = torch.stack(
        [(features[i] * a[:, None]).sum(0) for i, a in zip(index, active, strict=True)]
    )
    m = active.sum(1)
    among = (total.square().sum(1) - m) / (m * (m - 1))
    n = len(features)
    all_pairs = (features.sum(0).square().sum() - n) / (n * (n - 1))
    return ((1 - among) / (1 - all_pairs)).masked_fill(m < 2, torch.nan)
