"""The simulated survey: reproducible, in the real catalogue's layout, and like galaxies."""

from __future__ import annotations

import filecmp
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from minia.core.artifact import InputError
from minia.data.labelled.galaxy_zoo import (
    ASKING_ORDER,
    CATALOGUE_COLUMNS,
    CATALOGUE_FILE,
    CLASSES,
    DEBIASED_COLUMNS,
    FIRST_QUESTION,
    MAPPING_FILE,
    QUESTIONS,
    assign_classes,
)
from minia.data.simulation.parameters import Additions
from minia.data.simulation.render import draw_parameters, galaxy_mask, render_galaxy
from minia.data.simulation.simulated_votes import draw_votes
from minia.data.simulation.sky import SOFTENING, STRETCH, lupton, moffat, sersic
from minia.data.simulation.survey import TRUTH_FILE, write_survey

PITCH_ANGLES = {"tight": (6.0, 13.0), "medium": (14.0, 25.0), "loose": (27.0, 41.0)}


def survey(folder: Path, num_images: int = 18, seed: int = 5, num_workers: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    write_survey(folder, num_images=num_images, side=64, seed=seed, num_workers=num_workers)
    return folder


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def same_bytes(first: Path, second: Path) -> bool:
    names = files_of(first)
    equal, _, _ = filecmp.cmpfiles(first, second, names, shallow=False)
    return names == files_of(second) and sorted(equal) == names


@pytest.fixture(scope="module")
def small_survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return survey(tmp_path_factory.mktemp("survey"))


def test_more_parts_change_nothing_else(tmp_path: Path, small_survey: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    additions = Additions(bars=1.0, rings=1.0, companions=0.5)
    write_survey(folder, num_images=18, side=64, seed=5, num_workers=1, additions=additions)
    usual, more = pd.read_csv(small_survey / TRUTH_FILE), pd.read_csv(folder / TRUTH_FILE)
    spirals, rings = usual["arms"].notna(), usual["label"] == "ring"
    assert list(more["bar_length"].notna()) == list(spirals | rings)
    assert list(more["ring_radius"].notna()) == list(spirals | rings)
    with_companion = more["companion_x"].notna()
    assert 3 <= with_companion.sum() <= 15
    away = np.hypot(more["companion_x"] - more["x"], more["companion_y"] - more["y"])[with_companion]
    assert (away < 1.5 * (more["r90"] + more["companion_radius"])[with_companion]).all()
    had = ["image", "label", "x", "y", "r90", "position_angle", "arms_angle", "bulge_radius"]
    pd.testing.assert_frame_equal(usual[had], more[had])
    plain = list(more["image"][~(spirals | rings | with_companion)])
    assert plain and filecmp.cmpfiles(small_survey, folder, plain, shallow=False)[0] == plain


@pytest.fixture(scope="module")
def votes_table() -> pd.DataFrame:
    """The votes on 360 galaxies, with the class that was drawn."""
    rows = []
    for index in range(360):
        rng = np.random.default_rng([11, index])
        label = CLASSES[index % len(CLASSES)]
        votes = draw_votes(draw_parameters(label, rng), rng)
        rows.append({"label": label, "volunteers": votes.volunteers} | votes.columns())
    return pd.DataFrame(rows)


# --- facts of Galaxy Zoo 2


def test_columns_are_those_of_the_real_catalogue(shared_data: Path) -> None:
    header = (shared_data / "gz2_catalogue" / "hart16_header.txt").read_text().split()
    assert list(CATALOGUE_COLUMNS) == header


def test_decision_tree_has_11_questions_37_answers_and_asks_each_after_those_that_lead_to_it() -> None:
    assert len(QUESTIONS) == 11
    assert len(DEBIASED_COLUMNS) == 37
    assert sorted(ASKING_ORDER) == sorted(question.name for question in QUESTIONS)
    for question in QUESTIONS:
        for following in question.answers.values():
            assert following is None or ASKING_ORDER.index(question.name) < ASKING_ORDER.index(following)


def test_class_rules_give_the_known_counts_on_real_votes(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "gz2_catalogue" / "gz2_table5_in_hart16_layout.csv.gz")
    member = assign_classes(table)
    assert list(member.columns) == list(CLASSES)
    assert member.sum().tolist() == [144, 267, 51, 484, 111, 107, 2051, 2285, 271]
    assert int(member.any(axis=1).sum()) == 5768
    assert int((member.sum(axis=1) > 1).sum()) == 3


def test_class_rules_are_strict() -> None:
    smooth, round_ = DEBIASED_COLUMNS[0], "t07_rounded_a16_completely_round_debiased"
    table = pd.DataFrame(0.0, index=range(4), columns=list(DEBIASED_COLUMNS))
    table[smooth] = [0.70, 0.71, 0.71, np.nan]
    table[round_] = [0.80, 0.75, 0.76, 0.90]
    assert assign_classes(table)["completely_round"].tolist() == [False, False, True, False]


# --- votes


def test_votes_satisfy_the_rule_of_the_drawn_class_alone(votes_table: pd.DataFrame) -> None:
    member = assign_classes(votes_table)
    assert (member.sum(axis=1) == 1).all()
    assert member.idxmax(axis=1).tolist() == votes_table["label"].tolist()


def test_votes_flow_down_the_decision_tree(votes_table: pd.DataFrame) -> None:
    reached = {FIRST_QUESTION: votes_table["volunteers"]}
    for question in QUESTIONS:
        for answer, following in question.answers.items():
            if following is not None:
                reached[following] = reached.get(following, 0) + votes_table[question.column(answer, "count")]
    for question in QUESTIONS:
        counts = votes_table[[question.column(answer, "count") for answer in question.answers]]
        assert (counts.sum(axis=1) == reached[question.name]).all(), question.name


def test_fractions_of_a_question_sum_to_one_where_anyone_reached_it(votes_table: pd.DataFrame) -> None:
    for question in QUESTIONS:
        voters = votes_table[[question.column(answer, "count") for answer in question.answers]].sum(axis=1)
        debiased = votes_table[[question.column(answer) for answer in question.answers]].sum(axis=1)
        np.testing.assert_allclose(debiased, (voters > 0).astype(float), atol=1e-12)


# --- images


def test_profiles_are_those_of_astropy() -> None:
    from astropy.modeling.models import Moffat2D, Sersic1D  # here, as it takes seconds to import

    radius = np.linspace(0.1, 90.0, 200)
    for index in (0.9, 2.5, 5.0):
        np.testing.assert_allclose(sersic(radius, 20.0, index), Sersic1D(1.0, 20.0, index)(radius), rtol=1e-9)
    y, x = np.mgrid[-10:11, -10:11].astype(float)
    core = 3.3 / (2.0 * math.sqrt(2.0 ** (1.0 / 3.0) - 1.0))
    star = Moffat2D(1.0, 0.2, -0.1, core, 3.0)(x, y)
    np.testing.assert_allclose(moffat(21, 3.3, 0.2, -0.1), star / star.sum(), rtol=1e-9)


def test_colours_are_those_of_astropy() -> None:
    from astropy.visualization import make_lupton_rgb

    rng = np.random.default_rng(0)
    bands = rng.normal(0.02, 0.1, (3, 60, 50)) * np.exp(rng.normal(0.0, 2.0, (3, 60, 50)))  # dark to far too bright
    theirs = make_lupton_rgb(*bands, stretch=STRETCH, Q=SOFTENING)
    assert {0, 255} <= set(theirs.ravel().tolist())
    np.testing.assert_array_equal(lupton(bands), theirs)
    np.testing.assert_array_equal(lupton(np.zeros((3, 4, 4))), 0)


@pytest.mark.parametrize("label", CLASSES)
def test_image_is_a_galaxy_in_a_dark_sky(label: str) -> None:
    sky, inside, colourful = [], [], []
    for index in range(4):
        rng = np.random.default_rng([23, index])
        parameters = draw_parameters(label, rng)
        image = render_galaxy(parameters, rng).astype(float)
        assert image.shape == (424, 424, 3)
        mask = galaxy_mask(parameters)
        light = np.sinh(image.mean(axis=2) / 25.5 * math.asinh(0.8))  # undoes the asinh of Lupton's colours
        light -= np.median(light[:40])
        sky.append(np.median(image[:60]))
        inside.append(light[mask].sum() / light[106:318, 106:318].sum())
        colourful.append(np.ptp(image[mask], axis=1).mean())
        assert 0.005 < mask.mean() < 0.12
        assert image[204:220, 204:220].mean() > 50.0
    assert 1.0 <= np.median(sky) <= 12.0  # the real cut-outs: about 4
    assert np.median(inside) > 0.65
    assert np.median(colourful) > 8.0


@pytest.mark.parametrize(("label", "limits"), PITCH_ANGLES.items())
def test_pitch_angle_of_the_class(label: str, limits: tuple[float, float]) -> None:
    pitches = [draw_parameters(label, np.random.default_rng([3, index])).pitch for index in range(100)]
    assert limits[0] <= min(pitches) and max(pitches) <= limits[1]


@pytest.mark.parametrize("pitch", [10.0, 20.0, 34.0])
def test_drawn_arms_have_the_pitch_angle_of_the_truth(pitch: float) -> None:
    """The two-armed logarithmic spiral that fits a face-on image best, by its Fourier amplitude."""
    label = min(PITCH_ANGLES, key=lambda name: abs(sum(PITCH_ANGLES[name]) / 2 - pitch))
    rng = np.random.default_rng(31)
    drawn = replace(
        draw_parameters(label, rng), pitch=pitch, arms=2, inclination=0.0, x=0.0, y=0.0, clumpiness=0.1, arm_turn=1.0
    )
    image = render_galaxy(drawn, rng).astype(float).mean(axis=2)
    grid = np.arange(424) - 211.5
    radius, angle = np.hypot(grid[None, :], grid[:, None]), np.arctan2(grid[:, None], grid[None, :])
    ring = (radius > 1.2 * drawn.arm_inner) & (radius < 0.8 * drawn.arm_outer)
    light, log_radius, angle = image[ring] / radius[ring], np.log(radius[ring]), angle[ring]
    trials = np.arange(6.0, 50.0, 0.5)
    winding = 1.0 / np.tan(np.radians(trials))
    amplitude = [abs(np.sum(light * np.exp(2j * (angle - each * log_radius)))) for each in winding]
    assert trials[int(np.argmax(amplitude))] == pytest.approx(pitch, rel=0.2)


def test_image_of_another_size_shows_the_same_galaxy() -> None:
    parameters = draw_parameters("rounded", np.random.default_rng(4))
    large = render_galaxy(parameters, np.random.default_rng(9), 424)
    small = render_galaxy(parameters, np.random.default_rng(9), 106)
    shrunk = cv2.resize(large, (106, 106), interpolation=cv2.INTER_AREA)
    assert small.shape == (106, 106, 3)
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.97
    assert galaxy_mask(parameters, 106).mean() == pytest.approx(galaxy_mask(parameters, 424).mean(), rel=0.05)


def test_unknown_class_is_refused() -> None:
    with pytest.raises(ValueError, match="comet"):
        draw_parameters("comet", np.random.default_rng(0))


# --- the survey on disk


def test_same_seed_same_bytes_with_any_number_of_workers(small_survey: Path, tmp_path: Path) -> None:
    assert same_bytes(small_survey, survey(tmp_path / "two", num_workers=2))


def test_another_seed_gives_other_images(small_survey: Path, tmp_path: Path) -> None:
    other = survey(tmp_path / "other", num_images=9, seed=6)
    for path in sorted((other / "images").iterdir()):
        assert path.read_bytes() != (small_survey / "images" / path.name).read_bytes()


def test_a_galaxy_does_not_depend_on_how_many_there_are(small_survey: Path, tmp_path: Path) -> None:
    fewer = survey(tmp_path / "fewer", num_images=7)
    for path in sorted((fewer / "images").iterdir()):
        assert path.read_bytes() == (small_survey / "images" / path.name).read_bytes()
    truth = (fewer / TRUTH_FILE).read_text().splitlines()
    assert truth == (small_survey / TRUTH_FILE).read_text().splitlines()[: len(truth)]


def test_a_killed_run_is_completed_without_drawing_again(small_survey: Path, tmp_path: Path) -> None:
    resumed = survey(tmp_path / "resumed")
    kept = resumed / "images" / "3.jpg"
    before = kept.stat().st_mtime_ns
    for name in ("images/1.jpg", "images/12.jpg", CATALOGUE_FILE, TRUTH_FILE):
        (resumed / name).unlink()
    (resumed / "images" / ".part-99-12.jpg").write_bytes(b"half an image")
    survey(resumed)
    assert kept.stat().st_mtime_ns == before
    assert same_bytes(small_survey, resumed)


def test_tables_join_and_describe_the_images(small_survey: Path) -> None:
    catalogue = pd.read_csv(small_survey / CATALOGUE_FILE)
    mapping = pd.read_csv(small_survey / MAPPING_FILE)
    truth = pd.read_csv(small_survey / TRUTH_FILE)
    assert tuple(catalogue.columns) == CATALOGUE_COLUMNS
    assert list(mapping.columns) == ["objid", "sample", "asset_id"]
    assert mapping["objid"].is_unique and (mapping["objid"].astype(str).str.len() == 18).all()
    assert all((small_survey / image).is_file() for image in truth["image"])
    joined = truth.merge(mapping, on=["objid", "asset_id"]).merge(catalogue, left_on="objid", right_on="dr7objid")
    assert len(joined) == 18
    assert assign_classes(joined).idxmax(axis=1).tolist() == joined["label"].tolist()
    assert joined["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, 2)


def test_truth_holds_the_geometry_of_what_was_drawn_and_nothing_else(small_survey: Path) -> None:
    truth = pd.read_csv(small_survey / TRUTH_FILE).set_index("label")
    assert truth.loc[list(PITCH_ANGLES), ["pitch_angle", "arms", "arms_outer_radius"]].notna().all(axis=None)
    without_arms = truth.loc[["ring", "no_bulge", "in_between"]]
    assert without_arms["pitch_angle"].isna().all()
    assert truth["ring_radius"].notna().equals(truth.index.to_series() == "ring")
    bulge = truth["bulge_radius"]
    assert bulge[truth.index == "no_bulge"].isna().all() and bulge[truth.index == "rounded"].notna().all()
    assert truth["x"].between(28.0, 35.0).all() and truth["r90"].between(5.0, 14.0).all()
    inclined = truth.loc[list(PITCH_ANGLES)]
    expected = [math.cos(math.radians(degrees)) for degrees in inclined["inclination"]]
    np.testing.assert_allclose(inclined["axis_ratio"], expected, atol=1e-3)


def test_counts_are_returned_and_arguments_checked(tmp_path: Path) -> None:
    counts = write_survey(tmp_path, num_images=10, side=32, seed=0, num_workers=1)
    assert counts == {"num_images": 10} | dict.fromkeys(CLASSES, 1) | {"ring": 2}
    with pytest.raises(InputError, match="num_images is 0; it must be at least 1"):
        write_survey(tmp_path, num_images=0, side=32, seed=0, num_workers=1)
