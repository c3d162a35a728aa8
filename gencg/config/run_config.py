"""The settings of a run: typed, checked, resolved."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gencg.config.budget import (
    FEWEST_COVERING,
    Budget,
    least_without_training,
    share_out,
    share_out_without_training,
)
from gencg.config.checks import as_inputs, as_pairs, check_integer, check_number, check_positive
from gencg.config.checksums import forcefield_checksum
from gencg.config.comparing import differences
from gencg.config.reading import read_json
from gencg.discover.slow_cvs import distances_of
from gencg.fit import DEFAULT_ENERGY_CALLS, MATCHING_RATE
from gencg.objectives.build import ESTIMATORS
from gencg.objectives.slow_network import DESCRIPTORS
from gencg.systems.base import System
from gencg.systems.implicit import solvent_name
from gencg.systems.inputs import input_files
from gencg.systems.registry import default_coordinates, default_force_field
from gencg.tempering import (
    ESSTempering,
    GeometricLadder,
    KLTempering,
    NoTempering,
    TemperingSchedule,
)
from gencg.training import Optimisation

TEMPERINGS = ("geometric", "ess", "kl", "none")
DECODERS = ("spline", "flow-matching", "gaussian", "unimodal")
IN_TWO_STAGES = ("spline", "flow-matching")
"""Decoders of a generator without collective variables, which are found after it."""
FORMATS = ("xtc", "dcd")
BENIGN: dict[str, Any] = {"benign": True}
"""Marks a setting that may change when a run goes on: it does not touch the result."""
LOADER: dict[str, Any] = {"loader": True}
"""Marks a setting that `gencg.systems.load` takes."""
SHIPPED = "shipped"
"""The word for a generator that comes with gencg."""
INPUTS = "inputs"
"""Folder within that of a run which holds copies of its input files."""


@dataclass(frozen=True)
class RunConfig:
    """Settings of a run; None stands for the recommendation until `resolve` fills it in.

    Attributes:
        target: Name of a ready-made system, path of a file, or a sequence; see
            `gencg.systems.load`.
        forcefield: OpenMM force-field files; none takes the target's own.
        coordinates: File of the positions that go with a topology; none is the one beside it.
        implicit_solvent: Implicit solvent of a topology; none is vacuum.
        include_dir: Folder of the files that a GROMACS topology includes. What it holds counts,
            not where it is.
        defines: Macros of a GROMACS topology.
        add_hydrogens: Whether to add the hydrogens that a structure file lacks.
        ph: Chooses their state of protonation.
        caps: Whether to add caps to a sequence.
        phi_psi: Backbone torsions of a sequence in degrees, a pair for each residue or for all.
        temperature: Temperature in K.
        n_cvs: Number of collective variables, "auto" for as many as the slow processes need, or
            0 for the generator alone.
        descriptors: What the networks that check the slow functions see: "torsions", "distances"
            or "both".
        seed: Decides everything random.
        energy_calls: Budget of energy evaluations for everything, training and drawing.
        n_samples: Samples drawn at the end.
        coverage_calls: Energy evaluations spent on looking for modes that training lost; 0 does
            not look.
        batch_size: Configurations per training step.
        learning_rate: Rate of the optimiser after warm-up; a decoder of one stage, and a generator
            that is trained further at one temperature, takes a third, one that is matched three
            times as much.
        tempering: "geometric", "ess", "kl" or "none".
        start_temperature: Temperature in K at which tempering begins.
        generator: Where a trained generator is taken from in place of training one: "shipped" for
            that which comes with gencg, or the folder of a run; of several, their mixture.
        further_calls: Energy evaluations for training a generator that is taken over further;
            None or 0 for none.
        anneal_from: Temperature in K at which that training begins, to cool down as one from the
            beginning does; None stays at the temperature of the run.
        decoder: "spline" or "flow-matching", or one stage: "gaussian" for the model of 2020,
            "unimodal" for a flow with one peak for each z.
        estimator: "covering", "path" or "plain" gradient; see `gencg.fit`.
        threads: Threads of torch; None leaves torch's own choice.
        checkpoint_seconds: Wall time between two checkpoints.
        formats: Trajectory formats to write beside samples.h5: "xtc", "dcd".
        inputs: What a run keeps of its input files, so that a changed one is noticed: the path as
            it was given, that of the copy in the run folder, and its SHA-256.
        forcefield_checksum: SHA-256 over the force-field files that are the user's own; None
            where all are OpenMM's.
    """

    target: str
    forcefield: tuple[str, ...] = field(default=(), metadata=LOADER)
    temperature: float | None = None
    n_cvs: int | str = "auto"
    descriptors: str = "torsions"
    seed: int = 0
    energy_calls: int | None = None
    n_samples: int = 100_000
    coverage_calls: int | None = None
    batch_size: int = 512
    learning_rate: float = 3e-3
    tempering: str = "geometric"
    start_temperature: float | None = None
    generator: tuple[str, ...] | None = None
    further_calls: int | None = None
    anneal_from: float | None = None
    decoder: str = "spline"
    estimator: str = "covering"
    threads: int | None = field(default=None, metadata=BENIGN)
    checkpoint_seconds: float = field(default=30.0, metadata=BENIGN)
    formats: tuple[str, ...] = field(default=(), metadata=BENIGN)
    coordinates: str | None = field(default=None, metadata=LOADER)
    implicit_solvent: str | None = field(default=None, metadata=LOADER)
    include_dir: str | None = field(default=None, metadata=LOADER | BENIGN)
    defines: tuple[str, ...] = field(default=(), metadata=LOADER)
    add_hydrogens: bool = field(default=False, metadata=LOADER)
    ph: float | None = field(default=None, metadata=LOADER)
    caps: bool = field(default=False, metadata=LOADER)
    phi_psi: tuple[tuple[float, float], ...] = field(default=(), metadata=LOADER)
    inputs: tuple[tuple[str, str, str], ...] = ()
    forcefield_checksum: str | None = None

    def __post_init__(self) -> None:
        if not self.target or not isinstance(self.target, str):
            raise ValueError(f"`target` must name a system or a file, got {self.target!r}")
        for name in ("forcefield", "formats", "defines"):
            value = getattr(self, name)
            words = (value,) if isinstance(value, str) else value
            if not (isinstance(words, list | tuple) and all(isinstance(w, str) for w in words)):
                raise ValueError(f"`{name}` must be a list of names, got {value!r}")
            object.__setattr__(self, name, tuple(words))
        self._check_loader_options()
        self._check_names_of_generators()
        check_positive(self, "temperature", "a positive finite number of K", optional=True)
        for name in ("start_temperature", "anneal_from"):
            check_positive(self, name, "a positive finite number of K", optional=True)
        check_positive(self, "learning_rate", "a positive finite number")
        check_positive(self, "checkpoint_seconds", "a positive finite number")
        if self.n_cvs != "auto":
            check_integer(self, "n_cvs", 0, label="cvs")
        check_integer(self, "seed", 0)
        if self.seed >= 2**63:
            raise ValueError(f"`seed` must be below 2^63, got {self.seed}")
        # Fewer cannot tell an error, let alone a tail of the weights
        check_integer(self, "n_samples", 100, label="samples")
        check_integer(self, "batch_size", 2)
        check_integer(self, "threads", 1, optional=True)
        check_integer(self, "energy_calls", 1, optional=True)
        check_integer(self, "coverage_calls", 0, optional=True)
        check_integer(self, "further_calls", 0, optional=True)
        object.__setattr__(self, "further_calls", self.further_calls or None)
        for name, known in (
            ("tempering", TEMPERINGS), ("estimator", ESTIMATORS), ("decoder", DECODERS),
            ("descriptors", DESCRIPTORS),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        for word in self.formats:
            if word not in FORMATS:
                raise ValueError(f"`format` must be one of {', '.join(FORMATS)}, got {word!r}")
        self._check_together()

    def _check_names_of_generators(self) -> None:
        given = self.generator
        if given is None:
            return
        names = [given] if isinstance(given, str) else given
        if not (
            isinstance(names, list | tuple)
            and names
            and all(n and isinstance(n, str) for n in names)
        ):
            raise ValueError(
                f"`generator` must be shipped or a run folder, or several, got {given!r}"
            )
        object.__setattr__(self, "generator", tuple(names))
        if len({os.path.normpath(name) for name in names}) < len(names):
            raise ValueError(
                f"`generator` must name each once, got {' '.join(names)}; leave one out"
            )

    def _check_loader_options(self) -> None:
        for name in ("coordinates", "implicit_solvent", "include_dir"):
            value = getattr(self, name)
            if value is not None and not (value and isinstance(value, str)):
                raise ValueError(f"`{name}` must be a name, got {value!r}")
        for name in ("add_hydrogens", "caps"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` must be true or false, got {getattr(self, name)!r}")
        if self.implicit_solvent is not None:
            object.__setattr__(self, "implicit_solvent", solvent_name(self.implicit_solvent))
        if self.ph is not None:
            check_number(self, "ph", "a finite number")
        object.__setattr__(self, "phi_psi", as_pairs(self.phi_psi))
        object.__setattr__(self, "inputs", as_inputs(self.inputs))
        if not isinstance(self.forcefield_checksum, str | None):
            raise ValueError(
                f"`forcefield_checksum` must be a word, got {self.forcefield_checksum!r}"
            )

    def _check_together(self) -> None:
        hot, cold = self.start_temperature, self.temperature
        if hot is not None and cold is not None and hot < cold:
            raise ValueError(
                f"`start_temperature` must be at least the temperature of {cold:g} K, got {hot:g}"
            )
        self._check_annealing()
        if self.decoder not in IN_TWO_STAGES and (self.n_cvs == "auto" or self.n_cvs == 0):
            raise ValueError(
                f"`cvs` must be at least 1 with the {self.decoder} decoder, got {self.n_cvs!r}; "
                "give --cvs 1 or 2"
            )
        if self.generator is not None:
            return self._check_without_training()
        if self.further_calls is not None:
            raise ValueError(
                f"`further_calls` are for a generator that is there, got {self.further_calls} "
                "without one; give it with --generator, or raise --energy-calls to train longer"
            )
        if self.energy_calls is not None and self.training_calls < 2 * self.batch_size:
            raise ValueError(
                f"`energy_calls` must leave two steps of {self.batch_size} for training beside "
                f"{self.energy_calls - self.training_calls} for samples and collective "
                f"variables, got {self.energy_calls}; raise it or draw fewer --samples"
            )
        least = 20 * max(self.batch_size, FEWEST_COVERING)
        if self.discovers and self.energy_calls is not None and self.energy_calls < least:
            raise ValueError(
                f"`energy_calls` must be at least {least}, for {FEWEST_COVERING} samples that "
                f"cover barriers and two steps of {self.batch_size} of the joint model, got "
                f"{self.energy_calls}; raise it or leave the CVs out with --cvs 0"
            )

    def _check_annealing(self) -> None:
        hot, cold = self.anneal_from, self.temperature
        if hot is None:
            return
        if self.further_calls is None:
            raise ValueError(
                f"`anneal_from` is of a generator that is trained further, got {hot:g} without; "
                "give it with --generator and --further-calls, or leave it out"
            )
        if cold is not None and hot <= cold:
            raise ValueError(
                f"`anneal_from` must be above the temperature of {cold:g} K, got {hot:g}"
            )

    def _check_without_training(self) -> None:
        assert self.generator is not None
        if len(self.generator) > 1 and self.further_calls:
            raise ValueError(
                "`further_calls` are for one generator, got "
                f"{len(self.generator)}; train each of them further in a run of its own"
            )
        if self.decoder != "spline":
            raise ValueError(
                f"`generator` goes with the spline decoder, got {self.decoder}; leave one out"
            )
        further = self.further_calls or 0
        if 0 < further < 2 * self.batch_size:
            raise ValueError(
                f"`further_calls` must be at least {2 * self.batch_size}, two steps of "
                f"{self.batch_size}, got {further}; raise it, or leave it out to take the "
                "generator as it is"
            )
        least = least_without_training(
            n_samples=self.n_samples, discovers=self.discovers, modes=self.coverage_calls,
            batch_size=self.batch_size, further=further,
        )  # fmt: skip
        if self.energy_calls is not None and self.energy_calls < least:
            training = f"{further} of training it further, " if further else ""
            raise ValueError(
                f"`energy_calls` must be at least {least} with a generator that is there, for "
                f"{training}samples and collective variables, got {self.energy_calls}; raise it, "
                "draw fewer --samples or leave the CVs out with --cvs 0"
            )

    def _check_no_training(self, start: float) -> None:
        """Refuse settings of a training, other than their defaults, where they decide nothing.

        A generator that is trained further has a ladder of its own, or none.
        """
        if self.generator is None:
            return
        further = self.further_calls is not None
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        defaults["start_temperature"] = start
        of_ladder, of_any = ("tempering", "start_temperature"), ("estimator", "learning_rate")
        for name in of_ladder if further else (*of_any, *of_ladder):
            value = getattr(self, name)
            if value is None or value == defaults[name]:
                continue
            if further:
                cure = "" if self.anneal_from else ", or give --anneal-from to begin hot"
                raise ValueError(
                    f"`{name}` is of a training from the beginning, and a generator is trained "
                    f"further, got {value}; leave it out{cure}"
                )
            cure = ", or train it with --further-calls" if name in of_any else ""
            raise ValueError(
                f"`{name}` is of a training, and with a generator there is none, got "
                f"{value}; leave it out{cure}"
            )

    def resolve(
        self, system: System, *, inputs: tuple[tuple[str, str, str], ...] | None = None
    ) -> "RunConfig":
        """Fill the recommendations of a system in.

        Args:
            system: Its temperature, and its settings ``energy_calls`` (for training) and
                ``start`` (factor of the starting temperature), stand where none are given.
            inputs: See `RunConfig`; by default those that the files have now.

        The force-field files that stand where none are named are written down too: another
        default of a later version is then no other run.

        Raises:
            ValueError: If the settings do not go with the system.
        """
        if self.formats and system.molecule is None:
            raise ValueError(
                f"`format` {' '.join(self.formats)} needs a molecule, {system.name} is none; "
                "samples.h5 is written anyway"
            )
        n_soft = int(system.coordinates.soft.sum())
        if self.n_cvs == "auto" and n_soft == 0:
            # Nothing is slow in a molecule without soft coordinates
            return dataclasses.replace(self, n_cvs=0).resolve(system, inputs=inputs)
        bounded = self.discovers or self.decoder == "unimodal"
        if bounded and self.n_cvs != "auto" and int(self.n_cvs) > n_soft:
            raise ValueError(
                f"`cvs` must be at most {n_soft}, the number of soft coordinates of "
                f"{system.name}, got {self.n_cvs}"
            )
        if self.discovers:
            # Refuses descriptors of which the system has none
            distances_of(system, self.descriptors)
        cold = self.temperature or float(system.temperature)
        training = int(system.settings.get("energy_calls", DEFAULT_ENERGY_CALLS))
        factor = 1.0 if self.tempering == "none" else float(system.settings.get("start", 4.0))
        self._check_no_training(factor * cold)
        forcefield = self.forcefield or default_force_field(self.target)
        coordinates = self.coordinates or default_coordinates(self.target)
        if inputs is None:
            options = self.loader_options | {"forcefield": forcefield, "coordinates": coordinates}
            files = input_files(self.target, options)
            inputs = tuple((f.given, f"{INPUTS}/{f.name}", f.checksum) for f in files)
        return dataclasses.replace(
            self,
            inputs=inputs,
            forcefield=forcefield,
            coordinates=coordinates,
            forcefield_checksum=forcefield_checksum(forcefield),
            temperature=cold,
            energy_calls=self.energy_calls or self._recommended_calls(training),
            coverage_calls=self._budget(
                self.energy_calls or (training if self.generator is None else None)
            ).modes,
            start_temperature=self.start_temperature or factor * cold,
        )

    @property
    def loader_options(self) -> dict[str, Any]:
        """Options of `gencg.systems.load` by name."""
        items = (item.name for item in dataclasses.fields(self) if item.metadata.get("loader"))
        return {name: getattr(self, name) for name in items}

    @property
    def training_calls(self) -> int:
        """Energy evaluations for training: what all else leaves, or the further ones."""
        if self.energy_calls is None:
            raise ValueError("`energy_calls` is not known before `resolve`")
        return self._budget(self.energy_calls).training

    @property
    def discovers(self) -> bool:
        """Whether slow collective variables are found after training."""
        return self.decoder in IN_TWO_STAGES and self.n_cvs != 0

    @property
    def reheating_calls(self) -> int:
        """Energy evaluations for hotter soft blocks of a generator that is taken over."""
        return self._budget(self.energy_calls or 0).reheating

    @property
    def covering_calls(self) -> int:
        """Energy evaluations for the samples that cover transition regions."""
        return self._budget(self.energy_calls or 0).covering

    @property
    def joint_calls(self) -> int:
        """Energy evaluations for training the joint model."""
        return self._budget(self.energy_calls or 0).joint

    @property
    def mode_calls(self) -> int:
        """Energy evaluations for looking for lost modes."""
        return self._budget(self.energy_calls or 0).modes

    def extra_calls(self, total: int) -> int:
        """What of a budget of so many energy evaluations is not for training."""
        return self._budget(total).extra

    def _budget(self, total: int | None) -> Budget:
        """Of so many energy evaluations; None, without training, for the most of each stage."""
        if self.generator is not None:
            return share_out_without_training(
                total, n_samples=self.n_samples, discovers=self.discovers,
                modes=self.coverage_calls, further=self.further_calls or 0,
            )  # fmt: skip
        assert total is not None
        return share_out(
            total, n_samples=self.n_samples, discovers=self.discovers, modes=self.coverage_calls,
            probes=self.decoder in IN_TWO_STAGES,
        )  # fmt: skip

    def _recommended_calls(self, training: int) -> int:
        """Everything, where training takes so many energy evaluations or the generator is there."""
        if self.generator is not None:
            budget = self._budget(None)
            return budget.training + budget.extra
        return training + self.extra_calls(training)

    def schedule(self) -> TemperingSchedule:
        """The tempering schedule of a resolved configuration, of its one training.

        A generator that is trained further stays at the temperature, or cools down to it as one
        from the beginning does (`anneal_from`).
        """
        if self.temperature is None or self.start_temperature is None:
            raise ValueError("`temperature` is not known before `resolve`")
        if self.further_calls is not None:
            hot = self.anneal_from
            return GeometricLadder(start=hot / self.temperature) if hot else NoTempering()
        start = self.start_temperature / self.temperature
        if self.tempering == "none" or start == 1.0:
            return NoTempering()
        if self.tempering == "ess":
            return ESSTempering(start=start)
        return KLTempering(start=start) if self.tempering == "kl" else GeometricLadder(start=start)

    def optimisation(self) -> Optimisation:
        """How the parameters move."""
        if self.decoder not in IN_TWO_STAGES:
            # In one stage a rare well is lost with the faster optimiser; a third of the rate is
            # what suits Adam
            return Optimisation(learning_rate=self.learning_rate / 3, optimiser="adam")
        if self.generator is not None and self.anneal_from is None:
            # It begins at a good place, which the full rate would leave
            return Optimisation(learning_rate=self.learning_rate / 3)
        faster = MATCHING_RATE if self.decoder == "flow-matching" else 1.0
        return Optimisation(learning_rate=faster * self.learning_rate)

    def differences(self, other: "RunConfig") -> list[str]:
        """Settings that differ from those of `other` and touch the result, in words."""
        return differences(self, other)

    def to_json(self) -> str:
        """The configuration as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = "config.json") -> "RunConfig":
        """Read what `to_json` wrote.

        Raises:
            ValueError: If the text is no JSON object or holds unknown or wrong settings.
        """
        content = read_json(text, source=source)
        return cls.from_mapping(content, source=source)

    @classmethod
    def check_names(cls, content: Mapping[str, Any], *, source: str) -> None:
        """Refuse names that are no settings."""
        known = {item.name for item in dataclasses.fields(cls)}
        for key in content:
            if key not in known:
                raise ValueError(
                    f"{source} holds an unknown setting `{key}`; known are "
                    f"{', '.join(sorted(known - {'inputs', 'forcefield_checksum'}))}"
                )

    @classmethod
    def from_mapping(cls, content: Any, *, source: str) -> "RunConfig":
        """Build from a mapping of settings, refusing unknown names."""
        if not isinstance(content, Mapping):
            raise ValueError(f"{source} must hold settings by name, got {type(content).__name__}")
        cls.check_names(content, source=source)
        if "target" not in content:
            raise ValueError(f"{source} must hold the setting `target`")
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError(f"{source} holds a setting of another kind ({error})") from None
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
