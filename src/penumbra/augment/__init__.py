"""Cases to views: anatomy-aware families, batched, deterministic given their parameters."""
