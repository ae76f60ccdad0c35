"""What asks about the server itself: health, readiness, metrics, its keys and its document."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowauth_rotator.server.accounts import Limit
from flowauth_rotator.server.maintenance import prune
from flowauth_rotator.server.schema import tokens

DATABASES = ["SQLite", "PostgreSQL"]


@pytest.fixture
def scrape(stranger, data_dir):
    """What a scraper reads who presents the data directory's token: samples by name and labels."""

    def read():
        token = (data_dir / "metrics.token").read_text().strip()
        answer = stranger.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200
        assert answer.content_type.startswith("text/plain; version=")
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    return read


class TestMetrics:
    EXPIRY = "flowauth_renewal_server_token_expiration_timestamp_seconds"
    RENEWALS = "flowauth_renewal_server_renewals_total"

    def test_only_for_who_has_its_token(self, stranger, refused, data_dir):
        """Names of tokens and of users are nobody else's business."""
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp4"}):
            answer = stranger.get("/metrics", headers=headers)
            refused(answer, 401)
            assert answer.headers["WWW-Authenticate"] == "Bearer"

    def test_every_result_is_there_from_the_beginning(self, scrape):
        for result in ("renewed", "replayed", "rehearsed", "refused", "failed"):
            assert scrape()[self.RENEWALS, result] == 0

    def test_renewals_are_counted_by_result(self, flowbot, scrape):
        row = flowbot.minted()
        for _ in range(2):
            flowbot.renew(row["id"], key="k")
        flowbot.renew(row["id"], {"lifetime_minutes": 0})
        flowbot.renew_presented(row["token"])
        counted = {result: scrape()[self.RENEWALS, result] for result in ("renewed", "replayed")}
        assert counted == {"renewed": 2, "replayed": 1}
        assert scrape()[self.RENEWALS, "refused"] == 1

    def test_one_series_a_name_with_its_newest_expiry(self, flowbot, clock, scrape):
        row = flowbot.minted(name="etl main", lifetime_minutes=60)
        labels = (self.EXPIRY, "TEST_SERVER", "etl main", "flowbot")
        assert scrape()[labels] == clock.now + 3600
        clock.advance(minutes=10)
        flowbot.renew(row["id"], {"lifetime_minutes": 60})
        flowbot.renew(row["id"], {"lifetime_minutes": 1})
        assert scrape()[labels] == clock.now + 3600
        clock.advance(minutes=600)
        assert [key for key in scrape() if key[0] == self.EXPIRY] == [labels]

    @pytest.mark.parametrize("name", ['a"b', "a\\b", "<img onerror=x>", "x" * 200])
    def test_a_hostile_name_is_one_label(self, flowbot, scrape, name):
        flowbot.mint(name=name)
        assert [key[2:] for key in scrape() if key[0] == self.EXPIRY] == [
            tuple(sorted(("TEST_SERVER", name, "flowbot"))[1:])
        ]

    def test_answers_are_timed_by_view_and_status(self, stranger, scrape):
        stranger.get("/version")
        stranger.sign_in(password="wrong")
        counts = scrape()
        name = "flowauth_renewal_server_request_duration_seconds_count"
        assert counts[name, "200", "version"] == 1
        assert counts[name, "401", "signin"] == 1


class TestNobodyRenews:
    """The dead man: names whose newest token nears its end, or has reached it."""

    WITHOUT_SUCCESSOR = "flowauth_renewal_server_name_without_successor"

    @pytest.fixture
    def told(self, scrape):
        """Its value for each name that has one."""

        def read():
            samples = scrape().items()
            return {key[2]: value for key, value in samples if key[0] == self.WITHOUT_SUCCESSOR}

        return read

    def test_from_the_last_tenth_of_the_lifetime_until_30_days_after_the_expiry(
        self, flowbot, clock, told, scrape
    ):
        flowbot.mint(name="etl main", lifetime_minutes=100)
        assert told() == {"etl main": 0}
        clock.advance(minutes=90, seconds=-1)
        assert told() == {"etl main": 0}
        clock.advance(seconds=1)
        assert told() == {"etl main": 1}
        clock.advance(minutes=10)
        assert told() == {"etl main": 1}
        clock.advance(minutes=30 * 24 * 60, seconds=-1)
        assert told() == {"etl main": 1}
        clock.advance(seconds=1)
        assert told() == {}
        assert TestMetrics.EXPIRY not in {key[0] for key in scrape()}

    def test_a_successor_ends_it(self, flowbot, clock, told):
        row = flowbot.minted(name="etl main", lifetime_minutes=100)
        flowbot.mint(name="another", lifetime_minutes=100)
        clock.advance(minutes=95)
        assert told() == {"etl main": 1, "another": 1}
        answer = flowbot.renew_presented(row["token"], {"lifetime_minutes": 100})
        assert answer.status_code == 200
        assert told() == {"etl main": 0, "another": 1}

    def test_a_successor_that_expires_no_later_does_not(self, flowbot, clock, services, told):
        row = flowbot.minted(name="etl main", lifetime_minutes=100)
        services.accounts.set_audience("TEST_SERVER", latest_expiry=clock.now + 100 * 60)
        clock.advance(minutes=50)
        for body in ({}, {"lifetime_minutes": 1}):
            assert flowbot.renew_presented(row["token"], body).status_code == 200
        assert told() == {"etl main": 0}
        clock.advance(minutes=40)
        assert flowbot.renew_presented(row["token"]).status_code == 200
        assert told() == {"etl main": 1}

    def test_of_each_owner(self, flowbot, mallory, clock, scrape):
        flowbot.mint(name="etl main", lifetime_minutes=10)
        mallory.mint(name="etl main", lifetime_minutes=100)
        clock.advance(minutes=9)
        labels = (self.WITHOUT_SUCCESSOR, "TEST_SERVER", "etl main")
        assert scrape()[(*labels, "flowbot")] == 1
        assert scrape()[(*labels, "mallory")] == 0

    def test_not_of_an_owner_who_holds_no_role_on_the_server(self, flowbot, clock, services, told):
        """They have left: nobody can renew their tokens, and nobody should be waiting for it."""
        flowbot.mint(name="etl main", lifetime_minutes=100)
        clock.advance(minutes=95)
        services.accounts.revoke("flowbot", ["runner"])
        assert told() == {"etl main": 1}
        services.accounts.add_audience("ELSEWHERE", Limit(60))
        services.accounts.add_role("guest", "ELSEWHERE", ["run"], Limit(60))
        services.accounts.grant("flowbot", ["guest"])
        services.accounts.revoke("flowbot", ["viewer"])
        assert told() == {}
        services.accounts.grant("flowbot", ["viewer"])
        assert told() == {"etl main": 1}

    def test_a_role_that_was_deleted_is_held_by_nobody(self, flowbot, clock, services, told):
        flowbot.mint(name="etl main", lifetime_minutes=100)
        clock.advance(minutes=95)
        services.accounts.delete_role("runner")
        assert told() == {"etl main": 1}
        services.accounts.delete_role("viewer")
        assert told() == {}

    def test_each_of_a_thousand_names_is_there(self, clock, services, told, scrape):
        """Of several tokens of a name the newest counts, whatever became of the others."""
        minute = 60
        names = {f"etl {number}": number % 2 for number in range(1000)}
        rows = [
            {
                "owner_id": services.accounts.get_user("flowbot").id,
                "audience_id": 1,
                "name": name,
                "roles": [[1, "viewer"]],
                "jti": f"{name} {age}",
                "family_began_at": clock.now - 300 * minute,
                "issued_at": clock.now - age * minute,
                "expires_at": clock.now - age * minute + (50 if is_forsaken else 200) * minute,
            }
            for age in (300, 200, 100)
            for name, is_forsaken in names.items()
        ]
        with services.database.writing() as connection:
            connection.execute(tokens.insert(), rows)
        assert told() == names
        assert {key[2] for key in scrape() if key[0] == TestMetrics.EXPIRY} == set(names)

    def test_pruning_changes_nothing(self, flowbot, clock, services, told):
        flowbot.mint(name="etl main", lifetime_minutes=100)
        clock.advance(minutes=101)
        assert prune(services, now=clock.now) == 1
        assert told() == {"etl main": 1}


def test_health_is_a_process_that_answers(stranger):
    answer = stranger.get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})
    assert "Set-Cookie" not in answer.headers


class TestReadiness:
    """Whether a token could be issued now."""

    def test_it_is_ready(self, stranger):
        assert stranger.get("/readyz").json == {"status": "ok"}

    @pytest.mark.parametrize("part", ["signing-key.pem", "encryption.key"])
    def test_not_with_a_key_that_is_gone_and_again_once_it_is_back(
        self, stranger, data_dir, refused, part, caplog
    ):
        from flowauth_rotator.server import create_app

        app = create_app(data_dir)
        client = app.test_client()
        (data_dir / part).rename(data_dir / "aside")
        assert refused(client.get("/readyz"), 503).endswith("see the server's log.")
        [facts] = [record.facts for record in caplog.records if record.message == "not_ready"]
        assert part in facts["reason"]
        (data_dir / "aside").rename(data_dir / part)
        assert client.get("/readyz").status_code == 200
        app.extensions["flowauth_rotator"].database.close()

    def test_not_without_its_tables(self, stranger, services, refused):
        with services.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM alembic_version")
            connection.exec_driver_sql("DROP TABLE rate_counters")
            connection.exec_driver_sql("ALTER TABLE tokens RENAME TO mislaid")
        refused(stranger.get("/readyz"), 503)
        assert stranger.get("/healthz").status_code == 200


def test_the_document_tells_the_version_of_the_program(stranger):
    document = stranger.get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert document["info"]["version"] == stranger.get("/version").json["version"]
