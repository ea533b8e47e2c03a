"""docs/performance.md from benchmarks/speed/performance.json, and the table of the README.

python benchmarks/speed/performance_page.py > docs/performance.md
python benchmarks/speed/performance_page.py --readme
"""

import argparse
import json
from pathlib import Path
from typing import Any

from generation_lines import EAGER, SIDES

ROOT = Path(__file__).resolve().parents[2]
MEASURED = Path(__file__).with_name("performance.json")
FAMILIES = Path(__file__).with_name("families.json")
FASTEST = "OpenVINO int8"
COMMANDS = """```
t2i export --bundle base --precision int8 -o base-int8
python benchmarks/speed/generation_speed.py --int8 base-int8 --captions data/test.tar --threads 2 \\
    --rounds 3 --only engines,commands,first,profiles --command openvino/int8,openvino/bf16 \\
    --json benchmarks/speed/performance.json
python benchmarks/speed/generation_speed.py --captions data/test.tar --threads 2 --rounds 3 \\
    --only memory --command openvino/bf16 --counts 10,100,1000,10000,100000 --json benchmarks/speed/performance.json
python benchmarks/speed/performance_page.py > docs/performance.md
```"""
COLUMNS = {
    "of_eager_best": "published network at its best batch",
    "of_eager_100": "published network, batch 100",
    "of_plain": "plain export in ONNX Runtime",
    "of_roofline": "of the roofline of its precision",
    "whole_of_alone": "whole command : engine alone",
    "after_start_of_alone": "the same without start-up",
    "whole_of_eager_best": "whole command : published network at its best batch",
    "whole_of_eager_100": "whole command : published network, batch 100",
    "first_of_limit": "shell prompt to first picture, of the 1.0 s allowed",
    "one_caption_of_engine": "one caption : engine alone, batch 1",
    "peak_of_limit": "peak memory, of the 350 MB allowed",
    "start_of_base": "start-up, of that of the second row",
    "each_of_base": "cost of a picture, of that of the second row",
}
LINES = """
- **published network, eager torch**: the `base` generator as a network of torch with BatchNorms, GLUs, nearest
  upsampling and attention as published, float32, default layout, noise drawn for each batch, pictures denormalised one
  by one. At batch 100, the published code's own, and at the fastest of 4, 8, 16 and 32.
- **plain torch.onnx.export**: that network through `torch.onnx.export` at each batch size, in ONNX Runtime with a loop.
- **ONNX Runtime, OpenVINO**: text features and noise to uint8 pictures with what `t2i generate` runs, at the fastest of
  4, 8, 16 and 32.
- **batches side by side**: a batch of 4 a thread, as `t2i generate` makes 512 pictures or more in OpenVINO. The other
  lines have all threads work on one batch, which is what a short command does.
- **roofline**: multiplications a second of a product of 2048 x 2048 matrices in the same precision, on the same
  threads, in the same round (torch in fp32 and bf16; OpenVINO in int8, quantising included), over the generator's
  multiply-adds after the exact rewrites.
- **whole command**: `t2i generate` from the shell's prompt to its end: start of Python, text encoder, pictures, PNG
  files with their metadata, manifest. "Engine alone" beside it is the faster of both forms in the same round."""
BESIDE = """
What else a picture costs, each stage alone, as parts of the generator's time for it. The text encoder runs on all
threads; noise, PNG and files on one. Side by side, no batch waits for another's core, so that these costs add up and
nothing more: at the speed of int8, PNG and files are a third of one core's time for a picture."""
NUMBERS = """What grows with captions is some 0.6 kB each: their text and words, and the names of their files;
`--shard` reads captions in parts. "Start-up" is all but making pictures: reading, hashing and tokenizing captions, and
the manifest at the end: some 20 microseconds a caption beside the milliseconds of its picture. The first row's cost of
a picture is that of the first batches."""
LOST = {
    "Transposed convolution in ONNX Runtime": ("0.9 x with several threads (on a Xeon): OpenVINO alone is rewritten"),
    "Two streams of one thread instead of one of two, OpenVINO": (
        "1.00 to 1.06 x alone when first tried, but 1.1 to 1.3 x in the whole command, where nothing waits for a core "
        "that writes a PNG: taken for 512 pictures or more; batches of 4 take an eighth less memory than batches of 8"
    ),
    "Every output of the graph, pictures made beside them": (
        "1.02 x slower in fp32, 1.05 x in bf16: pictures have a graph of their own"
    ),
    "int8 as the file has it (uint8 with zero points, floats in fp32)": (
        "1.4 x slower than int8 around zero with bf16 beside it, and 2.4 dB less like fp32, as it also rounds"
        " what is only added"
    ),
    "Every convolution in int8, those that the export keeps in floats too": ("1.08 x faster, 2.3 dB lower: not taken"),
    "Last upsampling and `to_image` as four phases of 64 x 64 (space to depth)": (
        "1.10 x faster in int8, 1.03 x in bf16, nothing in fp32: not taken yet, as it fits this network only"
    ),
    "A text encoder with idle threads that wait busily": (
        "it takes the generator's cores after each batch: one caption took 1.9 to 2.1 x the engine's time, "
        "1.2 x without"
    ),
    "A text encoder with one thread": ("1.5 x slower encoding: two threads that do not wait busily are better"),
    "Captions of every length in OpenVINO, and an arena for the text encoder": (
        "peak memory of 1.35 x 350 MB at 10,000 captions, as memory is kept for every shape; lengths in steps of 8 and "
        "no arena: 0.93 x at 2,500"
    ),
    "A thread for PNG and files beside two of the engine on one batch": (
        "the engine's threads wait for each other: the command has 0.8 x its speed after the start"
    ),
    "glibc's allocator as it is": (
        "a tenth more memory, as it keeps what was freed; giving it back costs 1 % of the command's speed"
    ),
    "PNG by Pillow, level 3 (before)": (
        "3.7 x slower than rows that differ from the one above with run lengths, 3 % smaller"
    ),
    "PNG by Pillow, level 1, run lengths": ("2.4 x slower, 11 % smaller"),
}


def main() -> None:
    """Print the page, or the README's table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--readme", action="store_true")
    told = json.loads(MEASURED.read_text(encoding="utf-8"))
    print(readme_table(told) if parser.parse_args().readme else page(told))


def targets(told: dict[str, Any]) -> list[tuple[str, float, float, bool]]:
    """What was asked for: words, wanted, found, met."""
    rows, whole = best_forms(told), told["commands"]["rows"][FASTEST]
    at_least = [
        ("engine alone : published network at its best batch", 8, rows[FASTEST]["of_eager_best"]),
        ("engine alone : published network, batch 100", 15, rows[FASTEST]["of_eager_100"]),
        ("engine alone : plain export in ONNX Runtime fp32", 3, rows[FASTEST]["of_plain"]),
        ("whole command : published network at its best batch", 8, whole["whole_of_eager_best"]),
        ("whole command : published network, batch 100", 15, whole["whole_of_eager_100"]),
        ("OpenVINO fp32, of the fp32 roofline", 0.7, rows["OpenVINO fp32"]["of_roofline"]),
        ("OpenVINO bf16, of the bf16 roofline", 0.5, rows["OpenVINO bf16"]["of_roofline"]),
        ("OpenVINO int8, of the int8 roofline", 0.5, rows[FASTEST]["of_roofline"]),
        ("whole command : engine alone", 0.85, whole["whole_of_alone"]),
    ]
    at_most = []
    if "first" in told:
        first = told["first"]["rows"]
        slowest = max(row["one_caption_of_engine"] for row in first.values())
        at_most += [
            ("shell prompt to first picture, base install, s", 1.0, first["ONNX Runtime fp32"]["first_of_limit"]),
            ("the same, slowest engine, s", 1.0, max(row["first_of_limit"] for row in first.values())),
            ("one caption, loaded : engine at batch 1, slowest engine", 1.5, slowest),
        ]
    if "memory" in told:
        memory = list(told["memory"]["rows"].values())
        at_most += [
            ("peak memory, of 350 MB", 1.0, max(row["peak_of_limit"] for row in memory)),
            ("cost of a picture, most captions : second row", 1.1, memory[-1]["each_of_base"]),
            ("start-up, most captions : second row", 1.5, memory[-1]["start_of_base"]),
        ]
    met = [(f"{words}, at least", wanted, found, found >= wanted) for words, wanted, found in at_least]
    return met + [(f"{words}, at most", wanted, found, found <= wanted) for words, wanted, found in at_most]


def best_forms(told: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Rows of engines, each in the faster of its two forms: all threads on one batch, or batches side by side."""
    rows: dict[str, dict[str, float]] = {}
    for name, row in told["engines"]["rows"].items():
        plain = name.removesuffix(SIDES)
        if plain not in rows or row["of_roofline"] > rows[plain]["of_roofline"]:
            rows[plain] = row
    return rows


def readme_table(told: dict[str, Any]) -> str:
    """Engines alone, three columns."""
    lines = ["| engine | published network at its best batch | at its batch of 100 | plain export |"]
    lines.append("| --- | ---: | ---: | ---: |")
    for name, row in best_forms(told).items():
        cells = [f"{row[column]:.1f} x" for column in ("of_eager_best", "of_eager_100", "of_plain")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(told: dict[str, Any]) -> str:
    """The whole page."""
    parts = ["# Speed of generation", COMMANDS, f"Ratios, medians over rounds, on {told['engines']['machine']}.", LINES]
    parts += ["## Targets", _targets(told), _why(told), "## Engines alone", _table(told["engines"]["rows"])]
    count, rounds = told["commands"]["captions"], told["commands"]["rounds"]
    parts += [f"## Whole commands ({count:,} captions, {rounds} rounds)", _table(told["commands"]["rows"])]
    if "stages" in told["profiles"]:
        parts += [BESIDE, _table(told["profiles"]["stages"]), _whole(told)]
    if "first" in told:
        parts += ["## First picture", _table(told["first"]["rows"])]
    if "memory" in told:
        parts += [f"## Number of captions ({told['memory']['line']})", _table(told["memory"]["rows"]), NUMBERS]
    else:
        parts += ["## Number of captions", "Not measured since memory was last worked on: `--only memory` measures it."]
    parts += ["## Where the time goes in OpenVINO, per cent", _table(told["profiles"]["rows"]), _layers(told)]
    parts.append(_families())
    return "\n\n".join([*(part.strip() for part in parts), "## What was tried and lost", _lost()])


def _lost() -> str:
    rows = [f"| {what} | {number} |" for what, number in LOST.items()]
    return "\n".join(["| tried | number |", "| --- | --- |", *rows])


def _targets(told: dict[str, Any]) -> str:
    lines = ["| target | wanted | measured | |", "| --- | ---: | ---: | --- |"]
    lines += [
        f"| {words} | {wanted:g} | {found:g} | {'met' if met else 'missed'} |"
        for words, wanted, found, met in targets(told)
    ]
    return "\n".join(lines)


def _why(told: dict[str, Any]) -> str:
    """What the targets against the published network would need of the processor."""
    rows, peak = best_forms(told), told["engines"]["peak_of_fp32_peak"]
    eager, hundred = rows[EAGER]["of_roofline"], rows[EAGER]["of_roofline"] / rows[EAGER]["of_eager_100"]
    int8, reached = peak["int8"], rows[FASTEST]["of_roofline"]
    return (
        f"The published network itself reaches {eager:.0%} of the fp32 roofline at its best batch here, and "
        f"{hundred:.0%} at batch 100. 8 and 15 times that are {8 * eager:.1f} and {15 * hundred:.1f} fp32 rooflines; a "
        f"product of matrices is {peak['bf16']:.1f} times as fast in bf16 and {int8:.1f} times in int8. So they would "
        f"need {8 * eager / int8:.0%} and {15 * hundred / int8:.0%} of the int8 roofline, with everything in int8; "
        f"{reached:.0%} was reached. The profile below says what the rest is."
    )


def _whole(told: dict[str, Any]) -> str:
    """What the stages of a whole command add up to, next to what was measured."""
    lines = []
    for name, stages in told["profiles"]["stages"].items():
        if name in told["commands"]["rows"]:
            single = stages["noise"] + stages["PNG, files and manifest"]
            found = told["commands"]["rows"][name]["after_start_of_alone"]
            sum_of = 1 / (1 + stages["text encoder"] + single / told["profiles"]["threads"])
            lines.append(
                f"- {name}: {sum_of:.2f} of the engine alone by that sum, {found:.2f} measured after start-up."
            )
    return "\n".join(lines)


def _table(rows: dict[str, dict[str, float]]) -> str:
    columns = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(COLUMNS.get(column, column) for column in columns)} |"]
    lines.append(f"| --- |{' ---: |' * len(columns)}")
    lines += [f"| {name} | {' | '.join(f'{row[column]:g}' for column in columns)} |" for name, row in rows.items()]
    return "\n".join(lines)


def _layers(told: dict[str, Any]) -> str:
    lines = [
        f"- {name}: " + ", ".join(f"`{layer}` {share:g}" for layer, share in list(layers.items())[:10]) + "."
        for name, layers in told["profiles"]["layers"].items()
    ]
    return "The ten largest layers:\n\n" + "\n".join(lines)


def _family_rows(column: str) -> str:
    told = json.loads(FAMILIES.read_text())
    lines = ["| | " + " | ".join(told["rows"]["DM-GAN"]) + " |", "| --- | ---: | ---: |"]
    for family, row in told["rows"].items():
        lines.append(f"| {family}, 128 px | " + " | ".join(f"{each[column]:g}" for each in row.values()) + " |")
    return "\n".join(lines)


def _families() -> str:
    told = json.loads(FAMILIES.read_text())
    return f"""## DM-GAN and DF-GAN

```
python benchmarks/speed/families.py > benchmarks/speed/families.json
```

Engine : eager torch of the same network as its authors wrote it, in processor time of one thread, on {told["cpu"]}:
{told["pictures"]} pictures of 128 px, width 32, random weights, as none of the published ones were here; medians of
{told["rounds"]} rounds.

{_family_rows("of_eager")}

DM-GAN has its batch norms folded and its GLUs split, as AttnGAN, and the first convolution of each later stage, which
is given the same features twice, takes them once with summed weights. DF-GAN has no batch norm, and its affine layers
are those of each picture; its first fusion and the convolution on its shortcut are computed before the map is doubled,
with a quarter of the work. In OpenVINO, doubling and the convolution behind it are one transposed convolution."""


if __name__ == "__main__":
    main()
