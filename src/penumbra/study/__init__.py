"""The experiment matrix: arms x label fractions x seeds, aggregated into five verdicts."""
