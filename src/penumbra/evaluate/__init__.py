"""Judging any network: arrays in, numbers with intervals out (proposal 2.4.3, 3.1)."""
