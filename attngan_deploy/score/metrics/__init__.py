"""Metrics, a file each: functions of arrays, with the paper that each comes from."""
