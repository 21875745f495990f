"""What collections of four sizes take on machines of three kinds, by the rule of ``minia/needs.py``.

    python benchmarks/needs_table.py

Dense features of 1,495 keypoints an image and 3,000 words, as the bare defaults give for galaxies of 424 pixels. The
throughputs are those of a run of 50,000 such images on 2 cores: 0.013 s an image and core to extract it, and 140
thousand million operations a second and core of a product of matrices.
Features and words are shared by all cores, the vocabulary by those of one machine, the arrangement by eight of these;
one core does the rest.
"""

from __future__ import annotations

from minia.core.context import Context
from minia.mining.features.estimate import SizeEstimate
from minia.mining.vocabulary.settings import KMeansVocabulary
from minia.needs import Needs, duration

KEYPOINTS, DESCRIPTOR, SECONDS, RATE = 1495, 64, 2 / 154, 140e9
BUDGET = 40e9  # features.disk_budget: beyond it no descriptors are kept
MACHINES = {"laptop, 2 cores": (2, 2), "node, 32 cores": (32, 32), "20 nodes, 640 cores": (640, 32)}
SHARED = ("features", "words")  # by all machines


def needs(num_images: int, workers: int) -> Needs:
    """What a collection takes with so many cores."""
    num_bytes = num_images * KEYPOINTS * (DESCRIPTOR + 20.0)
    found = SizeEstimate(num_images, KEYPOINTS, DESCRIPTOR, num_bytes, SECONDS)
    vocabulary = KMeansVocabulary(
        algorithm="doubling", size=3000, iterations=20, restarts=1, initialisation="random", points_per_word=256
    )
    context = Context(device="cpu", num_workers=workers)
    return Needs.of(found, vocabulary, context, RATE, keeps=num_bytes <= BUDGET)


def main() -> None:
    names = ("features", "vocabulary", "words", "mining", "arrangement", "matching", "report")
    print(f"| images | machine | disk | memory | {' | '.join(names)} | in all |")
    print("|" + "---|" * (len(names) + 5))
    for num_images in (10_000, 50_000, 243_000, 10_000_000):
        for machine, (cores, of_one) in MACHINES.items():
            every, one = needs(num_images, cores), needs(num_images, of_one)
            seconds = {name: (every if name in SHARED else one).seconds[name] for name in names}
            told = " | ".join(map(duration, [*seconds.values(), sum(seconds.values())]))
            print(f"| {num_images:,} | {machine} | {one.disk / 1e9:,.0f} GB | {one.memory / 1e9:,.0f} GB | {told} |")


if __name__ == "__main__":
    main()
