"""The notebooks of the documentation: each runs from its first cell to its last, and what is committed is tidy."""

import re
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="no nbformat here: pip install nbclient ipykernel")
NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))


def kernel():
    """A kernel of this very environment, whatever kernels are installed."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class Here(AsyncKernelManager):
        @property
        def kernel_spec(self):
            return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                              language="python", display_name="python")  # fmt: skip

    return Here()


def outputs(notebook, kind):
    return [
        out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs if out.output_type == kind
    ]


def test_there_are_two():
    assert len(NOTEBOOKS) == 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_without_error_or_warning(path, tmp_path):
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, km=kernel(), timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert outputs(notebook, "error") == []
    assert [out.text for out in outputs(notebook, "stream") if out.name == "stderr"] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_has_its_outputs_and_names_no_machine(path):
    text = path.read_text()
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert outputs(notebook, "display_data") and outputs(notebook, "error") == []
    assert not [out for out in outputs(notebook, "stream") if out.name == "stderr"]
    assert len(text) < 300_000 and not re.search(r"/(home|root|tmp|work|Users)/|[A-Z]:\\\\", text)
    assert not any("execution" in cell.metadata for cell in code)
