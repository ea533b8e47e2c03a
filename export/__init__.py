"""Export: a checkpoint becomes a verified bundle. Needs the `train` extra."""
