"""Scores of pictures: metrics as functions of arrays, the judge, and the passport that travels with a score."""
