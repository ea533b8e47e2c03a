"""Weights from elsewhere: published files, what torch saved, and bundles that ship; none of them runs code."""
