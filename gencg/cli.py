"""The `gencg` command: reads options, calls the library, prints.

Heavy imports happen inside the commands, so that ``gencg --help`` answers at once.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gencg.config import RunConfig
    from gencg.run import RunFolder
    from gencg.systems.base import System
    from gencg.training import StepInfo

BAD_INPUT, INTERRUPTED, UNEXPECTED = 2, 130, 1


class _Command(click.Command):
    """A command whose `--forcefield` takes all XML files after it, `--cv` all numbers."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _spread(args))


class _Group(click.Group):
    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _is_xml(arg: str) -> bool:
    return arg.lower().endswith(".xml")


def _is_number(arg: str) -> bool:
    try:
        float(arg)
    except ValueError:
        return False
    return True


def _is_format(arg: str) -> bool:
    return arg in ("torchscript", "plumed", "colvars", "openmm", "colvar", "xtc", "dcd", "h5")


_LISTS: dict[str, Callable[[str], bool]] = {
    "--forcefield": _is_xml,
    "--format": _is_format,
    "--cv": _is_number,
    "--phi-psi": _is_number,
}


def _spread(args: list[str]) -> list[str]:
    """``--forcefield a.xml b.xml`` becomes ``--forcefield a.xml --forcefield b.xml``.

    So does ``--cv 0.3 -1.2``, whose negative number is no option.
    """
    spread: list[str] = []
    flag = ""
    for arg in args:
        if flag and _LISTS[flag](arg):
            spread += [flag, arg]
            continue
        # The value right after the flag is its own, whatever it looks like
        flag = spread[-1] if spread and spread[-1] in _LISTS else ""
        spread.append(arg)
        name, equals, _ = arg.partition("=")
        if equals and name in _LISTS:
            flag = name
    return spread


class _Count(click.ParamType):  # type: ignore[type-arg]
    """A whole number that may be written 5e6."""

    name = "number"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        try:
            # Digits alone are taken as they are: a float would round a long seed
            if str(value).strip().lstrip("+-").isdecimal():
                return int(value)
            number = float(value)
            if number != int(number):
                raise ValueError
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a whole number, such as 5000000 or 5e6", param, ctx)
        return int(number)


class _Seed(_Count):
    name = "seed"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        number = super().convert(value, param, ctx)
        if not 0 <= number < 2**63:
            self.fail(f"{value} is no seed, a whole number from 0 to 2^63 - 1", param, ctx)
        return number


class _Cvs(_Count):
    name = "number|auto"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return "auto" if value == "auto" else super().convert(value, param, ctx)


COUNT = _Count()

_ENERGY = (
    click.option(
        "--forcefield",
        multiple=True,
        metavar="XML ...",
        help="OpenMM force-field files of a structure or sequence.",
    ),
    click.option(
        "--coordinates",
        type=click.Path(),
        help="Positions that go with a topology.  [the file of its stem beside it]",
    ),
    click.option(
        "--implicit-solvent",
        metavar="NAME",
        help="Of a topology: HCT, OBC1, OBC2, GBn or GBn2.  [vacuum]",
    ),
    click.option(
        "--include-dir", type=click.Path(), help="Folder of what a GROMACS topology includes."
    ),
    click.option(
        "--define", "defines", multiple=True, metavar="NAME[=VALUE]",
        help="Macro of a GROMACS topology.",
    ),
    click.option(
        "--add-hydrogens", is_flag=True, help="Add the hydrogens that a structure file lacks."
    ),
    click.option("--ph", type=float, help="Chooses the protonation of added hydrogens.  [7]"),
    click.option("--caps", is_flag=True, help="Add ACE and NME to a sequence."),
    click.option(
        "--phi-psi", type=float, multiple=True, metavar="PHI PSI ...",
        help="Backbone torsions in degrees of each residue of a sequence, or of all.",
    ),
    click.option("--temperature", type=float, metavar="K", help="Temperature in K."),
)  # fmt: skip
_LOADING = (
    "forcefield", "coordinates", "implicit_solvent", "include_dir", "defines", "add_hydrogens",
    "ph", "caps", "phi_psi",
)  # fmt: skip
_TRAINING = (
    click.option("--cvs", "n_cvs", type=_Cvs(), help="Collective variables.  [auto]"),
    click.option("--seed", type=_Seed(), help="Decides everything random.  [0]"),
    click.option("--energy-calls", type=COUNT, help="Budget for everything, such as 5e6."),
    click.option("--samples", "n_samples", type=COUNT, help="Samples drawn at the end.  [100000]"),
    click.option(
        "--coverage-calls",
        type=COUNT,
        help="Energy calls spent on looking for lost modes, 0 for none.",
    ),
    click.option("--batch-size", type=COUNT, help="Configurations per step.  [512]"),
    click.option(
        "--learning-rate",
        type=float,
        help="Rate of the optimiser; decoders of one stage take a third of it.  [0.003]",
    ),
    click.option("--tempering", metavar="KIND", help="geometric, ess, kl or none.  [geometric]"),
    click.option("--start-temperature", type=float, metavar="K", help="Where tempering begins."),
    click.option("--decoder", metavar="KIND", help="spline, gaussian or unimodal.  [spline]"),
    click.option(
        "--estimator", metavar="KIND", help="covering, path or plain gradient.  [covering]"
    ),
    click.option("--config", "config_file", type=click.Path(), help="TOML file with settings."),
    click.option("--threads", type=COUNT, help="Threads to compute with."),
    click.option("--checkpoint-seconds", type=float, help="Time between checkpoints.  [30]"),
    click.option("--format", "formats", multiple=True, help="Also write xtc or dcd."),
    click.option("--out", type=click.Path(), help="Run folder.  [runs/TARGET]"),
    click.option("--override", is_flag=True, help="Start over where the folder holds a run."),
)
_OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."),
    click.option("--quiet", is_flag=True, help="Print no progress."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)


def _options(*groups: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    def decorate(function: Any) -> Any:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return decorate


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gencg")
def app() -> None:
    """From a force field to all-atom ensembles, without simulation data."""


@app.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@_options(_ENERGY, _TRAINING, _OUTPUT)
def run(targets: tuple[str, ...], **options: Any) -> None:
    """Train, draw and report on TARGET.

    TARGET is the name of a ready-made system (`gencg systems`), a structure (.pdb, .cif), an Amber
    topology (.prmtop, .parm7, .top), a GROMACS topology (.top), a serialized OpenMM system (.xml),
    a peptide such as sequence:ACE-ALA-NME, or a small molecule with MMFF94 (smiles:CCO, .sdf,
    .mol). Run again with the same settings, it resumes. Several targets, an .smi or an .sdf file of
    many molecules make a folder each and one table; none stops the others.
    """
    from gencg import parallel
    from gencg.run import RunFolder
    from gencg.run import run as run_all
    from gencg.run.batch import is_batch

    if is_batch(targets):
        return _run_batch(targets, options)
    config, system, path = _configure(targets[0], options)
    with parallel.processes():
        first = parallel.rank() == 0
        options["quiet"] |= not first
        with (
            RunFolder.shared(path, config, override=options["override"]) as folder,
            _progress(options) as reporters,
        ):
            say = _speaker(options)
            summary = run_all(system, folder, reporters=reporters, announce=say)
    if not first:
        return
    if options["as_json"]:
        click.echo(json.dumps(summary, indent=2))
    else:
        _print_summary(summary, path)


def _run_batch(targets: Sequence[str], options: dict[str, Any]) -> None:
    """Run every molecule of the targets with the options that were given."""
    from gencg.run.batch import expand, markdown, run_batch

    items = expand(targets)
    first = Path(targets[0])
    name = first.stem if len(targets) == 1 else "batch"
    out = Path(options["out"] or Path("runs") / name)
    arguments = _given_options(without=("out", "as_json", "quiet", "debug"))
    rows = run_batch(items, arguments, out, announce=_speaker(options))
    click.echo(json.dumps(rows, indent=2) if options["as_json"] else markdown(rows), nl=False)
    if any(row["status"] != "done" for row in rows):
        raise SystemExit(1)


def _given_options(*, without: Sequence[str]) -> list[str]:
    """The options of a command that were given, as on its command line."""
    context = click.get_current_context()
    words: list[str] = []
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if not isinstance(option, click.Option) or not given or name in without:
            continue
        value = context.params[name]
        values = () if option.is_flag else value if option.multiple else (value,)
        words += [option.opts[0]] if option.is_flag else []
        words += [word for v in values for word in (option.opts[0], str(v))]
    return words


@app.command()
@click.argument("target")
@_options(_ENERGY, _TRAINING, _OUTPUT)
def fit(target: str, **options: Any) -> None:
    """Train on TARGET, without drawing.

    `gencg run` with the same settings goes on from there.
    """
    from gencg import parallel
    from gencg.run import RunFolder, train

    config, system, path = _configure(target, options)
    with parallel.processes():
        first = parallel.rank() == 0
        options["quiet"] |= not first
        with (
            RunFolder.shared(path, config, override=options["override"]) as folder,
            folder.locked(),
            _progress(options) as reporters,
        ):
            result = train(system, folder, reporters=reporters)
    if not first:
        return
    numbers = {
        "out": str(path),
        "steps": result.state.step,
        "energy_calls": result.energy_calls,
        "gradient_calls": result.gradient_calls,
        "seconds": result.seconds,
    }
    if options["as_json"]:
        click.echo(json.dumps(numbers, indent=2))
    else:
        click.echo(f"trained {numbers['steps']} steps; draw with `gencg sample {path}`")


@app.command()
@click.argument("folder", metavar="RUN", type=click.Path())
@click.option("-n", "n_samples", type=COUNT, required=True, help="Number of samples.")
@click.option("--seed", type=_Seed(), help="Seed of the draw.  [the run's, plus one]")
@click.option("--out", type=click.Path(), help="Folder to write to.  [RUN/draws/...]")
@click.option("--format", "formats", multiple=True, help="Also write xtc or dcd.")
@click.option("--override", is_flag=True, help="Write over samples that are there.")
@_options(_OUTPUT)
def sample(folder: str, n_samples: int, **options: Any) -> None:
    """Draw weighted samples from RUN.

    They come from its joint model, with their collective variables, where it has one.
    """
    from gencg.export import write_samples
    from gencg.run import RunFolder, sampler
    from gencg.run import sample as draw_samples

    if n_samples < 1:
        raise ValueError(f"`n` must be at least 1, got {n_samples}")
    opened = RunFolder.open(folder)
    seed = opened.config.seed + 1 if options["seed"] is None else options["seed"]
    out = Path(options["out"] or opened.path / "draws" / f"seed{seed}_n{n_samples}")
    _refuse_existing(out / "samples.h5", options, "--seed or --out")
    ensemble = draw_samples(sampler(opened.system(), opened), n_samples, seed=seed)
    written = write_samples(out, ensemble, formats=("h5", *options["formats"]))
    if options["as_json"]:
        numbers = {k: getattr(ensemble, k) for k in ("ess", "log_z", "log_z_error", "pareto_k")}
        files = [str(path) for path in written]
        click.echo(json.dumps({"n_samples": n_samples, **numbers, "files": files}, indent=2))
    else:
        click.echo(f"{ensemble}\n{written[0]}")


@app.command()
@click.argument("folder", metavar="RUN", type=click.Path())
@click.argument("trajectory", metavar="TRAJ", type=click.Path())
@click.option("--top", type=click.Path(), help="File that names the atoms, where TRAJ does not.")
@click.option("--out", type=click.Path(), help=".npy, .csv or .txt.  [RUN/cvs_TRAJ.npy]")
@click.option("--slow", is_flag=True, help="Add the values of the slow functions.")
@click.option("--override", is_flag=True, help="Write over a file that is there.")
@_options(_OUTPUT)
def cv(folder: str, trajectory: str, **options: Any) -> None:
    """Collective variables of the trajectory TRAJ.

    One row per frame, angles in rad. TRAJ may be in any format that MDTraj reads and hold the
    atoms in any order, solvent too; of a toy it is an .npy file.
    """
    from gencg.export import check_table, load_trajectory, write_table
    from gencg.run import RunFolder, with_cvs

    opened = RunFolder.open(folder)
    out = check_table(options["out"] or opened.path / f"cvs_{Path(trajectory).stem}.npy")
    _refuse_existing(out, options, "--out")
    frames = load_trajectory(trajectory, options["top"])
    model = with_cvs(opened.system(), opened)
    values = model.cvs(frames, slow=options["slow"])
    columns = (*model.columns, *(model.slow_columns if options["slow"] else ()))
    write_table(out, values, columns)
    if options["as_json"]:
        numbers = {"n_frames": len(values), "n_cvs": len(model.names), "columns": columns}
        click.echo(json.dumps({**numbers, "out": str(out)}, indent=2))
    elif not options["quiet"]:
        click.echo(f"{len(values):,} frames: {', '.join(columns)}\n{out}")


@app.command()
@click.argument("folder", metavar="RUN", type=click.Path())
@click.option(
    "--cv", "z", type=float, multiple=True, required=True, metavar="NUMBER ...",
    help="Value of each collective variable.",
)  # fmt: skip
@click.option("-n", "n_samples", type=COUNT, required=True, help="Number of samples.")
@click.option("--degrees", is_flag=True, help="The values are in degrees, not in rad.")
@click.option("--seed", type=_Seed(), help="Seed of the draw.  [the run's, plus one]")
@click.option("--out", type=click.Path(), help="Folder to write to.  [RUN/draws/...]")
@click.option("--format", "formats", multiple=True, help="Also write xtc or dcd.")
@click.option("--override", is_flag=True, help="Write over samples that are there.")
@_options(_OUTPUT)
def backmap(folder: str, z: tuple[float, ...], n_samples: int, **options: Any) -> None:
    """Weighted structures of RUN at one value of its collective variables."""
    from gencg.export import write_samples
    from gencg.run import RunFolder, with_cvs

    if n_samples < 1:
        raise ValueError(f"`n` must be at least 1, got {n_samples}")
    opened = RunFolder.open(folder)
    seed = opened.config.seed + 1 if options["seed"] is None else options["seed"]
    values = "_".join(f"{value:g}" for value in z) + ("deg" if options["degrees"] else "")
    out = Path(options["out"] or opened.path / "draws" / f"cv{values}_seed{seed}_n{n_samples}")
    _refuse_existing(out / "samples.h5", options, "--seed or --out")
    model = with_cvs(opened.system(), opened)
    ensemble = model.backmap(z, n_samples, seed=seed, degrees=options["degrees"])
    written = write_samples(out, ensemble, formats=("h5", *options["formats"]))
    numbers = model.backmap_summary(ensemble)
    if options["as_json"]:
        files = [str(path) for path in written]
        click.echo(json.dumps({**numbers, "files": files}, indent=2))
    elif not options["quiet"]:
        _print_backmap(numbers, "rad" if model.periodic else "unit", written[0])


@app.command()
@click.argument("folder", metavar="RUN", type=click.Path())
@click.option(
    "--format",
    "formats",
    multiple=True,
    required=True,
    metavar="NAME ...",
    help="torchscript, plumed, colvars, openmm, or colvar for a table of values.",
)
@click.option("--slow", is_flag=True, help="The slow functions in place of the CVs.")
@click.option("--trajectory", type=click.Path(), help="For colvar.  [RUN's samples]")
@click.option("--top", type=click.Path(), help="File that names the atoms of the trajectory.")
@click.option("--out", type=click.Path(), help="Folder to write to.  [RUN/export]")
@click.option("--override", is_flag=True, help="Write into a folder that is there.")
@_options(_OUTPUT)
def export(folder: str, **options: Any) -> None:
    """Write the collective variables of RUN for other programs.

    Every file is loaded again and compared with the model, in value and gradient; a deviation is
    an error.
    """
    from gencg.run import RunFolder, export_run

    opened = RunFolder.open(folder)
    out = Path(options["out"] or opened.path / "export")
    _refuse_existing(out, options, "--out")
    names = ("formats", "slow", "trajectory", "top")
    checks = export_run(opened.system(), opened, out, **{name: options[name] for name in names})
    if options["as_json"]:
        rows = [vars(check) for check in checks]
        click.echo(json.dumps({"out": str(out), "checks": rows}, indent=2))
    elif not options["quiet"]:
        click.echo("\n".join(map(str, checks)) + f"\n{out}")


@app.command()
@click.argument("target")
@_options(_ENERGY, _OUTPUT)
def energy(target: str, **options: Any) -> None:
    """Energy of TARGET, term by term.

    Of the structure as it is given, in kJ/mol, beside what OpenMM finds.
    """
    from gencg.systems.energies import structure_energy

    loading = {name: options[name] for name in _LOADING}
    loading["phi_psi"] = _pairs(options["phi_psi"])
    values = structure_energy(target, **loading)
    if options["as_json"]:
        click.echo(json.dumps(values, indent=2))
        return
    rows = {**values["terms"], "total": values["total"], "OpenMM": values["openmm"]}
    width = max(map(len, rows))
    for name, value in rows.items():
        if value is not None:
            click.echo(f"{name:<{width}}  {value:16.6f} kJ/mol")


@app.command()
@click.argument("target")
@_options(_ENERGY, _OUTPUT)
@click.option("--out", type=click.Path(), help="Picture (.png, .svg, .pdf) with the soft torsions.")
@click.option("--override", is_flag=True, help="Write over a file that is there.")
def describe(target: str, **options: Any) -> None:
    """What of TARGET is sampled, what is held, and why."""
    from gencg.systems import load
    from gencg.systems.description import describe_system

    loading = {name: options[name] for name in _LOADING}
    loading["phi_psi"] = _pairs(options["phi_psi"])
    system = load(target, temperature=options["temperature"], **loading)
    description = describe_system(system)
    if options["out"] and system.molecule is None:
        raise click.UsageError(f"--out draws a molecule, and {system.name} is a toy")
    if options["out"] and system.molecule is not None:
        from gencg.plots.molecule import plot_molecule
        from gencg.plots.style import new_figure, style

        path = Path(options["out"])
        _refuse_existing(path, options, "file")
        marked = {str(n): row.bond for n, row in enumerate(description.sampled, 1) if row.bond}
        with style():
            figure, (ax,) = new_figure(width=7.0, height=5.0)
            few = system.molecule.n_atoms <= 30
            plot_molecule(system.molecule, marked, hydrogens=few, title=system.name, ax=ax)
            figure.savefig(path)
    if options["as_json"]:
        rows = [vars(row) for row in description.rows]
        about = {"name": description.name, "summary": description.summary, "rows": rows}
        click.echo(json.dumps(about | {"notes": list(description.notes)}, indent=2))
    else:
        click.echo(str(description))


@app.command()
@_options(_OUTPUT)
def systems(**options: Any) -> None:
    """List the ready-made systems.

    With the number of atoms, force field, default temperature and log Z, where it is known.
    """
    from gencg.systems import SYSTEMS, overview

    found = {name: overview(name) for name in SYSTEMS}
    if options["as_json"]:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [("name", "atoms", "force field", "T (K)", "log Z", "what it is")]
    for name, about in found.items():
        log_z = about["known"].get("log_z")
        rows.append((
            name,
            str(about["n_atoms"] or "-"),
            " + ".join(about["forcefield"]) or "-",
            f"{about['temperature']:.5g}",
            "-" if log_z is None else f"{log_z:.4f}",
            about["description"],
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


@app.command()
@click.argument("folder", metavar="RUN", type=click.Path())
@click.option(
    "--energy",
    type=click.Choice(["gfn2", "gfn1"]),
    default="gfn2",
    show_default=True,
    help="The energy to weigh for.",
)
@click.option(
    "-n",
    "n_samples",
    type=COUNT,
    default=1000,
    show_default=True,
    help="Samples to ask it, chosen by weight.",
)
@click.option("--charge", type=int, default=0, show_default=True, help="Total charge.")
@click.option("--unpaired", type=int, default=0, show_default=True, help="Unpaired electrons.")
@click.option("--solvent", metavar="NAME", help="Solvent, by ALPB.  [vacuum]")
@click.option("--no-shift", is_flag=True, help="Leave lengths and angles as they were drawn.")
@click.option("--processes", type=COUNT, default=1, show_default=True, help="To compute with.")
@click.option("--seed", type=_Seed(), default=0, show_default=True, help="Seed of the choice.")
@click.option("--out", type=click.Path(), help="Folder to write to.  [RUN/draws/...]")
@click.option("--override", is_flag=True, help="Start over where samples are there.")
@_options(_OUTPUT)
def reweight(folder: str, n_samples: int, **options: Any) -> None:
    """Weigh samples of RUN for a quantum-chemical energy.

    Lengths and angles are moved to the minimum of that energy first, exactly (the weights know it).
    RUN may be any folder with a samples.h5; they stay as they are where it is no run. Run again
    with the same settings, it resumes.
    """
    from gencg.energies.tblite import TbliteEnergy
    from gencg.export import read_samples, write_samples
    from gencg.reweighting import reweight as weigh_again
    from gencg.run import RunFolder
    from gencg.run.record import finite, write_json
    from gencg.targeted import stiff_shift

    ensemble = read_samples(folder)
    if ensemble.molecule is None:
        raise ValueError(f"`energy` {options['energy']} needs a molecule, {ensemble.name} is none")
    method = {"gfn2": "GFN2-xTB", "gfn1": "GFN1-xTB"}[options["energy"]]
    try:
        energy = TbliteEnergy(
            ensemble.molecule,
            method=method,
            charge=options["charge"],
            n_unpaired=options["unpaired"],
            solvent=options["solvent"],
            n_processes=options["processes"],
        )
    except ImportError as error:
        raise ValueError(str(error)) from None
    home = Path(folder) if Path(folder).is_dir() else Path(folder).parent
    name = f"{options['energy']}_seed{options['seed']}_n{n_samples}"
    out = Path(options["out"] or home / "draws" / name)
    checkpoint = out / "energies.pt"
    _refuse_existing(out / "samples.h5", options, "--seed or --out")
    if options["override"]:
        checkpoint.unlink(missing_ok=True)
    shift = None
    if (home / "config.json").exists() and not options["no_shift"]:
        shift = stiff_shift(RunFolder.open(home).system().coordinates, energy)
    n_calls = energy.n_energy_calls
    with _counter(options) as reporters:
        found = weigh_again(
            ensemble,
            energy,
            n_samples=n_samples,
            shift=shift,
            seed=options["seed"],
            checkpoint=checkpoint,
            reporters=reporters,
        )
    written = write_samples(out, found.ensemble)
    numbers: dict[str, Any] = {"energy": repr(energy), "offset": energy.offset}
    numbers |= {"shifted": shift is not None, **found.numbers()}
    # The minimum, too
    numbers["energy_calls"] += n_calls
    write_json(out / "reweighting.json", numbers)
    if options["as_json"]:
        files = [str(path) for path in written]
        click.echo(json.dumps(finite({**numbers, "files": files}), indent=2))
    elif not options["quiet"]:
        _print_reweighting(numbers, written[0])


@app.command()
@click.argument("folder", metavar="RUN", type=click.Path())
@click.option(
    "--max-terms", type=COUNT, default=4, show_default=True, help="Terms of a formula at most."
)
@_options(_OUTPUT)
def explain(folder: str, max_terms: int, **options: Any) -> None:
    """Formulas for the collective variables of RUN, in chemical words.

    Of its slow functions, too, each with its held-out R², or the answer that there is no short one.
    Writes explain.json and a picture of each into the figures of RUN.
    """
    from gencg.run import RunFolder
    from gencg.run.explain import explain_run
    from gencg.run.record import finite

    result = explain_run(RunFolder.open(folder), max_terms=max_terms)
    if options["as_json"]:
        rows = [explanation.numbers() for explanation in result.explanations]
        files = [str(path) for path in result.files]
        click.echo(json.dumps(finite({"explanations": rows, "files": files}), indent=2))
    elif not options["quiet"]:
        click.echo("\n".join([*map(str, result.explanations), str(result.files[0])]))


@app.command()
@click.argument("folder", metavar="RUN", type=click.Path())
@_options(_OUTPUT)
def report(folder: str, **options: Any) -> None:
    """Write the report of RUN again."""
    from gencg.run import RunFolder, rewrite_report

    opened = RunFolder.open(folder)
    path = rewrite_report(opened.system(), opened)
    click.echo(json.dumps({"report": str(path)}) if options["as_json"] else str(path))


def main(args: list[str] | None = None) -> None:
    """Run the command; bad input is one line on stderr and exit code 2."""
    args = sys.argv[1:] if args is None else args
    # Threads that spin while they wait stand still as soon as another program wants a core;
    # read when torch is first imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app.main(args, prog_name="gencg", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted; the same command goes on from its last checkpoint")
        sys.exit(INTERRUPTED)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(BAD_INPUT)
    except click.ClickException as error:
        _complain(
            f"{error.format_message()}; see gencg {' '.join(args[:1])} --help".replace("  ", " ")
        )
        sys.exit(BAD_INPUT)
    except (ValueError, OSError, RuntimeError) as error:
        _reraise_if_debugging(args)
        _complain(str(error) or type(error).__name__)
        sys.exit(BAD_INPUT)
    except Exception as error:
        _reraise_if_debugging(args)
        _complain(
            f"unexpected {type(error).__name__}: {error}; run again with --debug for the "
            "traceback and report it"
        )
        sys.exit(UNEXPECTED)


def _reraise_if_debugging(args: list[str]) -> None:
    if "--debug" in args or os.environ.get("GENCG_DEBUG"):
        raise


def _complain(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    click.echo("gencg: " + " ".join(message.split()), err=True)


def _configure(target: str, options: dict[str, Any]) -> "tuple[RunConfig, System, Path]":
    """Settings from the TOML file and the command line, which wins, their system and folder."""
    from gencg.config import RunConfig, read_toml
    from gencg.systems import load

    settings = read_toml(options["config_file"]) if options["config_file"] else {}
    given = {
        name: options[name]
        for name in (
            *_LOADING, "temperature", "n_cvs", "seed", "energy_calls", "n_samples",
            "coverage_calls", "batch_size", "learning_rate", "tempering", "start_temperature",
            "decoder", "estimator", "threads", "checkpoint_seconds", "formats",
        )
        # 0 is a value, of --cvs and --seed
        if options[name] is not None and options[name] is not False and options[name] != ()
    }  # fmt: skip
    RunConfig.check_names(settings, source=f"config file {options['config_file']}")
    config = RunConfig(**{**settings, **given, "target": target})
    path = _out(target, options)
    try:
        system = load(target, temperature=config.temperature, **config.loader_options)
        return config.resolve(system), system, path
    except FileNotFoundError as error:
        there = None if options["override"] else _run_of(path, target)
        if there is None or not there.inputs:
            raise
        _speaker(options)(f"{error}: going on from the copies in {path}")
    there.check_inputs()
    config = replace(config, coordinates=config.coordinates or there.config.coordinates)
    system = load(
        target, temperature=config.temperature, kept=there.inputs, **config.loader_options
    )
    return config.resolve(system, inputs=there.config.inputs), system, path


def _run_of(path: Path, target: str) -> "RunFolder | None":
    """The run of a target in a folder, if there is one."""
    from gencg.run import RunFolder

    try:
        there = RunFolder.open(path)
    except ValueError:
        return None  # creating the folder says why
    return there if there.config.target == target else None


def _pairs(numbers: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    if len(numbers) % 2:
        raise ValueError(f"`phi_psi` must be pairs of numbers in degrees, got {len(numbers)}")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _out(target: str, options: dict[str, Any]) -> Path:
    """The folder asked for, or runs/NAME."""
    from gencg.systems.registry import kind_of

    if options["out"]:
        return Path(options["out"])
    return Path("runs") / re.sub(r"[^\w.-]+", "_", kind_of(target).name(target))


def _refuse_existing(path: Path, options: dict[str, Any], cure: str) -> None:
    if path.exists() and not options["override"]:
        raise ValueError(f"{path} exists; choose another {cure}, or write over it with --override")


def _speaker(options: dict[str, Any]) -> Callable[[str], None]:
    def say(text: str) -> None:
        if not options["quiet"]:
            click.echo(text, err=True)

    return say


@contextmanager
def _progress(options: dict[str, Any]) -> "Iterator[list[Callable[[StepInfo], None]]]":
    """A progress bar on stderr as the reporter of a training, or none."""
    if options["quiet"]:
        yield []
        return
    from tqdm import tqdm

    bar: Any = None

    def report(info: "StepInfo") -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(
                total=info.n_steps, initial=info.step - 1, unit="step", file=sys.stderr,
                dynamic_ncols=True, mininterval=0.5,
            )  # fmt: skip
        bar.set_postfix_str(
            f"T={info.temperature:.0f} K, loss={info.loss:.3f}, ESS={info.ess:.2f}, "
            f"calls={info.energy_calls:.3g}"
            + (f", restored={info.n_restored}" if info.n_restored else ""),
            refresh=False,
        )
        bar.update()
        if info.step == info.n_steps:
            bar.close()
            bar = None  # the joint training has a bar of its own

    try:
        yield [report]
    finally:
        if bar is not None:
            bar.close()


_PASSED = {"good": "passed", "poor": "FAILED", "open": "open"}


def _print_summary(summary: dict[str, Any], folder: Path) -> None:
    from gencg.report import percent

    click.echo(
        f"{summary['name']} at {summary['temperature']:g} K: ESS {summary['ess']:.3f} on "
        f"{summary['n_samples']:,} samples, log Z {summary['log_z']:.4f} ± "
        f"{summary['log_z_error']:.4f}, {summary['energy_calls']:,} energy calls, "
        f"{summary['wall_seconds']:.0f} s"
    )
    n_valid = summary["n_samples"] - summary["n_invalid"]
    n_effective = summary["ess"] * summary["n_samples"]
    for name, p in summary["populations"].items():
        raw = percent(p["raw"], p["raw_error"], n_effective=n_valid, unit=" %")
        value, error = p["reweighted"], p["reweighted_error"]
        reweighted = percent(value, error, n_effective=n_effective, unit=" %")
        click.echo(f"  {name:<16} {reweighted}   (raw {raw})")
    if names := summary.get("cv_names"):
        click.echo(
            f"  collective variables {', '.join(names)}: joint ESS {summary['joint_ess']:.3f}, "
            f"bound gap {summary['bound_gap']:.3f} kT"
        )
    for check in summary.get("mode_checks", ()):
        click.echo(f"  {_PASSED[check['level']]} {check['name']}: {check['text']}")
    click.echo(summary["verdict"])
    click.echo(f"report: {folder / 'report.html'}")


def _print_backmap(numbers: dict[str, Any], unit: str, path: Path) -> None:
    at = ", ".join(f"{name} = {value:.4g}" for name, value in numbers["cv"].items())
    click.echo(f"{numbers['n_samples']:,} samples at {at}: ESS {numbers['ess']:.3f}")
    if numbers["free_energy"] is not None:
        power = f"^{len(numbers['cv'])}" if len(numbers["cv"]) > 1 else ""
        click.echo(
            f"free energy -kT log p(z) {numbers['free_energy']:.2f} ± "
            f"{numbers['free_energy_error']:.2f} kJ/mol, p(z) = {numbers['density']:.3g} per "
            f"{unit}{power}"
        )
    click.echo(
        f"clashes {100 * numbers['clashes']:.1f} %, stereo lost "
        f"{100 * numbers['lost_stereo']:.1f} %\n{path}"
    )


@contextmanager
def _counter(options: dict[str, Any]) -> Iterator[list[Callable[[int, int], None]]]:
    """A progress bar on stderr as the reporter of a reweighting, or none."""
    if options["quiet"]:
        yield []
        return
    from tqdm import tqdm

    with tqdm(unit="sample", file=sys.stderr, dynamic_ncols=True, mininterval=0.5) as bar:

        def report(n_done: int, n_all: int) -> None:
            bar.total = n_all
            bar.update(n_done - bar.n)

        yield [report]


def _print_reweighting(numbers: dict[str, Any], path: Path) -> None:
    click.echo(
        f"{numbers['n_samples']:,} samples for {numbers['energy']}\n"
        f"ESS {numbers['ess']:.3g} ({numbers['ess'] * numbers['n_samples']:.0f} samples), "
        f"free-energy difference {numbers['free_energy_difference']:.3f} ± "
        f"{numbers['free_energy_difference_error']:.3f} kJ/mol, "
        f"{numbers['energy_calls']:,} energy calls"
    )
    if numbers["n_failed"]:
        click.echo(
            f"{numbers['n_failed']:,} did not converge and have no weight; they had "
            f"{100 * numbers['failed_weight']:.2g} % of it"
        )
    click.echo(f"{numbers['verdict']}\n{path}")
