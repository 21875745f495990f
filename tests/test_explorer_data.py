"""What the report's page shows, before a browser sees it: tests against chance, cut-outs, the map, the catalogue."""

from __future__ import annotations

import math
from pathlib import Path

import choices
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from astropy.coordinates import SkyCoord
from choices import CPU
from fits_survey import SIDE, galaxy_wcs, run_mine, write_survey
from scipy.stats import false_discovery_control, hypergeom, mannwhitneyu
from test_report import Run, data_of, draw_images, make_run

from minia.data.images import list_catalogue
from minia.mining.lists.listdb import ListDB
from minia.mining.report.associations import enrichment, false_discovery_rates, ranks, shift
from minia.mining.report.cutouts import Place, average, cut_part, most_typical, place_of_keypoints, turns_alike
from minia.mining.report.layout import map_places, marker_sizes
from minia.mining.report.scripts import Scripts


def test_false_discovery_rates_are_those_of_benjamini_and_hochberg() -> None:
    p = np.random.default_rng(0).random((7, 5)) ** 3
    np.testing.assert_allclose(false_discovery_rates(p).ravel(), false_discovery_control(p.ravel()))
    p[2, 3] = np.nan
    rates = false_discovery_rates(p)
    assert np.isnan(rates[2, 3]) and np.isnan(rates).sum() == 1
    np.testing.assert_allclose(rates[~np.isnan(p)], false_discovery_control(p[~np.isnan(p)]))


def test_labels_are_enriched_as_the_hypergeometric_says() -> None:
    both, holding, labelled = np.array([[8, 1], [3, 3]]), np.array([9, 6]), np.array([10, 20])
    found = enrichment(both, holding, labelled)
    np.testing.assert_allclose(found.expected, [[3, 6], [2, 4]])
    p = [
        [hypergeom.sf(7, 30, 10, 9), hypergeom.sf(0, 30, 20, 9)],
        [hypergeom.sf(2, 30, 10, 6), hypergeom.sf(2, 30, 20, 6)],
    ]
    np.testing.assert_allclose(found.q.ravel(), false_discovery_control(np.ravel(p)))


def test_columns_shift_as_mann_and_whitney_say() -> None:
    rng = np.random.default_rng(1)
    values = np.round(rng.normal(size=200), 1)  # with ties
    values[::17] = np.nan
    holding = rng.random(200) < 0.3
    values[holding] += 0.4
    known = np.isfinite(values)
    rank, ties = ranks(values)
    found = shift(
        np.array([[np.nansum(rank[holding])]]),
        np.array([[(holding & known).sum()]]),
        np.array([known.sum()]),
        np.array([ties]),
    )
    expected = mannwhitneyu(
        values[holding & known], values[~holding & known], use_continuity=False, method="asymptotic"
    )
    inside, outside = (holding & known).sum(), (~holding & known).sum()
    assert found.share[0, 0] == pytest.approx(expected.statistic / inside / outside)
    assert found.q[0, 0] == pytest.approx(expected.pvalue)
    nobody = shift(np.array([[0.0]]), np.array([[0]]), np.array([known.sum()]), np.array([ties]))
    assert math.isnan(nobody.share[0, 0]) and math.isnan(nobody.q[0, 0])


@pytest.mark.parametrize("angle", [0.0, 90.0, 37.0])
def test_parts_are_cut_out_upright(angle: float) -> None:
    """A bright spot in the part's direction ends right of the middle, whatever the angle and the size."""
    for size in (30.0, 80.0):
        image = np.zeros((200, 240, 3), np.uint8)
        x, y = 120 + 0.5 * size * math.cos(math.radians(angle)), 90 + 0.5 * size * math.sin(math.radians(angle))
        rows, columns = np.mgrid[:200, :240]
        image[np.hypot(columns - x, rows - y) < size / 12] = 255
        cut = cut_part(image, Place(120, 90, size, angle, True), 120)
        rows, columns = np.nonzero(cut[:, :, 0] > 128)
        assert rows.mean() == pytest.approx(59.5, abs=1.5)
        assert columns.mean() == pytest.approx(59.5 + 120 / 1.8 / 2, abs=1.5)  # half a size; the cut-out is 1.8 wide


def test_cut_outs_are_turned_alike() -> None:
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[:200, :200]
    image = np.zeros((200, 200, 3), np.uint8)
    for x, y, radius in ((140, 100, 14), (100, 60, 6), (75, 110, 9)):
        image[np.hypot(columns - x, rows - y) < radius] = rng.integers(120, 255)
    angles = [0.0, 30.0, 87.0, 200.0, 333.0]
    turned = [cut_part(image, Place(99.5, 99.5, 100, -angle, True), 128) for angle in angles]  # turned by the angle
    found = np.array(turns_alike(turned))
    np.testing.assert_allclose((found - found[0] - angles + 180) % 360 - 180, 0, atol=3.1)
    alike = [
        cut_part(each, Place(63.5, 63.5, 128 / 1.8, angle, False), 128)
        for each, angle in zip(turned, found, strict=True)
    ]
    assert average(alike).std() > 1.5 * average(turned).std()


def test_parts_at_the_border_are_cut_out() -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    for x, y in ((0, 0), (59, 39), (-10, 5), (30, 60)):
        assert cut_part(image, Place(x, y, 30, math.nan, False), 64).shape == (64, 64, 3)


def test_the_average_and_the_most_typical() -> None:
    rng = np.random.default_rng(2)
    shared = rng.integers(0, 200, (16, 16, 3))
    cuts = [
        np.clip(shared + rng.integers(-noise, noise + 1, shared.shape), 0, 255).astype(np.uint8)
        for noise in (90, 5, 90, 90)
    ]
    assert most_typical(cuts) == 1
    assert np.abs(average(cuts).astype(float) - np.mean(cuts, axis=0)).max() <= 0.5
    assert most_typical([np.zeros((8, 8, 3), np.uint8)]) == 0


def test_a_rough_place_is_in_the_middle_of_the_keypoints() -> None:
    points = np.array([[10, 20], [20, 20], [30, 20], [20, 500]], np.float32)
    found = place_of_keypoints(points, np.full(4, 6, np.float32))
    assert found is not None and (found.x, found.y) == (20, 20)
    assert found.size == pytest.approx(26) and not found.known
    assert place_of_keypoints(points[:0], np.zeros(0, np.float32)) is None


def test_structures_of_the_same_images_are_near_each_other_on_the_map() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(3), 10)
    held = scipy.sparse.csr_matrix(rng.random((300, 30)) < np.where(np.arange(300)[:, None] % 3 == groups, 0.5, 0.02))
    counts = held.astype(np.int64)
    together = (counts.T @ counts).tocsr()
    num_images = np.asarray(counts.sum(axis=0)).ravel()
    places = map_places(together, num_images, 0)
    assert np.array_equal(places, map_places(together, num_images, 0))
    assert places.min() >= 0 and places.max() <= 1
    apart = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    same = groups[:, None] == groups
    assert apart[same].mean() < 0.5 * apart[~same].mean()
    sides = marker_sizes(num_images)
    overlapping = np.abs(places[:, None] - places).max(axis=2) < 0.8 * (sides[:, None] + sides) / 2
    assert overlapping.sum() == 30  # each with itself


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5])
def test_few_structures_have_places_too(count: int) -> None:
    places = map_places(scipy.sparse.csr_matrix(np.eye(count, dtype=np.int64)), np.ones(count, np.int64), 0)
    assert places.shape == (count, 2) and np.isfinite(places).all()


def test_scripts_hold_no_number_that_json_cannot(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Scripts(tmp_path).write("a", [math.nan])


@pytest.fixture(scope="module")
def catalogued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of images with a catalogue: brightness goes with the first structure, places on the sky are known."""
    root = tmp_path_factory.mktemp("catalogued")
    draw_images(root / "images")
    names = sorted(path.name for path in (root / "images").iterdir())
    table = pd.DataFrame({"id": names, "path": names, "label": "galaxy"})
    table["magnitude"] = np.arange(12.0)
    table.loc[3, "magnitude"] = np.nan
    table["survey"] = ["north", "south"] * 6
    table["note"] = [f"<i>note {number}</i>" for number in range(12)]
    table["RA"], table["Dec"] = 180 + np.arange(12) * 0.01, -1.5
    table.to_csv(root / "catalogue.csv", index=False)
    images = list_catalogue(root / "store", choices.catalogue(root / "catalogue.csv", dir=root / "images"), 1)
    plain = make_run(root / "images", root / "store", None)
    run = Run(root / "images", root / "store", images, plain.features, plain.vocabulary, plain.assignment, plain.words)
    return run.report(ListDB.from_lists([[0, 1, 2, 3, 4], [5, 6, 7]], 20), root / "store")


def test_the_catalogue_is_on_the_page(catalogued: Path) -> None:
    overview = data_of(catalogued, "overview")
    columns = [tuple(pair) for pair in overview["columns"]]
    assert {("magnitude", None), ("survey", "north"), ("survey", "south"), ("number of words", None)} <= set(columns)
    assert not [name for name, _ in columns if name in ("note", "label", "id")]  # each value once, or always the same
    names = data_of(catalogued, "names-0000")
    for row, name in enumerate(names["names"]):
        values = dict(data_of(catalogued, f"image-{row:06d}")["values"])
        place = sorted(names["names"]).index(name)
        assert values.get("magnitude") == (None if place == 3 else place)
        assert values["note"] == f"<i>note {place}</i>"
        assert names["ra"][row] == pytest.approx(180 + 0.01 * place) and names["dec"][row] == -1.5
    for number in range(2):
        for column, share, q in data_of(catalogued, f"structure-{number:04d}")["columns"]:
            assert 0 <= share <= 1 and 0 < q <= 1 and 0 <= column < len(columns)


def test_the_same_catalogue_gives_the_same_bytes(catalogued: Path) -> None:
    assert CPU.seed == 0
    text = (catalogued / "data" / "overview.js").read_bytes()
    assert text.isascii() and b"NaN" not in text


def test_fits_images_are_found_on_the_sky(tmp_path: Path) -> None:
    survey = write_survey(tmp_path, 4)
    overrides = ("images=folder", f"images.dir={survey.folder}", "features=sift", f"store={tmp_path / 'store'}")
    assert run_mine(tmp_path / "run", *overrides) == 0
    names = data_of(tmp_path / "run" / "report", "names-0000")
    assert names["names"] == [f"galaxy{number:02d}.fits" for number in range(4)]
    for number, (ra, dec) in enumerate(zip(names["ra"], names["dec"], strict=True)):
        middle = galaxy_wcs(number).pixel_to_world((SIDE - 1) / 2, (SIDE - 1) / 2)
        assert SkyCoord(ra, dec, unit="deg").separation(middle).arcsec < 0.1
