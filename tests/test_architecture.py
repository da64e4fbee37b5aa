"""The layers of DESIGN: imports go down only."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "penumbra"

LAYERS = [
    {"config", "types", "errors", "progress", "files", "checkpoint", "jobs", "memory", "pages"},
    {"data", "nets"},
    {"augment"},
    {"pretrain", "bayes", "robust", "attend", "evaluate"},
    {"model"},
    {"reference", "decoders"},
    {"trained", "ground"},
    {"report", "training", "inference", "export"},
    {"assess"},
    {"pipeline", "serve", "foreign"},
    {"study", "doctor", "crossval"},
    {"cli"},
]
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
FILES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = (
                [f"penumbra.{a.name}" for a in node.names]
                if node.module == "penumbra"
                else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        rooms |= {n.split(".")[1] for n in names if n.startswith("penumbra.")}
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_only(path: Path) -> None:
    here = room(path)
    if here in {"__init__", "__main__"}:
        return
    for other in imported_rooms(path) - {here, "__version__"}:
        assert other in HEIGHT, f"{path.name} imports penumbra.{other}, which is in no layer"
        # The bottom rooms and sibling layers may only look down, never sideways at a peer;
        # `train`, `predict` and `report` share a layer because they do not need each other.
        lower = HEIGHT[other] < HEIGHT[here]
        same_floor_vocabulary = HEIGHT[here] == HEIGHT[other] == 0
        assert lower or same_floor_vocabulary, f"{here} must not import {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_file_is_longer_than_three_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
