#!/bin/sh
# run.sh: rapt's CPU attention against ONNX Runtime, PyTorch and ggml, in a virtual environment outside the repository.
# usage: bench/peers/cpu/run.sh [peers.py's options]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/rapt/peers-cpu
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --upgrade pip
    "$venv/bin/pip" install -q -r "$here/requirements.txt"
fi
make -s -C "$here/../../.." NVCC= HIP_CLANG= library
exec "$venv/bin/python" "$here/peers.py" "$@"
