"""Which addresses a client may make the gateway connect to."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_gateway.address_policy import AddressPolicy, is_public

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001::1",
          "64:ff9b::808:808", "::ffff:8.8.8.8"]  # fmt: skip
NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "127.0.0.1", "127.255.0.1",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "224.0.1.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255",
    "::", "::1", "::2", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_pass(text: str) -> None:
    assert is_public(ip_address(text))
    assert AddressPolicy().choose("host", 80, [text])


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_no_other_address_passes(text: str) -> None:
    assert not is_public(ip_address(text))
    assert AddressPolicy().choose("host", 80, [text]) is None


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_judged_like_what_it_maps(address: object) -> None:
    assert is_public(ip_address(f"::ffff:{address}")) == is_public(ip_address(str(address)))


def test_one_bad_address_spoils_a_host() -> None:
    policy = AddressPolicy()
    assert policy.choose("host", 80, ["1.1.1.1", "8.8.8.8"]) == "1.1.1.1"
    assert policy.choose("host", 80, ["1.1.1.1", "10.0.0.1"]) is None
    assert policy.choose("host", 80, []) is None


@pytest.mark.parametrize(
    ("entry", "host", "port", "allowed"),
    [
        ("images", "images", 80, True),
        ("images", "IMAGES.", 443, True),
        ("images:9000", "images", 9000, True),
        ("images:9000", "images", 80, False),
        ("images", "other", 80, False),
        ("images", "sub.images", 80, False),
        ("127.0.0.1:80", "127.0.0.1", 80, True),
        ("127.0.0.1:80", "127.0.0.1", 81, False),
        ("[::1]:80", "::1", 80, True),
        ("::1", "::1", 80, True),
        ("[::1]:80", "::1", 81, False),
    ],
)
def test_private_hosts_are_allowed_by_name_and_port(
    entry: str, host: str, port: int, allowed: bool
) -> None:
    policy = AddressPolicy(private_hosts=(entry,))
    assert policy.allows_private(host, port) is allowed
    assert (policy.choose(host, port, ["127.0.0.1"]) is not None) is allowed


@pytest.mark.parametrize(
    ("domains", "host", "allowed"),
    [
        ((), "anything.example", True),
        (("example.com",), "example.com", True),
        (("example.com",), "EXAMPLE.com.", True),
        (("example.com",), "cdn.example.com", True),
        (("example.com",), "badexample.com", False),
        (("example.com",), "example.com.evil.net", False),
        (("example.com", "x.org"), "x.org", True),
    ],
)
def test_domains(domains: tuple[str, ...], host: str, allowed: bool) -> None:
    assert AddressPolicy(domains=domains).allows_host(host) is allowed
