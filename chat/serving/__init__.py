"""How a server process listens, runs and goes: what `manage.py serve` is made of."""
