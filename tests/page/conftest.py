import shutil

import pytest

from flowauth_rotator.server.signing import Signer
from tests.conftest import RenewalServer
from tests.page.browsing import a_browser
from tests.page.site import Site


class Remembering(Signer):
    """Keeps in mind what it has signed."""

    def __init__(self, key):
        super().__init__(key)
        self.signed = []

    def sign(self, claims):
        self.signed.append(super().sign(claims))
        return self.signed[-1]


@pytest.fixture(scope="package")
def browser():
    """The browser that all visitors share."""
    with a_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def signer(signing_key):
    """What signs the tokens of `issuer`, and has a list of them."""
    return Remembering(signing_key)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory, prepared_data_dir, signer, cheap_hasher):
    """A real renewal server for a module; see `RenewalServer` for what it offers."""
    data_dir = shutil.copytree(prepared_data_dir, tmp_path_factory.mktemp("issuer") / "server")
    server = RenewalServer(data_dir, signer, cheap_hasher)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def make_site(tmp_path_factory, airflow_binaries, browser, request):
    """Make an Airflow with these settings that can be visited once it runs."""
    made = []

    def make(**settings):
        folder = tmp_path_factory.mktemp("site")

        def postgresql():
            return request.getfixturevalue("postgresql")

        made.append(Site(folder, airflow_binaries, postgresql, browser, **settings))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def visit(site):
    """Come to the module's Airflow as a user or a stranger; no browser complains of anything."""
    visitors = []

    def visit(who=None, **options):
        visitors.append(site.visitor(who, **options))
        return visitors[-1]

    yield visit
    for visitor in visitors:
        visitor.leave()
    assert [visitor.complaints for visitor in visitors if visitor.complaints] == []
