"""Network Dissection in one pass against a bare forward pass and the literal two passes.

    python benchmarks/dissection.py [cpu|cuda]

Ours: forward passes, thresholds, and IoU and null IoU of every unit of all probed layers with all
concepts. The limit is the bare forward pass over the same images. The peer is Network Dissection
written out in NumPy, two passes, unit by unit of image by image (tests/literal_dissection.py), on
part of the images; it computes no null. The regions of the masks are found once a concept set,
before the clock starts, and shared by all networks. The first rows are MiB of memory beyond the
set's own, for a set and one of eight times as many images (on Linux). One JSON line a row.
"""

import ctypes
import sys
from pathlib import Path

import torch
from timing import device, paired, row, seconds

from robustbias import studies
from robustbias.concepts.netdissect import dissected
from robustbias.images import floats
from robustbias.images.concepts import Concepts
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
    """Peak above the memory at the start, for a set and one of eight times as many images."""
    network, bound = study.network("googlenet", "standard"), 64 << 20
    for times in (6, 48):
        index = torch.arange(times * len(concepts), device=on) % len(concepts)
        own = concepts.take(index)
        assert own.regions  # the memory of the set itself, taken before
        start = reset_peak(on)
        ours(network, own, memory=bound)
        row(
            f"peak memory, {len(own)} images, maps bounded by {bound >> 20} MiB",
            peak(on) - start, limit=bound / 2**20, unit="MiB", on=on,
        )  # fmt: skip


def reset_peak(on: torch.device) -> float:
    """MiB in use now, from where the peak is counted."""
    if on.type == "cuda":
        torch.cuda.reset_peak_memory_stats(on)
        return torch.cuda.memory_allocated(on) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that was freed is not in use
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes what is in use
    return peak(on)


def peak(on: torch.device) -> float:
    if on.type == "cuda":
        return torch.cuda.max_memory_allocated(on) / 2**20
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    on = device(sys.argv)
    study = studies.load("iconworld", device=str(on))
    concepts = study.source.concepts(N).to(on)
    assert concepts.regions
    ours(study.network("googlenet", "standard"), concepts.take(torch.arange(200, device=on)))
    memory(study, concepts.take(torch.arange(200, device=on)), on)
    for architecture in study.entry.architectures:
        speed(study, architecture, concepts, on)
