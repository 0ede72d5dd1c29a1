"""Who may import whom: read from the sources, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up: folders of hvdfilter/ and the files beside them. A part imports from itself
# and from floors below its own; parts of one floor know nothing of each other. The package's own
# __init__ has no floor: it hands out names of all of them, each at its first use.
FLOORS = (
    {"errors", "exit_codes", "version", "costs", "waiting", "mpi_home", "launchers"},
    {"installation", "registry", "files"},
    {"native", "plain_yaml"},
    {"agreement", "scoring", "data", "models"},
    {"spanning", "alike", "policies", "robust"},
    {"world"},
    {"filter", "losses", "clustering", "sharpness"},
    {"features"},
    {"training"},
    {"inspection"},
    {"report", "telemetry", "launch", "refusing", "unexpected", "adapters"},
    {"doctor"},
    {"cli"},
    {"__main__"},
)
# Each of these is imported in so few places that one can look at all of them.
OUTSIDERS = {
    "mpi4py": {"hvdfilter.agreement.collective"},
    "horovod": {"hvdfilter.world"},  # which hands the module to agreement/ and training/
}


def modules(folder: str) -> dict[str, Path]:
    """Every module below a folder of the repository, by its dotted name."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> Iterator[str]:
    """All that a file imports, wherever the statement stands: `a.b` for `from a import b` too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant))


def test_a_part_imports_from_floors_below_its_own() -> None:
    floor = {part: number for number, parts in enumerate(FLOORS) for part in parts}
    seen, wrong = set(), []
    for name, path in modules("hvdfilter").items():
        if name == "hvdfilter":
            continue
        part = name.split(".")[1]
        seen.add(part)
        for other in imports(path):
            if not other.startswith("hvdfilter."):
                continue
            target = other.split(".")[1]
            if target != part and not floor.get(target, len(FLOORS)) < floor[part]:
                wrong.append(f"{name} imports {other}")
    assert not wrong
    assert seen == set(floor)  # a part that is gone or new


@pytest.mark.parametrize("folder", ["hvdfilter", "benchmarks", "scripts"])
def test_no_two_files_import_each_other(folder: str) -> None:
    known = modules(folder)
    graph = {
        # `from a import b` is of the file a.b where there is one, else of a.
        name: {m if m in known else m.rpartition(".")[0] for m in imports(path)} & set(known)
        for name, path in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_an_outsider_comes_in_by_one_door(outsider: str) -> None:
    doors = {
        name
        for name, path in modules("hvdfilter").items()
        if any(m.split(".")[0] == outsider for m in imports(path))
    }
    assert doors == OUTSIDERS[outsider]
