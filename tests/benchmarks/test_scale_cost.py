"""The page of what scale costs: its tables are what the script makes of the figures that stand beside it."""

import json
from copy import deepcopy
from pathlib import Path

from benchmarks.speed.scale_cost import tables

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_has_the_tables_of_its_figures() -> None:
    found = json.loads((DOCS / "scale.json").read_text())
    page = (DOCS / "guide" / "scale.md").read_text()
    three = tables(found).split("\n\n")
    assert len(three) == 3 and all(table in page for table in three)
    assert found["machine"] in page


def test_a_machine_of_twice_the_speed_needs_half_the_hours() -> None:
    found = json.loads((DOCS / "scale.json").read_text())
    fast = deepcopy(found)
    for engine in fast["engines"]:
        engine["speeds"] = {name: [2 * speed for speed in values] for name, values in engine["speeds"].items()}
    fast["tar_bytes"] *= 3

    def billion(figures: dict[str, object]) -> list[str]:
        return next(line for line in tables(figures).split("\n\n")[1].splitlines() if "1,000,000,000" in line).split(
            "|"
        )

    slow_hours, fast_hours = (int(billion(each)[3].replace(",", "")) for each in (found, fast))
    assert abs(slow_hours - 2 * fast_hours) <= 1
    slow_disk, fast_disk = (float(billion(each)[6].split()[0]) for each in (found, fast))
    assert abs(fast_disk / slow_disk - 3) < 0.03
