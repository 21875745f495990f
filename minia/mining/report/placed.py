"""Where the arrangement stage found structures, read so that memory does not grow with the number of images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from minia.mining.arrangement.places_file import ByImage, PlacesFile
from minia.mining.matching.best_images import GalleryImages

_OF_SHARES = ("structure", "image", "share")
_PLACE = ("x", "y", "size", "angle")

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PlacedParts:
    """Parts in their places, as the arrangement stage wrote them.

    Attributes:
        file: its rows.
        structures: those that have places, ascending.
    """

    file: PlacesFile
    structures: Numbers

    @classmethod
    def load(cls, artifact: Path) -> PlacedParts | None:
        """Those of an artifact of the arrangement stage; None of one of the mining stage, which has none."""
        file = PlacesFile.of(artifact)
        return None if file is None else cls(file, file.structures())

    def put_in(self, chosen: GalleryImages, shown: Numbers) -> GalleryImages:
        """The images to show where structures have places: those with most of the part in its place.

        Args:
            chosen: what overlaps choose, changed in place for structures with places.
            shown: (num_structures,) the numbers of the structures to show.
        """
        for row, structure in enumerate(shown.tolist()):
            images, shares, count = self._best_images(structure, chosen.images.shape[1])
            if count:
                chosen.images[row], chosen.overlaps[row] = -1, 0
                chosen.images[row, : len(images)], chosen.overlaps[row, : len(images)] = images, shares
                chosen.num_matches[row] = count
        return chosen

    def _best_images(self, structure: int, most: int) -> tuple[Numbers, npt.NDArray[np.float32], int]:
        """At most so many images, their shares, and how many hold the part at all."""
        images, shares, count = np.zeros(0, np.int64), np.zeros(0, np.float32), 0
        for rows in self.file.pieces(_OF_SHARES, np.array([structure])):
            count += len(rows)
            images = np.concatenate([images, rows["image"].to_numpy()])
            shares = np.concatenate([shares, rows["share"].to_numpy()])
            best = np.argsort(-shares, kind="stable")[:most]
            images, shares = images[best], shares[best]
        return images, shares, count

    def places_in(self, structure: int, images: Numbers) -> npt.NDArray[np.float64] | None:
        """x, y, size and angle of a structure in images, (n, 4), nan where it is not; None where it has no places."""
        order = np.argsort(images)
        found = np.full((len(images), len(_PLACE)), np.nan)
        any_rows = False
        for rows in self.file.pieces(["structure", "image", *_PLACE], np.array([structure])):
            any_rows |= len(rows) > 0
            own = rows["image"].to_numpy()
            inside = np.flatnonzero(np.isin(own, images))
            at = order[np.searchsorted(images[order], own[inside])]
            found[at] = np.column_stack([rows[name].to_numpy()[inside] for name in _PLACE])
        return found if any_rows else None

    @contextmanager
    def by_image(self, structures: Numbers, scratch: Path) -> Iterator[ByImage]:
        """Which images hold parts of some structures in their place, and their shares, to be had by image.

        Args:
            structures: their numbers.
            scratch: a file for what does not fit memory, not there yet; removed at the end.
        """
        with self.file.by_image(_OF_SHARES, scratch, np.sort(structures)) as found:
            yield found

    def of_images(self, images: Numbers) -> PlacedInImages:
        """The parts in a few images, ascending, in memory."""
        return PlacedInImages.of(self.file.of_images([*_OF_SHARES, *_PLACE, "keypoints"], images))


@dataclass(frozen=True)
class PlacedInImages:
    """Parts in their places in a few images, by structure and then by image.

    Attributes:
        structure, image: (n,) int32.
        share: (n,) float32.
        place: (n, 4) float32: x, y, size and angle.
        keypoints: n lists: the keypoints, numbered inside the image.
    """

    structure: npt.NDArray[np.int32]
    image: npt.NDArray[np.int32]
    share: npt.NDArray[np.float32]
    place: npt.NDArray[np.float32]
    keypoints: pa.ListArray

    @classmethod
    def of(cls, table: pa.Table) -> PlacedInImages:
        """Rows of the arrangement stage."""
        structure, image, share = (table[name].to_numpy() for name in _OF_SHARES)
        place = np.column_stack([table[name].to_numpy() for name in _PLACE])
        return cls(structure, image, share, place, table["keypoints"].combine_chunks())

    def find(self, structure: int, image: int) -> int | None:
        """The row of a structure in an image; None where it is not."""
        # Numbers of another type would have NumPy convert all rows, each time.
        first, last = np.searchsorted(self.structure, np.array([structure, structure + 1], np.int32))
        at = int(first + np.searchsorted(self.image[first:last], np.int32(image)))
        return at if at < last and self.image[at] == image else None

    def numbered(self, images: Numbers) -> ByImage:
        """The shares with each image's place among these, ascending, for its number."""
        place = np.searchsorted(images, self.image).astype(np.int32)
        return ByImage(pa.table([self.structure, place, self.share], names=list(_OF_SHARES)))
