"""Two processes give what one gives, and the death of one ends the other with a usable checkpoint.

Gloo on the CPU. Cannot detect: what NCCL does on GPUs, or speed.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_guard import Leap

from gencg import parallel
from gencg.checkpoint import load_checkpoint
from gencg.distributions.solvers import FixedSteps
from gencg.ensemble import draw
from gencg.fit import fit
from gencg.mixing import mix
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.continuous import FlowMatchingDecoder
from gencg.models.decoders import SplineDecoder
from gencg.models.mixture import members_of
from gencg.systems import double_well
from gencg.systems.base import System
from gencg.tempering import ESSTempering

N_STEPS, BATCH, N_SAMPLES = 30, 89, 1001
LEAP = Leap(learning_rate=1e-2, n=6)
OPTIONS = {"energy_calls": N_STEPS * BATCH, "batch_size": BATCH, "seed": 3}


def small_fit(**options):
    """The double well; an odd batch, so that shares differ, and a ladder that asks for the ESS."""
    system: System = double_well()
    with torch.random.fork_rng():
        torch.manual_seed(11)
        decoder = SplineDecoder(system.coordinates, n_soft_layers=2, n_bins=6, soft_hidden=(16,))
    return fit(
        system,
        model=CoarseGrainedModel(decoder),
        tempering=ESSTempering(),
        **{**OPTIONS, **options},
    )


def small_matching():
    """The double well by flow matching, x2 as stiff, and a step of reverse KL after it."""
    system, steps = double_well(), FixedSteps(2)
    system.coordinates.soft = torch.tensor([True, False])
    with torch.random.fork_rng():
        torch.manual_seed(11)
        decoder = FlowMatchingDecoder(
            system.coordinates, n_soft_units=8, n_stiff_units=8, hidden=(8,), soft_solver=steps,
            stiff_solver=steps,
        )  # fmt: skip
    options = {"energy_calls": 10 * BATCH, "batch_size": BATCH, "estimator": "path", "seed": 3}
    return fit(system, model=CoarseGrainedModel(decoder), **options)


def small_mixture(result):
    """A few steps of a mixture one of whose members is drawn from in one process or in none."""
    mixed = mix([result, result], shares=[1, 60])
    options = OPTIONS | {"energy_calls": 5 * BATCH}
    return fit(double_well(), model=mixed.model, estimator="path", **options)


def numbers(result) -> dict:
    ensemble = draw(result.model, result.target, N_SAMPLES, seed=1)
    mixed = mix([result, result], shares=[1, 2])
    members_of(mixed.model)[1].flow.soft.centre.add_(0.3)
    return {
        "trained mixture": [p.detach() for p in small_mixture(result).model.parameters()],
        "mixed": draw(mixed.model, result.target, N_SAMPLES, seed=1).y,
        "matched": [p.detach() for p in small_matching().model.parameters()],
        "parameters": [p.detach() for p in result.model.parameters()],
        "loss": [info.loss for info in result.history],
        "ess": [info.ess for info in result.history],
        "beta": [info.beta for info in result.history],
        "dropped": [info.n_dropped for info in result.history],
        "restored": result.state.n_restored,
        "calls": (result.energy_calls, result.gradient_calls, ensemble.n_energy_calls),
        "x": ensemble.x,
        "log_weights": ensemble.log_weights,
    }


class Pair:
    """Two processes as torchrun would start them; their complaints go to files."""

    def __init__(self, folder: Path, *args: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.files = [folder / f"stderr{rank}" for rank in (0, 1)]
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.processes = []
        for rank, file in enumerate(self.files):
            env = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            with open(file, "w") as stderr:
                self.processes.append(
                    subprocess.Popen([sys.executable, *args], env=env, stderr=stderr)
                )

    def complaints(self) -> list[str]:
        """What they wrote to stderr."""
        return [file.read_text() for file in self.files]

    def wait(self) -> list[int]:
        """Exit codes."""
        return [process.wait(timeout=900) for process in self.processes]


def test_one_process_is_left_as_it_is() -> None:
    rows = torch.randn(5, 2)
    assert (parallel.rank(), parallel.size()) == (0, 1)
    assert parallel.gather(rows, 5) is rows
    assert parallel.total(rows) is rows
    assert parallel.share(5) == slice(0, 5)
    with parallel.processes():
        assert parallel.size() == 1


def test_two_processes_give_the_parameters_and_samples_of_one(tmp_path) -> None:
    pair = Pair(tmp_path, __file__, "numbers", str(tmp_path / "two.pt"))
    one = numbers(small_fit())
    assert pair.wait() == [0, 0], pair.complaints()
    two = torch.load(tmp_path / "two.pt")
    for name in ("loss", "ess", "beta", "dropped"):
        assert two[name] == pytest.approx(one[name], rel=1e-10), name
    assert one["dropped"][0] > 0
    for name in ("parameters", "matched", "trained mixture"):
        for a, b in zip(two[name], one[name], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    for name in ("x", "mixed"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(two["log_weights"], one["log_weights"], rtol=1e-8, atol=1e-8)
    energies, gradients, drawn = one["calls"]
    # The second process asks for the energy of the reference structure as well
    assert two["calls"] == (energies + 1, gradients, drawn)


def test_two_processes_return_to_the_last_good_state_together(tmp_path) -> None:
    pair = Pair(tmp_path, __file__, "leap", str(tmp_path / "two.pt"))
    one = numbers(small_fit(optimisation=LEAP))
    assert pair.wait() == [0, 0], pair.complaints()
    two = torch.load(tmp_path / "two.pt")
    assert two["restored"] == one["restored"] == 1
    # The leap magnifies the last digits, which are those of sums in another order
    for a, b in zip(two["parameters"], one["parameters"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_the_death_of_a_process_ends_the_other_and_one_alone_resumes(tmp_path) -> None:
    path = tmp_path / "checkpoint.pt"
    pair = Pair(tmp_path, __file__, "slow", str(path))
    while not path.exists() or load_checkpoint(path)["step"] < 5:
        assert [p.poll() for p in pair.processes] == [None, None], pair.complaints()
        time.sleep(0.1)
    pair.processes[1].send_signal(signal.SIGKILL)
    assert pair.wait() == [1, -signal.SIGKILL]
    assert "process 0 lost another one" in pair.complaints()[0]
    assert 5 <= load_checkpoint(path)["step"] < N_STEPS
    resumed, whole = small_fit(checkpoint=path), small_fit()
    assert resumed.state.step == N_STEPS
    for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_run_of_two_processes_writes_one_folder(tmp_path) -> None:
    args = [
        "-m", "gencg", "run", "double-well", "--energy-calls", "12e3", "--samples", "2000",
        "--batch-size", "200", "--cvs", "0", "--out", str(tmp_path / "run"), "--quiet",
    ]  # fmt: skip
    pair = Pair(tmp_path, *args)
    assert pair.wait() == [0, 0], pair.complaints()
    assert {"summary.json", "samples.h5", "report.html", "checkpoint.pt", "metrics.csv"} <= {
        file.name for file in (tmp_path / "run").iterdir()
    }
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) > 10


def main(what: str, path: Path) -> None:
    """What the processes of these tests do."""
    torch.set_default_dtype(torch.float64)
    with parallel.processes():
        if what in ("numbers", "leap"):
            found = numbers(small_fit(optimisation=LEAP if what == "leap" else None))
            if parallel.rank() == 0:
                torch.save(found, path)
        else:
            reporters = [lambda info: time.sleep(0.3)]
            small_fit(checkpoint=path, checkpoint_seconds=0.0, reporters=reporters)
    # Threads of the group that outlive it abort the interpreter's end, now and then
    tasks = Path("/proc/self/task").glob("*/comm")
    assert not [name for task in tasks if "gloo" in (name := task.read_text())]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
