"""Attention gates, their losses, and the explainers that they are compared with (proposal 2.3)."""
