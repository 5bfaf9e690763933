"""Network Dissection in one pass against a bare forward pass and the literal two passes.

    python benchmarks/dissection.py [cpu|cuda]

Ours: forward passes, thresholds, and IoU and null IoU of every unit of all probed layers with all
concepts. The limit is the bare forward pass over the same images. The peer is Network Dissection
written out in NumPy, two passes, unit by unit of image by image (tests/literal_dissection.py), on
part of the images; it computes no null. The regions of the masks are found once a concept set,
before the clock starts, and shared by all networks. The last rows are MiB of memory: the largest
sum of maps held, and the growth of the process's peak while the set grows eightfold. One JSON line
a row.
"""

import resource
import sys
from pathlib import Path

import torch
from timing import device, paired, row, seconds

from robustbias import studies
from robustbias.images import floats
from robustbias.images.concepts import Concepts
from robustbias.measures.detectors import dissected
from robustbias.networks import hooks
from robustbias.networks.zoo import Network

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import literal_dissection

N, LITERAL, BATCH = 1600, 48, 200


@torch.no_grad()
def forward(network: Network, concepts: Concepts) -> None:
    for pixels in concepts.pixels.split(BATCH):
        network(floats(pixels))


def ours(network: Network, concepts: Concepts, **options) -> None:
    dissected(network, concepts, batch=BATCH, generator=torch.Generator().manual_seed(0), **options)


def literally(network: Network, concepts: Concepts) -> None:
    def maps():
        for index in torch.arange(len(concepts)).split(BATCH):
            with torch.no_grad(), hooks.captured(network, network.layers) as found:
                network(floats(concepts.pixels[index]))
            yield index.numpy(), {layer: own.cpu().numpy() for layer, own in found.items()}

    literal_dissection.dissected(
        maps,
        {c: m.cpu().numpy() for c, m in concepts.maps.items()},
        {c: len(names) for c, names in concepts.names.items()},
        {c: own.cpu().numpy() for c, own in concepts.carried.items()},
        concepts.side,
    )


def speed(study: studies.Study, architecture: str, concepts: Concepts, on: torch.device) -> None:
    network = study.network(architecture, "standard")
    part = concepts.take(torch.arange(LITERAL, device=concepts.pixels.device))
    own, bare = paired([lambda: ours(network, concepts), lambda: forward(network, concepts)], on)
    literal = seconds(lambda: literally(network, part), on, repeats=1)
    row(
        f"dissection, iconworld {architecture}", N / own, peer=LITERAL / literal,
        peer_name="NumPy, two passes", limit=N / bare, unit="images/s", on=on,
    )  # fmt: skip


def memory(study: studies.Study, concepts: Concepts, on: torch.device) -> None:
    """Peak growth of the process (or device) while the number of images grows eightfold."""
    network, bound = study.network("googlenet", "standard"), 64 << 20

    def peak() -> float:
        if on.type == "cuda":
            return torch.cuda.max_memory_allocated(on) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    small = concepts.take(torch.arange(2 * len(concepts), device=on) % len(concepts))
    large = concepts.take(torch.arange(16 * len(concepts), device=on) % len(concepts))
    for own in (small, large):
        assert own.regions  # the memory of the set itself, taken before
    ours(network, small, memory=bound)
    before = peak()
    ours(network, large, memory=bound)
    growth = peak() - before
    row(
        f"memory at a bound of {bound >> 20} MiB, {len(small)} to {len(large)} images: growth",
        growth, limit=bound / 2**20, unit="MiB", on=on,
    )  # fmt: skip


if __name__ == "__main__":
    on = device(sys.argv)
    study = studies.load("iconworld", device=str(on))
    concepts = study.source.concepts(N).to(on)
    assert concepts.regions
    memory(study, concepts.take(torch.arange(200, device=on)), on)
    for architecture in study.entry.architectures:
        speed(study, architecture, concepts, on)
