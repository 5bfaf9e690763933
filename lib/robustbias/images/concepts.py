"""Images whose pixels are labelled with concepts: what Network Dissection compares units with.

Categories and the side of the masks, half that of the images, follow Broden (Bau et al. 2017).
"""

import dataclasses
import functools

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from robustbias.errors import UserError


@dataclasses.dataclass(frozen=True)
class Regions:
    """Pixels that carry the same labels in all maps, and whose images the same categories.

    The region of a pixel says all about it, so counting pixels by region once replaces counting
    them by concept, category by category.
    """

    index: Tensor  # n a b, which region a pixel belongs to
    concepts: Bool[Tensor, "g q"]  # which concepts a region carries
    carried: Bool[Tensor, "g c"]  # which categories its images carry


@dataclasses.dataclass(frozen=True)
class Concepts:
    """Images with label maps by category.

    Args:
        maps: Category -> integer maps, n m a b: m maps where a pixel carries up to m labels of
            the category, 0 for none, else 1 + the concept's place in `names`. A label of the
            whole image may be a map of one pixel.
        names: Category -> its concepts.
        carried: Category -> images whose labels of that category are known. Elsewhere a missing
            label means nothing, and the union of an IoU is not counted there.

    Raises:
        UserError: No map, a map of another size, images without masks, or a label without a name.
    """

    pixels: UInt8[Tensor, "n 3 h w"]
    maps: dict[str, Tensor]
    names: dict[str, tuple[str, ...]]
    carried: dict[str, Bool[Tensor, " n"]]

    def __post_init__(self):
        if (
            not self.maps
            or set(self.maps) != set(self.names)
            or set(self.maps) != set(self.carried)
        ):
            raise UserError(
                "a concept set needs masks: expected the same categories, at least one, in maps, "
                f"names and carried; got {list(self.maps)}, {list(self.names)}, "
                f"{list(self.carried)}."
            )
        n, sides = len(self.pixels), {tuple(m.shape[2:]) for m in self.maps.values()}
        if len(sides - {(1, 1)}) > 1:
            raise UserError(
                f"masks of several sizes: {sorted(sides)}; expected one (or 1 x 1 for labels of "
                "whole images). Bring them to the size of one category first."
            )
        for category, labels in self.maps.items():
            if labels.ndim != 4 or len(labels) != n or len(self.carried[category]) != n:
                raise UserError(
                    f"masks of {category} have the shape {tuple(labels.shape)}; expected n m a b "
                    f"with n = {n} images."
                )
            if labels.numel() and not 0 <= labels.amin() <= labels.amax() <= len(
                self.names[category]
            ):
                raise UserError(
                    f"masks of {category} hold labels {int(labels.amin())}..{int(labels.amax())}; "
                    f"expected 0 for none and 1..{len(self.names[category])}."
                )

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories, in the order of `names`."""
        return tuple(self.names)

    @property
    def concepts(self) -> tuple[tuple[str, str], ...]:
        """(category, concept) of all of them, category by category."""
        return tuple((category, name) for category, own in self.names.items() for name in own)

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the masks."""
        return max(tuple(m.shape[2:]) for m in self.maps.values())

    def take(self, index: Int64[Tensor, " k"]) -> "Concepts":
        """The images at `index`, in that order."""
        return Concepts(
            self.pixels[index],
            {category: labels[index] for category, labels in self.maps.items()},
            self.names,
            {category: carried[index] for category, carried in self.carried.items()},
        )

    def to(self, device: torch.device | str) -> "Concepts":
        """The same set on another device."""
        return Concepts(
            self.pixels.to(device),
            {category: labels.to(device) for category, labels in self.maps.items()},
            self.names,
            {category: carried.to(device) for category, carried in self.carried.items()},
        )

    @functools.cached_property
    def regions(self) -> Regions:
        """The set's regions, found once."""
        n, (a, b) = len(self), self.side
        device = self.pixels.device
        index = torch.zeros(n, a, b, dtype=torch.long, device=device)
        seen = torch.zeros(1, 0, dtype=torch.long, device=device)
        layers, bases = [], []
        for category in self.categories:
            layers += [*self.maps[category].unbind(1), self.carried[category][:, None, None]]
            bases += [len(self.names[category]) + 1] * self.maps[category].shape[1] + [2]
        for layer, base in zip(layers, bases, strict=True):
            code, index = torch.unique(index * base + layer, return_inverse=True)
            seen = torch.cat([seen[code // base], (code % base)[:, None]], 1)
        concepts, carried, at = [], [], 0
        for category in self.categories:
            count = self.maps[category].shape[1]
            own = torch.arange(1, len(self.names[category]) + 1, device=device)
            concepts.append((seen[:, at : at + count, None] == own).any(1))
            carried.append(seen[:, at + count] == 1)
            at += count + 1
        known = torch.stack(carried, 1)
        # a label on an image that does not carry the category counts no more than a missing one
        own = [c & k[:, None] for c, k in zip(concepts, carried, strict=True)]
        return Regions(index.to(torch.int32), torch.cat(own, 1), known)
