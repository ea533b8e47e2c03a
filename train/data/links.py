"""Which links to folders are followed where pictures are looked for."""

import os
from pathlib import Path


class Links:
    """Links in a folder: not those that would be followed in a circle, nor without end through each other.

    A link in the folder itself is followed, to whatever is no folder above it. One that is met behind another link is
    followed once for each folder that it leads to: of ten folders that link to each other there are millions of ways.
    """

    def __init__(self, root: Path) -> None:
        self._home, self._root, self._seen = root.resolve(), root, set[Path]()

    def leave_out(self, here: str, folders: list[str]) -> list[tuple[str, str]]:
        """Take the links that are not followed out of `folders`, which are in `here`: each with the reason."""
        place, left = Path(here).resolve(), []
        is_behind_link = place != self._home / Path(here).relative_to(self._root)
        for name in [name for name in folders if (Path(here) / name).is_symlink()]:
            target = Path(os.path.realpath(Path(here) / name))
            if place.is_relative_to(target):
                left.append((name, "link to a folder above it"))
            elif is_behind_link and target in self._seen:
                left.append((name, "link behind a link, to a folder that was read"))
            elif is_behind_link:
                self._seen.add(target)
        for name, _ in left:
            folders.remove(name)
        return left
