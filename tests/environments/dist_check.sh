#!/usr/bin/env bash
# Builds sdist and wheel, the wheel from the sdist; installs each into an environment that holds
# nothing else, in a folder that holds nothing else, and runs a small double well. `make dist-check`.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv builder
builder/bin/pip install --quiet build
builder/bin/python -m build --outdir dist "$root" > build.log 2>&1 || { cat build.log; exit 1; }
for artifact in dist/*.whl dist/*.tar.gz; do
  "${PYTHON:-python3}" -m venv --clear empty
  empty/bin/pip install --quiet -c "$root/constraints.txt" "$work/$artifact"
  rm -rf run && mkdir run && cd run
  ../empty/bin/python -c '
from importlib.resources import files
import gencg
assert "site-packages" in gencg.__file__, gencg.__file__
for name in ("py.typed", "energies/native.cpp", "distributions/couplings.cpp", "native/vectors.hpp",
             "pretrained/alanine-tetrapeptide.pt", "run/molecules.csv",
             "systems/data/alanine_dipeptide.pdb"):
    assert files("gencg").joinpath(name).is_file(), name
'
  ../empty/bin/gencg run double-well --cvs 0 --energy-calls 5e4 --samples 2000 --threads 1 --quiet
  test -s runs/double-well/report.html
  cd ..
  echo "passed: $(basename "$artifact")"
done
