"""Files that a program packed, under a name that does not say so: which one, and the line that unpacks them."""

from pathlib import Path
from shlex import quote

PACKERS = (  # the first bytes, the program, and what unpacks standard input
    (b"\x1f\x8b", "gzip", "gunzip -c"),
    (b"BZh", "bzip2", "bunzip2 -c"),
    (b"\xfd7zXZ", "xz", "xz -dc"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc"),
)
SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
# Of archives that people unpack.
ARCHIVES = (".zip", ".tgz", ".tbz2", ".txz", *SUFFIXES, ".7z", ".rar")


def packer_of(head: bytes) -> str:
    """The program that packed what begins so; "" for none."""
    return next((program for start, program, _ in PACKERS if head.startswith(start)), "")


def unpacking_line(name: str, program: str) -> str:
    """The line that unpacks a file of this machine beside itself; of a stream, what does it."""
    unpack = next(line for _, packer, line in PACKERS if packer == program)
    path = Path(name)
    if not path.is_file():
        return f"unpack it: {unpack}"
    is_named = path.suffix.lower() in SUFFIXES
    new = path.with_suffix("") if is_named else path.with_name(f"{path.stem}-unpacked{path.suffix}")
    return f"unpack it: {unpack} < {quote(name)} > {quote(str(new))}"


def archive_line(path: Path) -> str:
    """How an archive becomes a folder."""
    name = path.name.partition(".")[0] or "unpacked"
    folder = quote(str(path.with_name(name)))
    line = ""
    if path.suffix.lower() == ".zip":
        line = f": unzip -d {folder} {quote(str(path))}"
    elif path.suffix.lower() in (".tar", ".tgz", ".tbz2", ".txz") or Path(path.stem).suffix.lower() == ".tar":
        line = f": mkdir {folder} && tar -xf {quote(str(path))} -C {folder}"
    return f"unpack it, and name the folder{line}"


def tars_line(folder: Path) -> str:
    """How the tars of a folder, such as img2dataset's shards, become one folder of pictures."""
    new = quote(str(folder.with_name(f"{folder.resolve().name}-unpacked")))
    unpack = f'mkdir {new} && for tar in {quote(str(folder))}/*.tar; do tar -xf "$tar" -C {new}; done'
    return f"unpack its tars, and name the folder: {unpack}"
