"""Network Dissection written out: two passes, NumPy, one unit of one image at a time.

Deliberately literal (Bau et al. 2017): the first pass sorts every activation of a unit to find its
threshold, the second enlarges each map, compares, and counts labels category by category.
"""

from collections.abc import Callable, Iterable

import numpy as np

Maps = np.ndarray  # n u a b
Forward = Callable[[], Iterable[tuple[np.ndarray, dict[str, Maps]]]]  # (image indices, maps)


def thresholds(chunks: list[Maps], share: float) -> np.ndarray:
    """The smallest activation that at most the share of all exceed, for each unit."""
    found = []
    for unit in range(chunks[0].shape[1]):
        values = np.sort(np.concatenate([chunk[:, unit].ravel() for chunk in chunks]))
        found.append(values[len(values) - 1 - int(np.floor(share * len(values) + 1e-9))])
    return np.array(found)


def enlarged(map: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, pixel centres aligned, borders repeated."""
    rows = np.clip((np.arange(height) + 0.5) * map.shape[0] / height - 0.5, 0, map.shape[0] - 1)
    columns = np.clip((np.arange(width) + 0.5) * map.shape[1] / width - 0.5, 0, map.shape[1] - 1)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom = np.minimum(top + 1, map.shape[0] - 1)
    right = np.minimum(left + 1, map.shape[1] - 1)
    y, x = (rows - top)[:, None], (columns - left)[None]
    upper = map[top][:, left] + x * (map[top][:, right] - map[top][:, left])
    lower = map[bottom][:, left] + x * (map[bottom][:, right] - map[bottom][:, left])
    return upper + y * (lower - upper)


def dissected(
    forward: Forward,
    labels: dict[str, np.ndarray],
    sizes: dict[str, int],
    carried: dict[str, np.ndarray],
    side: tuple[int, int],
    share: float = 0.005,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Layer -> (thresholds, IoU of units x concepts); `forward` is called once a pass.

    Args:
        labels: Category -> n m h w label maps, 0 for none.
        sizes: Category -> number of concepts, in the order of the columns.
        carried: Category -> which images carry it.
    """
    first: dict[str, list[Maps]] = {}
    for _, maps in forward():
        for layer, own in maps.items():
            first.setdefault(layer, []).append(own.copy())
    limits = {layer: thresholds(chunks, share) for layer, chunks in first.items()}
    met = {
        layer: {c: np.zeros((len(t), k)) for c, k in sizes.items()} for layer, t in limits.items()
    }
    area = {layer: {c: np.zeros(len(t)) for c in sizes} for layer, t in limits.items()}
    present = {c: np.zeros(k) for c, k in sizes.items()}
    for images, maps in forward():
        for row, image in enumerate(images):
            masks = {}
            for category, size in sizes.items():
                if carried[category][image]:
                    own = np.broadcast_to(
                        labels[category][image], (labels[category].shape[1], *side)
                    )
                    masks[category] = np.stack([(own == 1 + q).any(0) for q in range(size)])
                    present[category] += masks[category].sum((1, 2))
            for layer, own in maps.items():
                for unit, limit in enumerate(limits[layer]):
                    on = enlarged(own[row, unit], *side) > limit
                    if on.any():
                        for category, mask in masks.items():
                            area[layer][category][unit] += on.sum()
                            met[layer][category][unit] += mask[:, on].sum(1)
    found = {}
    for layer, limit in limits.items():
        parts = []
        for category in sizes:
            over = met[layer][category]
            union = area[layer][category][:, None] + present[category] - over
            parts.append(np.divide(over, union, out=np.zeros_like(over), where=union > 0))
        found[layer] = limit, np.concatenate(parts, 1)
    return found
