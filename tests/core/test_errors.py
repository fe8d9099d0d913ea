"""The one form of every error sentence."""

from __future__ import annotations

import copy

import pytest

from hybriduad.core import errors
from hybriduad.core.errors import (
    BundleError,
    ConfigError,
    DataError,
    HybridUADError,
    LeakageError,
    ToolError,
    reason_of,
)


def test_the_whole_sentence() -> None:
    error = DataError("constant image", where="a.nii", got=3, expected="a scan", mend="export it again")
    assert str(error) == "constant image in a.nii: got 3, expected a scan; export it again."


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, "nothing here."),
        ({"where": "x"}, "nothing here in x."),
        ({"got": 0}, "nothing here: got 0."),
        ({"got": ""}, "nothing here: got ."),
        ({"expected": "b"}, "nothing here: expected b."),
        ({"mend": "do c"}, "nothing here; do c."),
        ({"where": "x", "mend": "do c"}, "nothing here in x; do c."),
    ],
)
def test_absent_parts_leave_no_trace(parts: dict, sentence: str) -> None:
    assert str(HybridUADError("nothing here", **parts)) == sentence


def test_an_error_that_is_copied_says_the_same() -> None:
    """As one that comes back from another process."""
    again = copy.copy(DataError("constant image", where="a.nii", mend="export it again"))
    assert type(again) is DataError
    assert str(again) == "constant image in a.nii; export it again."


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DataError("nothing here"), "nothing here."),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (MemoryError(), "MemoryError"),
        (IndexError("index 0 is\nout of bounds"), "unexpected IndexError: index 0 is out of bounds"),
        (RuntimeError(), "unexpected RuntimeError; leave the case out, or report it with the log of --verbose."),
    ],
)
def test_the_reason_of_any_error_is_a_sentence(error: Exception, sentence: str) -> None:
    assert reason_of(error).startswith(sentence)
    assert "\n" not in reason_of(error)


def test_every_error_is_one_of_ours() -> None:
    defined = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert defined == {HybridUADError, ConfigError, DataError, ToolError, BundleError, LeakageError}
    assert all(issubclass(kind, HybridUADError) for kind in defined)
    # pydantic catches ValueError and AssertionError in validators: ours must pass through with their sentence.
    assert not issubclass(HybridUADError, ValueError | AssertionError)
