"""Deterministic network blocks: encoder, decoder, heads."""
