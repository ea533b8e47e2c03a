"""Tests of all rooms."""

import os
from pathlib import Path

DATA = Path(__file__).with_name("data")

# What the tests compute is small: one thread of numpy and torch is faster than several, which wait for each other, and
# on a busy machine for long. These must be set before either is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
