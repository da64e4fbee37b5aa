"""What comes in from outside: bounded in size, named by us, opened only after a look at it."""

import zipfile
from collections.abc import AsyncIterable
from pathlib import Path, PurePosixPath

from penumbra.data import geometry
from penumbra.data.dicom import MAX_FILES, MAX_ZIP_BYTES
from penumbra.errors import DataError

SUFFIXES = tuple(s for s in geometry.SUFFIXES if s != ".mhd")  # its voxels are another file
MAX_UPLOAD = 2**30
MAX_RATIO = 200
"""Medical pixels pack two to tenfold; hundreds mean an archive made to burst."""


class TooLarge(DataError):
    """More bytes came than are allowed."""


def suffix_of(name: str) -> str:
    """The kind of file that a name claims; the rest of the name is never used.

    Raises:
        DataError: none of the kinds that are read.

    Example:
        >>> suffix_of("../../etc/Doe^John.NII.GZ")
        '.nii.gz'
    """
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return suffix
    raise DataError(f"unknown kind of file; expected one of {', '.join(SUFFIXES)}")


async def receive(chunks: AsyncIterable[bytes], path: Path, *, limit: int = MAX_UPLOAD) -> None:
    """Write a body to ``path``, which appears whole or not at all.

    Raises:
        TooLarge: the body goes on past ``limit`` bytes; nothing is kept.
        DataError: it is empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    size = 0
    try:
        with part.open("wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"more than {limit} bytes; send a smaller scan")
                file.write(chunk)
        if size == 0:
            raise DataError("the upload is empty; send a scan")
        if path.suffix == ".zip":
            inspect_zip(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def inspect_zip(path: Path) -> None:
    """Refuse archives that would climb out of a folder or burst; nothing is unpacked.

    Raises:
        DataError: damaged, with too many members, too large unpacked, or with names such as
            ``../x`` or ``/x``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError("the archive is damaged or cut short; send it again") from error
    if len(members) > MAX_FILES:
        raise DataError(f"the archive holds {len(members)} files, more than {MAX_FILES}")
    unpacked = sum(m.file_size for m in members)
    if unpacked > min(MAX_ZIP_BYTES, MAX_RATIO * max(1, path.stat().st_size)):
        raise DataError(f"the archive would unpack to {unpacked} bytes; that is no scan")
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts:
            raise DataError("the archive names files outside itself; pack the series again")
