"""The settings file: what may stand in it, read and checked, for the stacks and for the command."""
