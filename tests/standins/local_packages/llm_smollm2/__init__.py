"""A stand-in for the package with the weights. As the real one, it cannot be imported here."""

raise ImportError("the real package imports libraries that are not installed")
