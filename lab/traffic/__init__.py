"""Clients of the lab's workloads, and the judge of what they saw."""
