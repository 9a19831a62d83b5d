"""Which addresses of the web may be fetched, and where their names may lead."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from embedded.services import CLOSED
from labelloop.errors import SettingsError
from sync.images.hosts import Hosts, Target, parse_hosts

ROOT = Path(__file__).parents[3]


def hosts(*words: str, private: bool = False) -> Hosts:
    return parse_hosts(words, private=private)


@pytest.mark.parametrize(
    ("words", "url"),
    [
        (("images.example.com",), "https://images.example.com/a.png"),
        (("images.example.com",), "http://images.example.com/a.png"),
        (("images.example.com",), "http://images.example.com:80/a.png"),
        (("Images.Example.com",), "https://IMAGES.example.COM./a.png"),
        (("images.example.com:8443",), "https://images.example.com:8443/a.png?x=1#y"),
        (("10.0.0.5",), "http://10.0.0.5/a.png"),
        (("[fd00::1]:8080",), "http://[fd00::1]:8080/a.png"),
        (("bücher.example",), "https://xn--bcher-kva.example/a.png"),
    ],
)
def test_a_listed_host_is_allowed(words: tuple[str, ...], url: str) -> None:
    assert isinstance(hosts(*words).target(url), Target)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/a.png",
        "https://images.example.com.evil.example/a.png",
        "https://evil.example/images.example.com",
        "https://a.images.example.com/a.png",
        "https://images.example.com:8080/a.png",
        "https://images.example.com:80/a.png",  # not the port of https
        "https://images.example.com@evil.example/a.png",
        "https://evil.example#@images.example.com/a.png",
        "https://evil.example\\@images.example.com/a.png",
        "https://user:password@images.example.com/a.png",
        "http://images.example.com:99999/a.png",
        "http:///a.png",
        "http://images.example.com /a.png",
        "ftp://images.example.com/a.png",
        "file:///etc/passwd",
        "//images.example.com/a.png",
    ],
)
def test_anything_else_is_refused_in_words(url: str) -> None:
    assert isinstance(hosts("images.example.com").target(url), str)
    assert isinstance(hosts().target(url), str)


def test_a_refusal_names_host_and_remedy_but_no_signature() -> None:
    why = hosts().target("https://images.example.com:8443/a.png?signature=secret")
    assert why == (
        "https://images.example.com:8443/a.png is on images.example.com:8443, which is not allowed; add it to "
        "LABELLOOP_IMAGE_HOSTS"
    )


PRIVATE = ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1", "0.0.0.0", "::1", "fd00::1", "::",
           "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1", "240.0.0.1",
           "255.255.255.255", "ff02::1"]  # fmt: skip
PRIVATE += ["::7f00:1", "::ffff:0:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::10.0.0.1", "64:ff9b:1::5db8:d822",
            "2002:a00:1::1", "2001:0:0a00:1::", "2001:0:5db8:d822:0:0:f5ff:fffe", "2606:2800::5efe:10.0.0.1", "fec0::1",
            "2001:db8::1", "3fff::1", "192.0.0.5", "5f00::1"]  # fmt: skip
LINK_LOCAL = ["169.254.169.254", "fe80::1"]
METADATA = [
    "::ffff:169.254.169.254", "::169.254.169.254", "::ffff:0:169.254.169.254", "64:ff9b::169.254.169.254",
    "64:ff9b:1::169.254.169.254", "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1:0:a9:fea9:fe00:0",
    "2002:a9fe:a9fe::1", "2001:0:5db8:d822:0:0:5601:5601", "2001:0:a9fe:a9fe::1", "2606:2800::5efe:a9fe:a9fe",
    "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42", "100.100.100.200", "::ffff:100.100.100.200",
    "64:ff9b::100.100.100.200", "168.63.129.16", "192.0.0.192",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE + LINK_LOCAL + METADATA)
def test_a_name_may_not_lead_to_an_address_that_is_not_public(address: str) -> None:
    target = Target("https", "images.example.com", 443)
    why = hosts("images.example.com").refusal(target, ipaddress.ip_address(address))
    assert why is not None
    assert "is not public" in why


@pytest.mark.parametrize(
    "address",
    [
        "93.184.216.34",
        "2606:2800:220:1:248:1893:25c8:1946",
        "64:ff9b::5db8:d822",
        "::ffff:93.184.216.34",
        "2002:5db8:d822::1",
        "192.0.1.1",
        "100.128.0.1",
    ],
)
def test_a_name_may_lead_to_a_public_address(address: str) -> None:
    target = Target("https", "images.example.com", 443)
    assert hosts("images.example.com").refusal(target, ipaddress.ip_address(address)) is None


def test_private_addresses_can_be_allowed_but_never_those_of_the_cloud_by_name() -> None:
    target, open_ = Target("http", "nas", 80), hosts("nas", private=True)
    assert open_.refusal(target, ipaddress.ip_address("192.168.0.7")) is None
    for address in LINK_LOCAL + METADATA:
        assert open_.refusal(target, ipaddress.ip_address(address)) is not None


def test_an_address_that_is_listed_itself_was_meant() -> None:
    found = hosts("127.0.0.1:8000").target("http://127.0.0.1:8000/a.png")
    assert isinstance(found, Target)
    assert hosts("127.0.0.1:8000").refusal(found, ipaddress.ip_address("127.0.0.1")) is None


@pytest.mark.parametrize("word", ["https://host", "*.example.com", "host/path", "host:port", "user@host", "a b",
                                  "host#x", "host?x", "host:0"])  # fmt: skip
def test_an_entry_that_is_no_host_is_refused(word: str) -> None:
    with pytest.raises(SettingsError, match="LABELLOOP_IMAGE_HOSTS"):
        hosts(word)


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/kubernetes/components/label-studio/label-studio.yaml"])
def test_label_studio_itself_is_kept_from_the_same_addresses_everywhere(file: str) -> None:
    assert f'USER_ADDITIONAL_BANNED_SUBNETS: "{CLOSED}"' in (ROOT / file).read_text()


@pytest.mark.parametrize("address", [a for a in METADATA + LINK_LOCAL if not a.startswith("::169")])
def test_label_studio_is_kept_from_metadata_however_it_is_written(address: str) -> None:
    found = ipaddress.ip_address(address)
    isatap = "5efe" in address  # a network of the operator's own making
    assert isatap or any(found in ipaddress.ip_network(net) for net in CLOSED.split(","))
