"""What is shipped for Nagios, in a real one."""

from tests.monitoring.cores import Nagios, adapted

DEFINITIONS = "nagios/flowauth_rotator.cfg"


def test_nagios_takes_the_definitions_as_they_are_shipped(tmp_path):
    """Beside the templates that come with Debian's Nagios, without a warning."""
    assert Nagios(tmp_path / "nagios", adapted(DEFINITIONS, {})).objections() == []


def test_nagios_says_when_a_definition_is_wrong(tmp_path):
    """The test above is one that can fail."""
    wrong = adapted(DEFINITIONS, {"check_flowauth_token!AIRFLOW": "check_flowauth_tokn!AIRFLOW"})
    assert "check_flowauth_tokn" in " ".join(Nagios(tmp_path / "nagios", wrong).objections())
