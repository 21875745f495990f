"""The images as a Parquet file for Embedding Atlas: a place in the plane, a picture, and what is known of each."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray
from PIL import Image

from minia.core.artifact import InputError
from minia.core.progress import progress
from minia.core.writing import appearing_whole
from minia.data.files import UnreadableImageError
from minia.data.reading import Reading, read_image
from minia.export.parts import Parts

PROJECTION = ("projection_x", "projection_y")
_COMPONENTS = 50
_MOST_TSNE = 20_000  # images; it takes some two minutes then, and grows faster than they do
_MOST_STRUCTURES_NAMED = 20  # of an image
_ROWS_AT_A_TIME = 512


def write_embedding_atlas(parts: Parts, path: Path, *, side: int = 64, seed: int = 0) -> int:
    """Write one row an image that holds a structure.

    The columns are ``image``; ``projection_x`` and ``projection_y``, where images that hold the same structures are
    near each other (t-SNE of 50 components of the overlaps, or the first two components where there are more than
    20,000 images); ``structures``, those it holds, best first; ``num_structures``; ``picture``, a PNG thumbnail as
    Embedding Atlas takes it; ``label`` and the catalogue's columns.

    Args:
        parts: the run.
        path: of the file. Open it by ``embedding-atlas FILE --x projection_x --y projection_y --image picture``.
        side: of the thumbnails in pixels, 0 for none.
        seed: of the projection.

    Returns:
        How many rows were written.

    Raises:
        InputError: no image holds a structure.
    """
    names, overlaps = _overlaps(parts)
    if not len(names):
        raise InputError("no image holds a structure")
    places = _project(overlaps, seed)
    known = parts.images.reindex(names)
    table = pd.DataFrame({"image": names, PROJECTION[0]: places[:, 0], PROJECTION[1]: places[:, 1]})
    table["num_structures"] = np.diff(overlaps.indptr).astype(np.int32)
    table["structures"] = [_best(overlaps, row) for row in range(len(names))]
    taken = {*table.columns, "picture"}
    for name in known:
        table[f"catalogue_{name}" if name in taken else str(name)] = known[name].to_numpy()
    with appearing_whole(path) as temporary, progress("writing images", len(table), "image") as advance:
        _write(temporary, parts, table, side, advance)
    return len(table)


def _write(path: Path, parts: Parts, table: pd.DataFrame, side: int, advance: Any) -> None:
    whole = pa.Table.from_pandas(table, preserve_index=False)
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = whole.schema.append(pa.field("picture", picture)) if side and parts.features is not None else whole.schema
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, len(table), _ROWS_AT_A_TIME):
            piece = whole.slice(first, _ROWS_AT_A_TIME)
            if len(schema) > len(whole.schema):
                names = table["image"].iloc[first : first + _ROWS_AT_A_TIME].tolist()
                piece = piece.append_column("picture", pa.array(_pictures(parts, names, side), picture))
            writer.write_table(piece)
            advance(len(piece))


def _overlaps(parts: Parts) -> tuple[list[str], scipy.sparse.csr_matrix]:
    """The images that hold a structure, sorted, and (num_images, num_structures) overlaps."""
    pieces = list(parts.read_matches())
    if not pieces:
        return [], scipy.sparse.csr_matrix((0, parts.num_structures))
    matches = pd.concat(pieces, ignore_index=True)
    codes, names = pd.factorize(matches["image"], sort=True)
    shape = (len(names), parts.num_structures)
    matrix = scipy.sparse.csr_matrix((matches["overlap"], (codes, matches["structure"])), shape=shape)
    return [str(name) for name in names], matrix


def _project(overlaps: scipy.sparse.csr_matrix, seed: int) -> NDArray[np.float32]:
    """(num_images, 2) places in the plane."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import normalize

    weighted = normalize(overlaps)
    components = min(_COMPONENTS, min(weighted.shape) - 1)
    if components < 2:
        return np.pad(weighted.toarray(), ((0, 0), (0, 2)))[:, :2].astype(np.float32)
    reduced = TruncatedSVD(components, random_state=seed).fit_transform(weighted)
    if 5 <= len(reduced) <= _MOST_TSNE:
        perplexity = min(30.0, (len(reduced) - 1) / 3)
        reduced = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return np.ascontiguousarray(reduced[:, :2], dtype=np.float32)


def _best(overlaps: scipy.sparse.csr_matrix, row: int) -> list[int]:
    """The structures of an image, best first."""
    inside = slice(overlaps.indptr[row], overlaps.indptr[row + 1])
    order = np.argsort(-overlaps.data[inside], kind="stable")[:_MOST_STRUCTURES_NAMED]
    return [int(structure) for structure in overlaps.indices[inside][order]]


def _pictures(parts: Parts, names: list[str], side: int) -> Iterator[Mapping[str, Any] | None]:
    """A thumbnail of each image, as Embedding Atlas and Hugging Face's datasets hold images."""
    features = parts.features
    assert features is not None
    reading = Reading.load(features.artifact)
    for row in pd.Index(features.images["image"]).get_indexer(names).tolist():
        try:
            image = Image.fromarray(read_image(features.image_path(row), reading))
        except UnreadableImageError:
            yield None  # it was there when its features were extracted
            continue
        image.thumbnail((side, side))
        stream = io.BytesIO()
        image.save(stream, "PNG")
        yield {"bytes": stream.getvalue(), "path": None}
