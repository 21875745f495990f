"""Features learned without labels beside dense RootSIFT: train, mine, one table.

    nice -n 10 python benchmarks/self_supervised.py GALAXIES/labels.csv OUTPUT --steps 1200

LABELS.csv has the columns image, label and split (train, validation). A network is trained on the images of the
training split, whose labels are not read, with ``trainer.NAME=VALUE`` and other keys of train.py as further arguments;
the validation split is mined with it and with dense RootSIFT, both with the same number of keypoints an image on the
same objects and with the same numbers of words; labels measure both. The table is printed, and kept as OUTPUT/table.md.
A training that was ended goes on when the command is given again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
# An encoder without squeezing: with it (regnety_002) a descriptor depends on all that the network is shown, a part of
# the object in training and the whole image in mining.
TRAINING = ("model=timm", "model.name=regnetx_002", "trainer.precision=32-true", "trainer.batch_size=32",
            "trainer.steps_per_check=150", "data.check_images=false")  # fmt: skip
FIGURES = ("word_accuracy", "structure_accuracy", "mean_purity_at_30", "chance_purity_at_30")


def run(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / program), *arguments, "num_workers=1", "device=cpu"], check=True)


def train(labels: Path, output: Path, steps: int, further: list[str]) -> Path:
    """The model of a training on the rows ``train``, without labels."""
    folder = output / "training"
    model = folder / "model.pt"
    if not model.exists():
        last = folder / "checkpoints" / "last.ckpt"
        again = [f"resume={folder}"] if last.exists() else []
        where = [f"hydra.run.dir={folder}", f"store={output / 'store'}"]
        given = [f"data.path={labels}", "data.label_column=null", "data.split_column=split", *TRAINING,
                 f"trainer.max_steps={steps}", "threads=1", *where]  # fmt: skip
        run("train.py", "experiment=self_supervised", "data=csv", *given, *again, *further)
    return model


def mined(catalogue: Path, output: Path, name: str, words: str, features: list[str]) -> list[dict[str, object]]:
    """A row for each number of words."""
    sweep = output / name.replace(", ", "-").replace(" ", "-")
    given = ["images=catalogue", f"images.path={catalogue}", "arrangement=none", f"vocabulary.size={words}",
             "report.max_structures=10", "report.images_per_structure=1"]  # fmt: skip
    run("mine.py", "-m", *given, *features, f"hydra.sweep.dir={sweep}", f"store={output / 'store'}")
    rows = []
    for number, size in enumerate(words.split(",")):
        metrics = json.loads((sweep / str(number) / "metrics.json").read_text())
        found: dict[str, object] = {"features": name, "words": size}
        found["keypoints"] = round(metrics["num_keypoints"] / metrics["num_images"])
        rows.append(found | {figure: f"{metrics[figure]:.3f}" for figure in FIGURES if figure in metrics})
    return rows


def print_table(found: list[dict[str, object]], output: Path) -> None:
    """Print the rows, and keep them as ``table.md``."""
    rows = [list(found[0]), ["---"] * len(found[0]), *(list(map(str, row.values())) for row in found)]
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    (output / "table.md").write_text(lines)
    print(lines, end="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--features", type=int, default=500, help="keypoints an image")
    parser.add_argument("--words", default="500,2000")
    parser.add_argument("--scales", default="[0.7071,1.0,1.4142,2.0]")
    parser.add_argument("--model", type=Path, help="a model or checkpoint in place of the training")
    arguments, further = parser.parse_known_args()
    output = arguments.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    model = arguments.model or train(arguments.labels.absolute(), output, arguments.steps, further)
    table = pd.read_csv(arguments.labels)
    table = table[table["split"].str.startswith("val")]
    catalogue = output / "validation.csv"
    folder = arguments.labels.absolute().parent
    listed = pd.DataFrame({"id": table["image"], "path": [str(folder / each) for each in table["image"]]})
    listed.assign(label=table["label"]).to_csv(catalogue, index=False)
    both = [f"features.num_features={arguments.features}", "features.objects=central"]
    delf = ["features=delf", f"features.model={model}", f"features.scales={arguments.scales}",
            "features.precision=float32", *both]  # fmt: skip
    found = mined(catalogue, output, "dense RootSIFT", arguments.words, ["features=dense", *both])
    found += mined(catalogue, output, "self-supervised, dense", arguments.words, [*delf, "features.selection=dense"])
    found += mined(catalogue, output, "self-supervised, attention", arguments.words, delf)
    print_table(found, output)


if __name__ == "__main__":
    main()
