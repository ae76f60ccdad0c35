"""The search for parts of tokens finds them, in every form, and tells nothing of them."""

import base64
import subprocess
import sys
from urllib.parse import quote

import jwt
import pytest

from proofs.secrecy import Artefacts

PASSWORD = "correct-horse-battery-staple"

FORMS = {
    "raw": lambda text: text,
    "hex": lambda text: text.encode().hex(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, a byte later": lambda text: base64.b64encode(b"x" + text.encode()).decode(),
    "base64, two bytes later": lambda text: base64.b64encode(b"xy" + text.encode()).decode(),
    "base64, url-safe": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "URL-quoted": lambda text: quote(text, safe=""),
}
LEAK = """
import jwt, pytest
from tests.secrecy import Secrecy

KEY = "a-key-of-thirty-two-characters-or-more"

@pytest.mark.parametrize("shown", [0, 11, 12])
def test_that_shows_a_part_of_a_token(shown):
    payload = jwt.encode({"sub": "somebody", "exp": 1}, KEY).split(".")[1]
    print(payload[4:4 + shown])
    assert shown < 12, "which fails as well"
"""
PLUGIN = """
from tests.secrecy import Secrecy

def pytest_configure(config):
    config.addinivalue_line("markers", "holds_secrets(*names): files that do")
    config.pluginmanager.register(Secrecy())
"""


@pytest.fixture
def token():
    return jwt.encode({"sub": "somebody", "exp": 1}, "a-key-of-thirty-two-characters-or-more")


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_payload_and_of_a_signature_is_found(token, form):
    """Sixteen characters of it, in the middle of other text."""
    for segment in token.split(".")[1:]:
        artefacts = Artefacts()
        artefacts.add("a log", f"{{'x': '{FORMS[form](segment[3:28])}'}}".encode())
        [found] = {finding.artefact for finding in artefacts.find({token: token.split(".")[1:]})}
        assert found == "a log"


def test_less_than_twelve_characters_are_not_found(token):
    """Nor is the header, which says nothing that is secret."""
    header, payload, _ = token.split(".")
    artefacts = Artefacts()
    artefacts.add("a log", f"{header} {payload[3:14]} {PASSWORD[:11]}".encode())
    assert artefacts.find({token: token.split(".")[1:], PASSWORD: [PASSWORD]}) == []


def test_the_output_of_a_failing_test_is_searched(tmp_path, pytestconfig):
    """The run fails, names the test, and shows no part of the token itself."""
    (tmp_path / "conftest.py").write_text(PLUGIN)
    (tmp_path / "test_leak.py").write_text(LEAK)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--show-capture=no"]
    done = subprocess.run(
        [*command, "-c", "/dev/null", f"--rootdir={tmp_path}", tmp_path / "test_leak.py"],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout[done.stdout.index("secrecy:") :]
    assert "1 windows found" in said
    assert "test_that_shows_a_part_of_a_token[12]" in said
    assert "[11]" not in said
    assert done.returncode == 1
