"""Kill the worker of `t2i serve` again and again under load: every request is answered, with the picture that it asked.

    python benchmarks/serve/kill.py --kills 20 -- --model base --backend onnxruntime --precision fp32

Clients ask for pictures of a few captions and seeds, over and over; each answer must be the picture that was made
before the first kill. What stands behind -- goes to `t2i serve`.
"""

import argparse
import asyncio
import io
import json
import os
import random
import signal
import time
from statistics import median

import numpy as np
import served
from PIL import Image

CASES = 8
ROUNDING = 1  # levels of 255 that the size of a batch may change


def main() -> None:
    """Parse, run, print; exit status 1 where an answer was wrong or missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pause", type=float, default=1.0, help="longest seconds of work between two kills")
    parser.add_argument("options", nargs="*", help="of t2i serve, behind --")
    wanted = parser.parse_args()
    with served.serve(*wanted.options) as server:
        told = asyncio.run(run(server, wanted.kills, wanted.clients, wanted.pause))
    print(json.dumps(told, indent=2))
    raise SystemExit(bool(told["not_answered_with_200"] or told["other_pictures"]))


async def run(server: served.Served, kills: int, clients: int, pause: float) -> dict[str, object]:
    """Run, and say what was found."""
    dice = random.Random(0)
    cases = [served.body(captions=[served.caption(dice)], seed=seed) for seed in range(CASES)]
    expected, statuses, other, back = [], [], 0, []
    async with served.client(server.port) as one:
        for case in cases:
            expected.append(pixels((await one.post("/generate", case))[1]))
    stop = asyncio.Event()

    async def ask(number: int) -> None:
        nonlocal other
        async with served.client(server.port) as connection:
            place = number
            while not stop.is_set():
                place = (place + 1) % CASES
                status, answer = await connection.post("/generate", cases[place])
                statuses.append(status)
                other += status == 200 and int(np.abs(pixels(answer) - expected[place]).max()) > ROUNDING

    asking = [asyncio.create_task(ask(number)) for number in range(clients)]
    for _ in range(kills):
        await asyncio.sleep(dice.uniform(0.05, pause))
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        answered, start = len(statuses), time.perf_counter()
        while len(statuses) <= answered + clients:
            await asyncio.sleep(0.005)
            for task in asking:
                if task.done():
                    await task  # raises
        back.append(time.perf_counter() - start)
    stop.set()
    await asyncio.gather(*asking)
    return {
        "machine": served.machine(),
        "engines": server.engines,
        "kills": kills,
        "requests": len(statuses),
        "not_answered_with_200": len(statuses) - statuses.count(200),
        "other_pictures": other,
        "seconds_until_every_client_was_answered_median": round(median(back), 2),
        "seconds_until_every_client_was_answered_worst": round(max(back), 2),
    }


def pixels(png: bytes) -> "np.ndarray[tuple[int, ...], np.dtype[np.int16]]":
    """The pixels of a PNG."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"), np.int16)


if __name__ == "__main__":
    main()
