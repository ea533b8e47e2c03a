"""Engines: each runs one graph of a bundle, and shows what it is worth: golden pictures, speed, and what is missing."""
