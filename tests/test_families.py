"""Families of structures that come and go together, in collections of single objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from minia.core.artifact import InputError
from minia.mining.arrangement.concentric import Objects, arrange_concentric, sightings_in_bands
from minia.mining.arrangement.families import join_families, list_families
from minia.mining.arrangement.part import Bands, Part
from minia.mining.arrangement.places import Places
from minia.mining.arrangement.tables import read_bands, write_bands
from minia.mining.lists.listdb import ListDB

NUM_IMAGES, NUM_WORDS, POINTS = 120, 90, 150
KINDS = np.arange(60).reshape(3, 20)  # words of two kinds of one thing, and of another thing
OF_KIND = [range(0, 30), range(30, 60), range(50, 80)]  # the images that hold each


def collection(related: float) -> Places:
    """Disks of points; those of the first two kinds hold some of the other's words."""
    generator = np.random.default_rng(0)
    positions, words = [], []
    for image in range(NUM_IMAGES):
        which = generator.integers(KINDS.size, NUM_WORDS, POINTS)
        radius = np.sqrt(generator.random(POINTS))
        for kind, images in enumerate(OF_KIND):
            share = 0.8 if image in images else related if kind < 2 and image in OF_KIND[1 - kind] else 0.02
            for word in KINDS[kind][generator.random(20) < share]:
                spot = generator.integers(POINTS)
                which[spot], radius[spot] = word, generator.uniform(0.3, 0.4) if kind == 0 else radius[spot]
        positions.append(100 + 100j + 40 * radius * np.exp(2j * np.pi * generator.random(POINTS)))
        words.append(which)
    at = np.concatenate(positions)
    offsets = np.arange(NUM_IMAGES + 1) * POINTS
    keypoints = np.stack([at.real, at.imag], axis=1).astype(np.float32)
    same = np.full(len(at), 0.5, np.float32)
    return Places.of(offsets, keypoints, same, 0 * same, np.concatenate(words).astype(np.int32), NUM_WORDS)


def structures() -> ListDB:
    return ListDB.from_lists([kind.tolist() for kind in KINDS], NUM_WORDS)


def parts(places: Places) -> list[Part]:
    return list(arrange_concentric(places, structures()))


def test_kinds_of_one_thing_are_a_family_and_another_thing_is_not_in_it() -> None:
    places = collection(related=0.4)
    kinds = parts(places)
    [(family, members)] = join_families(kinds, places, 0.4, 7)
    assert (family.structure, members) == (7, [0, 1])
    assert family.words.tolist() == KINDS[:2].ravel().tolist()
    held = set(family.sightings.images.tolist())
    assert len(held & set(range(60))) > 57
    assert len(held - set(range(60))) < 4
    assert isinstance(family.model, Bands)
    for kind in kinds[:2]:
        assert isinstance(kind.model, Bands)
        rows = np.searchsorted(family.words, kind.words)
        np.testing.assert_array_equal(family.model.first[rows], kind.model.first)


def test_kinds_that_share_nothing_are_no_family() -> None:
    places = collection(related=0.02)
    assert join_families(parts(places), places, 0.4, 3) == []


def test_none_are_joined_where_that_is_asked_for() -> None:
    places = collection(related=0.4)
    assert join_families(parts(places), places, 1.0, 3) == []


def test_few_images_must_be_correlated_more() -> None:
    generator = np.random.default_rng(1)
    offsets = np.arange(9) * 40
    at = generator.normal(size=(320, 2)).astype(np.float32)
    same = np.full(320, 0.5, np.float32)
    joined = 0
    for _ in range(20):
        words = generator.integers(0, 40, 320).astype(np.int32)
        places = Places.of(offsets, at, same, 0 * same, words, 40)
        lists = ListDB.from_lists([list(range(4 * number, 4 * number + 4)) for number in range(10)], 40)
        joined += len(join_families(list(arrange_concentric(places, lists)), places, 0.4, 10))
    assert joined <= 3


def test_a_part_that_lies_where_its_family_does_stands_for_it() -> None:
    places = collection(related=0.4)
    lists = ListDB.from_lists([KINDS[0].tolist(), KINDS[0][:12].tolist()], NUM_WORDS)
    assert join_families(list(arrange_concentric(places, lists)), places, 0.4, 2) == []


def test_the_table_lists_families_last_and_tells_whose_parts_structures_are() -> None:
    places = collection(related=0.4)
    table = pd.DataFrame(
        {"structure": [0, 1, 2, 3], "parent": [-1, -1, -1, 0], "num_words": 20, "num_images": 30, "significance": 9.0}
        | {"mined": [0, 1, 2, 3], "q_places": [1e-9, 1e-3, 1e-9, 0.9], "q_words": np.nan}
    )
    lists = ListDB.from_lists([*(kind.tolist() for kind in KINDS), KINDS[0][:12].tolist()], NUM_WORDS)
    best = dict(enumerate(arrange_concentric(places, lists)))
    table, best, lists = list_families(table, best, lists, places, 0.4)
    assert table["parent"].tolist() == [4, 4, -1, 0, -1]  # the fourth one is a part of the first one, and no member
    assert table["num_members"].tolist() == [0, 0, 0, 0, 2]
    assert table[["structure", "mined", "num_words"]].iloc[4].tolist() == [4, 4, 40]
    assert table["q_places"].iloc[4] == 1e-3
    assert np.isnan(table["significance"].iloc[4])
    assert sorted(lists[4].tolist()) == best[4].words.tolist()
    frequencies = lists.frequencies[lists.offsets[4] :]
    assert (np.diff(frequencies) <= 0).all()
    assert frequencies.max() <= len(best[4].sightings.images)
    assert (lists.num_lists, lists.num_items) == (5, NUM_WORDS)


def test_families_are_found_again_by_what_is_written_of_them(tmp_path: Path) -> None:
    places = collection(related=0.4)
    [(family, _)] = join_families(parts(places), places, 0.4, 5)
    write_bands(tmp_path, {5: family})
    [(number, (words, bands))] = read_bands(tmp_path).items()
    assert number == 5
    found = sightings_in_bands(places, Objects.of(places), words, bands, family.fewest_spots)
    for name in ("images", "centre", "frame", "spots", "counts", "keypoints"):
        np.testing.assert_array_equal(getattr(found, name), getattr(family.sightings, name))
    with pytest.raises(InputError, match="earlier version"):
        read_bands(tmp_path / "none")


def test_a_seed_gives_the_same_families() -> None:
    first, again = (join_families(parts(collection(0.4)), collection(0.4), 0.4, 3) for _ in range(2))
    for (family, members), (other, others) in zip(first, again, strict=True):
        assert members == others
        np.testing.assert_array_equal(family.sightings.frame, other.sightings.frame)
