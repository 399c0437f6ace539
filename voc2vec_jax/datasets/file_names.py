"""From a file's name as a list has it to its name on the disk, and whether two names are of one file."""

import os
import stat
import unicodedata
from collections.abc import Iterator

from voc2vec_jax import errors


def normal(name: str, root: str = "") -> str:
    """A name without detours, and relative to `root` (which ends in a slash) if it lies below it."""
    if name[:1] in "./" or "/." in name or "//" in name or name[-1:] == "/":
        return os.path.normpath(name).removeprefix(root)
    return name


class Finder:
    """Finds files by names that are absolute or relative to `root`.

    The exact name comes first. Where there is none, these are tried in turn: without the spaces around it, with slashes
    in place of backslashes, with the home folder for ~; then names that differ in how accents are composed alone.
    """

    def __init__(self, root: str | os.PathLike) -> None:
        self.root = os.fspath(root)
        self._composed: dict[str, dict[str, list[str]]] = {}

    def find(self, text: str) -> str:
        """The name on the disk; `text` without spaces around it if there is no file of such a name.

        InputError where several names differ from it in how accents are composed alone. Nothing is looked up for a name
        of plain ASCII, so this costs nothing for most lists.
        """
        if text.isascii() and "\\" not in text and text[0] > " " < text[-1] and text[0] != "~":
            return text
        spellings = list(dict.fromkeys(_spellings(text)))
        for name in spellings:
            if os.path.lexists(os.path.join(self.root, name)):
                return name
        for name in spellings:
            if not name.isascii() and (found := self._same_but_composed(name)):
                if len(found) > 1:
                    raise errors.InputError(
                        f"{text} is the name of {len(found)} files in {self.root} that differ only in how an accent is "
                        f"coded ({', '.join(map(ascii, found))}): write the name of one exactly, or rename the others"
                    )
                return found[0]
        return text.strip()

    def _same_but_composed(self, name: str) -> list[str]:
        """Names on the disk that are equal to a name once both are composed."""
        found = ["/"] if name.startswith("/") else [""]
        for part in filter(None, name.split("/")):
            wanted = unicodedata.normalize("NFC", part)
            found = [
                os.path.join(folder, other)
                for folder in found
                for other in ([part] if part.isascii() else self._listed(folder).get(wanted, []))
            ]
        return [other for other in found if os.path.lexists(os.path.join(self.root, other))]

    def _listed(self, folder: str) -> dict[str, list[str]]:
        """The names in a folder that are not ASCII, by their composed form."""
        if folder not in self._composed:
            names = self._composed[folder] = {}
            try:
                there = os.listdir(os.path.join(self.root, folder))
            except OSError:
                there = []
            for name in sorted(there):
                if not name.isascii():
                    names.setdefault(unicodedata.normalize("NFC", name), []).append(name)
        return self._composed[folder]


def _spellings(text: str) -> Iterator[str]:
    for name in (text, text.strip()):
        for other in (name, name.replace("\\", "/")):
            yield other
            if other.startswith("~"):
                yield os.path.expanduser(other)


class Identities:
    """Tells which names are of one file: links to a file or a folder, and several entries of one file (hard links).

    `root`, to which names are relative, must be resolved.
    """

    def __init__(self, root: str) -> None:
        self._front = f"{root}/"
        self._folders: dict[str, str] = {}  # the real name of each, relative to the root if it lies below it

    def of(self, name: str) -> str:
        """What two names have in common if they are of one file, and only then.

        `name` is `normal`. It is itself what is looked for, if its file has one entry and no link or is not there.
        """
        try:
            status = os.lstat(name if name[:1] == "/" else self._front + name)
            is_link = stat.S_ISLNK(status.st_mode)
            if is_link:
                status = os.stat(os.path.join(self._front, name))
        except (OSError, ValueError):
            return name
        if status.st_nlink > 1:
            return f"/dev/{status.st_dev}/{status.st_ino}"
        if is_link:
            return self._real(name)
        folder = name.rpartition("/")[0]
        real = self._folders.get(folder)
        if real is None:
            real = self._folders[folder] = self._real(folder) if folder else ""
        return name if real == folder else os.path.join(real, name.rpartition("/")[2])

    def _real(self, name: str) -> str:
        return f"{os.path.realpath(os.path.join(self._front, name))}/".removeprefix(self._front).rstrip("/")
