"""The lab's AWS: moto behind our own middleware, with what moto lacks beside it."""
