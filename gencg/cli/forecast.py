"""`gencg run --dry-run`: what a run would take on this machine."""

from typing import TYPE_CHECKING, Any

from gencg.cli.durations import in_words
from gencg.cli.output import show
from gencg.cli.progress import speaker

if TYPE_CHECKING:
    from gencg.config import RunConfig
    from gencg.run.measure import Forecast
    from gencg.systems.base import System


def forecast(config: "RunConfig", system: "System", options: dict[str, Any]) -> None:
    """Measure and print, and write nothing."""
    from gencg.run.measure import measure

    speaker(options)(f"measuring a few steps of {system.name}")
    found = measure(system, config)
    show(options, found.numbers(), _in_words(found))


def _in_words(found: "Forecast") -> str:
    size = "a toy" if found.n_atoms is None else f"{found.n_atoms} atoms"
    rows = {
        "molecule": f"{found.name}, {size}, {found.n_soft} soft coordinates",
        "generator": f"{found.n_parameters:,} parameters",
        "budget": f"{found.energy_calls:,} energy calls, {found.n_steps:,} training steps of "
        f"{1000 * found.costs.step:.3g} ms",
        **{name: in_words(seconds) for name, seconds in found.stages.items()},
        "all": f"about {in_words(found.seconds)}",
        "memory": f"about {_size(found.memory_bytes)}",
        "disk": f"about {_size(found.disk_bytes)}",
    }
    lines = [f"{name:<22}{text}" for name, text in rows.items()]
    similar = found.similar
    if similar is not None:
        size = "larger than any measured; of the largest" if similar.beyond else "of similar ones"
        lines.append(
            f"{'ESS':<22}{similar.ess_class}: {size} {len(similar.names)} had {similar.lowest:.2g} "
            f"to {similar.highest:.2g}, median {similar.median:.2g}"
        )
        lines.append(f"{'':<22}({similar.caveat})")
    lines.append("Measured for seconds on this machine as it is now: within a factor of two.")
    return "\n".join(lines)


def _size(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"
