"""The report stage: the metrics of a run and a page to browse its structures.

The artifact holds ``metrics.json`` (flat) and ``index.html``, the page, which works opened from disk: its data are the
scripts in ``data/``. For images (not for plain lists of words) there are ``images/`` (JPEG copies of the images that
the page shows at full size), ``sprites/`` (sheets of small pictures), ``panels/structure_0000.png`` and so on (a grid
of the structure's best images) and ``figures/``.

What is shown and measured is chosen while the overlaps of all images stream by; of an image that is not shown, memory
holds its name, its label and some numbers alone.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from minia.core.artifact import Stage, read_manifest
from minia.core.context import Context
from minia.core.workers import Beside
from minia.mining.features.store import features_fingerprint
from minia.mining.matching.settings import OverlapMatching
from minia.mining.report.columns import Columns
from minia.mining.report.explorer import LISTED, Explorer
from minia.mining.report.names import read_names, report_id
from minia.mining.report.page import copy_figures, render_page
from minia.mining.report.ranking import ranked
from minia.mining.report.run import Artifacts, Run, count_stages
from minia.mining.report.scripts import Scripts
from minia.mining.report.settings import GalleryReport
from minia.mining.structures.stage import why_no_structures

__all__ = ["METRICS", "PAGE", "Artifacts", "write_report"]

logger = logging.getLogger(__name__)

METRICS = "metrics.json"
PAGE = "index.html"
_VERSION = 6  # 6: the score is of all words together


def write_report(artifacts: Artifacts, store: Path, settings: GalleryReport, context: Context) -> Path:
    """Measure a run and write a page to browse its structures.

    Args:
        artifacts: what the earlier stages made.
        store: folder of artifacts.
        settings: what is shown and measured.
        context: ``seed`` of ties, shuffles, samples and folds, ``num_workers`` threads.

    Returns:
        The report artifact.

    Raises:
        InputError: the file of names cannot be read, or is of the structures of another run.
    """
    sources = artifacts.by_stage()
    inputs = {name: read_manifest(path)["fingerprint"] for name, path in sources.items()}
    if artifacts.features is not None:
        inputs["features"] = features_fingerprint(artifacts.features, store)
    matching = OverlapMatching(**read_manifest(artifacts.matching)["parameters"])
    names = {} if settings.names is None else read_names(settings.names, report_id(sources))
    parameters = settings.model_dump(exclude={"kind", "names"}) | ({"names": names} if names else {})
    parameters |= {"formula": matching.formula, "seed": context.seed}
    stage = Stage("report", "gallery", store, parameters, inputs, version=_VERSION)

    def make(work: Path) -> dict[str, Any]:
        run = Run.load(sources, matching, context.seed)
        shown = ranked(run.scores, run.table)[: settings.max_structures]
        nothing = None if run.structures.num_lists else why_no_structures(artifacts.mining)
        with Beside(context.num_workers) as beside:
            measured = beside.start(lambda: run.measure(settings.num_shuffles, context.num_workers))
            explorer = Explorer(
                report=work,
                run=run,
                shown=shown,
                chosen=run.choose_images(shown, max(LISTED, settings.images_per_structure)),
                per_structure=settings.images_per_structure,
                columns=Columns.of(run),
                scripts=Scripts(work),
                num_threads=context.num_workers,
            )
            data = explorer.write(settings.tile_side, beside)
            metrics = count_stages(sources) | measured()
        more = {"figures": copy_figures(work, sources), "id": report_id(sources), "names": names}
        explorer.scripts.write("overview", data | {"metrics": metrics} | more)
        (work / PAGE).write_text(render_page(nothing, settings.tile_side), encoding="utf-8")
        (work / METRICS).write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
        logger.info("report: %d structures shown, %.1f MB on disk", len(shown), size / 1e6)
        return {"num_shown_structures": len(shown)}

    return stage.run(make)
