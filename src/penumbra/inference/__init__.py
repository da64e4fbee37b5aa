"""Scans to maps: draws over a case, and the files that come of it."""
