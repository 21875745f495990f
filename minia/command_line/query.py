"""``minia query``: a finished run is asked about images that it has not seen."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from minia.command_line.messages import print_error
from minia.command_line.parser import Parser
from minia.command_line.plug_ins import offer_plug_ins
from minia.command_line.signals import signals_interrupt
from minia.core.artifact import InputError

if TYPE_CHECKING:
    from minia.query.answer import Answer

_ABOUT = """Words and structures of new images, the run's images most like them, and where else a marked place is.

  minia query RUN IMAGE                      one image: a file, or the name of an image of the run
  minia query RUN FOLDER                     all images in a folder and below
  minia query RUN IMAGE --box 120,80,60,40   where else in the run is what the box shows?

Tables and a page are written into RUN/query/NAME unless another folder is named. Nothing of the run changes."""
_SHOWN = 20  # images in the printed table


def query(words: list[str]) -> int:
    """Run ``minia query`` with the words that follow it; returns the exit code."""
    parser = Parser(
        "minia query",
        usage="minia query RUN IMAGES [--box X,Y,WIDTH,HEIGHT] [--similar N] [--by words|structures]"
        " [--output FOLDER] [--workers N] [--config-dir FOLDER]",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("images", metavar="IMAGES", help="an image file, a folder, or the name of an image of the run")
    parser.add_argument("--box", type=_box, metavar="X,Y,WIDTH,HEIGHT", help="a mark on the image, in pixels")
    parser.add_argument("--similar", type=int, default=10, metavar="N", help="similar images for each; 10 unless given")
    parser.add_argument("--by", choices=("words", "structures"), default="words", help="what makes images alike")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to write; RUN/query/NAME unless given")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; all cores unless given")
    parser.add_argument("--config-dir", metavar="FOLDER", help="where the run's own extractor is, if it has one")
    try:
        given = parser.parse_args(words)
        offer_plug_ins(given.config_dir, ())
        if given.workers is not None and not 1 <= given.workers <= 1024:
            parser.error(f"--workers {given.workers}: expected 1 to 1024")
        with signals_interrupt():
            return _answer(given)
    except KeyboardInterrupt as error:
        error.args = error.args or ("nothing was written",)
        return print_error(error)
    except (InputError, OSError) as error:
        return print_error(error)


def _answer(given: argparse.Namespace) -> int:
    from minia.command_line.log import log_to_stderr
    from minia.run import load  # brings pandas: errors in the words come first

    log_to_stderr()
    run = load(given.run)
    folder = given.output or run.query_folder(given.images, marked=given.box is not None)
    answer = run.query(
        given.images, folder, box=given.box, num_similar=given.similar, by=given.by, num_workers=given.workers
    )
    _print(answer)
    print(f"page: {folder / 'index.html'}")
    return 0


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected X,Y,WIDTH,HEIGHT in pixels") from None
    return x, y, width, height


def _print(answer: Answer) -> None:
    """The first images with their best structures and most similar images, or where a marked place was found."""
    if answer.found is not None:
        print(f"found in {len(answer.found)} images")
        shown = answer.found.head(_SHOWN)[["image", "spots", "x", "y", "width", "height", "angle"]]
        if len(shown):
            print(shown.to_string(index=False, float_format=lambda value: f"{value:.1f}"))
        return
    structures = dict(list(answer.structures.groupby("image", sort=False)))
    similar = dict(list(answer.similar.groupby("image", sort=False)))
    rows = [("image", "keypoints", "structures (overlap)", "most similar (likeness)")]
    for image, keypoints in answer.images[["image", "num_keypoints"]].head(_SHOWN).itertuples(index=False):
        held, near = structures.get(image), similar.get(image)
        best = "-"
        if held is not None:
            pairs = zip(held["structure"].head(3).tolist(), held["overlap"].head(3).tolist(), strict=True)
            best = ", ".join(f"{structure} ({overlap:.2f})" for structure, overlap in pairs)
        alike = "-" if near is None else f"{near['similar'].iat[0]} ({near['likeness'].iat[0]:.2f})"
        rows.append((str(image), f"{keypoints:,}", best, alike))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if len(answer.images) > _SHOWN:
        print(f"... and {len(answer.images) - _SHOWN} more")
    if len(answer.failed):
        number = len(answer.failed)
        print(f"{number} {'file' if number == 1 else 'files'} could not be read")
