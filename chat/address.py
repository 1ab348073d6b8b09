"""From where somebody asks, as far as that can be trusted."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

UNKNOWN = "unknown"


def client_address(peer: str | None, forwarded_for: str, *, trusted_proxies: int) -> str:
    """What stands for the client in the limits: an IPv4 address, or an IPv6 network of 64 bits.

    `peer` is who has opened the connection. Each proxy of ours appends to `X-Forwarded-For` whom it
    was called by, so the client is as many places from its end; what stands before was sent by the
    client, who may have made it up. With no proxy of ours the header says nothing.
    """
    hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()]
    found = hops[-trusted_proxies] if 0 < trusted_proxies <= len(hops) else peer
    try:
        address = ip_address((found or "").split("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        # Whoever has one address of a network usually has all of it.
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
