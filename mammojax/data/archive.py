"""A .zip of mammograms as the folder that it holds."""

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mammojax.errors import BadMammogram, near_file

MOST = 200  # times its own size that an archive may unpack to: blank film compresses so, a bomb a thousandfold


@contextlib.contextmanager
def as_folder(path: Path) -> Iterator[Path]:
    """A temporary folder with the contents of a .zip, removed at the end.

    Raises:
        BadMammogram: see `unpack`.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack(path, Path(folder))
        yield Path(folder)


def unpack(path: Path, folder: Path) -> None:
    """Unpack a .zip into a folder; no name in it leads out of the folder.

    Raises:
        BadMammogram: it is no .zip, broken, encrypted, or holds more than `MOST` times its size or the disk's space.
    """
    if not path.is_file():
        raise BadMammogram(f'"{path}": there is no such file; {near_file(path, "check its path.")}')
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > MOST * max(path.stat().st_size, 2**20):
                raise BadMammogram(f"{path.name}: it unpacks to {size // 2**20} MiB, as no mammograms do.")
            if size > shutil.disk_usage(folder).free:
                raise BadMammogram(
                    f"{path.name}: it unpacks to {size // 2**20} MiB, more than the disk has left; unpack it elsewhere "
                    "and give the folder."
                )
            archive.extractall(folder)  # zipfile drops "..", drives and leading slashes
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise BadMammogram(f"{path.name}: the .zip is broken ({type(error).__name__}); copy it again.") from None
    except RuntimeError:
        raise BadMammogram(f"{path.name}: the .zip is encrypted; unpack it and give the folder.") from None
