"""Self-supervised objectives: contrast, region and protocol (proposal 2.1)."""
