"""What is shipped for Icinga 2, in a real one."""

from tests.monitoring.cores import Icinga, adapted

DEFINITIONS = "icinga2/flowauth_rotator.conf"


def test_icinga_takes_the_definitions_as_they_are_shipped(tmp_path):
    """Beside its own library of templates, without a warning."""
    assert Icinga(tmp_path / "icinga", adapted(DEFINITIONS, {})).objections() == []


def test_icinga_says_when_a_definition_is_wrong(tmp_path):
    """The test above is one that can fail."""
    wrong = adapted(DEFINITIONS, {'check_command = "flowauth_rotator"': 'check_command = "none"'})
    assert "none" in " ".join(Icinga(tmp_path / "icinga", wrong).objections())
