"""All files below a folder, each under one name; what is no file is left out and named."""

import dataclasses
import os
import stat
from collections.abc import Callable, Iterator

from voc2vec_jax import errors

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclasses.dataclass
class Walk:
    """A walk below `root`, with the names that it meets, relative to `root` and with slashes.

    Once `files` is read, `no_files` are pipes, devices and the like with what they are, `again` links to folders that
    are searched anyway, `hidden` files whose name begins with a dot, and `has_links` says whether there are any.
    """

    root: str
    no_files: dict[str, str] = dataclasses.field(default_factory=dict)
    again: list[str] = dataclasses.field(default_factory=list)
    hidden: list[str] = dataclasses.field(default_factory=list)
    has_links: bool = False

    def files(self) -> Iterator[tuple[str, os.DirEntry]]:
        """Every file, and every link to one or to nothing, in no particular order. Hidden folders are not searched.

        Folders come before links to folders, so that what lies in both has its own name. Files are not looked at.
        InputError for a folder that cannot be listed.
        """
        seen: set[str] = set()
        folders, links = [""], []
        while folders or links:
            links.sort(reverse=True)
            inside = folders.pop() if folders else links.pop()
            real = os.path.realpath(os.path.join(self.root, inside))
            if real in seen:
                self.again.append(inside.rstrip("/"))
                continue
            seen.add(real)
            for name, entry in self._entries(inside):
                if entry.is_file(follow_symlinks=False):
                    yield name, entry
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(f"{name}/")
                elif entry.is_symlink() and _is(stat.S_ISDIR, entry):
                    links.append(f"{name}/")
                elif kind := _kind(entry):
                    self.no_files[name] = kind
                else:
                    self.has_links = True
                    yield name, entry
            self.has_links |= bool(links)

    def _entries(self, inside: str) -> Iterator[tuple[str, os.DirEntry]]:
        """What lies in a folder and is not hidden; one at a time, as a folder may hold millions."""
        place = os.path.join(self.root, inside)
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if not is_hidden(entry.name):
                        yield inside + entry.name, entry
                    elif _is(stat.S_ISREG, entry):
                        self.hidden.append(inside + entry.name)
        except OSError as error:
            raise errors.InputError(f"{place} cannot be listed ({error.strerror}): check its permissions") from error


def _kind(entry: os.DirEntry) -> str:
    """What an entry is that is neither a file nor a folder; "" for a link to a file, or to nothing."""
    return next((kind for test, kind in _KINDS if _is(test, entry)), "")


def _is(test: Callable[[int], bool], entry: os.DirEntry) -> bool:
    """Whether an entry, or what it links to, is of a kind; False for a link that leads nowhere."""
    try:
        return test(entry.stat().st_mode)
    except OSError:
        return False


def is_hidden(name: str) -> bool:
    """Whether a name is of the kind that systems keep for themselves."""
    return name.startswith(".") or name == "__MACOSX"


def look(entry: os.DirEntry) -> tuple[int, bool]:
    """The bytes of a file, and whether it has several entries; 0 and False for a link to nothing."""
    try:
        status = entry.stat()
    except OSError:
        return 0, False
    return status.st_size, status.st_nlink > 1
