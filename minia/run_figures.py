"""Figures of a run's images with their keypoints drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from minia.data.files import UnreadableImageError
from minia.data.reading import Reading, read_image
from minia.mining.report import panels

_COLUMNS, _TILE, _INCHES = 4, 320, 2.6


class InlineFigure(Figure):
    """A figure that notebooks show even where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=self.dpi)
        return stream.getvalue()


@dataclass(frozen=True)
class Drawing:
    """An image with keypoints.

    Attributes:
        features: the artifact that says how images are read.
        path: of the image's file.
        title: above it.
        keypoints: x, y, size and word, strongest first.
        words: of the structure, whose places give the colours; None for one colour.
        close: show what is about the keypoints where they lie close together, rather than all of the image.
    """

    features: Path
    path: Path
    title: str
    keypoints: pd.DataFrame
    words: list[int] | None
    close: bool = False

    def tile(self) -> panels.Pixels:
        """The image, (side, side, 3) uint8; with only its name where its file cannot be read any more."""
        try:
            image = read_image(self.path, Reading.load(self.features))
        except UnreadableImageError:
            return panels.missing_tile(self.path.name, _TILE)
        points = self.keypoints[["x", "y"]].to_numpy(np.float32)
        sizes, size = self.keypoints["size"].to_numpy(np.float32), (image.shape[1], image.shape[0])
        place = {word: number for number, word in enumerate(self.words or [])}
        places = [place.get(word, len(panels.PALETTE)) for word in self.keypoints["word"].tolist()]
        colours = panels.word_colours(np.array(places, dtype=np.int64))
        if self.close:
            return panels.draw_part(image, _TILE, size, points, sizes, colours)
        shown = panels.spread_out(points)
        tile = panels.fit_tile(image, _TILE)
        return panels.draw_keypoints(tile, size, points[shown], sizes[shown], colours[shown])


def figure_of_structure(title: str, drawings: Sequence[Drawing]) -> Figure:
    """A grid of drawings under a title."""
    columns = min(_COLUMNS, max(1, len(drawings)))
    rows = max(1, -(-len(drawings) // columns))
    figure = InlineFigure(figsize=(_INCHES * columns, (_INCHES + 0.4) * rows + 0.4), layout="constrained")
    figure.suptitle(title, parse_math=False)  # a name may hold what matplotlib takes for a formula
    plots = figure.subplots(rows, columns, squeeze=False).flat
    for plot in plots:
        plot.set_axis_off()
    for plot, drawing in zip(plots.base.flat, drawings, strict=False):
        plot.imshow(drawing.tile())
        plot.set_title(drawing.title, fontsize=8, parse_math=False)
    return figure
