from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minia.mining.arrangement.arrange import arrange
from minia.mining.arrangement.chance import decoy_rates, exchange_probability, false_discovery_rates
from minia.mining.arrangement.describe import CONSTELLATION, distinct_parts, image_spreads, locality, rank_correlation
from minia.mining.arrangement.part import Part
from minia.mining.arrangement.places import Places
from minia.mining.arrangement.swaps import exchange_words
from minia.mining.arrangement.tables import best_parts, describe_parts, places_table
from minia.mining.lists.listdb import ListDB

NUM_IMAGES, NUM_WORDS, CLUTTER, SIDE = 60, 400, 150, 300.0
HOLDERS = range(0, NUM_IMAGES, 3)
PART_WORDS = np.arange(12)


def collection(
    planted: bool = True, turns: bool = True, seed: int = 0
) -> tuple[Places, dict[int, tuple[complex, complex]]]:
    """Random keypoints, and in each third image twelve words in one arrangement, turned, scaled and shifted.

    The words of the part are in the same images without it too, at random places.
    """
    generator = np.random.default_rng(seed)
    u = generator.uniform(-40, 40, 12) + 1j * generator.uniform(-40, 40, 12)
    q = generator.uniform(2, 5, 12) * np.exp(1j * generator.uniform(0, 2 * np.pi, 12))
    z, pose, words, counts, truth = [], [], [], [], {}
    for image in range(NUM_IMAGES):
        there = image in HOLDERS
        at = generator.uniform(0, SIDE, CLUTTER) + 1j * generator.uniform(0, SIDE, CLUTTER)
        of = generator.uniform(2, 5, CLUTTER) * np.exp(1j * generator.uniform(0, 2 * np.pi, CLUTTER))
        which = generator.integers(12, NUM_WORDS, CLUTTER)
        if there:
            frame = generator.uniform(0.7, 1.4) * np.exp(1j * generator.uniform(0, 2 * np.pi))
            centre = complex(*generator.uniform(80, SIDE - 80, 2))
            seen = generator.random(12) < 0.8
            at[:12], of[:12], which[:12] = centre + frame * u, frame * q, PART_WORDS
            if not planted:
                at[:12] = generator.uniform(0, SIDE, 12) + 1j * generator.uniform(0, SIDE, 12)
            at[:12] += generator.normal(0, 0.5, 12) + 1j * generator.normal(0, 0.5, 12)
            at, of, which = (np.concatenate([each[:12][seen], each[12:]]) for each in (at, of, which))
            truth[image] = (centre, frame)
        z.append(at)
        pose.append(of)
        words.append(which)
        counts.append(len(at))
    at, of = np.concatenate(z), np.concatenate(pose)
    keypoints = np.stack([at.real, at.imag], axis=1).astype(np.float32)
    angles = (np.degrees(np.angle(of)) % 360).astype(np.float32) if turns else np.full(len(at), -1, np.float32)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    chosen = np.concatenate(words).astype(np.int32)
    return Places.of(offsets, keypoints, np.abs(of).astype(np.float32), angles, chosen, NUM_WORDS), truth


def structures() -> ListDB:
    """Half of the part's words, and words that have nothing in common."""
    return ListDB.from_lists([[0, 1, 2, 3, 4, 5], [100, 101, 102, 103, 104, 105]], NUM_WORDS)


def parts(places: Places) -> list[Part]:
    return list(arrange(places, structures(), num_exchanges=3, seed=0))


@pytest.mark.parametrize("turns", [True, False])
def test_a_planted_part_is_found_where_it_is(turns: bool) -> None:
    places, truth = collection(turns=turns)
    found = [part for part in parts(places) if part.probability < 1e-3]
    assert [part.structure for part in found] == [0]
    seen = found[0].sightings
    assert len(set(seen.images) & set(truth)) >= 0.9 * len(truth)
    assert len(set(seen.images) - set(truth)) <= 1
    assert set(PART_WORDS[6:]) & set(found[0].words)  # words beside those of the structure
    kept = np.flatnonzero(np.isin(seen.images, list(truth)))
    centre, frame = np.array([truth[image] for image in seen.images[kept].tolist()]).T
    there = (seen.centre[kept] - centre) / frame  # one place of the part, the same in all images
    assert np.median(np.abs(there - np.median(there.real) - 1j * np.median(there.imag))) < 2
    turn = seen.frame[kept] / frame
    assert np.std(np.log(np.abs(turn))) < 0.05


def test_words_without_an_arrangement_make_no_part() -> None:
    assert all(part.probability > 0.01 for part in parts(collection(planted=False)[0]))


def test_the_same_seed_gives_the_same_parts() -> None:
    first, second = (parts(collection()[0]) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.probability == other.probability
        assert np.array_equal(one.sightings.keypoints, other.sightings.keypoints)


def test_places_are_exchanged_inside_images() -> None:
    places, _ = collection()
    taken = places.exchanged(1)
    assert np.array_equal(places.image_of(taken), places.image_of(np.arange(len(taken))))
    assert np.array_equal(np.sort(taken), np.arange(len(taken)))


def test_tables_tell_places_and_what_a_part_is_like() -> None:
    places, truth = collection()
    best, _ = best_parts(parts(places), places, CONSTELLATION)
    table = places_table(best, places).to_pandas()
    own = table[table["structure"] == 0]
    assert set(own["image"]) >= set(truth) - {table["image"].max()} or len(own) >= 0.9 * len(truth)
    assert own["share"].between(0, 1, inclusive="right").all()
    assert (own["inliers"] >= 3).all()
    assert own["angle"].between(0, 360).all()
    described = describe_parts(best, 2, places)
    assert described["locality"][0] < 0.6
    assert described["everywhere"][0] == 0
    assert described["probability"][1] > 0.01
    assert len(places_table({}, places)) == 0


def test_one_part_found_twice_counts_once() -> None:
    places, _ = collection()
    twice = ListDB.from_lists([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7, 8]], NUM_WORDS)
    found = [part for words in twice for part in arrange(places, ListDB.from_lists([words.tolist()], NUM_WORDS))]
    sure = [part for part in found if part.probability < 1e-3]
    assert len(sure) == 2
    assert len(distinct_parts(sure, places, CONSTELLATION)) == 1


def test_a_part_that_chance_may_have_made_does_not_stand_for_one_that_is_sure() -> None:
    places, _ = collection()
    sure = next(part for part in parts(places) if part.probability < 1e-3)
    fewer = replace(sure, structure=1, sightings=sure.sightings.select(np.arange(len(sure.sightings.images)) > 0))
    assert best_parts([replace(sure, probability=0.5), fewer], places, CONSTELLATION) == ({1: fewer}, [])


def test_random_keypoints_have_a_locality_of_one() -> None:
    places, _ = collection(planted=False)
    chosen = np.sort(np.random.default_rng(0).choice(len(places.words), 900, replace=False))
    assert locality(chosen, places.image_of(chosen), places, image_spreads(places)) == pytest.approx(1, abs=0.1)
    assert np.isnan(locality(np.zeros(0, np.int64), np.zeros(0, np.int64), places, image_spreads(places)))


def test_the_probability_of_exchanges_holds_and_is_small_where_much_is_found() -> None:
    generator = np.random.default_rng(0)
    probabilities = [exchange_probability(each[0], each[1:]) for each in generator.poisson(0.3, (300, 4, 40))]
    assert np.mean(np.array(probabilities) < 0.05) <= 0.05
    assert exchange_probability(np.full(30, 5.0), np.zeros((3, 30))) < 1e-15
    assert exchange_probability(np.zeros(30), np.zeros((3, 30))) == 1


def test_false_discovery_rates_are_those_of_benjamini_and_hochberg() -> None:
    assert false_discovery_rates(np.array([0.04, 0.01, 0.5])) == pytest.approx([0.06, 0.03, 0.5])
    assert false_discovery_rates(np.array([0.01]), 4) == pytest.approx([0.04])


def test_decoys_raise_the_rate() -> None:
    scores = np.array([9.0, 5.0, 1.0])
    assert decoy_rates(scores, np.zeros(0), 3, 0.03) == pytest.approx([0.01, 0.01, 0.01])
    assert decoy_rates(scores, np.array([2.0, 2.0]), 1, 0.0) == pytest.approx([0, 0, 2 / 3])


def test_exchanged_words_keep_both_margins() -> None:
    generator = np.random.default_rng(0)
    lists = [np.flatnonzero(generator.random(80) < share).tolist() for share in generator.uniform(0.05, 0.5, 40)]
    bags = ListDB.from_lists(lists, 80)
    exchanged = exchange_words(bags, seed=1)
    assert np.array_equal(exchanged.sizes, bags.sizes)
    assert np.array_equal(exchanged.transpose().sizes, bags.transpose().sizes)
    assert not np.array_equal(exchanged.items, bags.items)
    assert all(np.all(np.diff(words) > 0) for words in exchanged)
    assert exchange_words(bags, seed=1) == exchanged


def test_rank_correlation() -> None:
    assert rank_correlation(np.array([1.0, 2, 9]), np.array([2.0, 3, 4])) == pytest.approx(1)
    assert rank_correlation(np.ones(3), np.arange(3.0)) == 0


def test_a_word_counts_once_at_a_place_of_one_image_and_again_in_the_next() -> None:
    """As on a grid: one place of every image has one word, turned to another side in each, and each time twice."""
    images = np.repeat(np.arange(64), 2)
    angles = (images % 8 * 45 + 20).astype(np.float32)
    offsets, points = np.arange(0, 130, 2), np.full((128, 2), 50, np.float32)
    places = Places.of(offsets, points, np.full(128, 4, np.float32), angles, np.full(128, 7, np.int32), NUM_WORDS)
    assert places.words.tolist() == [7, -1] * 64
