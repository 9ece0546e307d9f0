"""Other people's Redis clients beside each other while groups are rolled: `make bench-clients`."""
