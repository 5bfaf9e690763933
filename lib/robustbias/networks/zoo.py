"""From a manifest entry to a network that takes pixels in [0, 1] and normalises inside."""

import hashlib
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from robustbias import manifest, utils
from robustbias.images import floats
from robustbias.manifest import NetworkEntry
from robustbias.networks import architectures, checkpoints
from robustbias.utils import MissingData


class Network(nn.Module):
    """logits = body((pixels - mean) / std), so that eps means the same for every network."""

    def __init__(self, entry: NetworkEntry, body: nn.Module, weights_hash: str = ""):
        super().__init__()
        self.entry, self.body, self.weights_hash = entry, body, weights_hash
        self.register_buffer("mean", torch.tensor(entry.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(entry.std)[:, None, None], persistent=False)

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        return self.body((pixels - self.mean) / self.std)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the probed modules inside `body`."""
        return self.entry.layers


def untrained(entry: NetworkEntry, seed: int = 0) -> Network:
    """The entry's network with random weights, ready to train or to serve as a control."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = architectures.build(
            entry.architecture, classes=entry.classes, width=entry.width, stem=entry.stem
        )
    if entry.transform_input:
        body.transform_input = True  # torchvision's GoogLeNet was trained behind this shift
    key = f"untrained {entry.name} {seed}"
    network = Network(entry, body, hashlib.sha256(key.encode()).hexdigest())
    return network.to(memory_format=torch.channels_last).eval()


def weights_path(entry: NetworkEntry) -> Path:
    """Where the entry's weights are on this machine: in the repository or the data directory."""
    if "://" in entry.weights:
        return manifest.data_directory() / "networks" / entry.weights.rsplit("/", 1)[1]
    return manifest.ROOT / entry.weights


def load(entry: NetworkEntry, device: torch.device | str = "cpu") -> Network:
    """The entry's network with its weights, in evaluation mode.

    Raises:
        MissingData: The weights are not here; says how to get them.
        UserError: The weights are damaged, unsafe or of another network.
    """
    path = weights_path(entry)
    if not path.is_file():
        how = (
            f"run `robustbias fetch {entry.name}`"
            if "://" in entry.weights
            else f"run `robustbias train {entry.study} --network {entry.name}`"
        )
        raise MissingData(f"the weights of {entry.name} are not at {path}; {how}.")
    network = untrained(entry)
    checkpoints.fill(network.body, checkpoints.read(path, entry.sha256), str(path))
    network.weights_hash = entry.sha256 or utils.sha256(path)
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


@torch.no_grad()
def calibrated(network: nn.Module, pixels: UInt8[Tensor, "n 3 h w"], batch: int = 100) -> nn.Module:
    """The network with BatchNorm statistics of these images, averaged over batches.

    An untrained network's running statistics are those of no image; its activations would shrink
    or grow from layer to layer, and its decisions would be one constant.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    for part in pixels.split(batch) if norms else ():
        network(floats(part))
    return network.eval()
