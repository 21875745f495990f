"""What the processes of a run of mining do that are not its first, where torchrun has started several."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import NoReturn

from minia.command_line.mine_settings import MineSettings
from minia.core.artifact import InputError
from minia.pipeline import Pipeline


def take_part(settings: MineSettings, store: Path, output: Path, resolved_config: str) -> NoReturn:
    """Go through the stages of a run beside its first process, and leave nothing in a folder of one's own.

    Args:
        settings: of the run.
        store: the folder of artifacts, the same one.
        output: where nothing is written.
        resolved_config: of which nothing is made.
    """
    logging.getLogger().setLevel(logging.ERROR)  # the first one tells
    pipeline = Pipeline(settings, store)
    try:
        pipeline.check_inputs()
        for stage in settings.stages:
            if stage not in pipeline.superseded:
                getattr(pipeline, stage)
    except InputError:
        sys.exit(2)  # the first one says what is wrong
    sys.exit(0)
