"""Every block of code in the README and the documentation runs, in the order of its page (`make docs`).

```python, ```sh            executed, at a small size (see `smaller`)
```python title="file.py"   written to that file, at a small size; likewise any other language with a title
```toml                     read as a grid
```text, ```json            not executed: output, or commands that need something this machine may lack
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from small import COLUMNS

from nodepert import main
from nodepert.cli import app as cli
from nodepert.registry import check, names
from nodepert.registry.spec import Spec
from nodepert.studies.grid import load_grid
from nodepert.studies.run import Run
from nodepert.studies.store.run_folder import open_run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
OUTPUT = ("text", "json", "latex", "diff")  # not executed
OTHER_PAGES = {"README", "fashion", "fashion-table"}  # in docs/experiments
OTHER_COMMANDS = ("cd", "source", "git", "sbatch", "srun", "ssh", "tensorboard", "wandb", "jupyter", "R", "open")

pytestmark = [pytest.mark.docs, pytest.mark.usefixtures("quickly_compiled")]


def sections(page):
    """The parts of a page that run independently: the sections of the README, any other page as one."""
    text = page.read_text()
    return re.split(r"(?m)^(?=##+ )", text) if page.name == "README.md" else [text]


UNITS = [(page, i) for page in PAGES for i, text in enumerate(sections(page)) if FENCE.search(text)]


def unit(page, i):
    """A page as a parameter. Two kinds are slow: experiments, which test_experiments.py also runs at scale smoke, and
    all rules but one, because these pages are alike."""
    slow = page.parent.name == "experiments" or (page.parent.name == "rules" and page.stem not in ("index", "np"))
    return pytest.param(page, i, id=f"{page.relative_to(ROOT)}-{i}", marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize("page, i", [unit(page, i) for page, i in UNITS])
def test_every_block_of_a_page_runs(page, i, tmp_path, monkeypatch, capfd):
    (tmp_path / "grids").symlink_to(ROOT / "grids")
    reader = Reader(tmp_path, monkeypatch, capfd)
    for info, code in FENCE.findall(sections(page)[i]):
        reader.block(info.strip(), code)


class Reader:
    """Types the commands of a page in an empty folder."""

    def __init__(self, folder, monkeypatch, capfd):
        self.folder, self.monkeypatch, self.capfd, self.names = folder, monkeypatch, capfd, {"__name__": "page"}
        self.installed = None  # where `pip install .` put the page's package

    def block(self, info, code):
        language, _, more = info.partition(" ")
        title = re.search(r'title="([^"]+)"', more)
        if title:
            path = self.folder / title[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(smaller(code))
        elif language == "python":
            exec(compile(smaller(code), "a block of Python", "exec"), self.names)
        elif language == "toml":
            (self.folder / "grid.toml").write_text(code)
            grid = load_grid(self.folder / "grid.toml")
            assert grid.runs
            for name, options in grid.launchers.items():
                check("launcher", Spec(name, (), tuple(options.items())))
        elif language in ("sh", ""):
            for line in code.replace("\\\n", " ").splitlines():
                if words := shlex.split(smaller(line), comments=True):
                    self.command(words, line)
        else:
            assert language in OUTPUT, f"unknown language {language}: add it to the test"

    def command(self, words, line):
        while setting := re.fullmatch(r"([A-Z_]+)=(\S*)", words[0]):
            self.monkeypatch.setenv(*setting.groups())
            words = words[1:]
        first = Path(words[0]).name
        if first == "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), f"there is no target {words[1]}"
        elif words[:2] == ["pip", "install"] and words[-1] != ".":
            known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M)
            assert all(extra in known for extra in re.findall(r"[\w]+", "".join(re.findall(r"\[(.*?)\]", line))))
        elif words[:2] == ["pip", "install"]:
            self.installed = self.folder / "installed"
            self.execute("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index",
                         "--target", str(self.installed), ".")  # fmt: skip
        elif first in ("python", "pytest", "nodepert"):
            self.own_command(first, words[1:])
        else:
            assert first in OTHER_COMMANDS, f"unknown command {first}: add it to the test"

    def own_command(self, first, words):
        study = next((w for w in words[1:] if not w.startswith("-")), "default")
        if words[:1] in (["runs"], ["results"], ["report"]) and not Path("runs", study).exists():
            with open_run(Path("runs"), study, Run(rule="np", network="conv"), "data") as folder:
                folder.write_rows([dict.fromkeys(COLUMNS, 0.5) | {"epoch": 0}])
                folder.set_status("interrupted")
        if words[:1] == ["nodepert/main.py"]:
            main.main(words[1:])
        elif first == "nodepert" and not self.installed:
            self.capfd.readouterr()
            try:
                cli.main(words)
            except SystemExit as stop:
                assert not stop.code, self.capfd.readouterr().err
            assert self.capfd.readouterr().out.strip(), words
        else:
            self.execute(*(["-m", first] if first != "python" else []), *words)

    def execute(self, *words):
        path = os.pathsep.join([*([str(self.installed)] if self.installed else []), str(self.folder)])
        done = subprocess.run([sys.executable, *words], env=os.environ | {"PYTHONPATH": path}, cwd=self.folder,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"


def smaller(code):
    """The same code with one epoch, few draws, a small MNIST, and experiments at scale smoke."""
    code = re.sub(r"epochs(\s*=\s*| )\d+", r"epochs\g<1>1", code)
    code = re.sub(r"draws(\s*=\s*| )\d+", r"draws\g<1>100", code)
    code = re.sub(r"(?m)^(nodepert check )(?!.*--draws)", r"\1--draws 100 ", code)
    code = re.sub(r"(?<=[\s\"])mnist5k(?=[\s\"])", "mnist5k(train=400,test=100)", code)
    code = re.sub(r"(?m)^(nodepert experiment [\w-]+)(?= )(?!.*--scale)", r"\1 --scale smoke", code)
    return re.sub(r"--scale (small|paper)", "--scale smoke", code).replace("--out docs/figures", "--out results")


def test_the_blocks_were_found():
    assert len(UNITS) > 30


@pytest.mark.parametrize("page", PAGES[:1])
def test_links_of_the_readme_exist(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]
    assert len(links) >= 3
    assert all((ROOT / link).exists() for link in links)


def test_the_makefile_has_every_target_of_the_readme():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", PAGES[0].read_text(), re.M):
        assert f"\n{target}:" in makefile, target


def test_every_rule_and_experiment_has_its_page():
    assert {p.stem for p in (ROOT / "docs" / "rules").glob("*.md")} - {"index"} == {*names("rule")} - {"exact"}
    assert {p.stem for p in (ROOT / "docs" / "experiments").glob("*.md")} - OTHER_PAGES == {*names("experiment")}


def test_equations_of_notebooks_become_mathml_and_code_is_unchanged(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    hooks = pytest.importorskip("hooks", reason="the site needs: pip install '.[dev]'")
    text = hooks.equations(r"<p>$x &lt; y$ and $$\frac{1}{B}$$ <code>$HOME $PATH</code></p>")
    assert text.count("<math") == 2 and text.count('display="block"') == 1 and "<code>$HOME $PATH</code>" in text
