"""Tests of all rooms."""

from pathlib import Path

DATA = Path(__file__).with_name("data")
