"""Captions that are small as a file and large in memory, or long in work: memory that does not grow, and one line."""
