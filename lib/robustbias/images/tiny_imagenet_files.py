"""Tiny-ImageNet's files, in whichever of its two layouts they are."""

from pathlib import Path

from robustbias.errors import MissingData, UserError
from robustbias.images import tiny_imagenet_folders as folders
from robustbias.images import tiny_imagenet_shards as shards
from robustbias.images.encoded import Encoded


def encoded(folder: Path, split: str, wnids: tuple[str, ...], wanted: tuple[str, ...]) -> Encoded:
    """Images of the wanted classes, by class and number; labels are ranks among `wnids`.

    Args:
        folder: What was downloaded; the unpacked zip may lie below it as tiny-imagenet-200/.
        split: "train" or "val".
        wnids: The 200 WNIDs, sorted.
        wanted: Some of them.

    Raises:
        MissingData: The folder is not there or has neither layout.
        UserError: A shard is missing, truncated or of another schema; a class has no image.
    """
    if found := shards.shards(folder, split):
        images = shards.encoded(found, wnids, wanted)
    elif (root := folders.unpacked(folder)) is not None:
        images = folders.encoded(root, split, wnids, wanted)
    else:
        raise MissingData(
            f"{folder} holds neither {split}-*.parquet nor the folders of tiny-imagenet-200.zip "
            "(wnids.txt, train/, val/). Run `robustbias fetch tiny-imagenet`, or set "
            "ROBUSTBIAS_DATA to the folder above an existing tiny-imagenet/."
        )
    ranks = set(images.labels.tolist())
    if empty := [wnid for wnid in wanted if wnids.index(wnid) not in ranks]:
        raise UserError(
            f"{folder}: the {split} split has no image of {', '.join(empty[:5])} "
            f"({len(empty)} of {len(wanted)} classes). {shards.AGAIN}"
        )
    return images.ordered()


def count(folder: Path, split: str) -> int:
    """Number of images of a split, whichever layout the folder has; nothing is decoded."""
    if found := shards.shards(folder, split):
        return shards.count(found)
    root = folders.unpacked(folder)
    return folders.count(root, split) if root else 0
