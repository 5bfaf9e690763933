"""Images a second of the icon world on this machine. One JSON line a row.

    python benchmarks/world.py [cpu|cuda]

The limit is the sampling of the two masks and the texture alone, which no rendering can do without.
"""

import sys

import torch
import torch.nn.functional as F
from timing import device, row, seconds

from robustbias.images.iconworld import IconWorld, World

if __name__ == "__main__":
    on = device(sys.argv)
    n = 4096
    world = IconWorld(World(train_images=n), device=str(on))
    took = seconds(lambda: world.train(0), on)
    mask, page = torch.rand(n, 1, 96, 96, device=on), torch.rand(1, 1, 512, 512, device=on)
    grid = torch.rand(n, 64, 64, 2, device=on) * 2 - 1

    def sampled():
        for at, m in zip(grid.split(256), mask.split(256), strict=True):
            F.grid_sample(m, at, align_corners=False)
            F.grid_sample(page, at.reshape(1, -1, 64, 2), align_corners=False)

    limit = seconds(sampled, on)
    row("world 64 x 64", n / took, limit=n / limit, unit="images/s", on=on)
