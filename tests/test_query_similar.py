"""Which images are most alike, beside a plain computation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from minia.mining.lists.listdb import ListDB
from minia.query import similar
from minia.query.similar import Vectors


def random_bags(num_images: int, num_words: int, seed: int) -> ListDB:
    generator = np.random.default_rng(seed)
    matrix = generator.poisson(0.4, (num_images, num_words))
    matrix[::7] = 0  # empty images
    matrix[1::7] = matrix[2]  # many that are the same
    matrix[:, 0] = 3  # in every image: says nothing
    sparse = scipy.sparse.csr_matrix(matrix)
    return ListDB(sparse.indptr, sparse.indices, sparse.data, num_words)


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("at_a_time", [3, 64, 1 << 14])
def test_likeness_is_the_cosine_of_weighted_bags(
    monkeypatch: pytest.MonkeyPatch, per_image: bool, at_a_time: int
) -> None:
    monkeypatch.setattr(similar, "_IMAGES_AT_A_TIME", at_a_time)
    monkeypatch.setattr(similar, "_ENTRIES_AT_A_TIME", 100 * at_a_time)
    bags, asked = random_bags(200, 40, 0), random_bags(6, 40, 1)
    weights = np.log(200 / np.maximum((bags.to_scipy(binary=True) > 0).sum(axis=0).A1, 1))
    ours = bags.to_scipy(binary=False).toarray() * weights
    theirs = asked.to_scipy(binary=False).toarray() * weights
    lengths = np.linalg.norm(ours, axis=1) if per_image else np.ones(200)
    expected = theirs @ ours.T / np.maximum(np.linalg.norm(theirs, axis=1), 1e-30)[:, None]
    expected /= np.maximum(lengths, 1e-30)
    rows, alike = Vectors.of_bags(bags).most_alike(asked.to_scipy(binary=False), 12, per_image=per_image)
    assert rows.shape == alike.shape == (6, 12)
    assert np.allclose(alike, np.take_along_axis(expected, rows, axis=1), atol=1e-12)
    assert np.allclose(alike, -np.sort(-expected, axis=1)[:, :12], atol=1e-12)
    for line, values in zip(rows, np.round(alike, 9), strict=True):
        for first, second, one, other in zip(line[:-1], line[1:], values[:-1], values[1:], strict=True):
            assert one > other or first < second  # those that are equally alike in their order


def test_fewer_images_than_asked_for_are_all_named() -> None:
    bags = random_bags(5, 10, 2)
    rows, alike = Vectors.of_bags(bags).most_alike(bags.to_scipy(binary=False), 30)
    assert sorted(rows[2].tolist()) == [0, 1, 2, 3, 4]
    assert alike[2].max() == pytest.approx(1)
    assert alike[0].max() == 0  # without words but one that all have
