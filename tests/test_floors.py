"""The architecture, held by its imports: a file imports only from floors below its own (CONTRIBUTING.md)."""

import ast
from pathlib import Path

import pytest

import nodepert

PACKAGE = Path(nodepert.__file__).parent
FLOORS = {  # longest match wins
    "arguments": 0, "noise": 0, "spec": 0, "rows": 0, "signatures": 0.1, "catalogue": 0.1, "registry": 0.2,
    "registering": 0.3, "core": 0.5, "wiring": 0.6,
    "losses": 1, "models": 1, "data": 1, "optimizers": 1, "adapters": 1, "rules": 1.5,
    "hyper": 1.4, "devices": 1.9, "training": 2, "replicas": 2.1, "diagnostics": 2, "testing": 2.5, "drawing": 2.9,
    "experiments": 3,
    "config": 4, "callbacks": 4.05, "cache": 4, "files": 4, "records": 4, "leases": 4, "store": 4.1, "building": 4.1,
    "checkpoints": 4.15, "trackers": 4.3, "provenance": 4.1, "grid": 4.15, "keeping": 4.18, "jobs": 4.2,
    "interrupts": 4.1, "plots": 4.2, "results": 4.2, "filters": 4.25, "runner": 4.2, "conducted": 4.2, "conduct": 4.3,
    "report": 4.3, "sweeping": 4.4,
    "display": 5, "live": 5.02, "cli_line": 5.01, "cli_check": 5.05, "cli_doctor": 5.05, "cli_info": 5.05,
    "cli_grid": 5.05, "cli_experiment": 5.05, "cli_runs": 5.05, "cli_report": 5.05,
    "watching": 5.06, "launch": 5.07, "cli_sweep": 5.08,
    "cli": 5.1, "main": 5.2, "__main__": 5.2,
}  # fmt: skip
# Packages whose files use each other:
INSIDE = ("models", "data", "rules", "adapters", "diagnostics", "testing", "experiments", "launch", "report",
          "trackers")  # fmt: skip
HEAVY = ("matplotlib", "pandas", "tyro", "rich", "argparse", "submitit")  # for floor 4 and above
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from ([f"nodepert.{a.name}" for a in node.names] if node.module == "nodepert" else [node.module])


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", [f for f in FILES if f != PACKAGE / "__init__.py"], ids=lambda p: p.stem)
def test_a_file_imports_only_from_floors_below(path):
    own = room(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if top == "nodepert" and rest:
            assert FLOORS[other] < FLOORS[own] or other == own in INSIDE, f"{path.name} imports {name}"
        if FLOORS[own] < 4:
            assert top not in HEAVY, f"{path.name} imports {name}"


def test_files_are_short():
    lengths = {str(f.relative_to(PACKAGE)): len(f.read_text().splitlines()) for f in FILES}
    assert {f: n for f, n in lengths.items() if n > 265} == {}


def test_public_names_resolve_and_are_known_to_type_checkers():
    declared = {
        alias.asname
        for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert declared == {*nodepert.__all__, "experiments"}  # a package
    for name in nodepert.__all__:
        assert callable(getattr(nodepert, name))
    with pytest.raises(AttributeError, match="there are: "):
        nodepert.nonsense  # noqa: B018
