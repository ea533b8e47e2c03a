"""Metrics, a file each: functions of arrays, the paper that each comes from, and a `METRIC` that says the rest."""
