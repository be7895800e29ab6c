"""Which IP addresses lie on the public internet, so that a stranger's URL may lead there.

A table of our own rather than `ipaddress.is_global`, whose answers have changed between Python's patch releases. Of
IPv6 only what is given out to the public is taken, so that every form with an IPv4 address inside (mapped, NAT64, 6to4,
Teredo, ISATAP) is refused whatever that address is. Used by the fetching of URLs.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_NOT_PUBLIC_4: Final = [
    IPv4Network(network)
    for network in (
        # https://www.iana.org/assignments/iana-ipv4-special-registry
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        # Not in the registry: Azure's own services answer every virtual machine here.
        "168.63.129.16/32",
    )
]  # fmt: skip

_PUBLIC_6: Final = IPv6Network("2000::/3")

_NOT_PUBLIC_6: Final = [
    # https://www.iana.org/assignments/iana-ipv6-special-registry: protocols' own (Teredo among them), examples, 6to4.
    IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]

_ISATAP: Final = 0x5EFE
"""The third and fourth byte of an interface identifier that ends with an IPv4 address (RFC 5214)."""


def is_public(text: str) -> bool:
    """Whether `text` is an IP address that anybody on the internet may have been given; False for what is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return _is_public_6(address)


def _is_public_6(address: IPv6Address) -> bool:
    if address.scope_id is not None or address not in _PUBLIC_6:
        return False
    if int(address) >> 32 & 0xFFFF == _ISATAP:
        return False
    return not any(address in network for network in _NOT_PUBLIC_6)
