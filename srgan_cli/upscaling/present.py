"""Which results already exist when a run is planned, on this machine or in a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from srgan_cli.errors import SettingsError, UnwritablePictureError
from srgan_cli.files import is_folder, is_special
from srgan_cli.imaging.writing import check_place
from srgan_cli.stores import scratch, store
from srgan_cli.stores.failures import StoreError
from srgan_cli.stores.paths import StorePath
from srgan_cli.upscaling.ledger import identity
from srgan_cli.wording import size


def exists(path: Path) -> bool:
    """Whether there is anything under a name that could be lost. A pipe or a device holds nothing."""
    if isinstance(path, StorePath):
        return store.stat(path) is not None
    return os.path.lexists(path) and (is_folder(path) or not is_special(path))


def _versions(folder: StorePath, targets: Sequence[StorePath]) -> dict[Path, str]:
    """Versions of those objects of a folder that exist; of all that exist if the folder is listed."""
    if len(targets) > 1:
        return {path: found.version for path, found in store.listing(folder, recursive=False).objects}
    return {path: found.version for path in targets if (found := store.stat(path)) is not None}


class Present:
    """Which of a plan's results exist. Folders of a store are listed once.

    Raises `SettingsError` if a store is not writable.
    """

    def __init__(self, targets: Iterable[Path]) -> None:
        self._found: dict[Path, str] = {}  # in stores: versions
        folders: dict[StorePath, list[StorePath]] = {}
        for target in targets:
            if isinstance(target, StorePath):
                folders.setdefault(target.parent, []).append(target)
        for place in {StorePath(*folder.parts[:2]) for folder in folders}:
            store.check(place, writing=True)
        for folder, several in folders.items():
            try:
                self._found |= _versions(folder, several)
            except StoreError as err:
                raise SettingsError(f"{folder} cannot be listed: {err.trouble.why}") from err

    def __contains__(self, target: Path) -> bool:
        return target in self._found if isinstance(target, StorePath) else exists(target)

    def identity(self, target: Path) -> str:
        """As `ledger.identity`."""
        return self._found.get(target, "") if isinstance(target, StorePath) else identity(target)


def check_result(target: Path, needed: int) -> None:
    """Refuse, before any work, a result that could not be written: `UnwritablePictureError`."""
    if not isinstance(target, StorePath):
        check_place(target, needed)
    elif (free := scratch.free_bytes()) < needed:
        raise UnwritablePictureError(
            f"there is too little temporary space for {target}: up to {size(needed)} are needed in the folder "
            f"for temporary files, {size(free)} are free; set TMPDIR to a folder on another disk"
        )
