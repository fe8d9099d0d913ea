"""Where a bundle is built: ``DIR.partial/``, which holds the resumable checkpoint, while ``DIR`` stays as it is.

The complete bundle is written to ``DIR.ready/``, checked and renamed to ``DIR``. An old bundle that it replaces is put
aside for that moment, as ``.DIR.replaced``: killed in between, the next call puts it back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hybriduad.core.errors import ConfigError
from hybriduad.core.requests import difference, refuse_strangers
from hybriduad.detector.bundle import RECORD, Bundle, verify

REQUEST = "request.json"
"""In a workshop and, afterwards, among a bundle's files: what was asked for, so that the same call continues."""
PREPARED = "prepared"
"""In a partial folder: prepared volumes, keyed by content, so that they serve any request."""
KEPT = ("pictures", "log")


class Workshop:
    """The partial folder of one output, and the rule that continuing is the default.

    ``request`` identifies the work (config, cohort, parent bundles). The same request continues or finds its finished
    bundle; another request in the same place is refused unless ``overwrite``. With it the work of another request is
    dropped by :meth:`open`, that of the same request continued, and a finished bundle stays until :meth:`finish`.

    Raises:
        ConfigError: the place holds the work of another request, or something that is no bundle.
    """

    def __init__(self, out: str | Path, request: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.out = Path(out)
        self.partial = self.out.with_name(self.out.name + ".partial")
        self.replaced = self.out.with_name(f".{self.out.name}.replaced")
        self.request = json.loads(json.dumps(request))
        self.overwrite = overwrite
        self._end_replacing()
        if not (self.out / RECORD).is_file():
            refuse_strangers(self.out)
        if self.partial.is_dir() and _asked(self.partial) is None:
            strange = {entry.name for entry in self.partial.iterdir()} - {PREPARED, _aside(self.partial).name}
            if strange:
                mend = "name another output folder, or remove it"
                raise ConfigError("folder that is needed holds something else", where=self.partial, mend=mend)
        if not overwrite:
            for folder in (self.out, self.partial):
                self._refuse_other(folder)

    @property
    def finished(self) -> Bundle | None:
        """The bundle of this request, if it was completed before; None if it is to be replaced.

        What a call that was killed at its very end left beside it, prepared volumes included, is removed.
        """
        if self.overwrite or not (self.out / RECORD).is_file():
            return None
        bundle = verify(self.out)
        self.abandon()
        return bundle

    @property
    def prepared(self) -> Path:
        """Where prepared volumes go, also before :meth:`open`; they live as long as the partial folder."""
        return self.partial / PREPARED

    def open(self) -> Path:
        """The partial folder, created where it is missing; the work of another request in it is dropped."""
        self.partial.mkdir(parents=True, exist_ok=True)
        if _asked(self.partial) not in (None, self.request):
            _clear(self.partial, {PREPARED, REQUEST})
        aside = _aside(self.partial)
        aside.write_text(json.dumps(self.request, sort_keys=True))
        aside.replace(self.partial / REQUEST)
        return self.partial

    def finish(self, save: Callable[[Path], object]) -> Bundle:
        """Let ``save`` write the bundle aside, take the pictures and the log along, rename it into place.

        Raises:
            BundleError: what ``save`` wrote is no bundle; an old bundle stays where it is.
        """
        ready = self.out.with_name(self.out.name + ".ready")
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir(parents=True)
        (ready / REQUEST).write_text(json.dumps(self.request, sort_keys=True))
        save(ready)
        for name in KEPT:
            if (self.partial / name).is_dir():
                shutil.copytree(self.partial / name, ready / name)
        verify(ready)
        if self.overwrite and (self.out / RECORD).is_file():
            self.out.rename(self.replaced)
        elif self.out.exists():
            self.out.rmdir()
        ready.rename(self.out)
        self._end_replacing()
        self.abandon()
        return verify(self.out)

    def abandon(self) -> None:
        """Remove the partial folder, which is of no more use and would refuse other work in its place."""
        if self.partial.is_dir():
            _clear(self.partial, {REQUEST})
            shutil.rmtree(self.partial, ignore_errors=True)

    def _refuse_other(self, folder: Path) -> None:
        asked = _asked(folder)
        if asked is None:
            if (folder / RECORD).is_file():
                raise ConfigError(
                    "bundle of another request", where=folder, mend="choose another folder or --overwrite"
                )
            return
        if asked != self.request:
            what = difference(asked, self.request)
            mend = "choose another folder, or --overwrite"
            raise ConfigError("other work in the same place", where=folder, got=what, mend=mend)

    def _end_replacing(self) -> None:
        """Remove the bundle that was put aside, or put it back where nothing has taken its place."""
        if not (self.replaced / RECORD).is_file():
            return
        if (self.out / RECORD).is_file():
            _clear(self.replaced, {RECORD})
            shutil.rmtree(self.replaced, ignore_errors=True)
        elif not self.out.exists():
            self.replaced.rename(self.out)


def _asked(folder: Path) -> dict[str, Any] | None:
    """The request that a folder holds; None if there is none."""
    path = folder / REQUEST
    request: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return request


def _clear(folder: Path, kept: set[str]) -> None:
    """Remove all entries but ``kept``, which say whose folder it is, also when this is killed half-way."""
    for entry in folder.iterdir():
        if entry.name not in kept:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def _aside(folder: Path) -> Path:
    return folder / f".{REQUEST}.partial"
