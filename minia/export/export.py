"""A finished run in the format of another program, as a folder that appears whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from minia.core.artifact import InputError
from minia.core.writing import appearing_whole
from minia.export.coco import write_coco
from minia.export.embedding_atlas import write_embedding_atlas
from minia.export.formats import FORMATS
from minia.export.hloc import write_hloc
from minia.export.parts import Parts
from minia.export.regions import write_image_regions, write_sky_regions
from minia.export.samp import broadcast
from minia.export.smh import write_smh
from minia.export.tables import write_csv, write_fits, write_parquet, write_votable
from minia.mining.features.store import FeatureStore

logger = logging.getLogger(__name__)

_SAMP_TABLE = "parts.vot"
Artifacts = Mapping[str, Path]
Structures = Collection[int] | None


def _csv(artifacts: Artifacts, folder: Path, structures: Structures) -> None:
    write_csv(Parts.load(artifacts), folder / "parts.csv", structures)


def _votable(artifacts: Artifacts, folder: Path, structures: Structures) -> None:
    write_votable(Parts.load(artifacts), folder / _SAMP_TABLE, structures)


def _fits(artifacts: Artifacts, folder: Path, structures: Structures) -> None:
    write_fits(Parts.load(artifacts), folder / "parts.fits", structures)


def _parquet(artifacts: Artifacts, folder: Path, structures: Structures) -> None:
    write_parquet(Parts.load(artifacts), folder / "parts.parquet", structures)


def _regions(artifacts: Artifacts, folder: Path, structures: Structures) -> None:
    parts = Parts.load(artifacts)
    write_image_regions(parts, folder / "images", structures)
    if len(parts.sky.table):
        write_sky_regions(parts, folder / "sky.reg", structures)


def _coco(artifacts: Artifacts, folder: Path, structures: Structures) -> None:
    write_coco(Parts.load(artifacts), folder / "parts.json", structures)


def _hloc(artifacts: Artifacts, folder: Path, structures: Structures) -> None:
    _refuse_structures(structures, "hloc")
    if "features" not in artifacts:
        raise InputError("the run holds no features")
    write_hloc(FeatureStore.load(artifacts["features"]), folder / "features.h5")


def _embedding_atlas(artifacts: Artifacts, folder: Path, structures: Structures) -> None:
    _refuse_structures(structures, "embedding-atlas")
    write_embedding_atlas(Parts.load(artifacts), folder / "images.parquet")


def _smh(artifacts: Artifacts, folder: Path, structures: Structures) -> None:
    _refuse_structures(structures, "smh")
    write_smh(artifacts, folder)


def _refuse_structures(structures: Structures, name: str) -> None:
    if structures is not None:
        raise InputError(f"the format {name} is of the whole run: leave the structures out")


_WRITERS: dict[str, Callable[[Artifacts, Path, Structures], None]] = {
    "csv": _csv,
    "votable": _votable,
    "fits": _fits,
    "parquet": _parquet,
    "regions": _regions,
    "coco": _coco,
    "hloc": _hloc,
    "embedding-atlas": _embedding_atlas,
    "smh": _smh,
    "samp": _votable,
}


def export(artifacts: Artifacts, format_name: str, output: Path, structures: Structures = None) -> list[Path]:
    """Write a finished run in a format; with ``samp``, send it too.

    Args:
        artifacts: the run's artifacts by stage.
        format_name: one of :data:`minia.export.formats.FORMATS`.
        output: the folder, which appears whole; it must not exist, or be empty.
        structures: only these, by number; None for all.

    Returns:
        The files, sorted.

    Raises:
        InputError: there is no such format, the folder holds something, or the run lacks what the format needs.
    """
    if format_name not in FORMATS:
        raise InputError(f"there is no format {format_name}; allowed: {', '.join(FORMATS)}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: is there already; allowed: another folder, or to remove it first")
    output.parent.mkdir(parents=True, exist_ok=True)
    with appearing_whole(output) as temporary:
        temporary.mkdir()
        _WRITERS[format_name](artifacts, temporary, structures)
    if format_name == "samp":
        told = broadcast(output / _SAMP_TABLE, "minIA parts")
        logger.info("sent to %s", ", ".join(told) or "no program: none that is open loads VOTables")
    return sorted(path for path in output.rglob("*") if path.is_file())
