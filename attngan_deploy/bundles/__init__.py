"""Bundles: folders that run anywhere, found, checked and written."""
