"""One walk through a folder of images: real files only, each once, and what is passed over is counted and said."""

import io
import logging
import operator
import os
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import printable, words_of

SYSTEM = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin",
    "system volume information", "lost+found", "icon\r", "__pycache__",
}  # fmt: skip
# EPS is a program that Ghostscript would run; of the others Pillow knows the first bytes, not the picture
NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
UNLABELLED = "unlabelled"
log = logging.getLogger(__name__)


class FileNames(Sequence):
    """Paths, kept as one array of bytes: worker processes share it, while each would get its own copy of a list of
    1.28 million strings. Slices are lists."""

    def __init__(self, paths: Iterable[str | os.PathLike] = ()):
        encoded, ends = bytearray(), array("q")
        for path in paths:
            encoded += os.fsencode(path)
            ends.append(len(encoded))
        self.bytes, self.ends = np.frombuffer(encoded, np.uint8), np.frombuffer(ends, np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[operator.index(index)]
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.bytes[start : self.ends[index]].tobytes())

    def total_bytes(self) -> int:
        """Of the files that are there."""
        return sum(os.path.getsize(path) for path in self if os.path.exists(path))


class NamedBytes(io.BytesIO):
    name = ""


class PackedFiles(Sequence):
    """Files that lie one behind the other in one file, each given as an open file. Only where they end is kept."""

    def __init__(self, path: Path, ends: np.ndarray):
        self.path, self.ends = path, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index):
        index = range(len(self))[operator.index(index)]
        start = int(self.ends[index - 1]) if index else 0
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            one = NamedBytes(file.read(int(self.ends[index]) - start))
        one.name = f"image {index} of {printable(self.path)}"
        return one


class Found(NamedTuple):
    paths: FileNames
    labels: np.ndarray  # (n,) int64
    classes: list[str]


@cache
def image_endings() -> frozenset[str]:
    """The endings, in lower case, of the kinds of image that Pillow reads."""
    return frozenset(
        end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in NOT_READ
    )


def say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes, one says it
        log.warning("%s", text)


def list_folder(folder: str) -> tuple[list[str], list[str], set[str], Counter]:
    """Names of the images and of the sub-folders of a folder, sorted; which of them are links; and what else there is,
    by kind. A link that leads nowhere counts as what its name says: it is missed when it is read."""
    images: list[str] = []
    folders: list[str] = []
    links: set[str] = set()
    others: Counter = Counter()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name, ending = entry.name, os.path.splitext(entry.name)[1].lower()
                if is_hidden(name):
                    others["hidden or system"] += 1
                    continue
                if entry.is_symlink():
                    links.add(name)
                if _is(entry.is_dir):
                    folders.append(name)
                elif not _is(entry.is_file) and not (name in links and not os.path.exists(entry.path)):
                    others["no regular file"] += 1
                elif ending in image_endings():
                    images.append(name)
                else:
                    others[ending or "without an ending"] += 1
    except OSError as error:
        raise SelfieLiteError(f"{printable(folder)} cannot be read ({words_of(error)}).") from None
    return sorted(images), sorted(folders), links, others


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM


def _is(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:  # links in a circle
        return False


class Walk:
    """One pass through a part of a data set."""

    def __init__(self, root: str, roots: list[str], refused: tuple[str, ...] = ()):
        self.root, self.roots, self.refused = root, roots, refused  # roots: the real paths of all parts
        self.passed_over: Counter = Counter()  # by kind
        self.empty: list[str] = []  # what was said of each class without images
        self.linked: set[str] = set()  # real paths of images that lie elsewhere
        self.entered: set[str] = set()  # and of folders

    def directories(self, start: str) -> Iterator[tuple[str, list[str]]]:
        """The folders from `start` downwards that hold images, and the names of those."""
        stack = [(start, os.path.islink(start) and start != self.root, False)]
        while stack:
            folder, is_link, outside = stack.pop()
            outside |= is_link
            if outside and not self._enters(folder):
                continue
            images, folders, links, others = list_folder(folder)
            self.passed_over += others
            images = [name for name in images if self._takes(os.path.join(folder, name), name in links, outside)]
            if images:
                yield folder, images
            stack += [(os.path.join(folder, name), name in links, outside) for name in reversed(folders)]

    def _enters(self, folder: str) -> bool:
        real = os.path.realpath(folder)
        leads_up = any(os.path.join(root, "").startswith(os.path.join(real, "")) for root in self.roots)
        if leads_up or real in self.entered or self._is_read_here(real):
            self.passed_over["links to what is read in its own place"] += 1
            return False
        self.entered.add(real)
        return True

    def _takes(self, path: str, is_link: bool, outside: bool) -> bool:
        if not (is_link or outside) or not os.path.exists(path):
            return True
        real = os.path.realpath(path)
        ending = os.path.splitext(real)[1].lower()
        if real in self.linked or (ending in image_endings() and self._is_read_here(real)):
            self.passed_over["links to what is read in its own place"] += 1
            return False
        self.linked.add(real)
        return True

    def _is_read_here(self, real: str) -> bool:
        inside = [real[len(root) :] for root in self.roots if real.startswith(os.path.join(root, ""))]
        return any(not any(map(is_hidden, path.split(os.sep))) for path in inside)

    def class_names(self) -> list[str]:
        """The classes that have an image, without a walk through all of them."""
        walk = Walk(self.root, self.roots)
        images, folders, _, _ = list_folder(self.root)
        if images:
            return [UNLABELLED]
        return [class_name(name) for name in folders if any(walk.directories(os.path.join(self.root, name)))]

    def found(self) -> Found:
        """All images, class by class.

        Raises:
            SelfieLiteError: if there are none, or their classes are unclear.
        """
        labels, classes = array("q"), list[str]()
        paths = FileNames(self._paths(labels, classes))
        if not paths:
            there = f", but {counted(self.passed_over)}" if self.passed_over else ""
            raise SelfieLiteError(
                f"no images in {printable(self.root)}{there}. Looked for .jpg, .png, .tif, .webp and the other kinds "
                "that Pillow reads, in it and in its sub-folders, one a class."
            )
        return Found(paths, np.array(labels, np.int64), classes)

    def _paths(self, labels: array, classes: list[str]) -> Iterator[str]:
        """All paths; fills in the labels and the classes."""
        images, folders, links, others = list_folder(self.root)
        self.passed_over += others
        loose = [os.path.join(self.root, name) for name in images]
        loose = [path for name, path in zip(images, loose, strict=True) if self._takes(path, name in links, False)]
        for folder in folders:
            before = Counter(self.passed_over)
            directories = sorted(self.directories(os.path.join(self.root, folder)))
            if not directories:
                there = counted(self.passed_over - before)
                self.empty.append(f"{class_name(folder)}/ holds no images{there and f', but {there}'}")
                continue
            self._require_clear(folder, [path for path, _ in directories], alone=len(folders) == 1)
            if loose:
                raise SelfieLiteError(
                    f"{printable(self.root)} holds {len(loose)} images beside its class folders, the first "
                    f"{printable(loose[0])}. Move them into the folder of their class, or out of the way."
                )
            labels.extend([len(classes)] * sum(len(names) for _, names in directories))
            classes.append(class_name(folder))
            yield from (os.path.join(path, name) for path, names in directories for name in names)
        if loose:
            labels.extend([0] * len(loose))
            classes.append(UNLABELLED)
            yield from loose

    def _require_clear(self, folder: str, directories: list[str], alone: bool) -> None:
        """Refuse a class folder that looks like several classes, or that holds a test part."""
        inside = [os.path.relpath(path, self.root).split(os.sep) for path in directories]
        shown = printable(os.path.join(self.root, folder))
        part = next((name for names in inside for name in names if name.lower() in self.refused), None)
        if part is not None:
            raise SelfieLiteError(
                f"{shown} holds images in a folder {part}/: is it a part of the data set, or of the class "
                f"{class_name(folder)}? For a part, lay them out as {part}/{class_name(folder)}/; else rename it."
            )
        below = sorted({names[1] for names in inside if len(names) > 1})
        if alone and len(below) > 1 and all(len(names) > 1 for names in inside):
            raise SelfieLiteError(
                f"{shown} is the only folder of {printable(self.root)}, and holds {len(below)} folders with images, "
                f"{printable(below[0])}/ and {printable(below[1])}/ among them. If those are the classes, give {shown} "
                f"instead; if {class_name(folder)} is one class, move its images out of their sub-folders."
            )

    def say_what_was_passed_over(self) -> None:
        """One line, if there is anything to say."""
        said = [f"passed over {counted(self.passed_over)}"] if self.passed_over else []
        if said or self.empty:
            say(f"{printable(self.root)}: {'; '.join([*said, *self.empty])}.")


def class_name(folder: str) -> str:
    """What the class of a folder is called: the folder's name, as text, the same whichever system wrote it."""
    return unicodedata.normalize("NFC", printable(folder))


def counted(kinds: Counter) -> str:
    """3 .heic, 1 .txt"""
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
