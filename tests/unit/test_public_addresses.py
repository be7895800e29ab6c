"""Which addresses a stranger's URL may lead to: a table, and the standard library's own opinion as a lower bound."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.public_addresses import is_public


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.215.14", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1",
     "169.253.1.1", "192.167.255.255", "198.17.255.255", "223.255.255.255", "168.63.129.17",
     "2606:4700::1111", "2a00:1450:4001::200e", "2400:cb00::1", "2001:200::1"],
)  # fmt: skip
def test_what_anybody_may_have_been_given_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("0.0.0.0", "unspecified"), ("0.1.2.3", "this network"),  # noqa: S104 - nothing is bound to it
        ("10.0.0.1", "private"), ("172.16.0.1", "private"), ("172.31.255.255", "private"), ("192.168.1.1", "private"),
        ("100.64.0.1", "carrier-grade NAT"), ("100.100.100.200", "carrier-grade NAT, a cloud's metadata"),
        ("127.0.0.1", "loopback"), ("127.255.255.254", "loopback"),
        ("169.254.169.254", "link-local, the metadata of most clouds"),
        ("192.0.0.192", "protocols, a cloud's metadata"), ("168.63.129.16", "a cloud's own services"),
        ("192.0.2.1", "example"), ("198.51.100.1", "example"), ("203.0.113.1", "example"),
        ("198.18.0.1", "benchmarks"), ("192.88.99.1", "6to4 relay"),
        ("224.0.0.1", "multicast"), ("239.255.255.250", "multicast"), ("240.0.0.1", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"), ("::1", "loopback"),
        ("::ffff:127.0.0.1", "mapped loopback"), ("::ffff:8.8.8.8", "mapped, of a public address too"),
        ("::ffff:0:8.8.8.8", "translated"), ("::8.8.8.8", "compatible"), ("::127.0.0.1", "compatible loopback"),
        ("64:ff9b::7f00:1", "NAT64 of loopback"), ("64:ff9b::8.8.8.8", "NAT64"), ("64:ff9b:1::a00:1", "local NAT64"),
        ("2002:7f00:1::", "6to4 of loopback"), ("2002:808:808::1", "6to4"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"), ("2001:20::1", "ORCHID"), ("2001:db8::1", "example"),
        ("2606:4700::5efe:127.0.0.1", "ISATAP of loopback"), ("2606:4700::200:5efe:10.0.0.1", "ISATAP"),
        ("3fff::1", "example"), ("100::1", "discarded"), ("5f00::1", "segment routing"),
        ("fc00::1", "private"), ("fd00:ec2::254", "private, a cloud's metadata"),
        ("fe80::1", "link-local"), ("fe80::1%eth0", "link-local"), ("fec0::1", "site-local"), ("ff02::1", "multicast"),
        ("2606:4700::1111%eth0", "with a zone"),
        ("example.org", "no address"), ("", "no address"), ("0x7f.1", "no address"), ("127.1", "no address"),
        ("017700000001", "no address"), ("[::1]", "no address"),
    ],
)  # fmt: skip
def test_everything_else_is_not(address: str, why: str) -> None:
    assert not is_public(address), why


@given(st.ip_addresses())
def test_no_address_is_public_that_the_standard_library_says_is_not(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert not is_public(str(address))


@given(st.ip_addresses(v=4))
def test_no_form_of_ipv6_brings_an_ipv4_address_along(address: IPv4Address) -> None:
    number = int(address)
    forms = [0xFFFF << 32 | number, number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80 | 1]
    assert [str(ip_address(form)) for form in forms if is_public(str(IPv6Address(form)))] == []
