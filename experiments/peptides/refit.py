"""Give a trained generator an autoregressive soft block, fitted to its own weighted samples.

python -m experiments.peptides.refit alanine-hexapeptide --out runs/refit
gencg run alanine-hexapeptide --generator runs/refit --further-calls 4e6 --cvs 0 --out runs/longer
python -m experiments.peptides.refit alanine-hexapeptide --generator runs/longer \
  --learning-rate 1e-3 --out runs/again

Energies are asked for once, of samples of the generator as it is (``pool.pt``); the fit that
follows asks for none. The block q(s) is fitted by the forward KL on the samples' soft coordinates
by their weights, and by the variance of log q(s) less the log-density that each weight says there
should be. The stiff block stays; a soft block that is autoregressive already is where the fit
begins. The folder becomes that of a run which took the generator over; the same command goes on
where it was stopped.
"""

import argparse
import copy
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from gencg import pretrained
from gencg.checkpoint import load_checkpoint, save_checkpoint
from gencg.config import RunConfig
from gencg.fit import FitResult, as_result
from gencg.importance import effective_sample_size, truncated
from gencg.models.build import build_model, choices_of
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import SplineDecoder
from gencg.models.two_block import SoftBlock, TwoBlockFlow
from gencg.objectives.covering_kl import BEYOND
from gencg.objectives.walkers import log_soft
from gencg.optimisers import MuonAdam
from gencg.run import RunFolder, trained
from gencg.run.generator import find_generator
from gencg.run.record import versions, write_json
from gencg.systems import load

ROWS = 4096
LARGEST_WEIGHT = 300.0
"""Weights are cut at this many times their mean."""
HELD_OUT = 8
"""One sample of so many says how good the fit is."""
EVERY = 100
"""Steps between checkpoints."""
POOL = ("s", "log_weights", "log_q")
POOL_EVERY = 25
"""Draws of ROWS samples between those of the pool."""


def make_pool(result: FitResult, n: int, *, seed: int, path: Path) -> dict[str, Tensor]:
    """Soft coordinates, log-weights and log-densities of the soft block of n samples, or read."""
    flow, model, target = _flow(result.model), result.model, result.target
    parts: list[tuple[Tensor, ...]] = []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        if path.exists():
            kept = load_checkpoint(path)
            parts, state = [tuple(kept[name] for name in POOL)], kept["random"]
            torch.set_rng_state(state)
        for k in range(sum(len(part[0]) for part in parts), n, ROWS):
            _, y, log_q = model.sample(min(ROWS, n - k))
            energy, log_det = target.energy_and_log_det(y)
            s = y[:, flow.stiff.space.soft_index]
            parts.append((s, log_det - target.beta * energy - log_q, log_soft(flow, s)))
            if k + ROWS >= n or k // ROWS % POOL_EVERY == POOL_EVERY - 1:
                parts = [tuple(torch.cat(part) for part in zip(*parts, strict=True))]
                content = dict(zip(POOL, parts[0], strict=True))
                save_checkpoint(path, content | {"random": torch.get_rng_state()})
                print(f"{min(k + ROWS, n):,} of {n:,} samples", flush=True)
    s, log_weights, log_q = parts[0]
    good = torch.isfinite(log_weights) & torch.isfinite(log_q)
    return {"s": s[good], "log_weights": log_weights[good], "log_q": log_q[good]}


class Fit:
    """The fit of a soft block to a pool."""

    def __init__(self, soft: SoftBlock, pool: dict[str, Tensor], *, rate: float, n_steps: int):
        held = torch.arange(len(pool["s"])) % HELD_OUT == 0
        self.held = {name: part[held] for name, part in pool.items()}
        self.pool = {name: part[~held] for name, part in pool.items()}
        weights = truncated(self.pool["log_weights"], largest=LARGEST_WEIGHT)
        self.weights = (weights * len(weights)).float()
        self.chances = 0.5 * (self.weights + 1)
        self.soft, self.average = soft, copy.deepcopy(soft)
        self.optimiser, self.rate = MuonAdam(soft, lr=rate), rate
        self.step, self.n_steps = 0, n_steps

    def advance(self, n: int) -> None:
        """One step on n samples by weight and as many at random."""
        # Rises over a fiftieth, then falls along a cosine
        risen = min(1.0, 50 * (self.step + 1) / self.n_steps)
        falls = 0.5 * (1 + math.cos(math.pi * self.step / self.n_steps))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * risen * falls
        s, log_weights, log_q = (self.pool[k] for k in ("s", "log_weights", "log_q"))
        some = torch.multinomial(self.chances, n, replacement=True)
        log_new = self._log_q(torch.cat([s[some], s[any_ := torch.randint(len(s), (n,))]]))
        loss = -(self.weights[some] / self.chances[some] * log_new[:n]).mean()
        apart = log_new[n:] - log_q[any_] - log_weights[any_]
        apart = apart - apart.detach().median()
        loss = loss + huber_loss(apart, torch.zeros_like(apart), delta=BEYOND)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.soft.parameters(), 10.0)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        # Over the last hundredth of the steps done, as in training
        share = 1 / max(1.0, 0.01 * self.step)
        for mean, value in zip(self.average.parameters(), self.soft.parameters(), strict=True):
            mean.data.lerp_(value.data, share)

    def measure(self) -> dict[str, float]:
        """ESS that held-out samples say the new block gives, with weights cut and not."""
        with torch.no_grad():
            log_new = torch.cat([self._log_q(s, self.average) for s in self.held["s"].split(ROWS)])
        log_ratio = (log_new - self.held["log_q"]).double()
        log_weights = self.held["log_weights"].double() - log_ratio
        found = {"step": self.step, "pool": float(effective_sample_size(self.held["log_weights"]))}
        for cut in (10.0, 100.0, math.inf):
            w = (log_weights - (log_weights + log_ratio).logsumexp(0)).exp() * len(log_weights)
            w, ratio = w.clamp(max=cut), log_ratio.exp()
            ess = (ratio * w).mean() ** 2 / ((ratio * w * w).mean() * ratio.mean())
            found[f"ess_cut_{cut:g}"] = float(ess)
        return found

    def _log_q(self, s: Tensor, soft: SoftBlock | None = None) -> Tensor:
        log_q: Tensor = (soft or self.soft).log_prob(s, s.new_zeros(len(s), 0))
        return log_q

    def state_dict(self) -> dict[str, Any]:
        """All that a later call goes on from."""
        return {
            "soft": self.soft.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.step,
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `content`."""
        self.soft.load_state_dict(content["soft"])
        self.average.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
        torch.set_rng_state(content["random"])
        self.step = content["step"]


def with_autoregressive(before: FitResult, *, seed: int) -> CoarseGrainedModel:
    """The model, with a new soft block unless it is autoregressive; the seed is set."""
    # Of a mixture the first
    before = before.leading
    theirs = before.model.state_dict()
    choices = choices_of(theirs)
    torch.manual_seed(seed)
    model = build_model(before.system.coordinates, **choices | {"autoregressive": True})
    model.to(before.model.rows(0))
    if choices["autoregressive"]:
        model.load_state_dict(theirs)
    _flow(model).stiff.load_state_dict(_flow(before.model).stiff.state_dict())
    return model


def check_same(path: Path, settings: dict[str, Any], *, begun: bool) -> None:
    """Refuse to go on with other settings than those that a fit was begun with."""
    if begun and json.loads(path.read_text()) != settings:
        raise ValueError(
            f"{path.parent} was begun with {path.read_text().strip()}; choose another --out"
        )
    write_json(path, settings)


def _flow(model: CoarseGrainedModel) -> TwoBlockFlow:
    assert isinstance(model.decoder, SplineDecoder)
    return model.decoder.flow


def main() -> None:
    """Refit, and write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", choices=pretrained.names())
    parser.add_argument("--generator", default="shipped", help="or a run folder  [%(default)s]")
    parser.add_argument("--calls", type=float, default=1e6, help="samples in the pool  [1e6]")
    parser.add_argument("--steps", type=int, default=1200, help="[%(default)s]")
    parser.add_argument("--batch-size", type=int, default=2048, help="[%(default)s]")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="[%(default)s]")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    system = load(given.target)
    config = RunConfig(given.target, generator=given.generator, n_cvs=0, seed=given.seed)
    folder = RunFolder.create(given.out, config.resolve(system))
    if folder.checkpoint.exists():
        parser.exit(message=f"{given.out} is finished\n")
    before, origin = find_generator(folder.config, system, trained=trained)
    state, path = given.out / "refit-state.pt", given.out / "pool.pt"
    settings = {
        name: value for name, value in vars(given).items() if name not in ("out", "threads")
    }
    check_same(given.out / "refit.json", settings, begun=path.exists())
    pool = make_pool(before, int(given.calls), seed=given.seed, path=path)
    model = with_autoregressive(before, seed=given.seed)
    soft = _flow(model).soft
    fit = Fit(soft, pool, rate=given.learning_rate, n_steps=given.steps)
    if state.exists():
        fit.load_state_dict(load_checkpoint(state))
    while fit.step < given.steps:
        for _ in range(min(EVERY, given.steps - fit.step)):
            fit.advance(given.batch_size)
        save_checkpoint(state, fit.state_dict())
        print(json.dumps(fit.measure()), flush=True)
    soft.load_state_dict(fit.average.state_dict())
    # That of the run's own settings knows nothing of the fit
    words = " ".join(sys.argv[1:])
    origin["command"] = f"{origin['command']}; python -m experiments.peptides.refit {words}"
    write_json(folder.path / "origin.json", origin)
    write_json(folder.path / "versions.json", versions() | {"command": origin["command"]})
    as_result(
        system,
        model,
        target=before.target,
        seed=given.seed,
        checkpoint=folder.checkpoint,
        energy_calls=int(given.calls),
    )
    for done in (state, path, given.out / "refit.json"):
        done.unlink()


if __name__ == "__main__":
    main()
