"""Says what must be true of every published container image, plans what is not, builds it, proves it."""

__version__ = "0.1.0"
