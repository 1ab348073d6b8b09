"""A client of the protocol for a terminal: what `manage.py sessions` is made of."""
