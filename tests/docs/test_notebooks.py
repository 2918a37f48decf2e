"""The notebooks of the documentation run in a kernel of this environment, and are saved with small outputs."""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
pytestmark = [pytest.mark.docs, pytest.mark.usefixtures("quickly_compiled")]
PATHS = re.compile(r"(?<![\w./:-])(?:/(?:home|root|tmp|usr|opt|mnt|var|work|Users|private)\b|[A-Z]:\\\\)|file://")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


class ThisEnvironment(KernelSpecManager):
    """One kernel: the Python that runs the tests."""

    def get_kernel_spec(self, kernel_name):
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def outputs(notebook, kind=None):
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output for output in found if kind in (None, output.output_type)]


@each_notebook
def test_it_runs_without_an_error_and_without_stderr(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):  # not the user's
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = nbformat.read(path, as_version=4)
    kernel = AsyncKernelManager(kernel_spec_manager=ThisEnvironment())
    work = tmp_path / "work"
    work.mkdir()
    NotebookClient(notebook, km=kernel, timeout=300, resources={"metadata": {"path": str(work)}}).execute(
        cleanup_kc=True
    )  # and end the kernel
    assert not [output.text for output in outputs(notebook, "stream") if output.name == "stderr"]
    written = [
        [bool(cell.get("outputs")) for cell in one.cells] for one in (notebook, nbformat.read(path, as_version=4))
    ]
    assert written[0] == written[1]  # whether, not how many: a stream may arrive in any number of parts


@each_notebook
def test_it_is_saved_as_executed_once_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(outputs(notebook)) > 5 and not outputs(notebook, "error")
    assert not [output.text for output in outputs(notebook, "stream") if output.name == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert set(notebook.metadata) <= {"kernelspec", "language_info"} and not any(cell.metadata for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"


@each_notebook
def test_it_is_small_and_has_no_path_of_a_machine(path):
    assert path.stat().st_size < 300_000
    assert not PATHS.findall(path.read_text())


@each_notebook
def test_its_links_exist(path):
    text = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]
                     if cell["cell_type"] == "markdown")  # fmt: skip
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert links and all((path.parent / link).exists() for link in links), links


def test_the_notebooks_were_found():
    assert {path.stem for path in NOTEBOOKS} >= {"tour", "does-my-rule-work"}
