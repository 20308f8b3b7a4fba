"""Reads the MedMNIST layout: one `.npz` with `{split}_images` and `{split}_labels`.

Beside them, `{split}_group_{name}` may hold a text per image, such as the sex: a subgroup.

References:
    Yang et al., MedMNIST v2, Scientific Data 2023, doi 10.1038/s41597-022-01721-8.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasites.errors import DatasetError
from datasites.imaging.problems import UnreadableSourceError
from datasites.imaging.subgroups import NO_VALUE, Subgroups, check_attribute, find_values

SPLITS = ("train", "val", "test")
MAXIMUM_BYTES = 8 * 10**9


def read_medmnist(path: Path) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The splits in a MedMNIST file.

    Returns:
        Split name -> images (N, H, W) or (N, H, W, 3) uint8, labels (N,) int64.

    Raises:
        UnreadableSourceError: The file is missing, is not an `.npz`, has no split, or has arrays of
            other shapes or types.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAXIMUM_BYTES:
            raise UnreadableSourceError(
                f"{path.name} unpacks to {unpacked:,} bytes; at most {MAXIMUM_BYTES:,} are read"
            )
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asanyarray(file[name]) for name in file.files}
    except FileNotFoundError as error:
        raise UnreadableSourceError(f"there is no file {path}") from error
    except UnreadableSourceError:
        raise
    except Exception as error:  # numpy, zip and zlib raise many kinds on damaged files
        raise UnreadableSourceError(f"{path.name} is not a readable .npz of arrays") from error
    splits = {
        split: _checked(path.name, split, arrays[f"{split}_images"], arrays[f"{split}_labels"])
        for split in SPLITS
        if f"{split}_images" in arrays and f"{split}_labels" in arrays
    }
    if "train" not in splits:
        raise UnreadableSourceError(
            f"{path.name} has {', '.join(sorted(arrays)) or 'no arrays'}; "
            "`train_images` and `train_labels` are needed"
        )
    if len({images.shape[1:] for images, _ in splits.values()}) > 1:
        raise UnreadableSourceError(f"{path.name}: the splits have images of different sizes")
    return splits


def read_groups(path: Path, splits: Collection[str]) -> Subgroups:
    """The subgroups in a MedMNIST file that `read_medmnist` has read; an empty text is no value.

    Raises:
        DatasetError: A split has no texts of an attribute, or they cannot be subgroups.
    """
    with np.load(path, allow_pickle=False) as file:
        names = sorted({n.split("_group_", 1)[1] for n in file.files if "_group_" in n})
        texts = {(s, n): file.get(f"{s}_group_{n}") for n in names for s in splits}
    values: dict[str, tuple[str, ...]] = {}
    members: dict[str, dict[str, NDArray[np.int8]]] = {split: {} for split in splits}
    for name in names:
        check_attribute(name)
        columns = {split: texts[split, name] for split in splits}
        if any(column is None or column.dtype.kind != "U" for column in columns.values()):
            raise DatasetError(
                f"{path.name}: {name} is not a text for each image of each split; write "
                f"{', '.join(f'{split}_group_{name}' for split in splits)}"
            )
        values[name] = find_values(name, [v for c in columns.values() for v in c.ravel().tolist()])
        places = {"": NO_VALUE, **{value: k for k, value in enumerate(values[name])}}
        for split, column in columns.items():
            members[split][name] = np.array([places[v] for v in column.ravel().tolist()], np.int8)
    return Subgroups(values, members)


def _checked(
    name: str, split: str, images: NDArray[np.generic], labels: NDArray[np.generic]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if images.dtype != np.uint8 or not (
        images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    ):
        raise UnreadableSourceError(
            f"{name}: {split}_images is {images.dtype.name} {images.shape}; "
            "uint8 (N, H, W) or (N, H, W, 3) is needed"
        )
    flat = labels.reshape(-1)
    if flat.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)):
        raise UnreadableSourceError(
            f"{name}: {split}_labels is {labels.dtype.name} {labels.shape}; "
            f"one whole number per image ({len(images)}) is needed"
        )
    if len(flat) and flat.min() < 0:
        raise UnreadableSourceError(f"{name}: {split}_labels has a negative label")
    if len(flat) and flat.max() > np.iinfo(np.int64).max:
        raise UnreadableSourceError(f"{name}: {split}_labels has a label too large")
    return images.astype(np.uint8), flat.astype(np.int64)
