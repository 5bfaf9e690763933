"""Corruptions of processing: contrast, elastic transform, pixelation and JPEG."""

import functools
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from robustbias.images.corruptions.resampling import gaussian_blurred


def contrast(
    pixels: Float[Tensor, "n c h w"], share: float, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Each channel drawn towards its mean.

    mean + share (x - mean)
    """
    means = pixels.mean((2, 3), keepdim=True)
    return (pixels * share).add_(means * (1 - share)).clamp_(0, 1)


def elastic_transform(
    pixels: Float[Tensor, "n c h w"], stretch: tuple[float, ...], generator: Generator
) -> Float[Tensor, "n c h w"]:
    """A random affine map of a triangle, then a smooth random displacement of every pixel.

    Args:
        stretch: Displacement times this number of pixels (before smoothing), sigma of the
            smoothing, and how far each corner of the triangle may move, in pixels.
    """
    amount, sigma, corner = stretch
    n, _, side, _ = pixels.shape
    device = pixels.device
    middle, arm = side // 2, side // 3
    triangle = torch.tensor([[arm, arm], [arm, -arm], [-arm, -arm]], device=device) + middle
    moves = torch.rand(n, 3, 2, generator=generator, device=device) * 2 - 1
    back = affine_back(triangle.float(), corner * moves)
    grid = _grid(side, device)
    bent = sampled(pixels, grid @ back[:, None, :2] + back[:, None, None, 2], align_corners=True)
    if amount == 0:
        return bent.clamp_(0, 1)
    fields = torch.rand(n, 2, side, side, generator=generator, device=device) * 2 - 1
    fields = gaussian_blurred(fields, sigma, truncate=3.0, border="reflect") * amount
    return sampled(bent, grid + fields.movedim(1, -1), align_corners=False).clamp_(0, 1)


def affine_back(
    triangle: Float[Tensor, "3 2"], moves: Float[Tensor, "n 3 2"]
) -> Float[Tensor, "n 3 2"]:
    """Affine maps B with (x, y, 1) B the place in the image that the new place (x, y) shows."""
    ones = torch.ones(len(moves), 3, 1, device=moves.device)
    return torch.linalg.solve(
        torch.cat([triangle + moves, ones], -1), triangle.expand(len(moves), 3, 2)
    )


def sampled(
    images: Float[Tensor, "n c h h"], places: Float[Tensor, "n h h 2"], *, align_corners: bool
) -> Float[Tensor, "n c h h"]:
    """Images read bilinearly at (x, y) in pixels, mirrored outside.

    Args:
        align_corners: Mirrored about the middle of the edge pixels (OpenCV's reflect 101), or about
            their outer edge (SciPy's reflect).
    """
    side = images.shape[-1]
    scaled = places * (2 / (side - 1)) - 1 if align_corners else (places * 2 + 1) / side - 1
    return F.grid_sample(
        images, scaled, mode="bilinear", padding_mode="reflection", align_corners=align_corners
    )


def _grid(side: int, device: torch.device) -> Float[Tensor, "h h 2"]:
    line = torch.arange(side, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1)


def pixelate(
    pixels: Float[Tensor, "n c h w"], share: float, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Shrunk by averaging whole pixels, enlarged by repeating them.

    Args:
        share: Side of the shrunk image over that of the image.
    """
    side = pixels.shape[-1]
    small = int(side * share)
    taken, repeated = (
        torch.from_numpy(index).to(pixels.device) for index in box_indices(side, small)
    )
    rows = sum(pixels[:, :, index] for index in taken)
    shrunk = sum(rows[..., index] for index in taken) / len(taken) ** 2
    return shrunk[..., repeated][:, :, repeated]


@functools.lru_cache(maxsize=32)
def box_indices(side: int, small: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels a box filter averages on the way down (k small), which it repeats on the way up.

    Rows of fewer than k pixels repeat theirs, so that plain means come out right.

    Source: Pillow's Image.Resampling.BOX, which counts a pixel whose middle is inside.
    """
    scale = side / small
    members = []
    for middle in (np.arange(small) + 0.5) * scale:
        low, high = (int(middle + sign * scale / 2 + 0.5) for sign in (-1, 1))
        inside = np.arange(max(low, 0), min(high, side))
        at = (inside + 0.5 - middle) / scale
        members.append(inside[(at > -0.5) & (at <= 0.5)])
    counts = {len(own) for own in members}
    taps = int(np.lcm.reduce(list(counts)))
    down = np.stack([np.repeat(own, taps // len(own)) for own in members], 1)
    up = ((np.arange(side) + 0.5) / scale).astype(np.int64)
    return down, up


def jpeg_compression(
    pixels: Float[Tensor, "n c h w"], quality: int, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Encoded as JPEG and decoded, image by image on the CPU, wherever the images are.

    Args:
        quality: 1 to 95, Pillow's scale; colours at half the resolution (4:2:0).
    """
    levels = pixels.movedim(1, -1).mul(255).round_().to(torch.uint8).cpu().numpy()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        decoded = list(pool.map(functools.partial(_through_jpeg, quality=quality), levels))
    out = torch.from_numpy(np.stack(decoded)).to(pixels.device)
    return out.movedim(-1, 1).to(pixels.dtype).div_(255)


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
