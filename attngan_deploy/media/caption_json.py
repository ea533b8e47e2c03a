"""Records of a JSON file of captions, one after another.

They are COCO's annotations, the sentences of Karpathy's splits, the values of a list, or the objects that it is.

The file is not held: what stands before and behind the records is read a value at a time, and passed over.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn, Protocol

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.caption import DEFAULT_COLUMN, choose_column
from attngan_deploy.media.caption_kind import COLUMNS, JSON_OUT, PICTURE_FILE, called, made_anew

CHUNK = 2**20  # bytes
MAX_FILE_BYTES = 256 * 2**20
MAX_RECORD = 2**20  # characters of a value
LISTS = ("captions", "data", "sentences")  # what others call the list of all captions
MOST_KEYS = 1000  # of the one object that is a file, and COCO has five
BYTE_ORDER_MARK = "\ufeff"
RECORD = '{"caption": "a red bird"}'
# Writes the texts of an object, one a line, also those of lists in it: those called a caption, where any is.
VALUES = (
    r"""python -c "import json, sys; t = lambda v, k='': [w for n, i in (v.items() if hasattr(v, 'items') else """
    r"""[(k, i) for i in v] if isinstance(v, list) else []) for w in ([(n, i)] if isinstance(i, str) else t(i, n))]; """
    r"""a = t(json.load(sys.stdin)); c = [i for n, i in a if n in ('caption', 'captions')]; """
    r"""print(*(' '.join(i.split()) for i in c or [i for n, i in a]), sep='\n')" """
)
SPACE = re.compile(r"[ \t\n\r]*")


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """At most so many, and none at the end."""


def json_records(stream: "Readable", name: str, field: str) -> Iterator[Any]:
    """Yield what a JSON file lists: annotations, sentences of images, the values of a list, or the one object.

    Args:
        stream: at its start; it is read to its end.
        field: what an object has that is a caption's record.

    Raises:
        CaptionError: no JSON, not UTF-8, of another form, too large, or with a value that is.
    """
    text = _JsonText(stream, name)
    first = text.peek()
    if first == "[":
        yield from text.values()
    elif first == "{":
        # Objects one after another, as jq writes them; a file of JSON lines is better read in parts, as one.
        goes_on = not (text.is_line() and name.lower().endswith(".json"))
        yield from _annotations(text, name, field)
        while goes_on and text.peek() == "{":
            yield from _annotations(text, name, field, is_further=True)
    else:
        text.value()
        raise _another_form(name)
    text.end()


def _annotations(text: "_JsonText", name: str, field: str, is_further: bool = False) -> Iterator[Any]:
    """The records of an object, which may be one itself, as those that follow another (`is_further`) are."""
    record: dict[str, Any] = {}
    columns: list[str] = []  # of a table written column by column, as pandas does
    # Behind `end` nothing is kept of inner objects but what was asked for, as they take more memory than their bytes.
    is_listed, end, wanted = False, text.place + MAX_RECORD, {field, *field.split(".")}
    for key in text.names():
        opens = text.peek()
        if key == "annotations" or (key in LISTS and opens == "["):
            if opens != "[" or is_listed:
                raise _another_form(name)
            is_listed = True
            yield from text.values()
            continue
        value, inner = None, dict[str, Any]()
        if opens in ("[", "{"):  # COCO's images, which may be as many as its captions, or a column of a table
            is_column = True
            for place, item in text.items(opens):
                is_column = is_column and isinstance(item, str) and (opens == "[" or _is_row(place))
                if is_column and key.casefold() == field.casefold():
                    is_listed = True
                    yield {key: item}
                elif key == "images" and isinstance(item, dict) and isinstance(item.get("sentences"), list):
                    is_listed = True
                    yield from map(_sentence, item["sentences"])
                elif opens == "[" and isinstance(item, dict) and isinstance(item.get(field), str):
                    is_listed = True
                    yield item
                elif opens == "{" and ((len(inner) < MOST_KEYS and text.place <= end) or place in wanted):
                    inner[place] = item
            if isinstance(inner.get(field), str):
                is_listed = True
                yield inner
            columns += [key] * (is_column and len(columns) < MOST_KEYS)
            value = inner if opens == "{" else None
        else:
            value = text.value()
        if len(record) < MOST_KEYS or key == field:
            record[key] = value
    if is_listed:
        return
    if not {key.casefold() for key in columns}.isdisjoint(COLUMNS):
        choose_column(name, [*record], field)
    is_row = is_further or text.peek() == "{" or _is_row_of_columns(record)
    if field.partition(".")[0] not in record and not is_row:
        raise _another_form(name)
    yield record


def _is_row(name: str) -> bool:
    """Whether a name in a column is that of a row: its number, or its picture."""
    return name.isdecimal() or PICTURE_FILE.fullmatch(name) is not None


def _is_row_of_columns(record: dict[str, Any]) -> bool:
    """Whether an object is one row, by its texts under usual names of columns."""
    return any(key.casefold() in COLUMNS and isinstance(value, str) for key, value in record.items())


def _sentence(record: Any) -> Any:
    """A sentence of Karpathy's splits of Flickr8k, Flickr30k and COCO, whose text is called "raw"."""
    return {DEFAULT_COLUMN: record["raw"], **record} if isinstance(record, dict) and "raw" in record else record


def _another_form(name: str) -> CaptionError:
    return CaptionError(
        f"{name} lists no captions",
        found="a .json file of another form",
        expected=f'{{"annotations": [{RECORD}, ...]}} as in COCO, or [{RECORD}, ...]',
        next_step=made_anew(name, "if each value is a caption, one a line", VALUES, ".json"),
    )


class _JsonText:
    """The text of a JSON file, of which a value and a chunk are held."""

    def __init__(self, stream: "Readable", name: str) -> None:
        self._stream, self._name = stream, name
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._parse = json.JSONDecoder().raw_decode
        self._text, self._place, self._before, self._bytes, self._ended = "", 0, 0, 0, False
        self._more()
        self._place = int(self._text.startswith(BYTE_ORDER_MARK))

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            if match := SPACE.match(self._text, self._place):
                self._place = match.end()
            if self._place < len(self._text) or self._ended:
                return self._text[self._place : self._place + 1]
            self._more()

    @property
    def place(self) -> int:
        """How many characters of the file are passed over."""
        return self._before + self._place

    def is_line(self) -> bool:
        """Whether the line that begins here is whole by itself, as one of JSON lines is."""
        return self._text[self._place :].partition("\n")[0].rstrip().endswith("}")

    def take(self, letters: str) -> str:
        """Pass over the next character, which must be one of these."""
        if not (letter := self.peek()) or letter not in letters:
            self._refuse(f"expecting one of {' '.join(letters)}", self._place)
        self._place += 1
        return letter

    def value(self) -> Any:
        """The value that stands here, which is passed over."""
        self.peek()
        while True:
            try:
                value, end = self._parse(self._text, self._place)
            except ValueError as error:
                if self._ended:
                    self._refuse(getattr(error, "msg", str(error)), getattr(error, "pos", self._place))
            except RecursionError:
                self._refuse("it is nested too deeply", self._place)
            else:
                if self._ended or self._text[end : end + 1] or self._text[end - 1] in '"]}':
                    self._place = end
                    return value
            if len(self._text) - self._place > MAX_RECORD:
                self._refuse("a value is too long, or has no end", self._place)
            self._more()

    def values(self) -> Iterator[Any]:
        """The values of the list that begins here."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        yield self.value()
        while self.take(",]") == ",":
            yield self.value()

    def items(self, opens: str) -> Iterator[tuple[str, Any]]:
        """The names and values of the object that begins here with `opens`, or the places and values of the list."""
        if opens == "[":
            yield from ((str(place), value) for place, value in enumerate(self.values()))
        else:
            yield from ((name, self.value()) for name in self.names())

    def names(self) -> Iterator[str]:
        """The names in the object that begins here; whoever takes one reads its value."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        following = ","
        while following == ",":
            if self.peek() != '"':
                self._refuse("expecting a name in quotes", self._place)
            key = self.value()
            self.take(":")
            yield key
            following = self.take(",}")

    def end(self) -> None:
        """See that nothing follows."""
        if following := self.peek():
            hint = f"{called(self._name, '.jsonl')}, if each line is one" if following == "{" else ""
            self._refuse("extra data", self._place, hint)

    def _more(self) -> None:
        self._before += self._place
        data = self._stream.read(CHUNK)
        self._bytes += len(data)
        if self._bytes > MAX_FILE_BYTES:
            most = f"at most {MAX_FILE_BYTES // 2**20} MiB, or JSON lines"
            raise CaptionError(
                f"{self._name} is too large", expected=most, next_step="part the file, or one record a line in a .jsonl"
            )
        try:
            self._text = self._text[self._place :] + self._decode.decode(data, final=not data)
        except UnicodeDecodeError as error:
            what = f"{self._name} is not UTF-8: {error.reason}"
            raise CaptionError(
                what, found=f"0x{error.object[error.start]:02x}", next_step="save it as UTF-8"
            ) from error
        self._place, self._ended = 0, not data

    def _refuse(self, why: str, place: int, next_step: str = "") -> NoReturn:
        if not next_step and self._before + place == 0:
            next_step = made_anew(self._name, "leave only the JSON", JSON_OUT, ".json", "-only.json")
        next_step = next_step or "mend it there; a comma behind the last of a list is one too many"
        where = f"character {self._before + place + 1}"
        raise CaptionError(f"{self._name} is not JSON: {why}, {where}", expected=RECORD, next_step=next_step)
