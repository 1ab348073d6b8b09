"""Stand-ins: small servers that speak a provider's wire over real HTTP on loopback."""
