"""The house: what importing it costs, what it is made of, and that its pages tell the truth about its files."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import phi_fast

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def python(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_is_light(tmp_path: Path) -> None:
    code = "import sys, phi_fast; dir(phi_fast); print(*(name.partition('.')[0] for name in sys.modules))"
    loaded = set(python(code, tmp_path).split())
    assert "phi_fast" in loaded
    assert not loaded & {"torch", "transformers", "ray", "numpy", "pyarrow", "rich", "typer", "matplotlib", "jinja2"}


def test_public_names_are_there() -> None:
    for name in phi_fast.__all__:
        assert getattr(phi_fast, name) is not None
    assert callable(phi_fast.decontaminate)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = phi_fast.no_such_name


def test_versions_agree() -> None:
    version = PROJECT["project"]["version"]
    assert phi_fast.__version__ == version == importlib.metadata.version("phi-fast")
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_kernels_is_reached_through_the_package_alone(tmp_path: Path) -> None:
    assert (ROOT / "phi_fast" / "kernels").resolve() == ROOT / "kernels"
    assert not (ROOT / "kernels" / "__init__.py").exists()
    code = "import importlib.util as u, phi_fast.kernels as k; print(u.find_spec('kernels'), len(list(k.__path__)) > 0)"
    assert python(code, tmp_path) == "None True"


def test_every_core_dependency_is_pinned_to_a_version_it_allows() -> None:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            pins[canonicalize_name(pin.name)] = pin
    wanted = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"]
    for requirement in map(Requirement, wanted):
        pin = pins[canonicalize_name(requirement.name)]
        (version,) = [one.version for one in pin.specifier]
        assert requirement.specifier.contains(version), (requirement, version)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name} links to {target}: no such heading"


def test_the_readme_has_the_blocks_that_ci_runs() -> None:
    text = (ROOT / "README.md").read_text()
    for name, needed in (("first-command", "phi-fast demo"), ("test-command", "pytest")):
        block = re.search(rf"<!-- {name} -->\n```\w*\n(.*?)```", text, re.DOTALL)
        assert block, f"README.md: no block marked {name}"
        assert needed in block[1]


def test_the_source_without_its_engines_says_so(tmp_path: Path) -> None:
    """Python run inside a checkout finds the source before the installed package: the error says what to do."""
    shutil.copytree(ROOT / "phi_fast", tmp_path / "phi_fast", ignore=shutil.ignore_patterns("*.so", "kernels"))
    code = "from phi_fast import _native"  # without site-packages (-S), where an editable install would lend its own
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has no compiled engines" in done.stderr and "pip install -e ." in done.stderr
