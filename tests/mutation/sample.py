"""Leave out all mutants of a session but some drawn with a seed: ``sample.py SESSION --keep 40 --modules views``."""

from __future__ import annotations

import random
import re
import sys
from argparse import ArgumentParser, Namespace

from cosmic_ray.tools.filters.filter_app import FilterApp
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import WorkerOutcome, WorkResult


class Sample(FilterApp):  # type: ignore[misc]
    def add_args(self, parser: ArgumentParser) -> None:
        parser.add_argument("--keep", type=int, default=40)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--modules", default="", help="a regular expression of the paths to draw from")

    def filter(self, work_db: WorkDB, args: Namespace) -> None:
        # By where they are: the names of the jobs are drawn anew for every session.
        waiting = sorted(work_db.pending_work_items, key=lambda item: [repr(each) for each in item.mutations])
        possible = [item for item in waiting if re.search(args.modules, str(item.mutations[0].module_path))]
        kept = random.Random(args.seed).sample(possible, min(args.keep, len(possible)))
        names = {item.job_id for item in kept}
        for item in waiting:
            if item.job_id not in names:
                skipped = WorkResult(output="not drawn", worker_outcome=WorkerOutcome.SKIPPED)
                work_db.set_result(item.job_id, skipped)


if __name__ == "__main__":
    sys.exit(Sample().main())
