"""The mining pipeline: images -> features -> vocabulary -> words -> mining -> arrangement -> matching -> report.

Each stage is a property that calls one function and gives the path of its artifact. Asking for a
stage makes what it needs first, as far as the store does not hold it already, and nothing else.

Each imports its function itself: OpenCV, pandas and torch take seconds to import, and a job that
mines a file of words needs but the last.
"""

from __future__ import annotations

import functools
import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minia.command_line.mine_settings import STAGES, MineSettings
from minia.core.artifact import InputError, read_manifest
from minia.core.context import Context
from minia.core.device import choose_device
from minia.core.run_folder import RunFolder, claimed, remove_own
from minia.core.store import register_run
from minia.core.workers import num_cores
from minia.core.writing import appearing_whole, make_folders, write_text_whole
from minia.data.settings import FolderImages, SimulatedImages
from minia.mining.arrangement.settings import AutoArrangement, NoArrangement
from minia.mining.features.settings import AutoFeatures, StoredFeatures
from minia.mining.structures.settings import ListDBMining
from minia.mining.vocabulary.settings import StoredVocabulary
from minia.mining.words.settings import ListDBWords

if TYPE_CHECKING:
    from minia.mining.features.settings import ExtractedFeatures
    from minia.models.extractors.base import Extractor

logger = logging.getLogger(__name__)

METRICS, CONFIG, REPORT = "metrics.json", "config.yaml", "report"
_PUBLISHED = (  # stage and file, if it made that: what a run's folder gets
    ("mining", "structures.txt"), ("mining", "structures.csv"), ("arrangement", "structures.txt"),
    ("arrangement", "structures.csv"), ("matching", "matches.parquet"),
)  # fmt: skip
FILES = (*dict.fromkeys(name for _, name in _PUBLISHED), METRICS, CONFIG, REPORT)  # what a run writes in its folder
_COUNTS = (  # of the stages' manifests, what a run's metrics tell
    "num_images", "num_failed_images", "num_keypoints", "num_words_kept", "num_cooccurring_sets", "num_structures",
    "mean_structure_size", "num_matches", "num_matched_images", "num_matched_structures",
)  # fmt: skip


@dataclass(frozen=True)
class Pipeline:
    """One run's stages.

    Attributes:
        settings: what to do.
        store: the folder of artifacts.
    """

    settings: MineSettings
    store: Path

    @functools.cached_property
    def context(self) -> Context:
        """The seed, the device and the processes to use."""
        return Context(self.settings.seed, self.settings.device, self.settings.num_workers or num_cores())

    @functools.cached_property
    def images(self) -> Path:
        """The table of images."""
        from minia.data.images import list_catalogue, list_folder, simulate_images

        chosen = self.settings.images
        if isinstance(chosen, SimulatedImages):
            return simulate_images(self.store, chosen, self.context)
        if isinstance(chosen, FolderImages):
            return list_folder(self.store, chosen, self.context.num_workers)
        return list_catalogue(self.store, chosen, self.context.num_workers)

    @functools.cached_property
    def features(self) -> Path:
        """The keypoints of every image, with their descriptors or, where these are not kept, with their words."""
        from minia.mining.features.stage import WordsOfDescriptors, extract_words, warn_of_images_without_keypoints
        from minia.mining.vocabulary.assignment import words_by

        if self.keeps_descriptors:
            artifact = self.described
        else:
            how = words_by(self.vocabulary, self.context, self.settings.vocabulary.search)
            words = WordsOfDescriptors(self.vocabulary, *how, self.__dict__.get("described"))
            artifact = extract_words(self.images, self.store, self.extraction, self.context, words)
        if not isinstance(self.settings.features, StoredFeatures):
            warn_of_images_without_keypoints(artifact, self.extraction)
        return artifact

    @functools.cached_property
    def described(self) -> Path:
        """The features with descriptors that the vocabulary is made of: those of all images where they are kept."""
        chosen = self.settings.features
        if isinstance(chosen, StoredFeatures):
            from minia.mining.features.store import check_features

            return check_features(chosen.path, self.store)
        from minia.mining.features.stage import extract_features

        extractor = self.__dict__.pop("extractor", None)  # later stages can use the memory of a network
        sample = None if self.keeps_descriptors else self.settings.vocabulary.sample_images
        return extract_features(self.images, self.store, self.extraction, self.context, extractor, sample)

    @functools.cached_property
    def extraction(self) -> ExtractedFeatures:
        """The settings of the extractor, where ``features=auto`` was said those that it chose."""
        chosen = self.settings.features
        assert not isinstance(chosen, StoredFeatures)
        if not isinstance(chosen, AutoFeatures):
            return chosen
        from minia.mining.features.auto import settle

        return settle(chosen, self.images, self.context)

    @functools.cached_property
    def keeps_descriptors(self) -> bool:
        """Whether the descriptors of all images are kept, rather than their words alone."""
        if isinstance(self.settings.features, StoredFeatures):
            return True
        from minia.mining.features.estimate import keeps_descriptors
        from minia.mining.features.stage import try_out
        from minia.needs import say_needs

        found = try_out(self.images, self.store, self.extraction, self.context, self.__dict__.get("extractor"))
        keeps = keeps_descriptors(found, self.extraction, self.settings.vocabulary.sample_images)
        if found is not None:
            say_needs(found, self.settings.vocabulary, self.store, self.context, keeps=keeps)
        return keeps

    @functools.cached_property
    def extractor(self) -> Extractor:
        """What finds the features."""
        from minia.models.extractors.build import build_extractor

        chosen = self.settings.features
        assert not isinstance(chosen, StoredFeatures | AutoFeatures)
        return build_extractor(chosen, self.context)

    @functools.cached_property
    def vocabulary(self) -> Path:
        """The visual words' centroids."""
        from minia.mining.vocabulary.stage import build_vocabulary, import_vocabulary

        chosen = self.settings.vocabulary
        if isinstance(chosen, StoredVocabulary):
            return import_vocabulary(chosen.path, self.store)
        return build_vocabulary(self.described, self.store, chosen, self.context)

    @functools.cached_property
    def assignment(self) -> Path:
        """The visual word of every keypoint."""
        from minia.mining.vocabulary.assignment import assign_words

        features, vocabulary = self.features, self.vocabulary
        if not self.keeps_descriptors:
            return features
        return assign_words(features, vocabulary, self.store, self.context, self.settings.vocabulary.search)

    @functools.cached_property
    def words(self) -> Path:
        """The bag of words of every image."""
        from minia.mining.words.stage import count_words, import_listdb

        chosen = self.settings.words
        if isinstance(chosen, ListDBWords):
            return import_listdb(chosen.path, self.store)
        assignment = self.assignment
        return count_words(self.features, self.vocabulary, assignment, self.store, chosen)

    @functools.cached_property
    def mining(self) -> Path:
        """The structures."""
        from minia.mining.structures.stage import import_structures, mine_structures

        chosen = self.settings.mining
        if isinstance(chosen, ListDBMining):
            return import_structures(chosen.path, self.store)
        return mine_structures(self.words, self.store, chosen, self.context)

    @functools.cached_property
    def arrangement(self) -> Path:
        """The structures that chance does not make, and where they are; all of them where nothing has a place."""
        chosen, mining = self.settings.arrangement, self.mining
        if isinstance(chosen, NoArrangement) or not self.has_keypoints:
            return mining
        if isinstance(chosen, AutoArrangement):
            from minia.mining.features.store import HowExtracted

            how = HowExtracted.of(self.features)
            chosen = chosen.for_features(how.label, how.objects)
            logger.info("arrangement: %s, chosen for these features", chosen.kind)
        from minia.mining.arrangement.stage import MinedKeypoints, arrange_structures

        mined = MinedKeypoints(self.words, mining, self.features, self.assignment)
        return arrange_structures(mined, self.store, chosen, self.settings.mining, self.context)

    @functools.cached_property
    def matching(self) -> Path:
        """The images that hold each structure."""
        from minia.mining.matching.stage import match_structures

        words, mining = self.words, self.arrangement
        keypoints = (self.features, self.assignment) if self.has_keypoints else (None, None)
        return match_structures(words, mining, self.store, self.settings.matching, *keypoints)

    @functools.cached_property
    def report(self) -> Path:
        """The metrics and the page to browse."""
        from minia.mining.report.stage import Artifacts, write_report

        matching = self.matching
        artifacts = Artifacts(
            words=self.words,
            mining=self.arrangement,
            matching=matching,
            images=None if "images" in self.superseded else self.images,
            features=self.features if self.has_keypoints else None,
            vocabulary=self.vocabulary if self.has_keypoints else None,
            assignment=self.assignment if self.has_keypoints else None,
        )
        return write_report(artifacts, self.store, self.settings.report, self.context)

    @property
    def has_keypoints(self) -> bool:
        """Whether the bags of words come from keypoints, not from a listdb file."""
        return not isinstance(self.settings.words, ListDBWords)

    def check_inputs(self) -> None:
        """Say what cannot work before the work starts, as far as it shows without doing it.

        Raises:
            InputError: a device, a library or a file that the stages need is missing or unusable.
        """
        needed = set(self.settings.stages) - self.superseded
        if self.settings.device == "cuda":
            choose_device(self.settings.device)
        if not needed:
            chosen = ",".join(self.settings.stages)
            why = (
                f"what they lead to comes from elsewhere, words={self.settings.words.kind}"
                if chosen
                else "none is named"
            )
            raise InputError(f"stages=[{chosen}]: there is nothing to do: {why}; allowed: {', '.join(STAGES)}")
        if needed & {"mining", "arrangement", "matching", "report"}:
            self._check_mining()
        if not self.has_keypoints or needed <= {"images"}:
            return
        if isinstance(self.settings.features, StoredFeatures):
            try:
                _ = self.features
            except InputError as error:
                raise InputError(f"features.path={self.settings.features.path}: {error}") from None
        elif not isinstance(self.settings.features, AutoFeatures):  # what it chooses from can run anywhere
            from minia.mining.features.stage import check_pca_dim

            check_pca_dim(self.settings.features.pca_dim, self.extractor)
        forgets = getattr(self.settings.features, "keep_descriptors", None) is False  # for which it takes a vocabulary
        if forgets or not needed <= {"images", "features"}:
            if isinstance(self.settings.vocabulary, StoredVocabulary):
                _ = self.vocabulary
            else:
                from minia.mining.vocabulary.stage import check_vocabulary

                check_vocabulary(self.settings.vocabulary, self.context)

    def _check_mining(self) -> None:
        if isinstance(self.settings.mining, ListDBMining):
            _ = self.mining
        else:
            from minia.mining.structures.stage import check_linkage

            check_linkage(self.settings.mining, self.context)

    @property
    def superseded(self) -> set[str]:
        """Stages that have nothing to do, because what they would lead to was made elsewhere."""
        if not self.has_keypoints:
            return {"images", "features", "vocabulary"}
        # Features made elsewhere need no images, but images of one's own may bring their labels.
        unneeded = isinstance(self.settings.features, StoredFeatures)
        return {"images"} if unneeded and isinstance(self.settings.images, SimulatedImages) else set()

    @property
    def num_skipped_images(self) -> int:
        """Files that the images stage left out."""
        if "images" in self.superseded:
            return 0
        return int(read_manifest(self.images)["counts"]["num_skipped_images"])

    @property
    def artifacts(self) -> dict[str, Path]:
        """The artifacts that this run has made or found so far, by what made them."""
        made = {name: self.__dict__[name] for name in (*STAGES, "assignment") if name in self.__dict__}
        return {name: artifact for name, artifact in made.items() if name != "arrangement" or self.made(name)}

    def made(self, stage: str) -> list[Path]:
        """The artifacts of a stage that this run has made or found so far."""
        if stage == "arrangement" and self.__dict__.get(stage) == self.__dict__.get("mining"):
            return []  # nothing was arranged
        names = {"words": ["assignment"], "features": ["described"]}.get(stage, [])
        made = [self.__dict__[name] for name in (*names, stage) if name in self.__dict__]
        return [path for path in dict.fromkeys(made) if stage == "features" or path != self.__dict__.get("features")]


def mine(settings: MineSettings, store: Path, output: Path, resolved_config: str) -> dict[str, Any]:
    """Run the stages that the settings ask for and leave their results in a folder.

    The folder gets, each whole or not at all, ``config.yaml``, and as far as their stages ran
    ``structures.txt``, ``matches.parquet``, ``report/`` and ``metrics.json``.

    Args:
        settings: what to do.
        store: the folder of artifacts.
        output: the run's folder.
        resolved_config: text of ``config.yaml``.

    Returns:
        The content of ``metrics.json``: the report's metrics (or, without a report, the counts of
        the stages' manifests), ``seconds_<stage>``, the time that making the stage's artifact took
        (in this run or in the one that made it), and ``seconds_total``, of this run.
    """
    with claimed(output, "mine", FILES) as folder:
        return _mine(settings, store, folder, resolved_config)


def _mine(settings: MineSettings, store: Path, folder: RunFolder, resolved_config: str) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        make_folders(store)
    except OSError as error:
        raise InputError(f"store={store}: cannot be made a folder: {error.strerror}") from None
    pipeline = Pipeline(settings, store)
    pipeline.check_inputs()
    folder.record(store, {})
    register_run(folder)
    for stage in settings.stages:
        if stage not in pipeline.superseded:
            getattr(pipeline, stage)
            folder.record(store, pipeline.artifacts)
    for artifact in pipeline.made("arrangement") or pipeline.made("mining"):
        from minia.mining.structures.stage import why_no_structures

        if why := why_no_structures(artifact):
            logger.warning(why)
    register_run(folder)  # stores of artifacts made elsewhere learn of it too
    metrics = _metrics(pipeline)
    metrics["seconds_total"] = round(time.perf_counter() - started, 3)
    _publish(pipeline, folder, resolved_config, metrics)
    return metrics


def _metrics(pipeline: Pipeline) -> dict[str, Any]:
    """The counts of all stages, the report's metrics, and the seconds of each stage."""
    metrics: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for stage in STAGES:
        manifests = [read_manifest(artifact) for artifact in pipeline.made(stage)]
        if not manifests:
            continue
        counts = manifests[-1]["counts"]
        metrics |= {name: counts[name] for name in _COUNTS if name in counts}
        if "num_words" in counts:
            metrics["vocabulary_size"] = counts["num_words"]
        seconds[f"seconds_{stage}"] = round(sum(manifest["seconds"] for manifest in manifests), 3)
    if "num_failed_images" in metrics:
        metrics["num_failed_images"] += pipeline.num_skipped_images
    for report in pipeline.made("report"):
        metrics |= json.loads((report / METRICS).read_text(encoding="utf-8"))
    return metrics | seconds


def _publish(pipeline: Pipeline, folder: RunFolder, resolved_config: str, metrics: dict[str, Any]) -> None:
    """Leave the results in the run's folder, each whole or not at all; those of an earlier run go."""
    output = folder.path
    with folder.replacing(*FILES):
        for name in FILES:
            remove_own(folder, name)  # results of two runs must not mix
        for stage, name in _PUBLISHED:
            for artifact in pipeline.made(stage):
                if (artifact / name).exists():
                    with appearing_whole(output / name) as temporary:
                        shutil.copyfile(artifact / name, temporary)
        for artifact in pipeline.made("report"):
            with appearing_whole(output / REPORT) as temporary:
                shutil.copytree(artifact, temporary)
        write_text_whole(output / CONFIG, resolved_config)
        write_text_whole(output / METRICS, json.dumps(metrics, indent=2) + "\n")
