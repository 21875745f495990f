"""Draw how the code fits together, from the imports that are really there.

    python docs/rooms.py                    the picture as rooms.svg

While the site is built, mkdocs calls ``on_page_markdown``, which puts the picture into the page that asks for it:
it is drawn anew each time and cannot grow old.

A room is a folder of minia/ (its inner folders down to the second), or a file beside them. An arrow goes from a room
to one that it imports from; what follows from other arrows is left out, and so is minia/core, which all may use.
Rooms that import each other stand in one box.
"""

from __future__ import annotations

import ast
import html
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MARK = "<!-- rooms -->"
GROUND = "core"  # all use it: its arrows would hide the others
WIDTH, HEIGHT, ACROSS, UP, LETTER = 1000, 30, 24, 34, 7.6  # pixels: picture; box; gaps between boxes; a letter

Graph = dict[str, set[str]]
Box = tuple[str, ...]


def imports_of(path: Path) -> Iterator[str]:
    """The names that a Python file imports, also ``from package import module`` as the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str, root: Path) -> str:
    """The room of a dotted name: ``minia.mining.words.stage`` is in ``mining/words``; '' if it is none of ours."""
    parts = module.split(".")
    if parts[0] != "minia":
        return ""
    folder = root / "minia"
    inner = []
    for part in parts[1:3]:
        if not (folder / part).is_dir():
            break
        folder /= part
        inner.append(part)
    if not inner and len(parts) > 1 and (folder / f"{parts[1]}.py").is_file():
        return parts[1]
    return "/".join(inner)


def rooms(root: Path = ROOT) -> Graph:
    """What each room imports from, itself left out."""
    graph: Graph = {}
    for path in sorted((root / "minia").rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        room = room_of(module, root)
        found = {room_of(name, root) for name in imports_of(path)} - {"", room, GROUND}
        if room and room != GROUND and (found or path.name != "__init__.py"):
            graph.setdefault(room, set()).update(found)
    return graph


def reachable(graph: Graph) -> Graph:
    """What each room needs, by one arrow or by many."""
    reached = {room: set(needs) for room, needs in graph.items()}
    for through in graph:
        for room in graph:
            if through in reached[room]:
                reached[room] |= reached[through]
    return reached


def boxes(graph: Graph) -> dict[Box, set[Box]]:
    """Rooms that need each other as one box, and of the arrows between boxes those that follow from no others."""
    reached = reachable(graph)
    box = {room: tuple(sorted({room, *(o for o in reached[room] if room in reached[o])})) for room in graph}
    far = {box[room]: {box[other] for other in reached[room]} - {box[room]} for room in graph}
    return {one: {to for to in needs if not any(to in far[by] for by in needs)} for one, needs in far.items()}


def floors(arrows: dict[Box, set[Box]]) -> list[list[Box]]:
    """The boxes by floor, the lowest first: each stands on the highest that it needs."""
    floor: dict[Box, int] = {}
    while len(floor) < len(arrows):
        for box, needs in arrows.items():
            if box not in floor and all(need in floor for need in needs):
                floor[box] = 1 + max((floor[need] for need in needs), default=-1)
    storeys: list[list[Box]] = [[] for _ in range(1 + max(floor.values()))]
    for box in sorted(floor):
        storeys[floor[box]].append(box)
    return storeys


def draw(graph: Graph) -> str:
    """The picture as SVG text, for light and dark pages."""
    arrows = boxes(graph)
    storeys = floors(arrows)
    height = (len(storeys) + 1) * (HEIGHT + UP)
    places: dict[Box, tuple[float, float, float]] = {}  # middle, top and width in pixels
    for number, storey in enumerate(storeys):
        placed = {box: [places[need][0] for need in arrows[box]] for box in storey}
        storey.sort(key=lambda box: sum(placed[box]) / len(placed[box]) if placed[box] else WIDTH / 2)
        widths = [LETTER * len(label(box)) + 20 for box in storey]
        left = (WIDTH - sum(widths) - ACROSS * (len(widths) - 1)) / 2
        for box, width in zip(storey, widths, strict=True):
            places[box] = (left + width / 2, height - (number + 2) * (HEIGHT + UP) + UP / 2, width)
            left += width + ACROSS
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        ' aria-label="the rooms of minia and what each imports from" font-family="monospace" font-size="12.5">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="currentColor"/></marker></defs>',
    ]
    for box, needs in sorted(arrows.items()):
        for need in sorted(needs):
            (x1, y1, _), (x2, y2, _) = places[box], places[need]
            lines.append(
                f'<path d="M{x1:.0f} {y1 + HEIGHT:.0f}C{x1:.0f} {y1 + HEIGHT + UP:.0f} {x2:.0f} {y2 - UP:.0f} {x2:.0f}'
                f' {y2:.0f}" fill="none" stroke="currentColor" stroke-opacity=".55" marker-end="url(#tip)"/>'
            )
    lines += [_drawn(label(box), *place) for box, place in sorted(places.items())]
    lines.append(_drawn(f"{GROUND}: used by all", WIDTH / 2, height - HEIGHT - UP / 2, WIDTH - 2 * ACROSS))
    return "\n".join([*lines, "</svg>"])


def label(box: Box) -> str:
    """What stands in a box."""
    return " + ".join(box)


def _drawn(text: str, middle: float, top: float, width: float) -> str:
    return (
        f'<rect x="{middle - width / 2:.0f}" y="{top:.0f}" width="{width:.0f}" height="{HEIGHT}" rx="5"'
        f' fill="#e8eefc" stroke="#5b7bd5"/><text x="{middle:.0f}" y="{top + HEIGHT / 2 + 4:.0f}" text-anchor="middle"'
        f' fill="#10182c">{html.escape(text)}</text>'
    )


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Mkdocs: put the picture where a page asks for it."""
    return markdown.replace(MARK, f"<div>{draw(rooms())}</div>") if MARK in markdown else markdown


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "rooms.svg")
    target.write_text(draw(rooms()), encoding="utf-8")
    print(target)
