"""Penumbra: medical-image models that say what they see and draw the half-shadow honestly."""

__version__ = "0.1.0"
