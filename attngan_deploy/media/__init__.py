"""Captions and pictures as they are read and written."""
