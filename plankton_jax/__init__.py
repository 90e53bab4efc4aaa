"""Plankton image classification in JAX: flat and hierarchical, from images to a page."""

__version__ = "0.1.0"
