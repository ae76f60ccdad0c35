"""A hundred renewals by real requests: what /metrics tells of a name changes its values alone."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

DATABASES = ["SQLite", "PostgreSQL"]
RENEWALS = 100
EXPIRY = "flowauth_renewal_server_token_expiration_timestamp_seconds"
RENEWED = ("flowauth_renewal_server_renewals_total", ("result", "renewed"))


@pytest.fixture
def scrape(stranger, data_dir):
    """The value of each series, by name and labels; each is there once, as is each explanation."""
    token = (data_dir / "metrics.token").read_text().strip()

    def read():
        text = stranger.get("/metrics", headers={"Authorization": f"Bearer {token}"}).text
        families = list(text_string_to_metric_families(text))
        assert len({family.name for family in families}) == len(families)
        samples = [
            ((sample.name, *sorted(sample.labels.items())), sample.value)
            for family in families
            for sample in family.samples
        ]
        assert len(dict(samples)) == len(samples)
        return dict(samples)

    return read


def test_the_series_are_the_same_before_and_after_each_renewal(flowbot, mallory, clock, scrape):
    """Of the name that is renewed and of all others: none comes, none goes, no counter falls."""
    token = flowbot.minted(name='etl "main"', lifetime_minutes=60)["token"]
    flowbot.mint(name="another", lifetime_minutes=7 * 24 * 60)
    mallory.mint(name='etl "main"', lifetime_minutes=7 * 24 * 60)
    token = flowbot.renew_presented(token, {"lifetime_minutes": 60}).json["token"]
    scrape()  # from now on there is an answer of each kind
    last = first = scrape()
    for _ in range(RENEWALS):
        clock.advance(minutes=40)
        before = scrape()
        answer = flowbot.renew_presented(token, {"lifetime_minutes": 60})
        assert answer.status_code == 200
        token = answer.json["token"]
        now = scrape()
        assert set(before) == set(now) == set(first)
        counted = [key for key in now if key[0].endswith(("_total", "_count", "_bucket"))]
        assert all(last[key] <= before[key] <= now[key] for key in counted)
        last = now
    assert last[RENEWED] == first[RENEWED] + RENEWALS
    assert sum(key[0] == EXPIRY for key in last) == 3
    expiries = {key: last[key] for key in last if key[0] == EXPIRY and last[key] != first[key]}
    assert list(expiries.values()) == [clock.now + 3600]
