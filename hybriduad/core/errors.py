"""The errors that hybriduad raises on purpose: one sentence each (what, where, got, expected, how to mend)."""

from __future__ import annotations

from collections.abc import Callable


class HybridUADError(Exception):
    """Something the user can mend. The command line prints it as one sentence and exits with 2.

    Args:
        what: what is wrong, in a few words.
        where: the file, case or key at fault.
        got: the offending value.
        expected: what would have been right.
        mend: how to put it right.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        expected: object = None,
        mend: str | None = None,
    ) -> None:
        sentence = what if where is None else f"{what} in {where}"
        facts = []
        if got is not None:
            facts.append(f"got {got}")
        if expected is not None:
            facts.append(f"expected {expected}")
        if facts:
            sentence += ": " + ", ".join(facts)
        if mend is not None:
            sentence += f"; {mend}"
        super().__init__(sentence + ".")

    def __reduce__(self) -> tuple[Callable[..., HybridUADError], tuple[type[HybridUADError], str]]:
        """Between processes the finished sentence travels: ``__init__`` would end it with a second full stop."""
        return _again, (type(self), str(self))


def _again(kind: type[HybridUADError], sentence: str) -> HybridUADError:
    error = kind.__new__(kind)
    Exception.__init__(error, sentence)
    return error


class ConfigError(HybridUADError):
    """A configuration, option or plug-in name that cannot be used."""


class DataError(HybridUADError):
    """A scan, mask, manifest or cohort that cannot be used."""


class ToolError(DataError):
    """A program or package that failed on a scan: the same files may do later, or elsewhere."""


class BundleError(HybridUADError):
    """A model folder that is missing, incomplete, tampered with or of the wrong kind."""


class LeakageError(HybridUADError):
    """A case that was used to fit or calibrate a model is about to be used to evaluate it."""


def reason_of(error: Exception) -> str:
    """Why a case failed, in one sentence, for tables and logs that go on with the next case.

    It is the text of an error raised on purpose, by the system or for lack of memory. Any other error is called
    unexpected, by its type: most likely a fault of this package, whose traceback the caller logs.
    """
    text = " ".join(str(error).split())
    if isinstance(error, HybridUADError | OSError | MemoryError):
        return text or type(error).__name__
    text = f": {text[:300]}" if text else ""
    return f"unexpected {type(error).__name__}{text}; leave the case out, or report it with the log of --verbose."


def unusable(error: OSError) -> DataError:
    """A file or folder that the system refuses, as a sentence."""
    mend = "choose another place, or make room there and see to its permissions"
    return DataError("cannot read or write", where=error.filename, got=error.strerror or error, mend=mend)
