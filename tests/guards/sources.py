"""What the guards know about the source: its modules, their imports and their layers. Reads files, imports nothing."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipelines", "transforms")


@dataclass(frozen=True)
class Module:
    """One source file under pipelines/ or transforms/."""

    name: str
    path: Path

    @property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return _parse(self.path)

    @property
    def line_count(self) -> int:
        """Lines of the file, blank ones included."""
        return len(self.path.read_text(encoding="utf-8").splitlines())

    @property
    def is_stage(self) -> bool:
        """Whether this is a verb-named file of layer 4: directly under transforms/ and not private."""
        package, _, rest = self.name.partition(".")
        return package == "transforms" and rest != "" and "." not in rest and not rest.startswith("_") and self.is_file

    @property
    def is_file(self) -> bool:
        """Whether this is a module of its own and not a package's __init__."""
        return self.path.name != "__init__.py"

    def imports(self) -> Iterator[tuple[str, int]]:
        """Yield (absolute dotted name, line) of everything imported, wherever in the file."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno}: relative imports hide the layer"
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def modules() -> tuple[Module, ...]:
    """Return every module of the two packages."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return tuple(found)


@cache
def stages() -> tuple[Module, ...]:
    """Return the stages of layer 4."""
    return tuple(module for module in modules() if module.is_stage)


@cache
def _names() -> frozenset[str]:
    return frozenset(module.name for module in modules())


def own_module(imported: str) -> str | None:
    """Return the longest module of ours that an imported dotted name begins with, or None for a foreign one."""
    name = imported
    while name:
        if name in _names():
            return name
        name = name.rpartition(".")[0]
    return None
