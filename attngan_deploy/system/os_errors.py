"""What the system refuses, in words: each kind of OSError has an advice of its own."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # where what is done is kept, and more room is all that is needed

_ADVICE = {
    errno.ENOSPC: "free some space there, or choose another place",
    errno.EDQUOT: "your quota there is used up: free some space, or choose another place",
    errno.EFBIG: "a larger limit of file sizes (ulimit -f unlimited), or another place",
    errno.EACCES: "permissions that allow it (ls -ld shows them), or another place",
    errno.EPERM: "permissions that allow it (ls -ld and lsattr -d show them), or another place",
    errno.EROFS: "another place: this one is mounted read-only",
    errno.ENOENT: "a path that exists",
    errno.EEXIST: "another name: this one is taken",
    errno.ENOTDIR: "another path: a part of it is a file",
    errno.EISDIR: "the name of a file: this is a folder",
    errno.ENOTEMPTY: "another place, or an empty folder",
    errno.EMFILE: "a larger limit of open files (ulimit -n 4096)",
    errno.ENFILE: "fewer open files on this machine",
    errno.ENAMETOOLONG: "a shorter name",
    errno.ELOOP: "another path: its symbolic links lead in a circle",
    errno.EBUSY: "wait until nothing uses it, or another place",
    errno.ETXTBSY: "wait until nothing uses it, or another place",
    errno.EIO: "look at the disk (dmesg): it fails to read or write",
    errno.ENOMEM: "fewer things at once: a smaller --batch-size, or fewer other programs",
    errno.ESTALE: "mount the network folder again, then the same again",
    errno.EXDEV: "another place, on one file system",
    errno.EINVAL: "another file or place: the system can't do that with this one",
}
_OTHERWISE = "another file or place"


def advice(error: OSError) -> str:
    """What to do about it, as the next step of an error."""
    return _ADVICE.get(error.errno or 0, _OTHERWISE)


def reason(error: OSError) -> str:
    """What the system says, without numbers and paths."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
