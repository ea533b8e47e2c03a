"""The cards that a bundle carries, written from its manifest."""
