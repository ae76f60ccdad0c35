"""The address of an issuer from the parts that a setting may have it in."""

import pytest

from flowauth_rotator.core.address import Address
from flowauth_rotator.core.errors import Misconfigured

HOST = "flowauth.example.org"
ADDRESSES = [  # host, port, schema: as Airflow's form, JSON, environment and URI give them
    ((f"https://{HOST}/", None, None), f"https://{HOST}"),
    ((f"https://{HOST}:443", None, ""), f"https://{HOST}"),
    ((f"http://{HOST}", 80, ""), f"http://{HOST}"),
    ((f"https://{HOST}/auth", 8443, None), f"https://{HOST}:8443/auth"),
    ((f" HTTPS://{HOST.upper()} \n", None, None), f"https://{HOST}"),
    ((HOST, None, None), f"https://{HOST}"),
    ((HOST, 9091, "http"), f"http://{HOST}:9091"),
    ((f"{HOST}:8443", 8443, "HTTPS"), f"https://{HOST}:8443"),
    ((f"{HOST}/auth", 443, "https"), f"https://{HOST}/auth"),
    (("::1", 9091, "http"), "http://[::1]:9091"),
    (("http://::1", 9091, ""), "http://[::1]:9091"),
    (("http://[0:0::1]:9091/auth", None, None), "http://[::1]:9091/auth"),
    ((f"https://{HOST}", 443, "auth"), f"https://{HOST}/auth"),
    ((f"https://{HOST}", 443, "a/b/"), f"https://{HOST}/a/b"),
    ((f"https://{HOST}", None, "https"), f"https://{HOST}"),
    ((f"https://{HOST}/a b", None, None), f"https://{HOST}/a%20b"),
    (("Bücher.example", 8443, None), "https://xn--bcher-kva.example:8443"),
    (("bu\u0308cher.example", None, None), "https://xn--bcher-kva.example"),
    (("東京.example", None, None), "https://xn--1lqs71d.example"),
    (("भारत.example", None, None), "https://xn--h2brj9c.example"),
    ((f"{HOST}.", None, None), f"https://{HOST}."),
    (("flow_auth", None, None), "https://flow_auth"),
]


@pytest.mark.parametrize(("parts", "url"), ADDRESSES)
def test_an_address_is_put_together_from_its_parts(parts, url):
    """Each part may stand in the host or in a field of its own."""
    assert Address.build(*parts).url == url
    assert Address.parse(url).url == url


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (("", 9091, "http"), "is empty"),
        ((None, None, None), "is empty"),
        ((f"{HOST}:8443", 9091, None), "has the port 8443, and the port is 9091"),
        ((f"http://{HOST}", None, "https"), "has the scheme 'http', and the schema is 'https'"),
        ((f"ftp://{HOST}", None, None), "has the scheme 'ftp'"),
        (("flow auth", None, None), "contains a blank at position 5"),
        (("flow\u200bauth", None, None), r"contains U\+200B ZERO WIDTH SPACE at position 5"),
        (("flow\nauth", None, None), "contains a line break at position 5"),
        (("  https://flow auth", None, None), "contains a blank at position 15"),
        (("\ufeffhttps://x", None, None), r"contains U\+FEFF .* at position 1"),
        (("https\u200b://x", None, None), r"contains U\+200B .* at position 6"),
        (("https://u:canary@x", None, None), "contains credentials"),
        (("https://u:canary@x/login?next=http://y", None, None), "contains credentials"),
        (("u:canary://x@y", None, None), "contains credentials"),
        (("https://u:12345/canary@y", None, None), "contains credentials"),
        (("https://u:pa#canary@y", None, None), "contains credentials"),
        (("https://u", None, "canary@y"), "contains credentials"),
        (("https://u:p?canary@y", None, None), "contains a query"),
        (("u:canary://x", None, None), "has an invalid scheme"),
        (("://x", None, None), "has an invalid scheme"),
        ((f"{HOST}/login?next=http://canary", None, None), "contains a query"),
        ((f"https://{HOST}/?a=canary", None, None), "contains a query"),
        ((f"https://{HOST}#canary", None, None), "contains a query or a fragment"),
        ((HOST, 99999, None), "has the port 99999"),
        ((f"{HOST}:99999", None, None), "has the port 99999"),
        ((f"{HOST}:x", None, None), "invalid host or port"),
        ((f"{HOST}:0", None, None), "has the port 0, which is not between 1 and 65535"),
        ((HOST, 0, None), "has the port 0, which is not between 1 and 65535"),
        ((f"{HOST}:0", 443, None), "has the port 0, and the port is 443"),
        (("https:/x", None, None), "has 'https:/' where the name of the host belongs"),
        (("HTTP//x", None, None), "has 'HTTP/' where the name of the host belongs"),
        (("https://http://x", None, None), "has 'http:/' where the name of the host belongs"),
        (("https", None, None), "has 'https' where the name of the host belongs"),
        (("https:x", None, None), "invalid host or port"),
        (("x%20y", None, None), "invalid host or port"),
        (("flow..example", None, None), "invalid host: between its dots are 1 to 63"),
        (("..", None, None), "invalid host: between its dots are 1 to 63"),
        (("x" * 64, None, None), "invalid host: between its dots are 1 to 63"),
        (("ü" * 63, None, None), "invalid host: between its dots are 1 to 63"),
        (("x." * 150, None, None), "has a host of more than 253 characters"),
        (("straße.example", None, None), "ambiguous in ASCII: write its form in xn--"),
        (("[::1", None, None), "invalid host or port"),
        (("https://", None, None), "invalid host or port"),
        (("https://:9091", None, None), "invalid host or port"),
    ],
)
def test_an_invalid_address_names_its_setting(parts, words):
    """On one line, and without what may be a password."""
    with pytest.raises(Misconfigured, match=words) as invalid:
        Address.build(*parts, setting="the host of connection c")
    assert invalid.value.message.startswith("The host of connection c ")
    assert "canary" not in str(invalid.value)
    assert "\n" not in str(invalid.value)
    assert "https://flowauth.example.org" in invalid.value.hint


@pytest.mark.parametrize(("schema", "shown"), [("auth", "'auth' "), ("a canary", ""), ("0", "")])
def test_a_schema_that_is_not_one_is_named_as_such(schema, shown):
    """The host has no scheme that could be at fault."""
    with pytest.raises(Misconfigured) as invalid:
        Address.build(HOST, None, schema, setting="the host of connection c")
    assert invalid.value.message == (
        f"The schema {shown}is neither http nor https, and the host of connection c has no scheme."
    )
    assert "write the whole address in the host" in invalid.value.hint


def test_a_whole_address_has_a_scheme():
    """That of another address in its query is not its own."""
    for text in (HOST, "", f"{HOST}/?next=http://x"):
        with pytest.raises(Misconfigured, match="--url does not begin with http:// or https://"):
            Address.parse(text, "--url")


def test_an_assumed_scheme_is_remembered():
    """For the error when nothing answers in https."""
    assert Address.build(HOST).is_scheme_assumed
    assert not Address.build(HOST, schema="https").is_scheme_assumed
    assert not Address.build(f"https://{HOST}").is_scheme_assumed
