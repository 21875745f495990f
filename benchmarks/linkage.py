"""What the linkages find: on planted corpora, from two seeds, and on text beside LDA.

    python benchmarks/linkage.py [--data ../shared/data] [--seeds 8] [--parts planted seeds text map]

Ours are the two linkages on the same co-occurring sets: ``nested``, the default, with tuples chosen from the
corpus, and ``single``, the way of the reference program, with the settings that are best for it on planted
corpora (r=3, l=252) and the original minIA's (r=2, l=750).

planted  recall and precision at a Jaccard similarity of 0.5 with the planted sets, and the mean best similarity.
seeds    the mean best similarity of the structures of one seed with those of another.
text     mean NPMI (normalised pointwise mutual information over documents, -1 to 1) of the ten first words of
         structures, and of the first 25 structures alone (the most significant; of single linkage those of most
         sets), the same of the topics of LDA (scikit-learn); and on labelled text the purity of the 30 best
         documents of each beside its value under shuffled labels.
map      where nested breaks: generated corpora that grow harder in one respect at a time.
"""

from __future__ import annotations

import argparse
import json
import lzma
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from minia.mining.lists.listdb import ListDB, offsets_of, read_listdb
from minia.mining.report.label_metrics import (
    best_labelled_images,
    chance_purity,
    encode_labels,
    fill_at_random,
    purities,
)
from minia.mining.structures.linkage.nested import link_nested
from minia.mining.structures.linkage.single import cluster_sets
from minia.mining.structures.minhash.choose_tuples import choose_tuples
from minia.mining.structures.minhash.cooccurring_sets import mine_cooccurring_sets
from minia.mining.structures.minhash.tuple_tables import TupleHashing

FIRST_WORDS, FIRST_STRUCTURES = 10, 25
LDA_TOPICS = 50
WAYS = ("nested", "single r3 l252", "single r2 l750")


def find(bags: ListDB, way: str, seed: int) -> tuple[ListDB, float]:
    """Structures, and the seconds they took."""
    begin = time.perf_counter()
    if way == "nested":
        frequencies = np.bincount(bags.items, minlength=bags.num_items)
        tuple_size, num_tuples = choose_tuples(None, None, None, word_frequencies=frequencies, image_sizes=bags.sizes)
    else:
        tuple_size, num_tuples = (3, 252) if "r3" in way else (2, 750)
    sets = mine_cooccurring_sets(bags, TupleHashing(tuple_size, num_tuples, seed), min_set_size=3)
    found = link_nested(sets, bags)[0] if way == "nested" else cluster_sets(sets, TupleHashing(3, 255, seed))
    return found, time.perf_counter() - begin


def best_similarity(sets: ListDB, others: ListDB) -> np.ndarray:
    """(num_sets,) the largest Jaccard similarity of each set with one of the others, 0 if there are none."""
    if sets.num_lists == 0 or others.num_lists == 0:
        return np.zeros(sets.num_lists)
    shared = (sets.to_scipy(binary=True) @ others.to_scipy(binary=True).T).toarray()
    return (shared / (sets.sizes[:, None] + others.sizes - shared)).max(axis=1)


def read_corpus(folder: Path, name: str) -> ListDB:
    """A corpus of the shared data, packed or not."""
    plain = folder / f"{name}.corpus"
    if plain.exists():
        return read_listdb(plain)
    import tempfile

    with tempfile.TemporaryDirectory() as work:
        unpacked = Path(work) / f"{name}.corpus"
        unpacked.write_bytes(lzma.decompress((folder / f"{name}.corpus.xz").read_bytes()))
        return read_listdb(unpacked)


def planted(
    seed: int,
    *,
    num_images: int = 2000,
    num_words: int = 2000,
    num_sets: int = 20,
    sizes: tuple[int, int] = (8, 15),
    support: float = 0.05,
    retention: float = 0.9,
    noise: float = 40.0,
    overlapping: bool = False,
) -> tuple[ListDB, ListDB]:
    """Bags of power-law noise words with planted sets in a share ``support`` of the images each.

    Every word of a set is kept with probability ``retention``. Overlapping sets draw their words anew.
    """
    random = np.random.default_rng(seed)
    rank = random.permutation(num_words) + 1.0
    share = (1 / rank) / (1 / rank).sum()
    count = random.poisson(noise, num_images)
    images, words = [np.repeat(np.arange(num_images), count)], [random.choice(num_words, count.sum(), p=share)]
    pool = random.permutation(np.flatnonzero(rank > num_words // 10))
    lengths = random.integers(sizes[0], sizes[1] + 1, num_sets)
    truth = []
    for begin, length in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        chosen = random.choice(pool, length, replace=False) if overlapping else pool[begin : begin + length]
        truth.append(np.sort(chosen).tolist())
        holders = random.choice(num_images, round(support * num_images), replace=False)
        row, column = np.nonzero(random.random((len(holders), length)) < retention)
        images.append(holders[row])
        words.append(np.asarray(truth[-1])[column])
    entries = np.unique(np.concatenate(images) * num_words + np.concatenate(words))
    held = np.bincount(entries // num_words, minlength=num_images)
    bags = ListDB(offsets_of(held), entries % num_words, np.ones_like(entries), num_words)
    return bags, ListDB.from_lists(truth, num_words)


def quality(bags: ListDB, truth: ListDB, way: str, seed: int) -> list[float]:
    found, seconds = find(bags, way, seed)
    recalled, matched = best_similarity(truth, found), best_similarity(found, truth)
    precision = float(np.mean(matched >= 0.5)) if len(matched) else 0.0
    return [float(np.mean(recalled >= 0.5)), precision, float(recalled.mean()), found.num_lists, seconds]


def planted_table(data: Path, seeds: int) -> None:
    print("corpus              way              recall        precision     mean best     structures  seconds")
    corpora: dict[str, list[tuple[ListDB, ListDB]]] = {}
    for name in ("planted_small", "planted_flat", "planted_large"):
        bags = read_corpus(data / "smh", name)
        truth = json.loads((data / "smh" / f"{name}.truth.json").read_text())["planted"]
        corpora[name] = [(bags, ListDB.from_lists([one["words"] for one in truth], bags.num_items))] * seeds
    corpora["overlapping (40)"] = [planted(seed, num_sets=40, overlapping=True) for seed in range(seeds)]
    for name, pairs in corpora.items():
        for way in WAYS:
            values = np.array([quality(bags, truth, way, seed) for seed, (bags, truth) in enumerate(pairs)])
            mean, spread = values.mean(axis=0), values.std(axis=0)
            shown = "  ".join(f"{mean[i]:.3f}+-{spread[i]:.3f}" for i in range(3))
            print(f"{name:19} {way:15}  {shown}  {mean[3]:9.0f}  {mean[4]:7.1f}", flush=True)


def seeds_table(data: Path) -> None:
    print("corpus              way              mean best similarity of seed 0 with seed 1, and back")
    for name in ("planted_small", "gz_sift_v1000", "gz_sift_v5000"):
        bags = read_corpus(data / "smh", name)
        for way in WAYS:
            one, other = find(bags, way, 0)[0], find(bags, way, 1)[0]
            there, back = best_similarity(one, other), best_similarity(other, one)
            print(f"{name:19} {way:15}  {there.mean() if len(there) else 0:.2f} {back.mean() if len(back) else 0:.2f}")


def npmi(bags: ListDB, topics: Iterable[np.ndarray]) -> float:
    """Mean over topics of the mean over the pairs of their first words; pairs that never meet count -1."""
    held = bags.to_scipy(binary=True).astype(np.float64).tocsc()
    values = []
    for words in topics:
        part = held[:, words[:FIRST_WORDS]]
        share = (part.T @ part).toarray() / bags.num_lists
        single = np.diag(share)
        left, right = np.triu_indices(len(single), 1)
        both = share[left, right]
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.log(both / (single[left] * single[right])) / -np.log(both)
        values.append(np.where(both > 0, value, -1.0).mean())
    return float(np.mean(values)) if values else float("nan")


def lda(bags: ListDB, seed: int) -> ListDB:
    """The first words of the topics of latent Dirichlet allocation."""
    from sklearn.decomposition import LatentDirichletAllocation

    model = LatentDirichletAllocation(LDA_TOPICS, max_iter=20, random_state=seed).fit(bags.to_scipy(binary=False))
    first = np.argsort(-model.components_, axis=1)[:, :FIRST_WORDS]
    return ListDB.from_lists(first.tolist(), bags.num_items)


def text_table(data: Path) -> None:
    print(
        "corpus       way              structures  NPMI of first words  of the first 25  purity at 30 (chance)  seconds"
    )
    for name in ("ap", "bbc", "reuters395"):
        folder = data / "corpora" / name
        bags = read_corpus(folder, name)
        labels = folder / f"{name}.labels.csv"
        codes = encode_labels(pd.read_csv(labels).sort_values("doc")["label"])[0] if labels.exists() else None
        for way in (*WAYS, f"LDA, {LDA_TOPICS}"):
            begin = time.perf_counter()
            found = lda(bags, 0) if way.startswith("LDA") else find(bags, way, 0)[0]
            seconds = time.perf_counter() - begin
            shown = "-"
            if codes is not None and found.num_lists:
                best = best_labelled_images(bags, found, codes, formula="distinct", seed=0)
                filled = fill_at_random(best, codes, 0)
                shown = f"{purities(filled, codes).mean():.3f} ({chance_purity(filled, codes, 5, 0):.3f})"
            value, first = npmi(bags, found), npmi(bags, islice(found, FIRST_STRUCTURES))
            print(
                f"{name:12} {way:15}  {found.num_lists:9}  {value:15.3f}  {first:15.3f}  {shown:>21}  {seconds:7.1f}",
                flush=True,
            )


def break_map() -> None:
    print("nested on generated corpora (2,000 images, 20 planted sets of 8 to 15 of 2,000 words in 5 % of the images,")
    print("each word kept with probability 0.9, 40 noise words an image), one thing changed; 3 seeds")
    print("change                      recall  precision  mean best")
    for name, values in {
        "support": (0.003, 0.005, 0.01, 0.02, 0.1),
        "retention": (0.2, 0.3, 0.4, 0.5, 0.7),
        "noise": (10.0, 100.0, 200.0, 400.0),
        "sizes": ((3, 3), (4, 6), (30, 40), (90, 100)),
        "num_sets": (1, 50, 150),
    }.items():
        for value in values:
            change = {name: value} | ({"overlapping": True} if name == "sizes" and value[0] > 80 else {})
            rows = [quality(*planted(seed, **change), "nested", seed) for seed in range(3)]  # type: ignore[arg-type]
            recall, precision, mean_best = np.mean(rows, axis=0)[:3]
            print(f"{name}={value!s:22} {recall:6.3f}  {precision:9.3f}  {mean_best:9.3f}", flush=True)
    for num_sets in (20, 40, 80, 160):
        rows = [quality(*planted(seed, num_sets=num_sets, overlapping=True), "nested", seed) for seed in range(3)]
        recall, precision, mean_best = np.mean(rows, axis=0)[:3]
        print(f"overlapping, {num_sets:3} sets       {recall:6.3f}  {precision:9.3f}  {mean_best:9.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the linkages find")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the shared data")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--parts", nargs="+", default=["planted", "seeds", "text", "map"])
    arguments = parser.parse_args()
    if "planted" in arguments.parts:
        planted_table(arguments.data, arguments.seeds)
    if "seeds" in arguments.parts:
        seeds_table(arguments.data)
    if "text" in arguments.parts:
        text_table(arguments.data)
    if "map" in arguments.parts:
        break_map()


if __name__ == "__main__":
    main()
