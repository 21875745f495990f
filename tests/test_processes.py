"""The processes of one run that torchrun starts make the same bytes as one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planted import planted_corpus
from test_features import artifact_bytes

from minia.command_line.commands import mine
from minia.core.processes import Processes
from minia.mining.lists.listdb import write_listdb
from minia.mining.vocabulary.clustering import Clustering
from minia.mining.vocabulary.kmeans import train_centroids

ROOT = Path(__file__).resolve().parents[1]
CLUSTERING = """
import sys
import numpy as np
from minia.core.processes import process_number
from minia.mining.vocabulary.clustering import Clustering
from minia.mining.vocabulary.kmeans import train_centroids

centroids, distance = train_centroids(np.load(sys.argv[1]), Clustering(150, iterations=3, seed=5))
if process_number() == 0:
    np.savez(sys.argv[2], centroids=centroids, distance=distance)
"""


def torchrun(folder: Path, *command: str) -> str:
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *command]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(started, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_two_processes_cluster_as_one(tmp_path: Path) -> None:
    descriptors = np.random.default_rng(1).standard_normal((12_000, 16)).astype(np.float32)  # whose sums are not exact
    np.save(tmp_path / "descriptors.npy", descriptors)
    (tmp_path / "cluster.py").write_text(CLUSTERING)
    torchrun(tmp_path, "cluster.py", "descriptors.npy", "found.npz")
    centroids, distance = train_centroids(descriptors, Clustering(150, iterations=3, seed=5))
    found = np.load(tmp_path / "found.npz")
    assert found["centroids"].tobytes() == centroids.tobytes()
    assert found["distance"] == distance


def test_two_processes_mine_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_listdb(tmp_path / "a.corpus", planted_corpus(3)[0])
    words = ["words=listdb", "words.path=a.corpus", "stages=[mining]", "device=cpu", "mining.num_tuples=90"]
    told = torchrun(tmp_path, str(ROOT / "mine.py"), *words, "store=together", "hydra.run.dir=run")
    assert told.count("mining: made") == 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mine.py", *words, "store=alone", "hydra.run.dir=other"])
    assert mine() == 0
    [one], [two] = tmp_path.glob("alone/mining/*-*[0-9a-f]"), tmp_path.glob("together/mining/*-*[0-9a-f]")
    assert (one / "cooccurring_sets.txt").stat().st_size > 1000
    assert artifact_bytes(one) == artifact_bytes(two)
    assert (tmp_path / "run" / "structures.txt").read_bytes() == (tmp_path / "other" / "structures.txt").read_bytes()


def test_tasks_are_dealt_out_in_turn() -> None:
    assert [list(Processes(number, 3).own(range(8))) for number in range(3)] == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert Processes().gather([np.arange(3, dtype=np.int32)], 1)[0].tolist() == [0, 1, 2]
