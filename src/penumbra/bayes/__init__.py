"""Posteriors over decoder weights, their draws, and what the draws say (proposal 2.2)."""
