"""Execute the notebooks, as their reader would.

    python docs/run_notebooks.py            and keep what came out, for the documentation
    python docs/run_notebooks.py --check    only see that they run

What is kept are results and figures alone, neither progress bars nor times nor places on the machine.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent / "notebooks"
MINUTES = 10  # a cell may take on a busy machine


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs anew.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=60 * MINUTES, resources={"metadata": {"path": str(FOLDER)}}).execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_result(output)]
    return notebook


def _is_result(output: nbformat.NotebookNode) -> bool:
    """Whether an output is more than progress: bars are written to stderr, or drawn as widgets."""
    if output.output_type == "stream":
        return bool(output.name == "stdout")
    return "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def main() -> None:
    """Execute all of them, and write them back unless ``--check`` is given."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        started = time.perf_counter()
        notebook = executed(path)
        if "--check" not in sys.argv[1:]:
            path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        print(f"{path.name}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
