"""The arrangement stage: which structures are parts, and where these are.

The artifact holds ``structures.txt`` and ``structures.csv`` like that of the mining stage, the listed structures alone,
and ``places.parquet``, a row a structure and image that holds it (see ``tables``). The columns of ``structures.csv``
are those of the mining stage, where it has that file, ``parent`` being a line here or -1, and

==============  ==============================================================================================
mined           line of the structure in the mining stage's structures.txt; -1: a further part of a structure that
                is listed, a part of images that were compared, or a family
num_members     concentric parts alone: structures that a family joins (see ``families``), which have it for their
                parent; 0: no family
q_words         rate of false discoveries if words kept to no company (see ``decoy_rates``); nan: not known
q_places        the same if words kept no arrangement; nan where keypoints have no places
spots           places of the part with evidence of their own; of a concentric part its words
fewest_spots    spots in their place that make a match
false_matches   share of matches that exchanged places would give; nan for concentric parts
locality        spread of its keypoints over that of all keypoints of their images, median
everywhere      1 where it is in more than 9 of 10 images and so tells nothing about them, else 0
with_num_words  rank correlation, over the images, of its spots with the number of words
==============  ==============================================================================================

Few images leave the test of pairs of words without power: of 60 images that hold a third of the words each hardly
a pair is beyond chance among millions, while the places of a part's words are. So where words alone give no structure
to list, images are compared with each other as they are (see ``references``), and what recurs in them is listed.

Words that come together may be those of two things that many images have in common, each with an arrangement of its
own. The strongest part of a structure is listed with all of its words; a further one is a structure by itself, of the
words that are in it alone, unless it is a stronger part of another structure.

Further parts and families are the last lines. What only the mining stage can tell of a structure is empty for them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minia.core.artifact import Stage, read_manifest
from minia.core.context import Context
from minia.core.progress import progress
from minia.mining.arrangement.arrange import arrange, find_constellations
from minia.mining.arrangement.chance import decoy_rates, false_discovery_rates
from minia.mining.arrangement.collection import Collection
from minia.mining.arrangement.concentric import arrange_concentric, find_concentric
from minia.mining.arrangement.describe import CONCENTRIC, CONSTELLATION
from minia.mining.arrangement.families import list_families
from minia.mining.arrangement.part import Bands, Part
from minia.mining.arrangement.places import Places
from minia.mining.arrangement.references import num_references, propose_parts
from minia.mining.arrangement.settings import ConcentricArrangement, ConstellationArrangement
from minia.mining.arrangement.swaps import exchange_words
from minia.mining.arrangement.tables import (
    best_parts,
    describe_parts,
    followed_by,
    places_table,
    words_of,
    write_bands,
    write_places,
    write_table,
)
from minia.mining.features.store import FeatureStore
from minia.mining.lists.listdb import ListDB, ones
from minia.mining.structures.settings import MiningSettings, SMHMining
from minia.mining.structures.stage import (
    STRUCTURE_TABLE,
    load_structures,
    mine_bags,
    why_no_structures,
    write_structures,
)
from minia.mining.words.stage import load_bags

logger = logging.getLogger(__name__)

Arrangement = ConcentricArrangement | ConstellationArrangement


@dataclass(frozen=True)
class MinedKeypoints:
    """Artifacts: the bags of words, the structures mined from them, and the keypoints with their words.

    Attributes:
        words: of the words stage.
        mining: of the mining stage.
        features: of the features stage.
        assignment: the visual words of the keypoints.
    """

    words: Path
    mining: Path
    features: Path
    assignment: Path


def arrange_structures(
    mined: MinedKeypoints, store: Path, settings: Arrangement, mining: MiningSettings, context: Context
) -> Path:
    """Find where structures are, and list those that chance does not make.

    Args:
        mined: what was mined, and from what.
        store: folder of artifacts.
        settings: of this stage.
        mining: how structures were mined, for ``word_exchanges``.
        context: ``seed`` of all exchanges.

    Returns:
        The arrangement artifact.
    """
    paths = (mined.words, mined.mining, mined.assignment)
    inputs = {path.parent.name: read_manifest(path)["fingerprint"] for path in paths}
    parameters = settings.model_dump() | {"seed": context.seed}
    stage = Stage("arrangement", settings.kind, store, parameters, inputs, version=9)

    def make(work: Path) -> dict[str, Any]:
        bags = load_bags(mined.words, mapped=True)
        structures = load_structures(mined.mining, bags.num_items)
        q_words = _word_rates(work, mined.mining, bags, settings, mining, context)  # before places take memory
        collection = Collection(FeatureStore.load(mined.features), mined.assignment, bags.num_items)
        sample = collection.to_learn_from(context.seed)
        if sample is not None:
            logger.info("arrangement: learned from a sample of %d of %d images", len(sample), collection.num_images)
        places = collection.places(sample)
        num_mined = structures.num_lists
        best, further = _parts(places, structures, settings, context.seed)
        structures = structures.followed_by(words_of(further, places))
        best |= {num_mined + number: part for number, part in enumerate(further)}
        table = _table(structures, best, places, mined.mining / STRUCTURE_TABLE)
        table["q_words"] = np.append(q_words, q_words[[part.structure for part in further]])
        table, compared = _listed(table, settings), 0
        if table.empty and sample is None and isinstance(settings, ConstellationArrangement):
            compared = num_references(places, settings.compared_images)
            if compared:
                structures, best, table = _compared(places, compared, settings, context.seed)
                num_mined = 0
        if isinstance(settings, ConcentricArrangement):
            table, best, structures = list_families(table, best, structures, places, settings.family_correlation)
        listed = {number: best[mined] for number, mined in enumerate(table["mined"].tolist()) if mined in best}
        if isinstance(settings, ConcentricArrangement):
            write_bands(work, listed)
        if sample is None:
            write_table(work, places_table(listed, places))
        else:
            del places  # the spans need the memory
            _seek(work, listed, collection, context.num_workers)
        counts = write_structures(work, structures.select(table["mined"].to_numpy(np.int64)))
        table.loc[table["mined"] >= num_mined, "mined"] = -1
        table.to_csv(work / STRUCTURE_TABLE, index=False)
        of_mining: dict[str, Any] = read_manifest(mined.mining)["counts"]
        told = {"why_none": _why_none(mined.mining, of_mining["num_structures"], compared)} if table.empty else {}
        tries = {"num_mined_structures": of_mining["num_structures"], "num_compared_images": compared}
        return of_mining | tries | counts | told

    return stage.run(make)


def _parts(places: Places, structures: ListDB, settings: Arrangement, seed: int) -> tuple[dict[int, Part], list[Part]]:
    """The strongest part of each structure that has one, and further ones."""
    with progress("arranging", structures.num_lists, "structure") as advance:
        if isinstance(settings, ConcentricArrangement):
            found = list(arrange_concentric(places, structures, seed, advance))
            return best_parts(found, places, CONCENTRIC)
        found = list(arrange(places, structures, settings.place_exchanges, seed, advance))
        return best_parts(found, places, CONSTELLATION)


def _seek(work: Path, parts: dict[int, Part], collection: Collection, num_workers: int) -> None:
    """Write where parts are in all images."""
    concentric = all(isinstance(part.model, Bands) for part in parts.values())
    write_places(work, parts, collection, find_concentric if concentric else find_constellations, num_workers)


def load_places(features: Path, assignment: Path, num_words: int) -> Places:
    """The keypoints of a features artifact with their places and words."""
    return Collection(FeatureStore.load(features), assignment, num_words).places()


def _compared(
    places: Places, references: int, settings: ConstellationArrangement, seed: int
) -> tuple[ListDB, dict[int, Part], pd.DataFrame]:
    """The words of the parts that images have in common, the distinct parts, and the rows that are listed."""
    logger.info(
        "arrangement: words alone give no structure to list, so %d images are compared, each with half of all",
        references,
    )
    with progress("comparing images", references, "image") as advance:
        proposed = propose_parts(places, references, settings.place_exchanges, seed, advance)
    best, _ = best_parts([part for part in proposed if part is not None], places, CONSTELLATION)
    structures = words_of(proposed, places)
    table = _table(structures, best, places)
    table["q_words"] = np.nan
    return structures, best, _listed(table, settings.model_copy(update={"list": "significant"}))


def _table(structures: ListDB, best: dict[int, Part], places: Places, mined: Path | None = None) -> pd.DataFrame:
    """A row a structure: what mining says of it, if it left that file, and what its strongest part does."""
    number = structures.num_lists
    table = pd.DataFrame({"structure": np.arange(number)})
    if mined is not None and mined.exists():
        table = _lengthened(pd.read_csv(mined), structures)
    described = describe_parts(best, number, places)
    probability = described.pop("probability").to_numpy(np.float64)
    table["mined"] = np.arange(number)
    table["q_places"] = false_discovery_rates(probability)
    return pd.concat([table, described], axis=1)


def _lengthened(table: pd.DataFrame, structures: ListDB) -> pd.DataFrame:
    """What mining says of its structures, and a row for each further part: its number of words, and no parent."""
    if len(table) == structures.num_lists:
        return table
    return followed_by(table, pd.DataFrame({"num_words": structures.sizes[len(table) :], "parent": -1}))


def _word_rates(
    work: Path, mining: Path, bags: ListDB, settings: Arrangement, how: MiningSettings, context: Context
) -> npt.NDArray[np.float64]:
    """The q-value of each structure if words kept to no company."""
    manifest, scores = read_manifest(mining), _scores(mining)
    expected = float(manifest["parameters"].get("false_structures", 0.0))
    if not isinstance(how, SMHMining) or (not expected and not settings.word_exchanges):
        return np.full(len(scores), np.nan)
    decoys = [np.zeros(0)]
    for number in range(settings.word_exchanges):
        folder = work / f"exchanged-{number}"
        folder.mkdir()
        mine_bags(folder, _exchanged(folder, bags, context.seed + number), how, context)
        decoys.append(_scores(folder))
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    return decoy_rates(scores, np.concatenate(decoys), max(1, settings.word_exchanges), expected)


def _exchanged(folder: Path, bags: ListDB, seed: int) -> ListDB:
    """Bags with words exchanged, on disk, so that mining has no more in memory than for bags as they are."""
    np.save(folder / "words.npy", exchange_words(bags, seed).items)
    items = np.load(folder / "words.npy", mmap_mode="r")
    return ListDB(bags.offsets, items, ones(len(items)), bags.num_items)


def _scores(mining: Path) -> npt.NDArray[np.float64]:
    """How strong each structure is: its significance, or where the linkage has none its co-occurring sets."""
    file = mining / STRUCTURE_TABLE
    if file.exists():
        return pd.read_csv(file)["significance"].to_numpy(np.float64)
    structures = load_structures(mining, None)
    return np.maximum.reduceat(np.append(structures.frequencies, 0), structures.offsets[:-1]).astype(np.float64)


def _listed(table: pd.DataFrame, settings: Arrangement) -> pd.DataFrame:
    """The rows of the structures that are listed, their parents renumbered."""
    if settings.list == "significant":
        unlikely = (table["q_places"] < settings.false_discovery) & ~(table["q_words"] > settings.false_discovery)
        table = table[unlikely]
    table = table.reset_index(drop=True)
    if "parent" in table:
        line = {mined: number for number, mined in enumerate(table["mined"].tolist())}
        table["parent"] = [line.get(parent, -1) for parent in table["parent"].tolist()]
    table["structure"] = np.arange(len(table))
    return table


def _why_none(mining: Path, num_mined: int, num_compared: int) -> str:
    """Why no structure is listed, and how many images were compared."""
    why = why_no_structures(mining) or (
        f"No structures are listed: none of the {num_mined} that were mined keeps an arrangement that chance does not"
        " make. See them all by arrangement.list=all."
    )
    if num_compared:
        why += f" Images were compared with each other too ({num_compared:,} of them): no part recurs in them."
    return why
