"""The settings of labelled images: where they come from, and how they are augmented.

``conf/train/data`` and ``conf/train/augmentation`` explain each key. Nothing here imports torch, so that wrong settings
are told at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from minia.core.artifact import InputError
from minia.core.setting_types import ExistingFile, ExistingFolder, PositiveShare, Settings, Share, Text

NumImages = Annotated[int, Field(ge=1, le=10_000_000)]
Factor = Annotated[float, Field(ge=1, le=1000)]


class LabelledImages(Settings):
    """What every source has.

    Attributes:
        class_size: most images of a class, drawn with the seed; None for all.
        validation_share: share of each class whose galaxies validate.
        test_share: share of each class whose galaxies are kept for a test at the end; 0 for none.
        check_images: decode every image once, name and leave out those that cannot be read.
        side: images are decoded to squares of this side, in pixels.
        cache: where decoded images are kept: ``memory``, ``disk`` or ``none``.
        loader_workers: processes that read images while the network trains; 0 for the program itself.
        pin_memory: copy batches to page-locked memory, from which a GPU takes them faster.
        persistent_workers: keep the reading processes between two checks.
    """

    class_size: NumImages | None
    validation_share: Annotated[float, Field(ge=0.01, le=0.9)]
    test_share: Annotated[float, Field(ge=0, le=0.9)]
    check_images: bool
    side: Annotated[int, Field(ge=16, le=8192)]
    cache: Literal["none", "memory", "disk"]
    loader_workers: Annotated[int, Field(ge=0, le=1024)]
    pin_memory: bool
    persistent_workers: bool

    @property
    def labelled(self) -> bool:
        """Whether images have a class."""
        return True


class VoteRules(Settings):
    """How the votes for a galaxy become its class.

    Attributes:
        gate: share of votes that each answer on the way to the last one must exceed, 0 .. 1.
        threshold: share of votes that the last answer must exceed, 0 .. 1.
        min_votes: votes that the last question must have; 0 for any.
        ambiguous: a galaxy of several classes is dropped (``drop``), or kept in the ``first`` or ``last`` of them by
            id (the original's files keep the last), or in the one of the ``strongest`` vote.
        targets: train on the ``classes`` that follow, or on the ``votes`` of all galaxies for all questions; a class is
            then the first question's answer of most votes, and the rules above do not count.
    """

    gate: Share
    threshold: Share
    min_votes: Annotated[int, Field(ge=0, le=1_000_000)]
    ambiguous: Literal["drop", "first", "last", "strongest"]
    targets: Literal["classes", "votes"] = "classes"


class SimulatedData(LabelledImages, VoteRules):
    """``data=simulated``: a survey that is drawn, and read as Galaxy Zoo 2 is.

    Attributes:
        num_images: galaxies to draw.
        image_size: side of their images, in pixels.
    """

    kind: Literal["simulated"]
    num_images: NumImages
    image_size: Annotated[int, Field(ge=64, le=4096)]


class GZ2Data(LabelledImages, VoteRules):
    """``data=gz2``: Galaxy Zoo 2 as it is released.

    Attributes:
        root: folder that holds the three files below, unless they are named.
        catalogue: ``gz2_hart16.csv`` or ``.csv.gz``, votes by ``dr7objid``.
        mapping: ``gz2_filename_mapping.csv``, which gives the ``asset_id`` of each ``objid``.
        images: folder of the cut-outs, ``<asset_id>.jpg``.
    """

    kind: Literal["gz2"]
    root: ExistingFolder
    catalogue: ExistingFile | None
    mapping: ExistingFile | None
    images: ExistingFolder | None


class CSVData(LabelledImages):
    """``data=csv``: a table, CSV or parquet, with one row an image.

    Attributes:
        path: the table.
        dir: where paths start; None for the table's own folder.
        id_column: the image's name, unique.
        path_column: the image's file; None where the name is the file, with its extension or without.
        label_column: the image's class; rows without one are left out. None where there are no labels.
        more_labels: further columns to train on besides, each a question of its own; an image may lack answers.
        split_column: ``train``, ``validation`` or ``test``; None to split here.
        galaxy_column: images with the same value stay on one side of the split, those without one on
            either; None where every image is of another galaxy.
    """

    kind: Literal["csv"]
    path: ExistingFile
    dir: ExistingFolder | None
    id_column: Text
    path_column: Text | None
    label_column: Text | None
    more_labels: list[Text] = Field(default=[], strict=False)
    split_column: Text | None
    galaxy_column: Text | None

    @model_validator(mode="after")
    def _check_together(self) -> CSVData:
        if self.more_labels and self.label_column is None:
            raise InputError("data.more_labels: needs data.label_column, the first of them; allowed without it: []")
        return self

    @property
    def labelled(self) -> bool:
        """Whether images have a class."""
        return self.label_column is not None


class FolderData(LabelledImages):
    """``data=folder``: a folder with one folder a class, each searched with its subfolders.

    Attributes:
        dir: the folder.
    """

    kind: Literal["folder"]
    dir: ExistingFolder


class ImagesData(LabelledImages):
    """``data=images``: a folder of images without labels, searched with its subfolders.

    Attributes:
        dir: the folder.
    """

    kind: Literal["images"]
    dir: ExistingFolder

    @property
    def labelled(self) -> bool:
        """Whether images have a class."""
        return False


class ListData(LabelledImages):
    """``data=list``: a list as the original minIA writes it.

    Attributes:
        path: the list: a header line, then ``class_id,name name name`` for each class, names without extension.
        dir: folder of the images.
        ambiguous: a name in two classes is dropped (``drop``), or kept in the ``first`` or ``last`` of them.
    """

    kind: Literal["list"]
    path: ExistingFile
    dir: ExistingFolder
    ambiguous: Literal["drop", "first", "last"]


LabelledData = Annotated[
    SimulatedData | GZ2Data | CSVData | FolderData | ImagesData | ListData, Field(discriminator="kind")
]


class Augmentation(Settings):
    """How an image is turned into what the network is trained on.

    Attributes:
        image_size: side of what the network sees, pixels.
        view: the middle part of the image that is shown, as a share of its side, 0..1; 1 shows all.
        crop_area: smallest share of the image's area that a random crop takes; 1 for no crop.
        crop_aspect: largest ratio of a crop's sides; 1 for squares.
        shift: largest move of the view, as a share of its side.
        rotate: turn by any angle.
        flip: mirror every second image.
        scale: largest factor of size, up or down; 1 for none.
        brightness: largest change of all channels, natural logarithm.
        colour: largest change of each channel for itself, natural logarithm.
        move_probability: how often the original's move comes first: an eighth of
            the side and 30 degrees to one side or the other, and a flip; black where nothing is.
        filter_probability: how often the sky is made black. The same draw decides on both, so that of two equal
            probabilities both come or neither, as in its "F" copies.
        supersample: points a pixel and axis that are averaged; 2 comes near a box average.
    """

    image_size: Annotated[int, Field(ge=32, le=2048)]
    view: PositiveShare = 1.0
    crop_area: PositiveShare = 1.0
    crop_aspect: Factor = 1.0
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    rotate: bool = False
    flip: bool = False
    scale: Factor = 1.0
    brightness: Annotated[float, Field(ge=0, le=2)] = 0.0
    colour: Annotated[float, Field(ge=0, le=2)] = 0.0
    move_probability: Share = 0.0
    filter_probability: Share = 0.0
    supersample: Annotated[int, Field(ge=1, le=4)] = 1

    @property
    def needs_mask(self) -> bool:
        """Whether images need the foreground mask as a fourth channel."""
        return self.filter_probability > 0

    @model_validator(mode="after")
    def _check_together(self) -> Augmentation:
        if self.crop_area < 1 and (self.view < 1 or self.rotate or self.flip or self.scale > 1 or self.shift > 0):
            raise InputError(
                f"augmentation.crop_area={self.crop_area:g}: a random crop goes with view=1, shift=0, scale=1, no"
                " rotate and no flip; allowed otherwise: crop_area=1"
            )
        return self
