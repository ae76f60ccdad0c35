import contextlib
import secrets
import shutil

import pytest

from flowauth_rotator.server.signing import Signer
from tests.conftest import RenewalServer
from tests.external import announce
from tests.page.browsing import open_browser
from tests.page.site import TIME_ZONE, Site


class RecordingSigner(Signer):
    """Signs, and keeps a list of the tokens."""

    def __init__(self, key):
        super().__init__(key)
        self.signed = []

    def sign(self, claims):
        self.signed.append(super().sign(claims))
        return self.signed[-1]


@pytest.fixture(scope="package")
def browser(chromium):
    """The browser that all visitors share."""
    with open_browser(chromium) as browser:
        yield browser


@pytest.fixture(scope="package")
def start_issuer(tmp_path_factory, prepared_data_dir, signing_key, cheap_hasher):
    """Start a real renewal server that lasts as long as the package's tests."""
    with contextlib.ExitStack() as started:

        def start():
            folder = tmp_path_factory.mktemp("issuer") / "server"
            data_dir = shutil.copytree(prepared_data_dir, folder)
            server = RenewalServer(data_dir, RecordingSigner(signing_key), cheap_hasher)
            server.start()
            started.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="package")
def issuer(start_issuer):
    """The renewal server behind `site`; see `RenewalServer` for what it offers."""
    return start_issuer()


@pytest.fixture(scope="package")
def make_site(tmp_path_factory, airflow_binaries, browser, request):
    """Make an Airflow with these settings that can be visited once it runs."""
    with contextlib.ExitStack() as made:

        def make(**settings):
            folder = tmp_path_factory.mktemp("site")
            announce(request.config, "Starting an Airflow with its pages ...")
            database = None
            if Site.needs_postgresql(airflow_binaries):
                template = request.getfixturevalue("airflow_database")
                database = request.getfixturevalue("postgresql").create(like=template)
            site = Site(folder, airflow_binaries, database, browser, **settings)
            made.callback(site.close)
            return site

        yield make


@pytest.fixture(scope="package")
def scrape_token():
    """What opens the page's metrics and `check` without a sign-in."""
    return f"scrape-{secrets.token_hex(16)}"


@pytest.fixture(scope="package")
def site(make_site, issuer, scrape_token):
    """An Airflow at /team/a behind a proxy, with the connection and at first without a DAG.

    Each module adds Variables and DAGs of its own, under names that no other module uses. They run
    in the order of their names: those of test_check.py judge the whole Airflow, so that the module
    which breaks DAGs comes after it.

    Attributes:
        first_overview: what its API answered while there was neither a DAG nor a token.
    """
    site = make_site(
        AIRFLOW__FLOWAUTH_ROTATOR__SCRAPE_TOKEN=scrape_token,
        AIRFLOW__API__DEFAULT_UI_TIMEZONE=TIME_ZONE,
        AIRFLOW__WEBSERVER__DEFAULT_UI_TIMEZONE=TIME_ZONE,  # Airflow 2
    )
    site.connect(issuer)
    with site.running("/team/a"):
        site.first_overview = site.overview()
        yield site


@pytest.fixture
def visit(site):
    """Come to the Airflow as a user or a stranger; no browser complains of anything."""
    visitors = []

    def visit(who=None, **options):
        visitors.append(site.visitor(who, **options))
        return visitors[-1]

    yield visit
    for visitor in visitors:
        visitor.leave()
    assert [visitor.complaints for visitor in visitors if visitor.complaints] == []
