"""Files by place behave as in a dict, in little memory."""

import random
import tracemalloc

import pytest

from attngan_deploy.generate.placed_files import PlacedFiles

NAMES = ("{line:05d}_{sample:02d}.png", "pictures-00002.tar/{line:05d}_{sample:02d}.png")
NAMES += (
    "pictures-00011.tar/./{line:05d}_{sample:02d}.png",
    "other.png",
    "{line}_{sample}.webp",
    "x/{line:05d}_77.png",
)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_a_dict_in_order(seed: int) -> None:
    draw, samples = random.Random(seed), 3
    ours, theirs = PlacedFiles(samples, 5), dict[tuple[int, int], str]()
    for _ in range(3000):
        place = draw.randrange(9000), draw.randrange(samples + 2)
        if draw.random() < 0.2:
            assert ours.pop(place, "") == theirs.pop(place, "")
        else:
            line = place[0] + draw.choice((1, 1, 7))
            ours[place] = theirs[place] = draw.choice(NAMES).format(line=line, sample=place[1])
        assert (place in ours) == (place in theirs) and ours.get(place) == theirs.get(place)
    assert list(ours.items()) == sorted(theirs.items()) and len(ours) == len(theirs)
    with pytest.raises(KeyError):
        ours[10_000, 0]


def test_half_a_million_pictures_take_a_few_megabytes() -> None:
    tracemalloc.start()
    try:
        files = PlacedFiles(10, 6)
        for caption in range(50_000):
            for sample in range(10):
                files[caption, sample] = f"pictures-{caption // 100:05d}.tar/{caption + 1:06d}_{sample:02d}.png"
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert len(files) == 500_000 and files[49_999, 9] == "pictures-00499.tar/050000_09.png"
