"""Engines: `demo` needs nothing, `provider` calls a model over HTTP, `catalog` builds by name."""
