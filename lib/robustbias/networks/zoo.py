"""From a manifest entry to a network that takes pixels in [0, 1] and normalises inside."""

import hashlib
import json
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from robustbias import manifest, utils
from robustbias.images import floats
from robustbias.manifest import NetworkEntry
from robustbias.networks import architectures, checkpoints
from robustbias.utils import MissingData, UserError


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
            entry.architecture,
            classes=entry.classes,
            width=entry.width,
            stem=entry.stem,
            arguments=entry.arguments,
        )
    if entry.transform_input:
        if not hasattr(body, "transform_input"):
            raise UserError(
                f"{entry.name}: {entry.architecture} has no transform_input; remove it."
            )
        body.transform_input = True  # torchvision's GoogLeNet was trained behind this shift
    key = f"untrained {entry.name} {seed}"
    network = Network(entry, body, hashlib.sha256(key.encode()).hexdigest())
    return network.to(memory_format=torch.channels_last).eval()


def original_path(entry: NetworkEntry) -> Path:
    """Where the entry's weights belong: in the repository, elsewhere, or the data directory."""
    if entry.by_hand or "://" in entry.weights:
        file = entry.file or entry.weights.rpartition("/")[2]
        return manifest.data_directory() / "networks" / file
    return manifest.ROOT / Path(entry.weights).expanduser()


def weights_path(entry: NetworkEntry) -> Path:
    """The file that `load` reads: the original, or what `convert` made of it."""
    path = original_path(entry)
    converted = _converted(path)
    return converted if converted.is_file() else path


def _converted(path: Path) -> Path:
    return path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")


def how_to_get(entry: NetworkEntry) -> str:
    """What a person does to have the weights on this machine, as a command or a sentence."""
    if entry.trained_here:
        return f"robustbias train {entry.study} --network {entry.name}"
    if "://" in entry.weights:
        return f"robustbias fetch {entry.name}"
    where = entry.by_hand.strip() or "put your file there"
    return f"by hand, as {original_path(entry)}: {where}"


def load(entry: NetworkEntry, device: torch.device | str = "cpu") -> Network:
    """The entry's network with its weights, in evaluation mode.

    Raises:
        MissingData: The weights are not here; says how to get them.
        UserError: The weights are damaged, unsafe, of another network or behind another
            normalisation.
    """
    path = weights_path(entry)
    if not path.is_file():
        raise MissingData(
            f"the weights of {entry.name} are not at {path}; get them: {how_to_get(entry)}."
        )
    network = untrained(entry)
    if path == original_path(entry):
        state = _foreign(entry)
        network.weights_hash = entry.sha256 or utils.sha256(path)
    else:
        state, origin = checkpoints.read(path), checkpoints.metadata(path)
        network.weights_hash = origin.get("sha256 of the original", "")
        wanted, where, original = entry.sha256, "the manifest", original_path(entry)
        if not wanted and original.is_file():  # it may be another one by now
            wanted, where = utils.sha256(original), str(original)
        if wanted not in ("", network.weights_hash):
            raise UserError(
                f"{path} was converted from a file with sha256 {network.weights_hash[:12]}..., "
                f"{where} has {wanted[:12]}...; delete it and convert again."
            )
        if origin.get("rename", "{}") != json.dumps(entry.rename):
            raise UserError(
                f"{path} was converted with other patterns `rename` than those of {entry.name}'s "
                "entry; delete it and convert again."
            )
    checkpoints.fill(network.body, state, str(path))
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def _foreign(entry: NetworkEntry) -> dict[str, Tensor]:
    """The published weights under the names of the entry's network."""
    return checkpoints.read(
        original_path(entry),
        entry.sha256,
        md5=entry.md5,
        rename=entry.rename,
        normaliser={"mean": entry.mean, "std": entry.std},
    )


def convert(entry: NetworkEntry) -> Path:
    """Writes the entry's foreign weights next to them as safetensors, which then are read.

    All tensors keep their precision and get the names of the entry's network.

    Raises:
        MissingData, UserError: As `load`; also weights that are safetensors already.
    """
    path = original_path(entry)
    if path.suffix == ".safetensors":
        raise UserError(f"the weights of {entry.name} are safetensors already: {path}.")
    network = untrained(entry)
    checkpoints.fill(network.body, _foreign(entry), str(path))
    origin = {
        "network": entry.name,
        "sha256 of the original": utils.sha256(path),
        "rename": json.dumps(entry.rename),
    }
    checkpoints.save(network.body, _converted(path), origin, half=False)
    return _converted(path)


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
