"""Dense RootSIFT beside what a small network, trained without labels, makes of the same windows: one table.

    OMP_NUM_THREADS=1 nice -n 10 python benchmarks/self_supervised_windows.py GALAXIES/labels.csv OUTPUT

LABELS.csv has the columns image, label and split (train, validation). The images of the training split are cut into the
windows of features=dense and described by 1,000 words; the first principal components of their tf-idf bags are what a
network of two hidden layers learns to tell from each of an image's windows alone. Of a window that says what it tells
of its image, 16 numbers. No label is read for it. The validation split is mined with both kinds of descriptors of the
same windows, with the same numbers of words; labels measure both.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from numpy.typing import NDArray
from self_supervised import mined, print_table
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from minia.data.reading import read_image
from minia.mining.vocabulary.assignment import nearest_words
from minia.mining.vocabulary.clustering import Clustering
from minia.mining.vocabulary.kmeans import train_centroids

PLUG_INS = Path(__file__).with_name("plug_ins")
sys.path.insert(0, str(PLUG_INS))
from told_windows import LENGTH, inputs, windows  # noqa: E402

WORDS, HIDDEN, BATCH, EPOCHS, RATE = 1000, 256, 1024, 2, 2e-3
Floats = NDArray[np.float32]


def described(paths: list[Path], num_features: int) -> tuple[Floats, NDArray[np.int64]]:
    """What the network sees of all windows of some images, and which image each is of."""
    extractor = windows(num_features)
    found = [inputs(extractor.extract(read_image(path))) for path in paths]
    return np.concatenate(found), np.repeat(np.arange(len(found)), [len(each) for each in found])


def targets(seen: Floats, image: NDArray[np.int64], seed: int) -> Floats:
    """(num_images, LENGTH): the first components of the images' bags but one, which is much the same for all."""
    descriptors = np.ascontiguousarray(seen[:, :-3])
    sample = descriptors[np.random.default_rng(seed).permutation(len(descriptors))[: 60 * WORDS]]
    words = nearest_words(descriptors, train_centroids(sample, Clustering(WORDS, seed=seed))[0], "cpu")
    shape = (int(image[-1]) + 1, WORDS)
    bags = scipy.sparse.coo_matrix((np.ones(len(words)), (image, words)), shape=shape).tocsr()
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(bags)
    components = TruncatedSVD(LENGTH + 1, random_state=seed).fit_transform(weighted)[:, 1:]
    return ((components - components.mean(axis=0)) / components.std(axis=0)).astype(np.float32)


def train(seen: Floats, image: NDArray[np.int64], wanted: Floats, seed: int) -> torch.nn.Sequential:
    """A network that tells of each window what its image is like; squared error."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(seen.shape[1], HIDDEN), torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, LENGTH),
    )  # fmt: skip
    steps = EPOCHS * (len(seen) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(seen))[: steps // EPOCHS * BATCH].numpy().reshape(-1, BATCH):
            said = network(torch.from_numpy(seen[rows]))
            loss = torch.nn.functional.mse_loss(said, torch.from_numpy(wanted[image[rows]]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--features", type=int, default=500, help="keypoints an image")
    parser.add_argument("--words", default="500,2000")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    output = arguments.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    started, folder, table = time.process_time(), arguments.labels.absolute().parent, pd.read_csv(arguments.labels)
    learned_on = table[table["split"] == "train"]
    seen, image = described([folder / each for each in learned_on["image"]], arguments.features)
    network = train(seen, image, targets(seen, image, arguments.seed), arguments.seed)
    layers = [each for each in network if isinstance(each, torch.nn.Linear)]
    weights = output / "weights.npz"
    arrays = {f"weight{number}": each.weight.detach().numpy() for number, each in enumerate(layers)}
    arrays |= {f"bias{number}": each.bias.detach().numpy() for number, each in enumerate(layers)}
    np.savez(weights, **arrays)
    print(f"trained on {len(learned_on)} images in {time.process_time() - started:.0f} s of a core", flush=True)
    measured = table[table["split"].str.startswith("val")]
    listed = {"id": measured["image"], "path": [str(folder / each) for each in measured["image"]]}
    pd.DataFrame({**listed, "label": measured["label"]}).to_csv(output / "validation.csv", index=False)
    both = [f"features.num_features={arguments.features}", f"seed={arguments.seed}"]
    told = [f"hydra.searchpath=[file://{PLUG_INS}]", "features=told_windows", f"features.weights={weights}"]
    found = mined(output / "validation.csv", output, "dense RootSIFT", arguments.words, ["features=dense", *both])
    found += mined(output / "validation.csv", output, "the same windows, told", arguments.words, [*told, *both])
    print_table(found, output)


if __name__ == "__main__":
    main()
