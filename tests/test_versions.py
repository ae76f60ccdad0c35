"""The lowest versions that pyproject.toml declares: that they are tested, and fit into Airflow."""

import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it along

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
AGENT = [Requirement(line) for line in PROJECT["dependencies"]]
OPTIONAL = PROJECT["optional-dependencies"]
EXTRAS = [Requirement(line) for name in ("server", "postgres") for line in OPTIONAL[name]]
STORES = [
    Requirement(line)
    for name in OPTIONAL.keys() - {"server", "postgres"}
    for line in OPTIONAL[name]
]
LOCKS = {".venv": "airflow-3.txt", ".venv-lowest": "lowest.txt"}

# What Airflow's constraints pin of the above: one constraints-3.1x.txt at each tag
# constraints-VERSION of apache/airflow, as other repositories carry them. pyotp is in none.
CONSTRAINTS = """
        click  prometheus-client  pyjwt   requests  rich    tenacity  urllib3
2.10.1  8.1.7  0.20.0             2.9.0   2.32.3    13.8.0  8.5.0     2.2.2
2.10.3  8.1.7  0.21.0             2.9.0   2.32.3    13.9.4  8.5.0     2.2.3
2.10.5  8.1.8  0.21.1             2.10.1  2.32.3    13.9.4  9.0.0     2.3.0
2.11.0  8.2.0  0.22.0             2.10.1  2.32.3    13.9.4  9.1.2     2.4.0
2.11.2  8.3.1  0.24.1             2.11.0  2.32.5    13.9.4  9.1.4     2.6.3
3.1.6   8.3.1  0.23.1             2.10.1  2.32.5    14.2.0  9.1.2     2.6.3
3.2.1   8.3.2  0.25.0             2.12.1  2.33.1    13.9.4  9.1.4     2.6.3
"""
COLUMNS, *ROWS = [line.split() for line in CONSTRAINTS.strip().splitlines()]


def bound(requirement: Requirement) -> Version:
    """Its lowest version, which is all that a requirement may say."""
    [specifier] = requirement.specifier
    assert specifier.operator == ">=", requirement
    return Version(specifier.version)


def pins(lock: str) -> list[tuple[str, Version]]:
    """Names and versions in a lock; a name with several, one for each Python, more than once."""
    lines = re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "locks" / lock).read_text(), re.MULTILINE)
    return [(name, Version(pin)) for name, pin in lines]


@pytest.mark.parametrize("requirement", [*AGENT, *EXTRAS], ids=lambda each: each.name)
def test_the_lowest_versions_are_those_that_make_test_lowest_runs(requirement):
    """A bound that is raised without `make lock`, or that another package raises, is not tested."""
    locked = {pin for name, pin in pins("lowest.txt") if name == requirement.name}
    assert locked == {bound(requirement)}


@pytest.mark.parametrize("requirement", sorted(STORES, key=str), ids=lambda each: each.name)
def test_the_lowest_providers_are_those_of_the_tests_in_airflow_2_10(requirement):
    """A store needs an Airflow, which `make test-lowest` does not have."""
    locked = {pin for name, pin in pins("airflow-2.10.txt") if name == requirement.name}
    assert locked == {bound(requirement)}


@pytest.mark.parametrize("requirement", [*AGENT, *EXTRAS], ids=lambda each: each.name)
def test_an_environment_has_what_its_lock_pins(requirement):
    """`make test-lowest` runs the lowest versions, and not what something else has installed."""
    lock = LOCKS.get(Path(sys.prefix).name)
    if lock is None:
        pytest.skip("an environment that the Makefile has not made")
    installed = Version(version(requirement.name))
    assert installed in {pin for name, pin in pins(lock) if name == requirement.name}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_constraints_of_airflow_allow_an_installation(row):
    """An operator installs with `--constraint`: a higher bound would leave that Airflow behind."""
    pinned = dict(zip(COLUMNS, row[1:], strict=True))
    bounds = {requirement.name: bound(requirement) for requirement in AGENT}
    assert bounds.keys() - pinned.keys() == {"pyotp"}
    assert {name for name, pin in pinned.items() if Version(pin) < bounds[name]} == set()
