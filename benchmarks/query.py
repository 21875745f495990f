"""How fast a run answers about new images, and how sure it finds a marked place again.

    python benchmarks/query.py [--kinds sift dense] [--run-images 450] [--images 1000] [--workers 2]

For each kind of features a run is made of simulated galaxies of 424 pixels, and asked about others of another seed: the
seconds of ``run.query`` on their folder, all included (start of the processes, tables, page), and the images a second.
Then boxes of a third of the side around the middle of images of the run are sought: how long that takes, how often the
image itself comes first, and the same where the image was turned by 90 degrees and reduced to three quarters.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import minia
from minia.core.workers import num_cores
from minia.data.simulation.survey import write_survey
from minia.run import Run

SIDE, SEED, BOXES = 424, 7, 20


def make_run(folder: Path, kind: str, num_images: int, workers: int) -> Run:
    images = {"kind": "simulated", "num_images": num_images, "image_size": SIDE}
    return minia.mine(images, output=folder / kind, features=kind, num_workers=workers)


def boxes(run: Run, turned: bool, folder: Path) -> dict[str, Any]:
    """Seek the middle of some images of the run."""
    seconds, first = 0.0, 0
    names = run.images[:: max(1, len(run.images) // BOXES)][:BOXES]
    for name in names:
        box, image = (SIDE / 3, SIDE / 3, SIDE / 3, SIDE / 3), str(name)
        if turned:
            pixels = cv2.imread(str(run.features.image_path(run.images.index(name))))
            side = SIDE * 3 // 4
            small = cv2.resize(np.rot90(pixels), (side, side), interpolation=cv2.INTER_AREA)
            image = str(folder / "turned.png")
            cv2.imwrite(image, small)
            box = (side / 3, side / 3, side / 3, side / 3)
        started = time.perf_counter()
        found = run.query(image, box=box, num_similar=0, num_workers=1).found
        seconds += time.perf_counter() - started
        first += found is not None and len(found) > 0 and found["image"].iat[0] == name
    return {"seconds_each": round(seconds / len(names), 2), "itself_first": f"{first}/{len(names)}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["sift", "dense"])
    parser.add_argument("--run-images", type=int, default=450)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=num_cores())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        new = folder / "new"
        new.mkdir()
        write_survey(new, num_images=options.images, side=SIDE, seed=SEED, num_workers=options.workers)
        for kind in options.kinds:
            run = make_run(folder, kind, options.run_images, options.workers)
            started = time.perf_counter()
            answer = run.query(new, folder / f"{kind}-answer", num_workers=options.workers)
            seconds = time.perf_counter() - started
            report = {
                "features": kind,
                "run_images": len(run.images),
                "structures": len(run.structures),
                "images": len(answer.images),
                "keypoints_an_image": round(float(answer.images["num_keypoints"].mean())),
                "seconds": round(seconds, 1),
                "images_per_second": round(len(answer.images) / seconds, 1),
                "box": boxes(run, False, folder),
                "box_turned_and_reduced": boxes(run, True, folder),
            }
            print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
