from __future__ import annotations

import numpy as np
import pytest

from minia.mining.arrangement.concentric import Objects, arrange_concentric, fewest_words
from minia.mining.arrangement.part import Part
from minia.mining.arrangement.places import Places
from minia.mining.lists.listdb import ListDB

NUM_IMAGES, NUM_WORDS, POINTS = 80, 200, 250
WITH_RING = range(0, NUM_IMAGES, 4)
RING = np.arange(10)  # words of a ring at 0.55 radii of the object


def collection(planted: bool = True, seed: int = 0, turn: float = 0.0) -> Places:
    """Ellipses of points with random words; the ring's words are in each fourth image, in their place or anywhere."""
    generator = np.random.default_rng(seed)
    positions, words = [], []
    for image in range(NUM_IMAGES):
        radius = np.sqrt(generator.random(POINTS))
        which = generator.integers(len(RING), NUM_WORDS, POINTS)
        there = image in WITH_RING
        if there:
            which[:60] = np.repeat(RING, 6)
            radius[:60] = generator.uniform(0.5, 0.6, 60) if planted else np.sqrt(generator.random(60))
        around = radius * np.exp(2j * np.pi * generator.random(POINTS))
        size, flat, angle = generator.uniform(30, 90), generator.uniform(0.4, 1), generator.uniform(0, np.pi)
        positions.append(200 + 200j + size * (around.real + 1j * flat * around.imag) * np.exp(1j * (angle + turn)))
        words.append(which)
    at = np.concatenate(positions)
    keypoints = np.stack([at.real, at.imag], axis=1).astype(np.float32)
    offsets = np.arange(NUM_IMAGES + 1) * POINTS
    sizes = np.full(len(at), 0.5, np.float32)
    return Places.of(
        offsets, keypoints, sizes, np.zeros(len(at), np.float32), np.concatenate(words).astype(np.int32), NUM_WORDS
    )


def parts(places: Places, *words: list[int]) -> list[Part]:
    return list(arrange_concentric(places, ListDB.from_lists([list(each) for each in words], NUM_WORDS)))


def test_a_ring_is_found_where_it_is() -> None:
    places = collection()
    [part] = parts(places, RING.tolist())
    assert part.sightings.images.tolist() == list(WITH_RING)
    assert part.probability < 1e-5
    ring = Objects.of(places).ring[part.sightings.keypoints]
    assert set(ring) <= {5, 6, 7}  # of radii from 0.4 to 0.7
    assert abs(part.sightings.centre - (200 + 200j)).max() < 15
    assert part.sightings.counts.min() > 40


def test_words_without_a_place_are_told() -> None:
    few = [parts(collection(planted=False, seed=seed), RING.tolist())[0].probability for seed in range(40)]
    assert np.mean(np.array(few) < 0.05) < 0.2
    assert min(few) > 1e-5


def test_clusters_at_random_places_are_no_parts() -> None:
    # neighbours in one image are not independent: a word that fills one random spot of each image keeps no place
    unlikely = []
    for seed in range(40):
        places, generator = collection(planted=False, seed=seed), np.random.default_rng(1000 + seed)
        words = places.words.copy()
        for image in WITH_RING:
            own = slice(image * POINTS, (image + 1) * POINTS)
            middle = places.position[own][generator.integers(POINTS)]
            near = np.argsort(np.abs(places.position[own] - middle))[:20]
            words[own] = np.where(words[own] < len(RING), len(RING) + 5, words[own])
            words[image * POINTS + near] = np.repeat(RING, 2)
        keypoints = np.stack([places.position.real, places.position.imag], axis=1)
        clustered = Places.of(
            places.offsets, keypoints, np.abs(places.pose), np.zeros(len(words), np.float32), words, NUM_WORDS
        )
        unlikely.append(parts(clustered, RING.tolist())[0].probability)
    assert np.mean(np.array(unlikely) < 0.01) < 0.15


def test_turned_images_give_the_same_parts() -> None:
    [one], [other] = parts(collection(), RING.tolist()), parts(collection(turn=1.0), RING.tolist())
    assert np.array_equal(one.sightings.images, other.sightings.images)
    assert np.mean(np.isin(one.sightings.keypoints, other.sightings.keypoints)) > 0.98
    assert np.allclose(np.abs(one.sightings.frame), np.abs(other.sightings.frame), rtol=0.02)


def test_a_seed_gives_the_same_and_images_without_keypoints_are_no_trouble() -> None:
    places = collection()
    one, other = parts(places, RING.tolist()), parts(places, RING.tolist())
    assert one[0].probability == other[0].probability
    offsets = np.insert(places.offsets, 3, places.offsets[3])
    keypoints = np.stack([places.position.real, places.position.imag], axis=1)
    sizes, angles = np.abs(places.pose), np.zeros(len(places.words), np.float32)
    empty = Places.of(offsets, keypoints, sizes, angles, places.words, NUM_WORDS)
    [part] = parts(empty, RING.tolist())
    assert part.sightings.images.tolist() == [image + (image >= 3) for image in WITH_RING]
    assert parts(places, [199]) == []  # one word is no match


@pytest.mark.parametrize(("share", "high", "low"), [(0.1, 0.8, 0.02), (0.3, 0.5, 0.1), (0.5, 0.4, 0.05)])
def test_two_kinds_of_images_are_told_apart(share: float, high: float, low: float) -> None:
    generator = np.random.default_rng(0)
    holds = generator.random(1000) < share
    shared = generator.binomial(30, np.where(holds, high, low))
    fewest = fewest_words(shared, 30)
    assert np.mean((shared >= fewest) == holds) > 0.98


def test_no_match_where_all_images_are_alike() -> None:
    assert fewest_words(np.zeros(100, np.int64), 5) > 5
    assert fewest_words(np.ones(100, np.int64), 5) >= 2
