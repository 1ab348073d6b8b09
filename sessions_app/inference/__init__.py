"""The inference core: turns, events, engines and the runner. Pure Python, no Django."""
