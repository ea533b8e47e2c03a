"""Metrics, a file each: functions of arrays, the paper that each comes from, and a `METRIC` that says the rest.

A new one is a file here with its `METRIC`, and a line in `registry.py`.
"""
