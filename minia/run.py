"""A finished run, to be looked at: ``minia.load("outputs/RUN")``."""

from __future__ import annotations

import difflib
import functools
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from minia.core.artifact import MANIFEST, InputError
from minia.core.run_folder import MARK, RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minia.mining.features.store import FeatureStore
    from minia.query.answer import Answer
    from minia.query.look import NamedImage
    from minia.query.query import By
    from minia.run_figures import Drawing


def load(path: str | Path) -> Run:
    """A finished run of ``minia mine`` or ``minia train``.

    Args:
        path: its folder.

    Raises:
        InputError: there is no run.
    """
    return Run(Path(path))


class Run:
    """A finished run. What its artifacts hold is read from the store when it is asked for.

    Attributes:
        path: its folder.
        artifacts: the folders of its artifacts by stage, wherever the run and its store were moved together.

    Args:
        path: its folder.

    Raises:
        InputError: there is no run.
    """

    def __init__(self, path: Path) -> None:
        if not (path / MARK).is_file():
            raise InputError(f"{path}: no run of minIA: it holds no {MARK}; allowed: the folder of a run")
        marked = RunFolder.read(path.absolute())
        if marked.command == "sweep":
            raise InputError(f"{path}: a sweep; allowed: the folder of one of its jobs, for example {path / '0'}")
        if marked.command == "query":
            raise InputError(f"{path}: a query of a run; allowed: the folder of the run itself")
        if not (path / "metrics.json").is_file():
            raise InputError(f"{path}: the run has not come to its end: it holds no metrics.json")
        self.path = path.absolute()
        self.artifacts = dict(marked.artifacts)

    def __repr__(self) -> str:
        counts = {"num_images": "images", "num_structures": "structures"}
        told = [f"{self.metrics[key]:,} {name}" for key, name in counts.items() if key in self.metrics]
        return f"Run({str(self.path)!r}: {', '.join(told)})"

    @property
    def metrics(self) -> dict[str, Any]:
        """What was counted and measured (``metrics.json``)."""
        metrics: dict[str, Any] = json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))
        return metrics

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the run (``config.yaml``)."""
        settings: dict[str, Any] = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        return settings

    @functools.cached_property
    def structures(self) -> pd.DataFrame:
        """A row a structure, by its number.

        ``words`` are its visual words, the most frequent first, ``frequencies`` theirs, ``num_words`` how many they
        are, ``num_matches`` the images that hold it. All other columns are those of ``structures.csv``: of the
        nested linkage ``parent``, the structure it is a part of (-1: none), ``num_images``, ``association`` and
        ``significance``; of the arrangement also how likely chance alone makes it, where it is, and ``num_members``:
        how many structures it joins if it is a family, which has no ``association`` and no ``significance``.
        """
        from minia.mining.lists.listdb import read_listdb

        lists = read_listdb(self._file("mining", "structures.txt"))
        words = [each.tolist() for each in lists]
        ends = lists.offsets.tolist()
        frequencies = [lists.frequencies[first:last].tolist() for first, last in itertools.pairwise(ends)]
        table = pd.DataFrame({"words": words, "frequencies": frequencies}, dtype=object)
        table.insert(0, "num_words", [len(each) for each in words])
        table.index.name = "structure"
        if (self.path / "matches.parquet").is_file():
            held = pd.read_parquet(self._file("matching", "matches.parquet"), columns=["structure"])["structure"]
            table.insert(1, "num_matches", held.value_counts().reindex(table.index, fill_value=0))
        nested = self.path / "structures.csv"
        if nested.is_file():
            found = pd.read_csv(nested)
            table = table.join(found[[name for name in found if name not in (*table, "structure")]])
        return table

    def images_of(self, structure: int) -> pd.DataFrame:
        """The images that hold a structure, best first: image, overlap, and the numbers of the keypoints in it.

        Raises:
            InputError: there is no such structure.
        """
        from minia.mining.matching.stage import images_of_structure

        self._check_structure(structure)
        return images_of_structure(self._file("matching", "matches.parquet"), structure)

    def structures_of(self, image: str) -> pd.DataFrame:
        """The structures that an image holds, best first: structure, overlap, and the numbers of the keypoints in it.

        Raises:
            InputError: there is no such image.
        """
        from minia.mining.matching.stage import structures_of_image

        self._row(image)
        return structures_of_image(self._file("matching", "matches.parquet"), image)

    @functools.cached_property
    def features(self) -> FeatureStore:
        """The keypoints and descriptors of every image.

        Raises:
            InputError: the run has none.
        """
        from minia.mining.features.store import FeatureStore

        return FeatureStore.load(self._artifact("features"))

    @functools.cached_property
    def images(self) -> list[str]:
        """The names of the images, in their order."""
        from minia.mining.words.stage import load_images

        return [str(name) for name in load_images(self._artifact("words"))["image"]]

    def keypoints(self, image: str, structure: int | None = None) -> pd.DataFrame:
        """The keypoints of an image, strongest first.

        Args:
            image: its name.
            structure: only those whose visual word is in this structure; None for all.

        Returns:
            By the keypoint's number: ``x`` and ``y`` in pixels of the image, the centre of the top left pixel being
            0, 0; ``size``, its diameter in pixels; ``score``; and ``word``, its visual word.

        Raises:
            InputError: there is no such image or structure, or the run has no keypoints.
        """
        from minia.mining.matching.stage import KeypointWords

        row, features = self._row(image), self.features
        words = KeypointWords.load(self._artifact("features"), self._artifact("assignment"))
        places = features.of_image(row, "keypoints")
        table = pd.DataFrame(
            {
                "x": places[:, 0],
                "y": places[:, 1],
                "size": features.of_image(row, "sizes"),
                "score": features.of_image(row, "scores"),
                "word": words.between(int(features.offsets[row]), int(features.offsets[row + 1])),
            }
        )
        table.index.name = "keypoint"
        if structure is None:
            return table
        return table[table["word"].isin(self._words(structure))]

    @functools.cached_property
    def catalogue(self) -> pd.DataFrame:
        """What is known of the images, by name: the label, and every other column of their catalogue.

        Raises:
            InputError: the run has no images.
        """
        from minia.export.parts import read_catalogue_of

        return read_catalogue_of(self._artifact("images"))

    def parts(self, structures: Sequence[int] | None = None) -> pd.DataFrame:
        """The parts that were found, with their places in the images and on the sky (see :mod:`minia.export.parts`).

        Args:
            structures: only of these; None for all, which may be millions.

        Raises:
            InputError: there is no such structure, or the run has no matches.
        """
        from minia.export.parts import Parts

        parts = Parts.load(self.artifacts)
        return pd.concat([parts.empty(), *parts.read(structures)], ignore_index=True)

    def export(
        self, format_name: str, output: str | Path | None = None, structures: Sequence[int] | None = None
    ) -> list[Path]:
        """Write the run for another program (see :data:`minia.export.formats.FORMATS`); with ``samp``, send it too.

        Args:
            format_name: for example ``votable``, ``regions`` or ``coco``.
            output: a new folder; None for ``export/<format>`` in the run's.
            structures: only these; None for all.

        Returns:
            The files.

        Raises:
            InputError: there is no such format or structure, the folder holds something, or the run lacks what the
                format needs.
        """
        from minia.export.export import export

        folder = self.path / "export" / format_name if output is None else Path(output)
        return export(self.artifacts, format_name, folder, structures)

    def query(
        self,
        images: str | Path,
        output: str | Path | None = None,
        *,
        box: tuple[float, float, float, float] | None = None,
        num_similar: int = 10,
        by: By = "words",
        num_workers: int | None = None,
    ) -> Answer:
        """Ask about new images: their words and structures, where these are, and the run's images most like them.

        Features, words and structures are found with what the run recorded; nothing of the run changes.

        Args:
            images: an image file, a folder of images, or the name of an image of the run.
            output: a folder for tables and a page; None writes nothing.
            box: x, y, width and height of a mark on the one image, in pixels: where else in the run is what it shows?
            num_similar: images of the run to name for each image, at most.
            by: what makes images alike, their ``words`` or their ``structures``.
            num_workers: processes that look at images; None for all cores.

        Returns:
            Tables of the images, their structures and the images most like them.

        Raises:
            InputError: there are no images, none can be read, the run lacks what is needed or its features cannot be
                extracted any more, or something of others is in the output folder.
        """
        from minia.query.example import Box
        from minia.query.query import Question, ask
        from minia.query.recorded import Recorded
        from minia.query.write import query_folder, write_answer

        marked = None if box is None else Box(*box)
        question, folder = Question(num_similar, by, marked), None if output is None else Path(output)
        recorded = Recorded.of(self.artifacts, self.settings, num_workers)
        chosen = self._asked(images, folder)
        if folder is None:
            return ask(recorded, chosen, question)
        with query_folder(folder) as claimed:
            answer = ask(recorded, chosen, question)
            write_answer(claimed, answer, recorded.store, self.path, marked)
        return answer

    def query_folder(self, images: str | Path, *, marked: bool = False) -> Path:
        """Where a query of these images goes unless another folder is named; ``marked``: a box is drawn on one."""
        return self.path / "query" / (Path(images).absolute().name + ("-box" if marked else ""))

    def _asked(self, images: str | Path, output: Path | None) -> list[NamedImage]:
        from minia.query.look import NamedImage, list_images

        if not Path(images).exists() and str(images) in self._rows:
            return [NamedImage(str(images), self.features.image_path(self._rows[str(images)]))]
        return list_images(Path(images), output or self.path)

    def show(self, structure: int, num_images: int = 12) -> Figure:
        """A figure of the images that hold a structure best, its keypoints drawn, a colour for each visual word.

        Where the keypoints lie close together it shows what is about them, not all of the image.

        Args:
            structure: its number.
            num_images: at most, at least 1.

        Raises:
            InputError: there is no such structure, or the run has no keypoints.
        """
        from minia.run_figures import figure_of_structure

        found = self.images_of(structure).head(max(1, num_images))
        words = self._words(structure)
        drawings = [
            self._drawing(image, f"{image}\noverlap {overlap:.2f}", self.keypoints(image, structure), words, close=True)
            for image, overlap in zip(found["image"], found["overlap"], strict=True)
        ]
        return figure_of_structure(f"structure {structure}: {len(words)} words", drawings)

    def show_image(self, image: str, structures: Sequence[int] | None = None) -> Figure:
        """A figure of an image with the keypoints of its structures, one beside the other.

        Args:
            image: its name.
            structures: which; None for the six that it holds best.

        Raises:
            InputError: there is no such image or structure, or the run has no keypoints.
        """
        from minia.run_figures import figure_of_structure

        chosen = self.structures_of(image)["structure"].head(6).tolist() if structures is None else structures
        drawings = [self._drawing(image, "all keypoints", self.keypoints(image), None)]
        for structure in chosen:
            words = self._words(structure)
            drawings.append(self._drawing(image, f"structure {structure}", self.keypoints(image, structure), words))
        return figure_of_structure(image, drawings)

    def _drawing(
        self, image: str, title: str, keypoints: pd.DataFrame, words: list[int] | None, *, close: bool = False
    ) -> Drawing:
        from minia.run_figures import Drawing

        row, features = self._row(image), self.features
        return Drawing(features.artifact, features.image_path(row), title, keypoints, words, close)

    def _artifact(self, stage: str) -> Path:
        path = self.artifacts.get(stage)
        if path is None:
            raise InputError(f"{self.path}: the run has no {stage}: its stages were {', '.join(self.artifacts)}")
        if not (path / MANIFEST).is_file():
            raise InputError(f"{path}: the run's {stage} are not in the store any more; allowed: run it again")
        return path

    def _file(self, stage: str, name: str) -> Path:
        """A file in the run's folder."""
        if not (self.path / name).is_file():
            raise InputError(f"{self.path}: the run has no {stage}: its stages were {', '.join(self.artifacts)}")
        return self.path / name

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.images)}

    def _row(self, image: str) -> int:
        if image not in self._rows:
            near = difflib.get_close_matches(image, self.images, 1)
            raise InputError(f"{image}: no image of this run{f' (did you mean {near[0]}?)' if near else ''}")
        return self._rows[image]

    def _words(self, structure: int) -> list[int]:
        self._check_structure(structure)
        words: list[int] = self.structures["words"].tolist()[structure]
        return words

    def _check_structure(self, structure: int) -> None:
        if not 0 <= structure < len(self.structures):
            raise InputError(f"structure {structure}: the run has {len(self.structures)}, numbered from 0")
