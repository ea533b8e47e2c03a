"""Marks of a list in front of captions, and lines of a text that are none of them."""

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.caption import KINDS
from attngan_deploy.media.caption_kind import PICTURE, PICTURE_FILE, made_anew

# What people and chat programs put in front of each line: a number or letter, or a sign that is no word.
MARKS = (
    *(
        rf"\*{{0,2}}\d+\.\*{{0,2}}(\s+|(?!{PICTURE}\b)(?=[^\W\d_]))",
        r"\*{0,2}\d+\)\*{0,2}(\s+|(?=[^\W\d_]))",
        r"\d+\t\s*",
        r"\d+[,;|]\s*(?=[^\W\d_])",
    ),
    *(r"\d+:\s+", r"\d+\s+[-\u2013\u2014]\s+", r"\(\d+\)\s+", r"\[\d+\]\s+", r"#\d+[.:)]?\s+", r"[A-Za-z]\)\s+"),
    r"(?i:\*{0,2}(caption|prompt|description|image|picture)\s*#?\d+\s*[:.)\-\u2013\u2014]\s*\*{0,2}\s+)",
    r"(?i:([-*]\s+)?\*{0,2}(caption|prompt|description)\s*:\*{0,2}\s+)",
    # Boxes and ticks, and figures in boxes; other signs that begin lines, but none that say something, as \u2642 does.
    r"([-*+]\s+)?(\[[ xX]?\]\s*|[\u2610-\u2612\u2705\u2713-\u2718\u274c\u274e]\ufe0f?\s*)(?=\S)",
    r"\d\ufe0f?\u20e3\s*",
    r"([-=]>|[\u2190-\u21ff\u25a0-\u25ff\u2605\u2606\u2756\u2794\u279c\u27a4~])\s+",
    r"[-*+>\u2022\u2023\u25aa\u25cf\u25e6\u00b7\u2013\u2014]\s+",
)
# Of a line: a number, a picture's name, a heading or a rule of Markdown, or a fence of code; an expression of grep too.
NO_CAPTION = r"[0-9]+[.):]?$|[^ ]+\.(jpe?g|png|webp)$|#{1,6} .*|//.*|==> .* <==$|```.*|-{3,}$|\*{3,}$|_{3,}$"
# What may stand around them: a byte order mark, and the end that lines of Windows have.
NO_CAPTION_OUT = f"grep -vE '^[^!-~]*({NO_CAPTION.replace('$', '[[:space:]]*$')})'"
# What chat programs say in front of captions and behind them.
GREETING = re.compile(
    r"\W*((sure|certainly|of course|absolutely)[!,.].*|(sure|okay|ok|great|here|below)\b.*:[^\w:]*)", re.IGNORECASE
)
FAREWELL = re.compile(
    r"(let me know|feel free|i hope|hope th(is|ese)|would you like|do you want|want me to)\b.*", re.IGNORECASE
)
# Lists of CUB and others: of classes or attributes, by names without spaces, and of labels or boxes, by numbers.
NAMES = {
    "pictures": PICTURE_FILE,
    "names, as of classes": re.compile(r"(\d+\s+)?(\d+\.)?[^\W_]+_\w+(::\S+)?|(\d+\s+)?\d{3}\.[^\W\d_]+"),
    "numbers": re.compile(r"\d[\d.]*([\s,;]+\d[\d.]*)+"),
}
WORDS = r"sed -E 's/^([0-9]+[[:space:]]+)?([0-9]+\.)?//; s/_/ /g'"  # of the names of classes
TOP = 3  # lines of a text in which it greets
MOST_AROUND = 8  # lines of a text around a list, which are not taken for captions that have no mark
MARKS_OUT = r"sed -E 's/^[[:space:]]*([-*+]|[0-9]+[.)])[[:space:]]+(\[[ xX]\][[:space:]]+)?//'"  # the usual ones
JUDGED = 1000  # lines by which a list is told from captions of which some begin so


class ListMarks:
    """Whether each line of a text begins with the same kind of mark, as it is read from its first line on."""

    def __init__(self) -> None:
        self._pattern = ""  # of the marks
        self._lines = self._marked = self._others = 0
        self._names = dict.fromkeys(NAMES, 0)  # lines of each kind
        self._no_caption = ""  # a line that is a number alone, or a heading of Markdown
        self._around: dict[int, str] = {}  # lines without a mark, by their numbers
        self._top: list[tuple[int, str]] = []  # the first lines and their numbers
        self._last = (0, "")
        self._parts = 0  # runs of lines with a mark
        self._is_inside = False

    @property
    def is_settled(self) -> bool:
        """Whether more lines can't change the answer."""
        return self._lines >= JUDGED and self._marked < self._lines

    @property
    def shared(self) -> str:
        """The pattern of the marks that all lines so far have, or ""."""
        return self._pattern if self._marked == self._lines else ""

    def see(self, line: str, number: int = 0) -> None:
        """Take the next line that is not blank, without white space around it, and its number in the file."""
        self._last = number, line
        if len(self._top) < TOP:
            self._top.append(self._last)
        self._lines += 1
        for what, pattern in NAMES.items():
            self._names[what] += pattern.fullmatch(line) is not None
        if not self._pattern:
            self._pattern = next((mark for mark in MARKS if re.match(mark, line)), "")
        is_inside = bool(self._pattern and re.match(self._pattern, line))
        self._parts += is_inside and not self._is_inside
        self._is_inside = is_inside
        if is_inside:
            self._marked += 1
        else:
            if len(self._around) <= MOST_AROUND:
                self._around[number] = line
        if re.fullmatch(NO_CAPTION, line):
            self._no_caption = self._no_caption or line
            self._others += 1

    def check_captions(self, name: str) -> None:
        """Raise CaptionError where all lines so far are names of pictures or classes, or numbers."""
        what = next((what for what, lines in self._names.items() if 0 < self._lines == lines), None)
        if what is not None:
            is_table = Path(name).suffix.lower() in KINDS
            words = "write their words with spaces, if they are what is to be seen"
            steps = {
                "pictures": "name a file of what they show; to score pictures, name their folder",
                "numbers": "name a file of captions",
            }
            raise CaptionError(
                f"{name} is a list of {what}",
                found=repr(self._last[1][:60]),
                expected="a caption on each line",
                next_step=steps.get(what, words if is_table else made_anew(name, words, WORDS)),
            )

    def of_all(self, name: str) -> str:
        """The pattern of the marks that all lines have, or "".

        Raises:
            CaptionError: lines without one are a heading, what a chat program says round a list, or items whose marks
                were forgotten.
        """
        if self.shared:
            return self.shared
        if self._no_caption and self._others < self._lines:
            raise CaptionError(
                f"{name} has names, rules, numbers or headings on lines of their own",
                found=repr(self._no_caption[:60]),
                expected="a caption on each line",
                next_step=made_anew(name, "leave them out", NO_CAPTION_OUT),
            )
        is_whole = self._lines < JUDGED and len(self._around) <= MOST_AROUND
        is_around = is_whole and self._parts == 1 and self._marked > 2
        if (self._marked > 1 and 2 * self._marked > self._lines) or is_around:
            if any(re.match(mark, line) for line in self._around.values() for mark in MARKS):
                raise CaptionError(
                    f"{name} is a list with marks of several kinds",
                    found=_shown(self._around.values()),
                    expected="the same kind of number or sign in front of each caption, or none",
                    next_step=made_anew(name, "take the marks out", MARKS_OUT),
                )
            out = "take such lines out, as what they say would be drawn too"
            raise CaptionError(
                f"{name} is a list with lines that are none of its items",
                found=_shown(self._around.values()),
                expected="a number or sign in front of each caption, or of none",
                next_step=_without(name, out, self._around) if is_whole else out,
            )
        greetings = [place for place, (_, line) in enumerate(self._top, 1) if GREETING.fullmatch(line)]
        ends = self._top[: max(greetings, default=0)]
        ends += [self._last] * bool(self._lines < JUDGED and FAREWELL.fullmatch(self._last[1]))
        if ends and self._lines > len(ends):
            raise CaptionError(
                f"{name} has what a chat program says around captions",
                found=_shown(line for _, line in ends),
                expected="a caption on each line",
                next_step=_without(name, "take such lines out", [number for number, _ in ends]),
            )
        return ""


def _shown(lines: Iterable[str]) -> str:
    """The first of some lines."""
    return ", ".join(repr(line[:60]) for line in islice(lines, 3))


def _without(name: str, why: str, numbers: Iterable[int]) -> str:
    """The line that makes a file without some lines of another."""
    return made_anew(name, why, f"sed '{';'.join(f'{number}d' for number in numbers)}'")


def without_marks(lines: Iterable[str]) -> list[str]:
    """Lines without the marks of a list, where each that is not blank has one."""
    texts, marks = [line.strip() for line in lines], ListMarks()
    for text in filter(None, texts):
        marks.see(text)
    return [re.sub(f"^(?:{marks.shared})", "", text) for text in texts] if marks.shared else texts


def has_other_lines(lines: Iterable[str]) -> bool:
    """Whether some lines are what stands around a list, such as what a chat program says, rather than captions."""
    marks = ListMarks()
    for text in filter(None, (line.strip() for line in lines)):
        marks.see(text)
    try:
        marks.of_all("")
    except CaptionError:
        return True
    return False
