"""Run configs: strict, with errors that name the key, and readable again after writing."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from hybriduad.config import files as configs
from hybriduad.config import runs as config
from hybriduad.config.runs import DetectorRun, Fusion, ReconstructorRun
from hybriduad.config.strict import PluginConfig
from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError

RECONSTRUCTOR = """
kind: reconstructor
anatomy: {contrasts: [FLAIR, T1w], size: 64}
model: {name: ddpm, widths: [16, 32]}
train: {steps: 10, lr: 1.0e-4}
"""
DETECTOR = """
kind: detector
anomalies: [{name: perlin}]
mix: {healthy: 1, synthetic: 1}
train: {steps: 10, lr: 1.0e-3}
"""


@pytest.fixture
def reconstructor(tmp_path: Path) -> Path:
    path = tmp_path / "reconstructor.yaml"
    path.write_text(RECONSTRUCTOR)
    return path


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    path = tmp_path / "detector.yaml"
    path.write_text(DETECTOR)
    return path


def refused(path: Path | str, *overrides: str, kind: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        configs.load(path, list(overrides), kind)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_loads_as_the_run_of_its_kind(reconstructor: Path, detector: Path) -> None:
    stage1, stage2 = configs.load(reconstructor), configs.load(detector)
    assert isinstance(stage1, ReconstructorRun)
    assert isinstance(stage2, DetectorRun)
    assert stage1.anatomy.contrasts == ("FLAIR", "T1w")
    assert type(stage1.model).__module__ == "hybriduad.reconstructors.ddpm"
    assert stage1.model.widths == (16, 32)
    assert type(stage2.anomalies[0]).__module__ == "hybriduad.anomalies.perlin"


def test_is_frozen(reconstructor: Path) -> None:
    run = configs.load(reconstructor)
    with pytest.raises(ValueError, match="frozen"):
        run.train.steps = 5


@pytest.mark.parametrize("name", configs.shipped())
def test_shipped_configs_load_and_survive_writing(name: str, tmp_path: Path) -> None:
    run = configs.load(name)
    written = tmp_path / "again.yaml"
    written.write_text(configs.dump(run))
    assert configs.load(written) == run


def test_what_a_loss_leaves_out_is_not_written_so_that_older_trainings_continue() -> None:
    shipped = {name: configs.load(name) for name in configs.shipped()}
    written = {
        name: set(yaml.safe_load(configs.dump(run))["loss"]) - {"dice", "false_alarm"}
        for name, run in shipped.items()
        if run.kind == "detector"
    }
    assert {name: keys for name, keys in written.items() if keys} == {
        "draem": {"focal"},
        "fpi": {"target"},
        "pii": {"target"},
    }


def test_a_name_of_before_is_of_the_same_config() -> None:
    """So that keys of benchmarks and trainings that were stopped are those of either name."""
    assert configs.dump(configs.load("cddpm-small")) == configs.dump(configs.load("restoration"))
    assert "restoration" in (configs.shipped_folder() / "cddpm-small.yaml").read_text().splitlines()[0]


def test_there_are_shipped_configs_of_every_kind() -> None:
    assert {configs.load(name).kind for name in configs.shipped()} == set(configs.RUNS)


@pytest.mark.parametrize(
    ("override", "key", "nearest"),
    [
        ("trian.steps=3", "trian", "train"),
        ("train.stepps=3", "train.stepps", "train.steps"),
        ("anatomy.sise=64", "anatomy.sise", "anatomy.size"),
        ("model.levls=[3]", "levls", "levels"),
    ],
)
def test_unknown_key_names_the_nearest(reconstructor: Path, override: str, key: str, nearest: str) -> None:
    sentence = refused(reconstructor, override)
    assert sentence.startswith("unknown key in ")
    if "model" not in override:
        assert sentence.startswith(f"unknown key in --set {override}: ")
    assert repr(key) in sentence
    assert f"perhaps {nearest!r} is meant" in sentence


def test_unknown_key_in_an_optional_block_names_the_nearest(detector: Path) -> None:
    assert "perhaps 'anatomy.size' is meant" in refused(detector, "anatomy={contrasts: [FLAIR], sise: 64}")


def test_unknown_key_in_a_plugin_of_a_list_names_the_nearest(detector: Path) -> None:
    assert "perhaps 'threshold' is meant" in refused(detector, "anomalies=[{name: perlin, treshold: 0.5}]")


@pytest.mark.parametrize("weight", ["0", "-1", ".inf", ".nan"])
def test_the_weight_of_a_generator_is_above_0(detector: Path, weight: str) -> None:
    assert "'weight'" in refused(detector, f"anomalies=[{{name: perlin, weight: {weight}}}]")
    assert configs.load(detector, ["anomalies=[{name: perlin, weight: 2}]"]).anomalies[0].weight == 2


def test_the_usual_weight_is_not_written(detector: Path) -> None:
    """A training that was stopped before there were weights asks for the same now."""
    for weight, written in ((1, None), (2, 2.0)):
        run = configs.load(detector, [f"anomalies=[{{name: perlin, weight: {weight}}}]"])
        block = run.model_dump(mode="json", serialize_as_any=True)["anomalies"][0]
        assert block.get("weight") == written
        assert block["threshold"] == 0.5


def test_a_file_wrong_by_itself_is_blamed_though_something_was_set(reconstructor: Path) -> None:
    reconstructor.write_text(RECONSTRUCTOR + "sede: 1\n")
    assert refused(reconstructor, "train.steps=3").startswith(f"unknown key in {reconstructor}: ")


@pytest.mark.parametrize("contrasts", ["[FLIAR]", "[FLAIR, FLAIR]"])
def test_contrasts_are_known_and_distinct(reconstructor: Path, contrasts: str) -> None:
    sentence = refused(reconstructor, f"anatomy.contrasts={contrasts}")
    assert "bad value for 'anatomy'" in sentence
    assert "each of FLAIR, T1w" in sentence


def test_unknown_key_without_a_neighbour_lists_the_known(detector: Path) -> None:
    sentence = refused(detector, "zzz=1")
    assert "'augmentation'" in sentence
    assert "remove it" in sentence


@pytest.mark.parametrize(("voxels", "length_mm"), [(5, 11.5), (1, 0.0)])
def test_a_bundle_of_an_earlier_version_has_its_median_in_millimetres(
    reconstructor: Path, voxels: int, length_mm: float
) -> None:
    run = configs.load(reconstructor, ["residual={kind: absolute}"])
    reconstructor.write_text(configs.dump(run).replace("median_mm: 11.5", f"median_voxels: {voxels}"))
    with pytest.raises(ConfigError, match=r"unknown key.*residual\.median_voxels"):
        configs.load(reconstructor)
    migrated = configs.load_resolved(reconstructor, "reconstructor")
    assert migrated.residual == run.residual.model_copy(update={"median_mm": length_mm})


def test_unknown_plugin_names_the_nearest(detector: Path) -> None:
    assert "perhaps perlin is meant" in refused(detector, "anomalies=[{name: perlim}]")
    assert "expected a mapping with 'name'" in refused(detector, "anomalies=[{nam: perlin}]")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.steps=-1", "'train.steps'.*got -1.*greater than or equal to 0"),
        ("train.steps=1.5", "'train.steps'.*got 1.5.*integer"),
        ("train.lr=fast", "'train.lr'.*got 'fast'.*number"),
        ("train.lr=.nan", "'train.lr'.*got nan"),
        ("train=5", "'train'.*got 5"),
        ("anatomy.contrasts=FLAIR", "'anatomy.contrasts'.*got 'FLAIR'"),
        ("anatomy.contrasts=[]", "'anatomy.contrasts'"),
        ("residual.median_mm=-1", "'residual.median_mm'.*greater than or equal to 0"),
        ("residual.median_voxels=5", "unknown key.*'residual.median_voxels'.*perhaps 'residual.median_mm' is meant"),
        ("residual.kind=ssm", "'residual.kind'.*'ssim', 'absolute'"),
        ("mix={healthy: 0}", "'mix'.*at least one share must be positive"),
        ("model.levels=[2000]", "levels must lie in"),
        ("model={name: ddpm, levels: [100, 400], train_levels: [0, 400]}", r"in the range that is trained.*\[0, 400\)"),
    ],
)
def test_bad_value_names_key_and_value(reconstructor: Path, override: str, said: str) -> None:
    assert re.search(said, refused(reconstructor, override))


@pytest.mark.parametrize("channels", ["[]", "[16, 0]", "[64, 32, 16, 8, 4, 2]"])
def test_decoder_channels_that_no_encoder_has(detector: Path, channels: str) -> None:
    assert "bad value for 'segmenter.decoder_channels" in refused(detector, f"segmenter.decoder_channels={channels}")


def _blocks(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A config model and all that are nested in it."""
    blocks = {model}
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, PluginConfig):
                blocks |= _blocks(kind)
    return blocks


def test_every_key_of_a_config_is_read_somewhere() -> None:
    """A published mistake: keys that look as if they did something."""
    package = Path(config.__file__).parent.parent
    read: dict[Path, set[object]] = {}
    for path in package.rglob("*.py"):
        if path.name != "runs.py":
            nodes = list(ast.walk(ast.parse(path.read_text())))
            read[path] = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
            read[path] |= {node.value for node in nodes if isinstance(node, ast.Constant)}  # getattr(config, "blur")
    everywhere = set().union(*read.values())
    blocks = _blocks(ReconstructorRun) | _blocks(DetectorRun)
    assert len(blocks) > 8
    for block in blocks:
        assert set(block.model_fields) - {"kind"} <= everywhere, block.__name__
    for kind in ("reconstructors", "anomalies"):
        for name in plugins.names(kind):
            plugin = plugins.load(kind, name)
            shared = {"name", "weight"} if kind == "anomalies" else {"name"}  # read where generators are drawn
            # A family may share the config of another, and with it what reads it.
            files = {Path(inspect.getfile(of)) for of in plugin.Config.__mro__ if of.__module__.startswith("hybriduad")}
            # Plug-ins may share what reads a key, in a module of their folder that is no plug-in.
            folder = package / kind
            files |= {
                folder / f"{node.module.rpartition('.')[2]}.py"
                for file in tuple(files)
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"hybriduad.{kind}._")
            }
            unread = set(plugin.Config.model_fields) - shared - set().union(*(read[file] for file in files))
            assert not unread, f"{name} never reads {unread}"


@pytest.mark.parametrize("written", ["1e-4", "1.0e-4", "0.0001", "1E-4"])
def test_floats_in_any_notation(reconstructor: Path, written: str) -> None:
    """PyYAML reads 1e-4 as a string; it must be a number all the same."""
    assert yaml.safe_load("1e-4") == "1e-4"
    assert configs.load(reconstructor, [f"train.lr={written}"]).train.lr == 1e-4
    reconstructor.write_text(RECONSTRUCTOR.replace("1.0e-4", written))
    assert configs.load(reconstructor).train.lr == 1e-4


def test_integers_in_float_notation_are_refused_with_the_key(reconstructor: Path) -> None:
    assert "bad value for 'train.steps'" in refused(reconstructor, "train.steps=1e3")


def test_overrides_replace_add_and_keep(reconstructor: Path) -> None:
    run = configs.load(reconstructor, ["train.steps=3", "mix.synthetic=0.5", "anomalies=[{name: perlin}]", "seed=4"])
    assert (run.train.steps, run.train.lr) == (3, 1e-4)
    assert (run.mix.healthy, run.mix.synthetic) == (1.0, 0.5)
    assert (len(run.anomalies), run.seed) == (1, 4)


def test_override_changes_no_argument() -> None:
    data = {"a": {"b": 1}}
    assert configs.override(data, ["a.b=2", "a.c=x=y"]) == {"a": {"b": 2, "c": "x=y"}}
    assert data == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.steps", "bad override: got 'train.steps', expected dotted.key=value"),
        ("train.steps.more=3", "no mapping: got 'train.steps.more'"),
        ("seed=[1", "override whose value is not YAML: got 'seed=[1'"),
    ],
)
def test_bad_overrides(reconstructor: Path, override: str, said: str) -> None:
    assert said in refused(reconstructor, override)


def test_wrong_kind(reconstructor: Path) -> None:
    assert "wrong kind" in refused(reconstructor, kind="detector")
    assert "got reconstructor, expected detector" in refused(reconstructor, kind="detector")


@pytest.mark.parametrize("content", ["", "- 1", "kind: segmenter", "kind: [detector]", "just text"])
def test_no_known_kind(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    assert "config without a known kind" in refused(path)


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00", b"a: b: c"])
def test_not_yaml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    assert f"config is not YAML in {path}" in refused(path)


def test_no_code_in_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("kind: !!python/object/apply:os.getcwd []")
    assert "config is not YAML" in refused(path)


def test_missing_config(tmp_path: Path) -> None:
    assert "cannot read config" in refused(tmp_path / "none.yaml")
    assert "perhaps 'cddpm-small' is meant" in refused("cddpm-smal")
    assert "or give a path that ends in .yaml" in refused("zzzz")


def test_fusion_by_a_sum_has_no_floor_and_no_baseline() -> None:
    assert Fusion(form="product", floor=0.1, intensity=0.5).floor == 0.1
    for key in ("floor", "intensity", "asymmetry"):
        with pytest.raises(ValidationError, match="belong to the form product"):
            Fusion(form="sum", **{key: 0.1})
    for key in ("opposite", "departure"):
        with pytest.raises(ValidationError, match="opposite and departure belong to an intensity above 0"):
            Fusion(form="product", **{key: 4.0})
    assert set(Fusion().model_dump()) == {"form", "weight", "smooth_mm"}, "a bundle of before is another request"
