"""What a scraper reads, held to what Prometheus expects of it."""

from __future__ import annotations

import subprocess
import urllib.request
from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from demo.parts import WAIT_LIMIT

EXPIRY = "flowauth_renewal_server_token_expiration_timestamp_seconds"
RENEWALS = "flowauth_renewal_server_renewals_total"
WITHOUT_SUCCESSOR = "flowauth_renewal_server_name_without_successor"

Series = tuple[str, frozenset[tuple[str, str]]]


def scraped(url: str, data_dir: Path) -> str:
    """The answer to a scrape of a server, over a connection of its own."""
    token = (data_dir / "metrics.token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{url}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=WAIT_LIMIT) as answer:
        return answer.read().decode()


def series(text: str) -> dict[Series, float]:
    """Each series with its value; none is there twice, nor the head of a family."""
    samples = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    heads = [" ".join(line.split()[:3]) for line in text.splitlines() if line.startswith("#")]
    for found in ([key for key, _ in samples], heads):
        assert [each for each, times in Counter(found).items() if times > 1] == []
    return dict(samples)


def counters(found: dict[Series, float]) -> dict[Series, float]:
    """What must not fall from one scrape to the next."""
    ends = ("_total", "_count", "_sum", "_bucket")
    return {key: value for key, value in found.items() if key[0].endswith(ends)}


def by_name(found: dict[Series, float], metric: str) -> dict[str, float]:
    """The values of a metric by the names of tokens."""
    return {
        dict(labels)["name"]: value for (name, labels), value in found.items() if name == metric
    }


def renewals(found: dict[Series, float], result: str) -> float:
    """How many requests to renew had this result."""
    return found[RENEWALS, frozenset({("result", result)})]


def check(promtool: Path, text: str) -> None:
    """Let Prometheus's own tool look for what it would not take, or would not like."""
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
