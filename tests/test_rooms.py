"""The architecture, checked by its imports: a room imports only from rooms below its own (CONTRIBUTING.md)."""

import ast
from pathlib import Path

import pytest

import nodepert

PACKAGE = Path(nodepert.__file__).parent
ROOMS = (  # from the ground up; rooms on one line never import each other
    ("errors",),
    ("contract",),
    ("core",),
    ("registry",),
    ("models", "data"),
    ("rules",),
    ("training",),
    ("diagnostics", "studies"),
    ("experiments",),
    ("report",),
    ("cli",),
    ("main", "__main__", "testing", "estimators"),
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
LOWEST = {  # the lowest room that may import a library: a worker needs no terminal
    "pandas": "data", "matplotlib": "studies", "submitit": "studies", "tyro": "cli", "rich": "cli", "argparse": "cli",
}  # fmt: skip
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
def test_a_room_imports_only_from_rooms_below(path):
    own = room(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if top == "nodepert" and rest:
            assert FLOOR[other] < FLOOR[own] or other == own, f"{path.relative_to(PACKAGE)} imports {name}"
        assert top not in LOWEST or FLOOR[own] >= FLOOR[LOWEST[top]], f"{path.relative_to(PACKAGE)} imports {name}"


def test_files_are_short():
    lengths = {str(f.relative_to(PACKAGE)): len(f.read_text().splitlines()) for f in FILES}
    assert {f: n for f, n in lengths.items() if n > 250} == {}


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
