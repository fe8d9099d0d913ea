"""Templates to pages: everything escaped, the viewer packed in, and a policy that allows what is in the page alone."""

from __future__ import annotations

import base64
import gzip
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hybriduad import __version__

VIEWER = ("_assets", "js", "niivue.umd.js")
"""NiiVue (https://niivue.com, BSD-2-Clause) as the package nilearn holds it."""
INTENDED_USE = "Research use only. Not a medical device; not for diagnosis or treatment."


def render(template: str, **content: Any) -> str:
    """A page of ``templates/``, with its style and script inside.

    Every text is escaped, and data goes in as JSON that cannot end its element. The page's policy forbids every request
    and runs scripts of known digests only, so that even markup that got in could do nothing.
    """
    style = _source("report.css")
    script = _source(template.replace(".html", ".js"))
    viewer = viewer_source() if template == "case.html" else None
    return (
        _environment()
        .get_template(template)
        .render(
            policy=policy([script, *([viewer] if viewer else [])], style),
            style=Markup(style),
            script=Markup(script),
            viewer=packed_viewer() if viewer else None,
            version=__version__,
            intended_use=INTENDED_USE,
            **content,
        )
    )


def policy(scripts: list[str], style: str) -> str:
    """The Content-Security-Policy of a page: nothing from anywhere, but these scripts, this style, pictures within."""
    allowed = " ".join(_digest(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def viewer_source() -> str | None:
    """NiiVue, as text; None where nilearn does not hold it."""
    try:
        file = resources.files("nilearn").joinpath(*VIEWER)
        return file.read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        return None


@cache
def packed_viewer() -> str:
    """The viewer, compressed, in base64: a third of its size."""
    return base64.b64encode(gzip.compress((viewer_source() or "").encode(), compresslevel=9, mtime=0)).decode()


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("hybriduad.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    return resources.files("hybriduad.report").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
