#!/usr/bin/env bash
# A part of the tests, each room once and a run with its report, with other versions of what gencg
# asks for than those of constraints.txt: `part.sh oldest`, those of oldest.txt; `part.sh newest`,
# what pip finds. In an environment of its own that is thrown away, or kept in $GENCG_ENV.
set -euo pipefail
cd "$(dirname "$0")/../.."
versions="$1"
shift
env="${GENCG_ENV:-$(mktemp -d)}"
test -n "${GENCG_ENV:-}" || trap 'rm -rf "$env"' EXIT
pins=()
test "$versions" = newest || pins=(-c "tests/environments/$versions.txt")
if ! test -x "$env/bin/pytest"; then
  "${PYTHON:-python3}" -m venv "$env"
  "$env/bin/pip" install --quiet "${pins[@]}" '.[hdf5]' pytest
  "$env/bin/pip" uninstall --quiet --yes gencg
fi
part=(tests/test_geometry.py tests/test_importance.py tests/test_molecule.py tests/test_checkpoint.py
  tests/test_ensemble.py tests/test_config.py tests/test_run_folder.py tests/test_check.py
  tests/coordinates/test_internal.py tests/energies/test_forcefield.py
  tests/distributions tests/models/test_two_block.py tests/objectives/test_reverse_kl.py
  tests/export/test_trajectory.py tests/plots/test_plots.py tests/test_cli.py)
test $# -eq 0 || part=("$@")
# Packages of different years deprecate each other, which is not ours to mend
OMP_NUM_THREADS=1 MPLBACKEND=Agg PYTHONPATH="$PWD" "$env/bin/python" -m pytest -m "not slow" \
  -W ignore::DeprecationWarning -W ignore::FutureWarning "${part[@]}"
