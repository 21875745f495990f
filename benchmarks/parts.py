"""Do single structures isolate the parts of galaxies? Drawn parts, where all is known, and experts' attributes.

    python benchmarks/parts.py simulated RUN STORE            any run of images=simulated
    python benchmarks/parts.py efigi RUN ATTRIBUTES.csv       a run on EFIGI, with matching.min_overlap=0.01
    python benchmarks/parts.py run WORK [--efigi FOLDER] [-- key=value ...]     makes both runs, with these keys

``simulated`` takes the truth from the survey that the run's features were made of and says for each drawn part

* the images that have it; the F1 over images of the best structure, and that of all images (of always saying yes);
* the F1 of the best of those structures of which at least half the matched keypoints lie on the part;
* the share of the best structure's matched keypoints that lie on the part, and the largest such share of any structure
  (of at least 10 images), beside the share of all keypoints;
* how far the structure is from the part's centre, in units of the galaxy's r90 (median over images with both).

A part's region is a little larger than what was drawn (the seeing widens it, and a keypoint at its edge describes it):
the bulge 1.5 times its effective radius, the bar 1.2 times its length and half as wide, the ring a quarter of its
radius either way, the arms between the radii where they run, the edge-on disk 1.2 times its ellipse and half
as thick again, the companion 1.3 times its radius. ``outside`` is beyond 1.3 r90 and off the companion.

``efigi`` says for each attribute (present at 0.5 or more against 0; inclination and bulge 0.75 or more against 0.25 or
less) the area under the ROC curve of the best single structure's overlap, chosen on one half of the images and measured
on the other; the same with the attribute shuffled, which is what choosing the best of so many gives by chance; and of
logistic regressions, 5-fold, on all structures and on all words, which is what these features tell at most; and of how
many an image has of the 40 words that go with the attribute most, chosen with the catalogue on one half and measured on
the other: what no choice of words with all labels at hand reaches, mining without labels cannot either. Mean over
halvings drawn with a seed. Nothing is trained in minIA.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray
from run_results import RunResults, best_f1, f1, mine, placed, print_table

from minia.core.run_folder import RunFolder
from minia.mining.words.stage import load_bags, load_images

Points = NDArray[np.float64]
Region = Callable[[Points, pd.Series], NDArray[np.bool_]]

EDGE_ON_LABELS = ("rounded", "no_bulge")
HALVINGS = 8
FEWEST = 30  # images with an attribute
CHOSEN_WORDS = 40  # with labels
LEAST_SHARE = 0.2  # of an attribute's images must hold such a word
ATTRIBUTES = {  # of the EFIGI catalogue: from where on it is present, up to where it is absent
    "Bar_Length": (0.5, 0.0), "Inner_Ring": (0.5, 0.0), "Outer_Ring": (0.5, 0.0), "Pseudo_Ring": (0.5, 0.0),
    "Arm_Strength": (0.5, 0.0), "Visible_Dust": (0.5, 0.0), "Flocculence": (0.5, 0.0), "Hot_Spots": (0.5, 0.0),
    "Perturbation": (0.5, 0.0), "Contamination": (0.5, 0.0), "Multiplicity": (0.5, 0.0),
    "Inclination": (0.75, 0.25), "Bulge_to_Total": (0.75, 0.25), "Arm_Rotation": (0.75, 0.25),
}  # fmt: skip


def turned(points: Points, x: float, y: float, degrees: float) -> tuple[Points, Points]:
    """Distance from (x, y) along a direction and across it."""
    angle = math.radians(degrees)
    dx, dy = points[:, 0] - x, points[:, 1] - y
    return dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)


def disk_radius(points: Points, galaxy: pd.Series) -> Points:
    """Distance from the galaxy's centre in the plane of its disk."""
    along, across = turned(points, galaxy["x"], galaxy["y"], galaxy["position_angle"])
    return np.hypot(along, across / max(float(galaxy["axis_ratio"]), 0.15))


def on_bulge(points: Points, galaxy: pd.Series) -> NDArray[np.bool_]:
    return np.hypot(*turned(points, galaxy["bulge_x"], galaxy["bulge_y"], 0)) <= 1.5 * galaxy["bulge_radius"]


def on_bar(points: Points, galaxy: pd.Series) -> NDArray[np.bool_]:
    along, across = turned(points, galaxy["bar_x"], galaxy["bar_y"], galaxy["bar_angle"])
    length = galaxy["bar_length"]
    return (np.abs(along) <= 0.6 * length) & (np.abs(across) <= 0.25 * length)


def on_ring(points: Points, galaxy: pd.Series) -> NDArray[np.bool_]:
    return np.abs(disk_radius(points, galaxy) / galaxy["ring_radius"] - 1) <= 0.25


def on_arms(points: Points, galaxy: pd.Series) -> NDArray[np.bool_]:
    radius = disk_radius(points, galaxy)
    return (radius >= galaxy["arms_inner_radius"]) & (radius <= galaxy["arms_outer_radius"])


def on_edge_on_disk(points: Points, galaxy: pd.Series) -> NDArray[np.bool_]:
    along, across = turned(points, galaxy["x"], galaxy["y"], galaxy["position_angle"])
    thick = 1.5 * galaxy["r90"] * galaxy["axis_ratio"]
    return (along / (1.2 * galaxy["r90"])) ** 2 + (across / thick) ** 2 <= 1


def on_companion(points: Points, galaxy: pd.Series) -> NDArray[np.bool_]:
    away = np.hypot(*turned(points, galaxy["companion_x"], galaxy["companion_y"], 0))
    return away <= 1.3 * galaxy["companion_radius"]


# A part by name: which galaxies have it, where it is, and the columns of its centre.
PARTS: dict[str, tuple[Callable[[pd.DataFrame], pd.Series], Region, tuple[str, str]]] = {
    "bulge": (lambda truth: truth["bulge_radius"].notna(), on_bulge, ("bulge_x", "bulge_y")),
    "bar": (lambda truth: truth["bar_length"].notna(), on_bar, ("bar_x", "bar_y")),
    "ring": (lambda truth: truth["ring_radius"].notna(), on_ring, ("ring_x", "ring_y")),
    "arms": (lambda truth: truth["arms"].notna(), on_arms, ("x", "y")),
    "edge-on disk": (lambda truth: truth["label"].isin(EDGE_ON_LABELS), on_edge_on_disk, ("x", "y")),
    "companion": (lambda truth: truth["companion_x"].notna(), on_companion, ("companion_x", "companion_y")),
}


def read_truth(results: RunResults) -> pd.DataFrame:
    """The survey's truth by image."""
    truth = pd.read_csv(results.root / "truth.csv").set_index("image")
    for column in ("companion_x", "companion_y", "companion_radius"):
        if column not in truth:
            truth[column] = np.nan  # a survey without companions
    return truth


def regions(results: RunResults, truth: pd.DataFrame) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Which keypoints of each image lie on each part, by part and image, of the images that have the part."""
    on: dict[str, dict[str, NDArray[np.bool_]]] = {name: {} for name in PARTS}
    for name, (has, region, _) in PARTS.items():
        for image, galaxy in truth[has(truth)].iterrows():
            on[name][str(image)] = region(results.keypoints[str(image)].astype(np.float64), galaxy)
    return on


def share_on(matches: pd.DataFrame, on: dict[str, NDArray[np.bool_]]) -> float:
    """The share of the matched keypoints that are on a part."""
    total = sum(map(len, matches["keypoints"]))
    held = sum(
        int(on[image][np.asarray(numbers, dtype=np.int64)].sum())
        for image, numbers in zip(matches["image"], matches["keypoints"], strict=True)
        if image in on
    )
    return held / max(1, total)


def simulated_table(results: RunResults) -> None:
    """Print a row a drawn part."""
    truth = read_truth(results)
    on, matched = regions(results, truth), results.matched()
    num_keypoints = sum(map(len, results.keypoints.values()))
    outside = sum(
        int((disk_radius(results.keypoints[str(image)], galaxy) > 1.3 * galaxy["r90"]).sum())
        for image, galaxy in truth.iterrows()
    )
    print(f"{len(results.images)} images, {num_keypoints:,} keypoints, {outside / num_keypoints:.2f} of them outside;")
    print(f"{len(matched)} structures\n")
    rows = []
    for name, (_, _, centre) in PARTS.items():
        if not on[name]:
            continue
        best, value = best_f1(set(on[name]), matched)
        shares = {number: share_on(group, on[name]) for number, group in matched.items()}
        in_place = best_f1(set(on[name]), {number: matched[number] for number in matched if shares[number] >= 0.5})[1]
        most = max((share for number, share in shares.items() if len(matched[number]) >= 10), default=None)
        all_keypoints = sum(int(held.sum()) for held in on[name].values()) / num_keypoints
        away = None if best is None else place_error(matched[best], results, truth.loc[list(on[name])], centre)
        always = f1(set(on[name]), set(results.images))
        own = None if best is None else shares[best]
        rows.append([name, len(on[name]), value, always, in_place, own, most, all_keypoints, away])
    header = (
        "part", "images", "F1", "all images", "F1 in place", "on part", "most on part", "all keypoints", "place error",
    )  # fmt: skip
    print_table(header, rows)


def place_error(
    matches: pd.DataFrame, results: RunResults, truth: pd.DataFrame, centre: tuple[str, str]
) -> float | None:
    """Median distance of the matches from the part's centre, in units of r90, over the images that have the part."""
    both = placed(matches, results).merge(truth.reset_index(), on="image", suffixes=("_found", ""))
    if both.empty:
        return None
    x, y = (both["x_found"] - both[centre[0]], both["y_found"] - both[centre[1]])
    return float(np.nanmedian(np.hypot(x, y) / both["r90"]))


def areas_under_curve(values: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Area under the ROC curve of each column: the probability that a positive row is above a negative one."""
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    count = int(positive.sum())
    above = ranks[positive].sum(axis=0) - count * (count + 1) / 2
    return np.asarray(above / max(1, count * (len(values) - count)))


def best_of_half(
    values: NDArray[np.float64], positive: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[int, float]:
    """The column that tells the positive rows best on one half, and its area under the curve on the other."""
    order = rng.permutation(len(values))
    one, other = order[::2], order[1::2]
    first = areas_under_curve(values[one], positive[one])
    best = int(np.argmax(np.abs(first - 0.5)))
    area = float(areas_under_curve(values[other][:, [best]], positive[other])[0])
    return best, area if first[best] >= 0.5 else 1 - area


def decisions_by_words(words: scipy.sparse.csr_matrix, positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What a logistic regression on the words of images says of each, learned from four fifths of the others' labels.

    Args:
        words: (n, num_words) how often each image has each word.
        positive: (n,) the labels.

    Returns:
        (n,) float64, higher where it rather says yes.
    """
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    model = LogisticRegression(C=10, max_iter=500, class_weight="balanced")
    pipeline = make_pipeline(TfidfTransformer(sublinear_tf=True), model)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return np.asarray(cross_val_predict(pipeline, words, positive, cv=folds, method="decision_function"))


def words_of_images(run: Path) -> tuple[scipy.sparse.csr_matrix, pd.Index[str]]:
    """The words of a run's images, an image a row, and the images' names."""
    artifact = RunFolder.read(run).artifacts["words"]
    bags = load_bags(artifact).to_scipy(binary=False).astype(np.float64)
    return bags, pd.Index(load_images(artifact)["image"].astype(str))


def going_with(
    holding: NDArray[np.float64], held: NDArray[np.float64], number: float, total: float
) -> NDArray[np.float64]:
    """By how many standard deviations words are in more positive images than expected.

    Args:
        holding: (num_words,) positive images that hold each word.
        held: (num_words,) all images that do.
        number: of positive images.
        total: of all images.

    Returns:
        (num_words,) float64; -inf for words of too few positive images.
    """
    expected = number * held / total
    spread = np.sqrt(expected * (1 - held / total) * (1 - number / total)) + 1e-9
    return np.where(holding >= LEAST_SHARE * number, (holding - expected) / spread, -np.inf)


def area_of_chosen_words(
    present: scipy.sparse.csc_matrix, positive: NDArray[np.bool_], rng: np.random.Generator
) -> float:
    """The area under the curve, on one half, of the number of the words that the other half's labels choose."""
    learned = rng.permutation(len(positive)) % 2 == 0
    with_label, all_images = (positive & learned).astype(float), learned.astype(float)
    excess = going_with(present.T @ with_label, present.T @ all_images, with_label.sum(), all_images.sum())
    chosen = np.argsort(-excess, kind="stable")[:CHOSEN_WORDS]
    counted = np.asarray(present[~learned][:, chosen].sum(axis=1))
    return float(areas_under_curve(counted, positive[~learned])[0])


def efigi_table(run: Path, attributes: Path, seed: int) -> None:
    """Print a row an attribute."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.preprocessing import StandardScaler

    words, names = words_of_images(run)
    word_row = pd.Series(np.arange(len(names)), index=names.map(lambda image: Path(image).stem))
    matches = pd.read_parquet(run / "matches.parquet", columns=["structure", "image", "overlap"])
    matches["name"] = matches["image"].map(lambda image: Path(image).stem)
    overlaps = matches.pivot_table(index="name", columns="structure", values="overlap", fill_value=0.0)
    table = pd.read_csv(attributes).set_index("PGCname")
    table = table[table.index.isin(overlaps.index)]
    values = overlaps.loc[table.index].to_numpy(dtype=np.float64)
    print(f"{len(table)} images, {values.shape[1]} structures\n")
    rows = []
    for name, (present, absent) in ATTRIBUTES.items():
        grade = table[name].to_numpy()
        chosen = np.flatnonzero((grade >= present) | ((grade >= 0) & (grade <= absent)))
        positive = grade[chosen] >= present
        if min(positive.sum(), (~positive).sum()) < FEWEST:
            continue
        rng = np.random.default_rng(seed)
        found = [best_of_half(values[chosen], positive, rng) for _ in range(HALVINGS)]
        chance = [best_of_half(values[chosen], rng.permutation(positive), rng)[1] for _ in range(HALVINGS)]
        scaled = StandardScaler().fit_transform(values[chosen])
        model = LogisticRegression(C=0.1, max_iter=2000)
        decisions = cross_val_predict(model, scaled, positive, cv=5, method="decision_function")
        together = float(areas_under_curve(decisions[:, None], positive)[0])
        own = words[word_row[table.index[chosen]].to_numpy()]
        present = (own > 0).astype(np.float64).tocsc()
        of_chosen = float(np.mean([area_of_chosen_words(present, positive, rng) for _ in range(HALVINGS)]))
        by_words = decisions_by_words(own, positive)
        ceiling = float(areas_under_curve(by_words[:, None], positive)[0])
        same = max(np.bincount([number for number, _ in found])) / HALVINGS
        areas = [float(np.mean([area for _, area in found])), float(np.std([area for _, area in found]))]
        rows.append(
            [name, int(positive.sum()), *areas, float(same), float(np.mean(chance)), together, ceiling, of_chosen]
        )
    header = ("attribute", "images", "AUC", "sd", "same structure", "shuffled")
    print_table((*header, "all structures", "all words", f"{CHOSEN_WORDS} words"), rows)


def run_all(work: Path, efigi: Path | None, overrides: list[str]) -> None:
    """Make the runs and print both tables."""
    mine(["images=simulated", *overrides], work / "simulated", work / "store")
    simulated_table(RunResults.load(work / "simulated", work / "store"))
    if efigi is not None:
        keys = ["images=folder", f"images.dir={efigi}", "images.min_side=256", "matching.min_overlap=0.01", *overrides]
        mine(keys, work / "efigi", work / "store")
        print()
        efigi_table(work / "efigi", efigi / "efigi_attributes.csv", seed=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    simulated, efigi, run = (commands.add_parser(name) for name in ("simulated", "efigi", "run"))
    for command, names in ((simulated, ("run", "store")), (efigi, ("run", "attributes")), (run, ("work",))):
        for name in names:
            command.add_argument(name, type=Path)
    efigi.add_argument("--seed", type=int, default=0)
    run.add_argument("--efigi", type=Path, help="folder of EFIGI's images with efigi_attributes.csv")
    own = list(itertools.takewhile(lambda argument: argument != "--", sys.argv[1:]))
    given = parser.parse_args(own)
    if given.command == "simulated":
        simulated_table(RunResults.load(given.run, given.store))
    elif given.command == "efigi":
        efigi_table(given.run, given.attributes, given.seed)
    else:
        efigi_folder = given.efigi.absolute() if given.efigi else None
        run_all(given.work.absolute(), efigi_folder, sys.argv[len(own) + 2 :])


if __name__ == "__main__":
    main()
