"""What a run config or a bundle says of itself, as YAML to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml

from hybriduad.config import files as configs
from hybriduad.core.errors import ConfigError


def describe(what: str | Path, overrides: Sequence[str] = ()) -> str:
    """The resolved config that ``what`` names, or what the bundle in the folder ``what`` says of itself.

    A config comes back as :func:`hybriduad.config.files.load` reads it; a bundle as its checked ``bundle.json`` without
    the digests of its scans, which are counted by role, and with its resolved config.

    Raises:
        ConfigError: no such config, or overrides for a bundle, which never changes.
        BundleError: the folder holds no bundle, or a damaged bundle.
    """
    if not Path(what).is_dir() or str(what) in configs.shipped():
        return configs.dump(configs.load(what, list(overrides)))
    if overrides:
        raise ConfigError("overrides for a bundle", where=what, got=list(overrides), expected="none: it never changes")
    from hybriduad.detector.bundle import verify

    bundle = verify(what)
    content = {key: value for key, value in bundle.record.items() if key not in ("identities", "checksums")}
    content["identities"] = dict(Counter(bundle.used.values()))
    content["parts"] = sorted(bundle.record["checksums"])
    content["config"] = yaml.safe_load(configs.dump(bundle.run))
    if bundle.reconstructor is not None:
        content["reconstructor"] = {
            "digest": bundle.reconstructor.digest,
            "config": yaml.safe_load(configs.dump(bundle.reconstructor.run)),
        }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
