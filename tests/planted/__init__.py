"""Faults of the product, planted on purpose, to see which tests find them: `make planted`."""
