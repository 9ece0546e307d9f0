"""Handlers of the probe's Lambda functions."""
