"""Files of pictures by their places, in eight bytes a picture: a run may have millions."""

import re
from array import array
from collections.abc import Iterator, MutableMapping
from heapq import merge

from attngan_deploy.generate.plan import Place

TOGETHER = 4096  # places whose files are held in one piece
FILE = re.compile(r"(?P<where>(?:.*/)?)(?P<line>\d+)_(?P<sample>\d+)\.(?P<suffix>\w+)", re.ASCII)


class PlacedFiles(MutableMapping[Place, str]):
    """A dict of places to files such as "pictures-00003.tar/00001_00.png", in order of places.

    Of a file that is named as a run names its pictures, the line and a number for what stands before are held; others
    are held as they are.

    Args:
        samples: of a run.
        digits: of the lines in its names, at least.
    """

    def __init__(self, samples: int, digits: int) -> None:
        self._samples, self._digits = samples, digits
        self._named = [("", "")]  # forms of files: what stands before and behind the name
        self._forms: dict[tuple[str, str], int] = {}
        self._pieces: dict[int, tuple[array[int], array[int]]] = {}  # form and line of each place; form 0 is no file
        self._others: dict[Place, str] = {}
        self._count = 0

    def __setitem__(self, place: Place, file: str) -> None:
        """Put a file at a place."""
        self.pop(place, None)
        found = FILE.fullmatch(file)
        if found is None or place[1] >= self._samples or len(found["line"]) > 9 or self._name(found, place) != file:
            self._others[place] = file
            return
        piece, offset = divmod(place[0] * self._samples + place[1], TOGETHER)
        if piece not in self._pieces:
            self._pieces[piece] = array("I", bytes(4 * TOGETHER)), array("I", bytes(4 * TOGETHER))
        forms, lines = self._pieces[piece]
        form = (found["where"], found["suffix"])
        if form not in self._forms:
            self._forms[form] = len(self._named)
            self._named.append(form)
        forms[offset] = self._forms[form]
        lines[offset] = int(found["line"])
        self._count += 1

    def __getitem__(self, place: Place) -> str:
        """The file of a place; a KeyError where there is none."""
        if place in self._others:
            return self._others[place]
        piece, offset = self._found(place)
        forms, lines = self._pieces[piece]
        where, suffix = self._named[forms[offset]]
        return f"{where}{lines[offset]:0{self._digits}d}_{place[1]:02d}.{suffix}"

    def __delitem__(self, place: Place) -> None:
        """Forget the file of a place."""
        if place in self._others:
            del self._others[place]
            return
        piece, offset = self._found(place)
        self._pieces[piece][0][offset] = 0
        self._count -= 1

    def __contains__(self, place: object) -> bool:
        """Whether there is a file at a place."""
        try:
            return place in self._others or bool(self._found(place))  # type: ignore[arg-type]
        except KeyError:
            return False

    def __len__(self) -> int:
        """How many files there are."""
        return self._count + len(self._others)

    def __iter__(self) -> Iterator[Place]:
        """The places in order."""
        return merge(self._numbered(), sorted(self._others))

    def _numbered(self) -> Iterator[Place]:
        for piece in sorted(self._pieces):
            for offset, form in enumerate(self._pieces[piece][0]):
                if form:
                    yield divmod(piece * TOGETHER + offset, self._samples)

    def _found(self, place: Place) -> tuple[int, int]:
        piece, offset = divmod(place[0] * self._samples + place[1], TOGETHER)
        if place[1] >= self._samples or piece not in self._pieces or not self._pieces[piece][0][offset]:
            raise KeyError(place)
        return piece, offset

    def _name(self, found: re.Match[str], place: Place) -> str:
        return f"{found['where']}{int(found['line']):0{self._digits}d}_{place[1]:02d}.{found['suffix']}"
