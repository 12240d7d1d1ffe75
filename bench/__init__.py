"""Measurements. What they found is in docs/figures.md."""
