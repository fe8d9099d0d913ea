"""Where a bundle is built: ``DIR.partial/``, which holds the resumable checkpoint, renamed to ``DIR`` when complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hybriduad.bundle import RECORD, Bundle, verify
from hybriduad.errors import ConfigError

REQUEST = "request.json"
"""In a workshop and, afterwards, among a bundle's files: what was asked for, so that the same call continues."""
KEPT = ("pictures", "log")
NAMED, LONGEST = 3, 120
"""How many differences of two requests a sentence names, and the length from which a value is left out."""


class Workshop:
    """The partial folder of one output, and the rule that continuing is the default.

    ``request`` identifies the work (config, cohort, parent bundles). The same request continues or finds its finished
    bundle; another one in the same place is refused unless ``overwrite``.

    Raises:
        ConfigError: the place holds the work of another request, or something that is no bundle.
    """

    def __init__(self, out: str | Path, request: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.out = Path(out)
        self.partial = self.out.with_name(self.out.name + ".partial")
        self.request = json.loads(json.dumps(request))
        if overwrite:
            self._remove()
        if self.out.exists() and any(self.out.iterdir()) and not (self.out / RECORD).is_file():
            raise ConfigError("output folder holds something else", where=self.out, mend="name an empty or new folder")
        for folder in (self.out, self.partial):
            self._refuse_other(folder)

    @property
    def finished(self) -> Bundle | None:
        """The bundle of this request, if it was completed before."""
        return verify(self.out) if (self.out / RECORD).is_file() else None

    def open(self) -> Path:
        """The partial folder, made or found again."""
        self.partial.mkdir(parents=True, exist_ok=True)
        aside = self.partial / f".{REQUEST}.partial"
        aside.write_text(json.dumps(self.request, sort_keys=True))
        aside.replace(self.partial / REQUEST)
        return self.partial

    def finish(self, save: Callable[[Path], object]) -> Bundle:
        """Let ``save`` write the bundle aside, take the pictures and the log along, rename it into place."""
        ready = self.out.with_name(self.out.name + ".ready")
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir(parents=True)
        (ready / REQUEST).write_text(json.dumps(self.request, sort_keys=True))
        save(ready)
        for name in KEPT:
            if (self.partial / name).is_dir():
                shutil.copytree(self.partial / name, ready / name)
        if self.out.exists():
            self.out.rmdir()
        ready.rename(self.out)
        self.abandon()
        return verify(self.out)

    def abandon(self) -> None:
        """Remove the partial folder: nothing in it is of use any more, and it would refuse other work in its place."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def _refuse_other(self, folder: Path) -> None:
        path = folder / REQUEST
        if not path.is_file():
            if (folder / RECORD).is_file():
                raise ConfigError(
                    "bundle of another request", where=folder, mend="choose another folder or --overwrite"
                )
            return
        asked = json.loads(path.read_text())
        if asked != self.request:
            what = difference(asked, self.request)
            mend = "choose another folder, or --overwrite"
            raise ConfigError("other work in the same place", where=folder, got=what, mend=mend)

    def _remove(self) -> None:
        if self.out.exists() and any(self.out.iterdir()) and not (self.out / RECORD).is_file():
            raise ConfigError("will not overwrite what is no bundle", where=self.out, mend="name another folder")
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(self.partial, ignore_errors=True)


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In which entries two requests differ, as dotted keys with the values there and now; long values only by name."""
    left, right = _flat(before), _flat(now)
    changed = [key for key in sorted({*left, *right}) if left.get(key) != right.get(key)]
    named = [f"{key} {left.get(key, 'unset')} there and {right.get(key, 'unset')} now" for key in changed[:NAMED]]
    named = [text if len(text) < LONGEST else f"another {key}" for key, text in zip(changed, named, strict=False)]
    return ", ".join(named) + (f", and {len(changed) - NAMED} more" if len(changed) > NAMED else "")


def _flat(nested: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(nested, Mapping) or not nested:
        return {path: nested}
    parts = ((f"{path}.{key}" if path else str(key), value) for key, value in nested.items())
    return {key: value for name, inner in parts for key, value in _flat(inner, name).items()}
