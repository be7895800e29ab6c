"""The allow list: how it is written, and which URLs pass it, whatever parser they were written to deceive."""

import pytest

from interfaces.allowed_hosts import allowed_target, parse_allowed
from interfaces.errors import AttachmentUrlRefused, SettingsInvalid
from worker.settings import load_settings

ALLOWED = parse_allowed("files.example.org, *.cdn.example.org,http://plain.example.org, other.example.org:8443")


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://files.example.org", "files.example.org", 443, "/"),
        ("HTTPS://FILES.example.org:443/a%2fb?c=d&e#f", "files.example.org", 443, "/a%2fb?c=d&e"),
        ("https://a.cdn.example.org/x", "a.cdn.example.org", 443, "/x"),
        ("https://a.b.cdn.example.org/x", "a.b.cdn.example.org", 443, "/x"),
        ("http://plain.example.org/x", "plain.example.org", 80, "/x"),
        ("https://other.example.org:8443/x", "other.example.org", 8443, "/x"),
    ],
)
def test_what_is_listed_passes(url: str, host: str, port: int, path: str) -> None:
    target = allowed_target(url, ALLOWED)
    assert (target.host, target.port, target.path) == (host, port, path)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/",
        "https://cdn.example.org/",
        "https://evilcdn.example.org/",
        "https://files.example.org.evil.com/",
        "https://files.example.org./",
        "http://files.example.org/",
        "https://plain.example.org/",
        "https://files.example.org:80/",
        "https://files.example.org:22/",
        "https://files.example.org:0/",
        "https://other.example.org/",
        "https://user@files.example.org/",
        "https://user:secret@files.example.org/",
        "https://files.example.org@evil.com/",
        "https://evil.com\\@files.example.org/",
        "https://evil.com#@files.example.org/",
        "https://evil.com/files.example.org",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://localhost/",
        "https://files.example.org%00.evil.com/",
        "ftp://files.example.org/",
        "file:///etc/passwd",
        "//files.example.org/",
        "",
    ],
)
def test_everything_else_is_refused_and_its_path_never_repeated(url: str) -> None:
    with pytest.raises(AttachmentUrlRefused) as caught:
        allowed_target(url + ("?sig=hunter2" if url else ""), ALLOWED)
    assert "hunter2" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_a_list_nothing_is_fetched_and_the_error_names_the_setting() -> None:
    with pytest.raises(AttachmentUrlRefused, match="not in SWITCHBOARD_FETCH_FROM, which is empty"):
        allowed_target("https://files.example.org/", parse_allowed(""))


@pytest.mark.parametrize(
    "entry",
    ["*", "*.org", "example", "https://example.org/path", "ftp://example.org", "example.org:0", "example.org:65536",
     "127.0.0.1", "10.1", "a.0x7f", "[::1]", "user@example.org", "a.*.example.org", "bücher.example", "-.example.org"],
)  # fmt: skip
def test_entries_that_mean_no_host_are_faults_of_the_setting(entry: str) -> None:
    with pytest.raises(SettingsInvalid, match="SWITCHBOARD_FETCH_FROM: "):
        load_settings(fetch_from=f"files.example.org,{entry}")
