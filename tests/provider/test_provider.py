"""The provider as a real Airflow lists it."""

import json
import subprocess

import pytest


@pytest.fixture(scope="module")
def list_providers(airflow_home):
    """Run `airflow providers ...` without warnings about the package; return the rows."""

    def run(*words):
        done = subprocess.run(
            [airflow_home.binaries / "airflow", "providers", *words, "--output", "json"],
            env=airflow_home.env,
            capture_output=True,
            text=True,
            check=True,
        )
        *complaints, document = done.stdout.splitlines()
        ours = [line for line in [*complaints, *done.stderr.splitlines()] if "flowauth" in line]
        assert ours == []
        return json.loads(document)

    return run


def test_the_provider_is_listed(list_providers):
    """With its version."""
    from flowauth_rotator import __version__

    [row] = [row for row in list_providers("list") if row["package_name"] == "flowauth-rotator"]
    assert row["version"] == __version__


def test_the_connection_type_is_listed(list_providers):
    """Under the name that the form shows."""
    [row] = [row for row in list_providers("hooks") if row["connection_type"] == "flowauth"]
    assert row["class"] == "flowauth_rotator.provider.hook.FlowAuthHook"
    assert (row["hook_name"], row["conn_id_attribute_name"]) == ("FlowAuth", "flowauth_conn_id")


def test_the_link_is_listed(list_providers):
    """Airflow 2 shows only links of registered classes."""
    rows = list_providers("links")
    assert "flowauth_rotator.provider.operator.TokenLink" in {
        row["extra_link_class_name"] for row in rows
    }


@pytest.mark.parametrize(
    ("installed", "is_old"), [("1.11.0", True), (None, True), ("1.12.0", False)]
)
def test_an_old_common_compat_is_named_at_import(airflow_home, installed, is_old):
    """With what to install, instead of a name that cannot be imported."""
    code = (
        "from flowauth_rotator.provider.compat import check_common_compat; "
        f"check_common_compat({installed!r})"
    )
    done = subprocess.run(
        [airflow_home.binaries / "python", "-c", code],
        env=airflow_home.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) is is_old
    assert ("'apache-airflow-providers-common-compat>=1.12'" in done.stderr) is is_old
