"""The documents hold together: links lead somewhere, the picture shows every room, notebooks are as they ran."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rooms import boxes, draw, floors, rooms

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link and not link.startswith("#"):
            assert (page.parent / link.split("#")[0]).exists(), link


def test_site_lists_every_page() -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (*ROOT.glob("docs/*.md"), *NOTEBOOKS)]
    assert [page for page in pages if f": {page}" not in listed] == []


def test_picture_shows_every_room_above_what_it_needs() -> None:
    graph = rooms()
    stages = {
        f"mining/{path.name}" for path in (ROOT / "minia" / "mining").iterdir() if (path / "__init__.py").exists()
    }
    assert stages <= set(graph)
    arrows = boxes(graph)
    storeys = floors(arrows)
    height = {box: number for number, storey in enumerate(storeys) for box in storey}
    assert all(height[need] < height[box] for box, needs in arrows.items() for need in needs)
    picture = draw(graph)
    assert all(room in picture for room in graph)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_kept_executed_and_name_no_place_of_a_machine(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not re.search(r"[\"' (](/home/|/tmp/|/root/|/Users/|[A-Z]:\\\\)", path.read_text(encoding="utf-8"))
