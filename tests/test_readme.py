"""What the README says to type works."""

import re
import shlex
from pathlib import Path

import pytest

from nodepert import cli, main
from nodepert.config import Run
from nodepert.grid import load_grid
from nodepert.launch.slurm import checked_options
from nodepert.store import COLUMNS, open_run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README + (ROOT / "docs" / "sweeps.md").read_text(), re.S)
GRIDS = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "sweeps.md").read_text(), re.S)
SHELL = [
    line
    for block in re.findall(r"```\n(.*?)```", README, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith(("nodepert ", "python nodepert/main.py "))
]


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks_run(block):
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("text", GRIDS)
def test_grids_are_read(text, tmp_path):
    (tmp_path / "grid.toml").write_text(text)
    grid = load_grid(tmp_path / "grid.toml")
    assert len(grid.runs) > 3 and checked_options(grid.slurm) == grid.slurm


@pytest.mark.parametrize("line", SHELL)
def test_commands_run(line, capsys):
    line = re.sub(r"epochs \d+", "epochs 1", line).replace(" grids/", f" {ROOT}/grids/")
    words = shlex.split(line, comments=True)
    if words[1] in ("runs", "results", "report"):  # they look at what a sweep left
        with open_run(Path("runs"), "weight-decay", Run(rule="np", network="conv"), "data") as folder:
            folder.write_rows([dict.fromkeys(COLUMNS, 0.5) | {"epoch": 0}])
            folder.set_status("interrupted")
    if words[0] == "nodepert":
        cli.main(words[1:])
    else:
        main.main(words[2:])
        assert Path("explogs/npexp/fc.csv").exists()
    assert capsys.readouterr().out.strip()


def test_links_within_the_repository_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) >= 3
    assert all((Path(__file__).parent.parent / link).exists() for link in links)


def test_the_blocks_were_found():
    assert len(PYTHON) >= 3 and GRIDS
    assert len(SHELL) >= 5


def test_the_makefile_has_the_targets_that_the_readme_names():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z]+)", README, re.M):
        assert f"\n{target}:" in makefile, target
