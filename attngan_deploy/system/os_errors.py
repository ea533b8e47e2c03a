"""What the system refuses, in words: each kind of OSError has an advice of its own."""

import errno


def numbers_of(*names: str) -> tuple[int, ...]:
    """The numbers of errors by their names, those that this system has."""
    return tuple(getattr(errno, name) for name in names if hasattr(errno, name))


FULL = numbers_of("ENOSPC", "EDQUOT", "EFBIG")  # where what is done is kept, and more room is all that is needed

_ADVICE = {
    "ENOSPC": "free some space there, or choose another place",
    "EDQUOT": "your quota there is used up: free some space, or choose another place",
    "EFBIG": "a larger limit of file sizes (ulimit -f unlimited), or another place",
    "EACCES": "permissions that allow it (ls -ld shows them), or another place",
    "EPERM": "permissions that allow it (ls -ld and lsattr -d show them), or another place",
    "EROFS": "another place: this one is mounted read-only",
    "ENOENT": "a path that exists",
    "EEXIST": "another name: this one is taken",
    "ENOTDIR": "another path: a part of it is a file",
    "EISDIR": "the name of a file: this is a folder",
    "ENOTEMPTY": "another place, or an empty folder",
    "EMFILE": "a larger limit of open files (ulimit -n 4096)",
    "ENFILE": "fewer open files on this machine",
    "ENAMETOOLONG": "a shorter name",
    "ELOOP": "another path: its symbolic links lead in a circle",
    "EBUSY": "wait until nothing uses it, or another place",
    "ETXTBSY": "wait until nothing uses it, or another place",
    "EIO": "look at the disk (dmesg): it fails to read or write",
    "ENOMEM": "fewer things at once: a smaller --batch-size, or fewer other programs",
    "ESTALE": "mount the network folder again, then the same again",
    "EXDEV": "another place, on one file system",
    "EINVAL": "another file or place: the system can't do that with this one",
}
_OTHERWISE = "another file or place"


def advice(error: OSError) -> str:
    """What to do about it, as the next step of an error."""
    return _ADVICE.get(errno.errorcode.get(error.errno or 0, ""), _OTHERWISE)


def reason(error: OSError) -> str:
    """What the system says, without numbers and paths."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
