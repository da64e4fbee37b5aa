"""Attacks, adversarial training and graded shifts (proposal 2.2.3)."""
