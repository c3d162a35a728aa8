"""Settings: refused with their name, written and read back, compared where it matters."""

import copy
import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch

from gencg.config import RunConfig, adds_cvs, file_checksum, hindrances, read_toml
from gencg.systems import alanine_dipeptide, double_well
from gencg.systems.registry import OPTIONS
from gencg.tempering import (
    ESSTempering,
    GeometricLadder,
    KLTempering,
    NoTempering,
    TemperingState,
)

CONFIG = RunConfig("double-well", temperature=300.0, energy_calls=500_000, forcefield=("a.xml",))


def test_what_is_written_is_read_back() -> None:
    resolved = CONFIG.resolve(double_well())
    for config in (CONFIG, resolved, dataclasses.replace(resolved, formats=("xtc",), threads=2)):
        assert RunConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "change, match",
    [
        ({"target": ""}, "`target` must name a system or a file"),
        ({"temperature": -5.0}, "`temperature` must be a positive finite number of K, got -5.0"),
        ({"temperature": math.nan}, "`temperature` must be a positive finite number"),
        ({"temperature": "warm"}, "`temperature` must be a positive finite number .* got 'warm'"),
        ({"temperature": True}, "`temperature` must be a positive finite number .* got True"),
        ({"start_temperature": 200.0}, "`start_temperature` must be at least .* 300 K, got 200"),
        ({"n_cvs": "some"}, "`cvs` must be a whole number of at least 0, got 'some'"),
        ({"n_cvs": -1}, "`cvs` must be a whole number of at least 0, got -1"),
        ({"decoder": "gaussian"}, "`cvs` must be at least 1 with the gaussian decoder"),
        ({"decoder": "unimodal"}, "`cvs` must be at least 1 with the unimodal decoder"),
        ({"seed": 1.5}, "`seed` must be a whole number of at least 0, got 1.5"),
        ({"seed": math.inf}, "`seed` must be a whole number"),
        ({"seed": 2**63}, "`seed` must be below 2\\^63, got 9223372036854775808"),
        ({"n_samples": 99}, "`samples` must be a whole number of at least 100, got 99"),
        ({"batch_size": 1}, "`batch_size` must be a whole number of at least 2"),
        ({"energy_calls": 1000}, "`energy_calls` must leave two steps of 512 .*fewer --samples"),
        (
            {"energy_calls": 10_000, "n_samples": 100},
            "`energy_calls` must be at least 10240, .* --cvs 0",
        ),
        ({"learning_rate": 0.0}, "`learning_rate` must be a positive finite number, got 0.0"),
        ({"tempering": "hot"}, "`tempering` must be one of geometric, ess, kl, none, got 'hot'"),
        ({"estimator": "reinforce"}, "`estimator` must be one of covering, path, plain"),
        (
            {"decoder": "magic"},
            "`decoder` must be one of spline, flow-matching, gaussian, unimodal",
        ),
        ({"formats": ("pdb",)}, "`format` must be one of xtc, dcd, got 'pdb'"),
        ({"forcefield": 5}, "`forcefield` must be a list of names, got 5"),
        ({"threads": 0}, "`threads` must be a whole number of at least 1, got 0"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(change, match) -> None:
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(CONFIG, **change)


def test_recommendations_come_from_the_system() -> None:
    system = double_well()
    config = RunConfig("double-well").resolve(system)
    assert config.temperature == system.temperature
    assert config.start_temperature == pytest.approx(4 * system.temperature)
    assert config.coverage_calls == 30_000
    assert config.energy_calls == 600_000 + 2 * config.n_samples + 2 * 30_000 + 60_000
    generator = RunConfig("double-well", n_cvs=0).resolve(system)
    assert generator.training_calls == system.settings["energy_calls"]
    extra = generator.n_samples + generator.mode_calls
    assert generator.energy_calls == generator.training_calls + extra

    # What is given stays, and resolving again changes nothing
    assert CONFIG.resolve(system).energy_calls == 500_000
    assert config.resolve(system) == config


def test_a_molecule_without_soft_coordinates_has_no_cvs() -> None:
    system = double_well()
    coordinates = copy.copy(system.coordinates)
    coordinates.soft = torch.zeros_like(coordinates.soft)
    rigid = dataclasses.replace(system, coordinates=coordinates)
    config = RunConfig("double-well").resolve(rigid)
    assert config.n_cvs == 0
    assert not config.discovers
    with pytest.raises(ValueError, match="at most 0"):
        RunConfig("double-well", n_cvs=1).resolve(rigid)


def test_there_are_no_more_cvs_than_soft_coordinates() -> None:
    with pytest.raises(ValueError, match=r"`cvs` must be at most 2, .* of double-well, got 3"):
        RunConfig("double-well", n_cvs=3).resolve(double_well())
    assert RunConfig("double-well", n_cvs=2).resolve(double_well()).n_cvs == 2
    with pytest.raises(ValueError, match="`cvs` must be at most 2"):
        RunConfig("double-well", n_cvs=3, decoder="unimodal").resolve(double_well())
    gaussian = RunConfig("double-well", n_cvs=3, decoder="gaussian")
    assert gaussian.resolve(double_well()).n_cvs == 3


def test_the_default_force_field_is_written_down() -> None:
    system = double_well()
    for target, names in (
        ("double-well", ()),
        ("alanine-dipeptide", ("amber96.xml", "implicit/obc1.xml")),
        ("my.pdb", ("amber14-all.xml", "implicit/obc2.xml")),
    ):
        config = RunConfig(target).resolve(system)
        assert config.forcefield == names
        assert config.forcefield_checksum is None


def test_a_changed_force_field_file_is_another_setting(tmp_path: Path) -> None:
    field, solvent = tmp_path / "mine.xml", "implicit/obc1.xml"
    field.write_text("<ForceField/>")
    config = RunConfig("my.pdb", forcefield=(str(field), solvent))
    before = config.resolve(double_well())
    assert config.resolve(double_well()) == before
    field.write_text("<ForceField />")
    (words,) = config.resolve(double_well()).differences(before)
    assert words.startswith(f"checksum of {field} is ")


def test_options_of_a_loader_are_checked() -> None:
    config = RunConfig("sequence:AA", phi_psi=[-60, -45, 60, 45], implicit_solvent="obc2")
    assert config.phi_psi == ((-60.0, -45.0), (60.0, 45.0))
    assert config.implicit_solvent == "OBC2"
    assert RunConfig("sequence:AA", phi_psi=[[-60, -45]]).phi_psi == ((-60.0, -45.0),)
    assert set(config.loader_options) == set(OPTIONS)
    for wrong, message in (
        ({"phi_psi": (1.0,)}, "`phi_psi` must be pairs of numbers in degrees"),
        ({"phi_psi": "flat"}, "`phi_psi` must be pairs"),
        ({"coordinates": 3}, "`coordinates` must be a name, got 3"),
        ({"include_dir": ""}, "`include_dir` must be a name"),
        ({"implicit_solvent": "water"}, "`implicit_solvent` must be one of HCT"),
        ({"add_hydrogens": "yes"}, "`add_hydrogens` must be true or false, got 'yes'"),
        ({"caps": 1}, "`caps` must be true or false"),
        ({"ph": float("nan")}, "`ph` must be a finite number"),
        ({"defines": 3}, "`defines` must be a list of names"),
    ):
        with pytest.raises(ValueError, match=message):
            RunConfig("my.pdb", **wrong)


def test_a_changed_input_is_another_setting(tmp_path: Path) -> None:
    file = tmp_path / "my.pdb"
    file.write_text("one")
    config = RunConfig(str(file))
    before = config.resolve(double_well())
    assert before.inputs == ((str(file), "inputs/my.pdb", file_checksum(file)),)
    assert RunConfig.from_json(before.to_json()) == before
    file.write_text("two")
    (words,) = config.resolve(double_well()).differences(before)
    assert words.startswith(f"checksum of {file} is 7692c3ad there and 3fc4ccfe here")


def test_settings_of_earlier_versions_are_read() -> None:
    # Only the structure was kept, under a name of its own
    text = json.dumps({"target": "my.pdb", "checksum": "abc", "forcefield": ["a.xml"]})
    assert RunConfig.from_json(text).inputs == (("my.pdb", "structure.pdb", "abc"),)
    text = json.dumps({"target": "my.mmcif", "checksum": "abc"})
    assert RunConfig.from_json(text).inputs == (("my.mmcif", "structure.cif", "abc"),)
    text = json.dumps({"target": "double-well", "checksum": None})
    assert RunConfig.from_json(text).inputs == ()


def test_a_trajectory_format_needs_a_molecule() -> None:
    config = RunConfig("double-well", formats=("xtc",))
    with pytest.raises(ValueError, match="`format` xtc needs a molecule, double-well is none"):
        config.resolve(double_well())
    assert config.resolve(alanine_dipeptide()).formats == ("xtc",)


def test_before_resolving_there_is_no_budget_and_no_schedule() -> None:
    with pytest.raises(ValueError, match="not known before `resolve`"):
        RunConfig("double-well").schedule()
    with pytest.raises(ValueError, match="not known before `resolve`"):
        _ = RunConfig("double-well").training_calls


@pytest.mark.parametrize(
    "kind, schedule",
    [("geometric", GeometricLadder), ("ess", ESSTempering), ("kl", KLTempering),
     ("none", NoTempering)],
)  # fmt: skip
def test_each_kind_of_tempering(kind: str, schedule: type) -> None:
    config = RunConfig("double-well", tempering=kind, temperature=300.0, start_temperature=900.0)
    made = config.schedule()
    assert type(made) is schedule
    assert made.start == pytest.approx(1.0 if kind == "none" else 3.0)


def test_only_what_touches_the_result_counts_as_a_difference() -> None:
    same = dataclasses.replace(CONFIG, threads=2, formats=("xtc",), checkpoint_seconds=5.0)
    assert CONFIG.differences(same) == []
    other = dataclasses.replace(CONFIG, seed=3, forcefield=())
    assert other.differences(CONFIG) == [
        "forcefield is a.xml there and not given here",
        "seed is 0 there and 3 here",
    ]


@pytest.mark.parametrize(
    "text, match",
    [
        ("{", r"x.json is damaged .* --override"),
        ("[1]", "x.json must hold settings by name, got list"),
        ('{"target": "a", "sed": 1}', "x.json holds an unknown setting `sed`; known are"),
        ("{}", "x.json must hold the setting `target`"),
        ('{"target": "a", "seed": -1}', "x.json: `seed` must be"),
    ],
)
def test_a_damaged_file_is_refused(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RunConfig.from_json(text, source="x.json")


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('energy-calls = 5e5\nsamples = 10\ncvs = 0\nforcefield = ["a.xml"]\n')
    assert read_toml(path) == {
        "energy_calls": 5e5, "n_samples": 10, "n_cvs": 0, "forcefield": ["a.xml"],
    }  # fmt: skip
    path.write_text("seed = = 3")
    with pytest.raises(ValueError, match="is not TOML"):
        read_toml(path)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_toml(tmp_path / "b.toml")


@pytest.mark.parametrize("total", [300_000, 2_000_000, 20_000_000])
@pytest.mark.parametrize("coverage", [0, 7_000])
def test_cvs_may_be_added_where_training_stays(total: int, coverage: int) -> None:
    bare = dataclasses.replace(CONFIG, n_cvs=0, energy_calls=total, coverage_calls=coverage)
    asked = dataclasses.replace(bare, n_cvs="auto", coverage_calls=None)
    assert adds_cvs(asked, bare)
    assert not adds_cvs(bare, asked)
    assert not adds_cvs(bare, bare)

    # The same budget for everything leaves less for training; the cure gives it back
    (words,) = hindrances(asked, bare)
    match = re.search(r"--energy-calls (\d+) --coverage-calls (\d+)", words)
    assert match is not None
    cured = dataclasses.replace(asked, energy_calls=int(match[1]), coverage_calls=int(match[2]))
    assert hindrances(cured, bare) == []
    steps = bare.training_calls // bare.batch_size
    assert cured.training_calls // cured.batch_size == steps

    # Anything else that touches the result is another run
    (words,) = hindrances(dataclasses.replace(cured, seed=3), bare)
    assert words == "seed is 0 there and 3 here"
    assert hindrances(dataclasses.replace(cured, threads=3, formats=("xtc",)), bare) == []


def test_what_other_cvs_would_need_is_told_in_words_that_fit() -> None:
    system = alanine_dipeptide()
    bare = RunConfig("alanine-dipeptide", n_cvs=0, generator="shipped", coverage_calls=9_000)
    asked = RunConfig("alanine-dipeptide", generator="shipped", descriptors="both")
    bare, asked = bare.resolve(system), asked.resolve(system)
    assert hindrances(asked, bare) == [
        "lost modes were looked for with 9,000 energy calls there; give --coverage-calls 9000"
    ]
    # Descriptors are not looked at without collective variables
    assert hindrances(dataclasses.replace(asked, coverage_calls=9_000), bare) == []


def test_descriptors_that_a_system_lacks_are_refused_at_once() -> None:
    config = RunConfig("double-well", descriptors="both")
    with pytest.raises(ValueError, match="`descriptors` both needs distances, and double-well"):
        config.resolve(double_well())
    assert dataclasses.replace(config, n_cvs=0).resolve(double_well()).descriptors == "both"


def test_the_default_budget_of_a_molecule_takes_cvs_up_as_it_is() -> None:
    system = alanine_dipeptide()
    bare = RunConfig("alanine-dipeptide", n_cvs=0).resolve(system)
    assert hindrances(RunConfig("alanine-dipeptide").resolve(system), bare) == []


@pytest.mark.parametrize("n_cvs", ["auto", 0])
@pytest.mark.parametrize("coverage", [None, 0, 7_000])
@pytest.mark.parametrize("total", [None, 250_000, 480_000, 10_000_000])
def test_without_training_the_budget_goes_to_what_comes_after(n_cvs, coverage, total) -> None:
    config = RunConfig(
        "alanine-dipeptide", generator="shipped", n_cvs=n_cvs, coverage_calls=coverage,
        energy_calls=total,
    ).resolve(alanine_dipeptide())  # fmt: skip
    assert config.training_calls == 0
    spent = config.reheating_calls + config.covering_calls + config.joint_calls + config.mode_calls
    samples = config.n_samples * (1 if n_cvs == 0 else 2)
    assert config.extra_calls(config.energy_calls) == spent + samples <= config.energy_calls
    if coverage is not None:
        assert config.mode_calls == coverage
    if total in (None, 10_000_000):
        # The most of each, and no more
        assert config.reheating_calls == 150_000
        assert (config.covering_calls, config.joint_calls) == (
            (60_000, 300_000) if n_cvs == "auto" else (0, 0)
        )
        assert config.mode_calls == (100_000 if coverage is None else coverage)
    elif n_cvs == "auto":
        assert config.joint_calls == pytest.approx(5 * config.covering_calls, rel=0.01)
        assert spent + samples > 0.99 * total
    # Written down and read again, it is the same run
    again = RunConfig.from_json(config.to_json())
    assert again.differences(config) == []
    assert again.joint_calls == config.joint_calls


@pytest.mark.parametrize("n_cvs", ["auto", 0])
@pytest.mark.parametrize("total", [None, 700_000, 10_000_000])
def test_further_calls_come_before_what_the_other_stages_share(n_cvs, total) -> None:
    given = RunConfig("alanine-dipeptide", generator="shipped", n_cvs=n_cvs, energy_calls=total)
    config = dataclasses.replace(given, further_calls=200_000).resolve(alanine_dipeptide())
    assert config.training_calls == 200_000
    left = None if total is None else total - 200_000
    without = dataclasses.replace(given, energy_calls=left).resolve(alanine_dipeptide())
    assert without.training_calls == 0
    assert config.energy_calls == without.energy_calls + 200_000
    for stage in ("reheating", "covering", "joint", "mode"):
        assert getattr(config, f"{stage}_calls") == getattr(without, f"{stage}_calls")
    assert config.optimisation().learning_rate == pytest.approx(1e-3)
    assert config.resolve(alanine_dipeptide()) == config
    again = RunConfig.from_json(config.to_json())
    assert again.differences(config) == []
    assert without.differences(dataclasses.replace(without, further_calls=0)) == []
    (told,) = dataclasses.replace(config, further_calls=None).differences(config)
    assert told == "further_calls is 200000 there and None here"


@pytest.mark.parametrize("n_cvs", ["auto", 0])
def test_the_least_budget_holds_the_further_calls(n_cvs) -> None:
    given = {"n_cvs": n_cvs, "generator": "shipped", "n_samples": 1000, "coverage_calls": 500}
    match = "of training it further, samples and"
    with pytest.raises(ValueError, match=match) as told:
        RunConfig("double-well", **given, further_calls=2000, energy_calls=2100)
    least = int(re.search(r"at least (\d+)", str(told.value))[1])
    with pytest.raises(ValueError, match=match):
        RunConfig("double-well", **given, further_calls=2000, energy_calls=least - 1)
    config = RunConfig("double-well", **given, further_calls=2000, energy_calls=least)
    assert config.training_calls == 2000
    assert config.extra_calls(least) <= least - 2000
    if config.discovers:
        assert config.covering_calls >= 500
        assert config.joint_calls >= 2 * config.batch_size


@pytest.mark.parametrize(
    "change, match",
    [
        (
            {"generator": None},
            "`further_calls` are for a generator .*got 5000 without.*--generator",
        ),
        ({"further_calls": 1000}, "`further_calls` must be at least 1024, two steps of 512, got 1"),
        ({"further_calls": -1}, "`further_calls` must be a whole number of at least 0, got -1"),
        ({"further_calls": 2.5}, "`further_calls` must be a whole number of at least 0, got 2.5"),
        ({"decoder": "flow-matching"}, "`generator` goes with the spline decoder"),
        ({"tempering": "ess"}, "`tempering` is of a training from the.*got ess; leave it"),
        ({"start_temperature": 700.0}, "`start_temperature` is .*or give --anneal-from to begin"),
        ({"anneal_from": 299.0}, "`anneal_from` must be above the temperature of 300 K, got 299"),
        ({"anneal_from": 300.0}, "`anneal_from` must be above the temperature of 300 K, got 300"),
        ({"anneal_from": -1.0}, "`anneal_from` must be a positive finite number of K, got -1"),
        (
            {"anneal_from": 600.0, "further_calls": None},
            "`anneal_from` is of a generator that is trained further, got 600.*--further-calls",
        ),
    ],
)
def test_wrong_further_calls_are_refused(change, match) -> None:
    given = {"generator": "shipped", "further_calls": 5000} | change
    with pytest.raises(ValueError, match=match):
        RunConfig("alanine-dipeptide", **given).resolve(alanine_dipeptide())


def test_a_further_training_takes_rate_and_estimator() -> None:
    config = RunConfig(
        "alanine-dipeptide", generator="shipped", further_calls=5000, learning_rate=6e-3,
        estimator="path",
    ).resolve(alanine_dipeptide())  # fmt: skip
    assert config.optimisation().learning_rate == pytest.approx(2e-3)
    assert isinstance(config.schedule(), NoTempering)
    # None are none, with a generator and without
    assert RunConfig("double-well", further_calls=0) == RunConfig("double-well")


def test_an_annealing_cools_down_as_a_training_from_the_beginning_does() -> None:
    config = RunConfig(
        "alanine-dipeptide", generator="shipped", further_calls=5000, anneal_from=750.0
    ).resolve(alanine_dipeptide())
    whole = RunConfig("alanine-dipeptide", start_temperature=750.0).resolve(alanine_dipeptide())
    assert config.optimisation() == whole.optimisation()
    target = 1 / 300.0
    for progress in (0.0, 0.2, 0.5, 0.9):
        state = TemperingState(progress, torch.zeros(0), torch.zeros(0))
        betas = [c.schedule().next(target / 2.5, state, target=target) for c in (config, whole)]
        assert betas[0] == betas[1]
    assert config.schedule().start == 2.5
    again = RunConfig.from_json(config.to_json())
    assert again.differences(config) == []
    (told,) = dataclasses.replace(config, anneal_from=None).differences(config)
    assert told == "anneal_from is 750 there and None here"


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": 1e-3}, {"tempering": "ess"}, {"estimator": "path"},
     {"start_temperature": 700.0}],
)  # fmt: skip
def test_without_training_its_settings_are_refused(change) -> None:
    config = RunConfig("alanine-dipeptide", generator="shipped")
    (name,) = change
    with pytest.raises(ValueError, match=rf"`{name}` is of a training, and .* leave it out"):
        dataclasses.replace(config, **change).resolve(alanine_dipeptide())
    # Resolved once more it is the same
    resolved = config.resolve(alanine_dipeptide())
    assert resolved.resolve(alanine_dipeptide()) == resolved
    # However the folder is written, it is the same run
    one, other = (dataclasses.replace(resolved, generator=name) for name in ("runs/a", "./runs/a/"))
    assert one.differences(other) == []
    assert one.differences(resolved) != []


def test_without_training_too_small_a_budget_is_refused() -> None:
    least = re.compile(r"`energy_calls` must be at least (\d+) with a generator that is there")
    with pytest.raises(ValueError, match=least) as error:
        RunConfig("alanine-dipeptide", generator="shipped", energy_calls=201_000)
    found = least.search(str(error.value))
    assert found is not None
    config = RunConfig("alanine-dipeptide", generator="shipped", energy_calls=int(found[1]))
    assert config.joint_calls >= 2 * config.batch_size
    assert config.covering_calls >= 500
    for wrong in ("", (), ["a", ""], 3):
        with pytest.raises(ValueError, match="`generator` must be shipped or a run folder, or sev"):
            RunConfig("alanine-dipeptide", generator=wrong)
    with pytest.raises(ValueError, match=r"must name each once, got a \./a; leave one"):
        RunConfig("alanine-dipeptide", generator=["a", "./a"])


def test_one_generator_is_what_earlier_versions_wrote() -> None:
    one = RunConfig("alanine-dipeptide", generator="runs/a")
    assert one.generator == ("runs/a",)
    text = json.loads(one.to_json())
    for written in ("runs/a", ["runs/a"], ["./runs/a"]):
        read = RunConfig.from_json(json.dumps(text | {"generator": written}), source="config.json")
        assert not one.differences(read)
    several = RunConfig("alanine-dipeptide", generator=["runs/a", "runs/b"])
    assert RunConfig.from_json(several.to_json(), source="config.json") == several
    assert "generator is runs/a runs/b there and runs/a here" in one.differences(several)
