"""Execute the notebooks, as their reader would.

    python docs/run_notebooks.py            and keep what came out, for the documentation
    python docs/run_notebooks.py --check    only see that they run
    python docs/run_notebooks.py library    one of them

What is kept are results and figures alone, neither progress bars nor times nor places on the machine.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent / "notebooks"
MINUTES = 20  # a cell may take on a busy machine


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
    """Execute those that are named, or all, and write them back unless ``--check`` is given."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads must not hold cores that others could use
    check = "--check" in sys.argv[1:]
    names = [word for word in sys.argv[1:] if word != "--check"] or ["*"]
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["TMPDIR"] = temporary  # a kernel that is stopped does not clean up behind itself
        for path in sorted(path for name in names for path in FOLDER.glob(f"{name}.ipynb")):
            started = time.perf_counter()
            notebook = executed(path)
            if not check:
                path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
            print(f"{path.name}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
