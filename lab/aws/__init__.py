"""The lab's AWS: moto behind our own middleware, with what moto lacks beside it."""

ACCOUNT_ID = "123456789012"
"""The one account of every lab; moto's own."""
