"""Tools of the project's own: preparing a machine, drawing the workflow."""
