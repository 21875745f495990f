"""The report's page, ``index.html``: it loads its data from scripts beside it and works from disk, without a network.

Its style and its scripts lie in ``templates`` and are put into the page as they are; what comes from the data never is.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from pathlib import Path

import jinja2
import markupsafe

from minia.core.version import __version__

_SCRIPTS = (
    "core.js", "texts.js", "texts_es.js", "names.js", "table.js", "gestures.js", "map.js", "overview.js",
    "structure.js", "image.js", "words.js", "search.js", "start.js",
)  # fmt: skip
_FIGURES = (
    ("vocabulary", "pca.png", "pca"),
    ("words", "collection_frequency.png", "collection_frequency"),
)


def render_page(nothing: str | None, tile_side: int) -> str:
    """The page as HTML.

    Args:
        nothing: why there are no structures, where there are none.
        tile_side: of an image in a structure's gallery, in pixels.
    """
    template = _environment().get_template("page.html")
    return template.render(nothing=nothing, tile_side=tile_side, scripts=_SCRIPTS, version=__version__)


def templates_of(package: str) -> jinja2.Environment:
    """The templates of pages in a package: what comes from data is escaped, and a name without a value is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = templates_of("minia.mining.report")
    loader = environment.loader
    assert loader is not None

    def raw(name: str) -> markupsafe.Markup:
        return markupsafe.Markup(loader.get_source(environment, name)[0])  # our own file, not a template

    environment.globals["raw"] = raw
    return environment


def copy_figures(work: Path, artifacts: Mapping[str, Path]) -> list[list[str]]:
    """Copy the figures of earlier stages, as far as they exist.

    Args:
        work: the report's folder.
        artifacts: by stage.

    Returns:
        For each its file, relative to the report, and the key of its caption.
    """
    copied = []
    for stage, name, caption in _FIGURES:
        if stage in artifacts and (artifacts[stage] / name).is_file():
            (work / "figures").mkdir(exist_ok=True)
            shutil.copyfile(artifacts[stage] / name, work / "figures" / name)
            copied.append([f"figures/{name}", caption])
    return copied
