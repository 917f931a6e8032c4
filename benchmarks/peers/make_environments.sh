#!/usr/bin/env bash
# One virtual environment per peer, from the pinned lists beside this file.
#
#   bash benchmarks/peers/make_environments.sh [folder]
#
# The lists were made for Python 3.12; PYTHON names the interpreter, by default python3.12.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-${TMPDIR:-/tmp}/gmm_bayes_peers}
python=${PYTHON:-python3.12}
mkdir -p "$folder"
for peer in numpyro pymc stan bayesforge gmmx; do
    if [ ! -x "$folder/$peer/bin/python" ]; then
        "$python" -m venv "$folder/$peer"
    fi
    "$folder/$peer/bin/python" -m pip install --quiet -r "$here/$peer.txt"
    echo "$folder/$peer"
done
