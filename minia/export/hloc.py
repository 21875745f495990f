"""The features as one HDF5 file in the layout of hloc (Hierarchical-Localization), a group an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minia.core.artifact import InputError
from minia.core.progress import progress
from minia.core.writing import appearing_whole
from minia.mining.features.store import FeatureStore


def write_hloc(features: FeatureStore, path: Path) -> int:
    """Write features as hloc's matchers read them.

    The group of an image is its name, slashes included. It holds ``keypoints`` (n, 2) float32, x, y with 0, 0 at the
    centre of the pixel at the top left; ``descriptors`` (descriptor_size, n) float16; ``scores`` (n,) float32;
    ``sizes`` (n,) float32, diameters in pixels; ``image_size`` (2,) int32, width and height.

    Returns:
        How many images were written.

    Raises:
        InputError: h5py is not installed, two images have names of which one lies inside the other, or descriptors
            were not kept.
    """
    features.check_descriptors()
    try:
        import h5py
    except ImportError:
        raise InputError("the format hloc needs h5py: pip install 'minia[astronomy]'") from None
    images = features.images
    with (
        appearing_whole(path) as temporary,
        h5py.File(temporary, "w", libver="latest") as file,
        progress("writing features", len(images), "image") as advance,
    ):
        for row, (image, width, height) in enumerate(
            zip(images["image"], images["width"], images["height"], strict=True)
        ):
            try:
                group = file.create_group(image)
            except ValueError:
                raise InputError(f"the image {image} has the name of another's group in an HDF5 file") from None
            for name in ("keypoints", "scores", "sizes"):
                group.create_dataset(name, data=np.asarray(features.of_image(row, name), dtype=np.float32))
            descriptors = np.asarray(features.of_image(row, "descriptors"), dtype=np.float16)
            group.create_dataset("descriptors", data=descriptors.T)
            group.create_dataset("image_size", data=np.array([width, height], dtype=np.int32))
            advance(1)
    return len(images)
