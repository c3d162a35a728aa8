"""What the literature does: reverse KL of an all-atom spline flow, without gencg's devices.

No blocks of soft and stiff coordinates, no path gradient, no ladder unless asked for. Coordinates
and energy are those of gencg, and energies are compressed, the worst samples of a batch left out
and the parameters averaged as there. The literature trains with batches of 1024 and rates of 1e-4
to 5e-4 for 2.56e8 calls. Budgets a hundred times smaller want more and larger steps: of batch and
rate 256 and 1e-3, 512 and 1e-3, 256 and 5e-4, one run each of 6e4 calls, the first two had the
higher ESS (0.043 beside 0.021) and the first of them the lower loss; it is the default.
"""

import argparse
import copy
import json
import math
from pathlib import Path
from typing import Any

import torch

import gencg
from experiments.peers.clock import Clock
from experiments.peers.held_out import held_out
from experiments.peers.spline_flow import PlainSplineFlow
from gencg.checkpoint import load_checkpoint, save_checkpoint
from gencg.energies.regularize import compress
from gencg.target import BoltzmannTarget
from gencg.tempering import GeometricLadder, NoTempering, TemperingSchedule, TemperingState

COMPRESS_ABOVE = 1e3
"""Reduced energy above the reference structure from which on it is compressed."""
WARM_UP = 100
"""Steps over which the learning rate rises."""
N_TESTS = 12
"""How often the ESS is measured along the way."""


class Training:
    """The plain flow on its way; the averaged parameters are what is tested.

    Args:
        system: What to sample.
        calls: Energy calls.
        batch_size: Samples per step.
        rate: Learning rate after warm-up, falling to zero along a cosine.
        drop_worst: Share of each batch that is left out.
        tempering: Ladder of temperatures.
        seed: Decides everything random.
    """

    def __init__(
        self,
        system: gencg.System,
        *,
        calls: float,
        batch_size: int,
        rate: float,
        drop_worst: float,
        tempering: TemperingSchedule,
        seed: int,
    ) -> None:
        self.target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
        self.batch_size, self.rate, self.drop_worst = batch_size, rate, drop_worst
        self.n_steps, self.step, self.skipped = int(calls) // batch_size, 0, 0
        self.tempering, self.seed = tempering, seed
        names = (system.name, self.n_steps, batch_size, rate, drop_worst, type(tempering).__name__)
        self.settings = " ".join(map(str, (*names, seed)))
        self.loss = math.nan
        torch.manual_seed(seed)
        self.flow = PlainSplineFlow(system.coordinates, seed=seed)
        self.average = copy.deepcopy(self.flow)
        self.optimiser = torch.optim.Adam(
            self.flow.parameters(), lr=rate, weight_decay=1e-5, fused=True
        )
        x, _ = system.coordinates.inverse(system.coordinates.centre.float()[None])
        self.reference_energy = float(system.energy(x))

    @property
    def calls(self) -> int:
        """Energy calls so far."""
        return self.step * self.batch_size

    def advance(self) -> None:
        """One step of Adam on the mean loss of the samples kept."""
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        for group in self.optimiser.param_groups:
            rise = min(1.0, (self.step + 1) / WARM_UP)
            fall = 0.5 * (1 + math.cos(math.pi * self.step / self.n_steps))
            group["lr"] = self.rate * rise * fall
        self.optimiser.zero_grad(set_to_none=True)
        kept = (
            self._losses().sort().values[: self.batch_size - int(self.drop_worst * self.batch_size)]
        )
        loss = kept.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.flow.parameters(), 100.0)
        if torch.isfinite(norm):
            self.optimiser.step()
        else:
            self.skipped += 1
        self.step += 1
        self.loss = float(loss.detach())
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()),
                list(self.flow.parameters()),
                1 / (1 + 0.01 * self.step),
            )

    def state_dict(self) -> dict[str, Any]:
        """What a restart needs."""
        return {
            "flow": self.flow.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "skipped": self.skipped,
            "settings": self.settings,
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `content`.

        Raises:
            ValueError: If it belongs to a training of other settings.
        """
        if content["settings"] != self.settings:
            raise ValueError(
                f"checkpoint belongs to a training with settings {content['settings']!r}, asked is "
                f"{self.settings!r}; use another folder"
            )
        self.flow.load_state_dict(content["flow"])
        self.average.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.step, self.skipped = content["step"], content["skipped"]

    def _losses(self) -> torch.Tensor:
        state = TemperingState(self.step / self.n_steps, torch.zeros(0), torch.zeros(0))
        beta = self.tempering.next(0.0, state, target=self.target.beta)
        _, y, log_q = self.flow.sample(self.batch_size)
        energy, log_det = self.target.energy_and_log_det(y)
        u, _ = compress(beta * (energy - self.reference_energy), COMPRESS_ABOVE)
        return log_q + u - log_det


def train(training: Training, clock: Clock, path: Path, *, test_samples: int) -> dict[str, Any]:
    """Train to the end, with a test every so often; the record is written beside the checkpoint."""
    record: dict[str, Any] = {"tests": []}
    checkpoint = path.with_suffix(".pt")
    if checkpoint.exists():
        content = load_checkpoint(checkpoint)
        training.load_state_dict(content)
        record = json.loads(content["record"])
        clock.start(content["seconds"])
    due = [round(training.n_steps * (k + 1) / N_TESTS) for k in range(N_TESTS)]
    while training.step < training.n_steps:
        training.advance()
        if training.step in due:
            with clock.paused():
                record["tests"].append(_test(training, clock, test_samples))
        if training.step in due or training.step % 50 == 0:
            content = {"record": json.dumps(record), "seconds": clock.seconds}
            save_checkpoint(checkpoint, training.state_dict() | content)
    return record


def _test(training: Training, clock: Clock, n_samples: int) -> dict[str, Any]:
    found = held_out(training.average, training.target, n_samples, seed=1_000_000)
    test = {
        "calls": training.calls,
        "seconds": clock.seconds,
        "loss": training.loss,
        "skipped": training.skipped,
        **found,
    }
    print(json.dumps(test), flush=True)
    return test


def main() -> None:
    """Train one plain flow and write its record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", default="alanine-dipeptide", help="[%(default)s]")
    parser.add_argument("--calls", type=float, default=1e6, help="energy calls  [%(default)g]")
    parser.add_argument("--batch-size", type=int, default=256, help="[%(default)s]")
    parser.add_argument("--rate", type=float, default=1e-3, help="[%(default)g]")
    parser.add_argument("--drop-worst", type=float, default=0.02, help="[%(default)g]")
    parser.add_argument("--tempering", action="store_true", help="with gencg's ladder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-samples", type=int, default=10_000, help="[%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), help="[%(default)s]")
    given = parser.parse_args()
    ladder = "-ladder" if given.tempering else ""
    path = given.out / f"plain{ladder}-{given.calls:g}-{given.seed}.json"
    if path.exists():
        return
    given.out.mkdir(parents=True, exist_ok=True)
    clock = Clock()
    torch.set_num_threads(1)
    training = Training(
        gencg.systems.load(given.target),
        calls=given.calls,
        batch_size=given.batch_size,
        rate=given.rate,
        drop_worst=given.drop_worst,
        tempering=GeometricLadder() if given.tempering else NoTempering(),
        seed=given.seed,
    )
    record = train(training, clock, path, test_samples=given.test_samples)
    settings = {name: str(value) for name, value in vars(given).items()}
    path.write_text(json.dumps(record | {"settings": settings}, indent=1))


if __name__ == "__main__":
    main()
