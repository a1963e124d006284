#!/bin/sh
# setup.sh: everything a fresh Debian 12 machine needs. `./setup.sh demo` runs a real model's attention and draws its map;
# `./setup.sh check` runs all tests that need no GPU. Packages are installed only when they are missing (root or sudo).
set -eu
cd "$(dirname "$0")"

say() { printf '%s\n' "rapt: $*"; }
die() { printf '%s\n' "rapt: $*" >&2; exit 2; }

missing() { # names of the given packages that are not installed
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$package"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    else sudo "$@"
    fi
}

can_be_root() { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }

known() { # those of the given packages that apt's lists have
    for package in "$@"; do
        apt-cache show "$package" >/dev/null 2>&1 && printf '%s ' "$package"
    done
}

updated=no
update() { # once a run
    [ $updated = no ] || return 0
    updated=yes
    as_root apt-get update -qq || say "apt-get update failed; trying with the lists that are here"
}

install() { # required|optional, then packages
    need=$1; shift
    command -v dpkg-query >/dev/null || { say "not a Debian system; taking for granted: $*"; return 0; }
    absent=$(missing "$@")
    [ -n "$absent" ] || return 0
    if [ "$need" = optional ]; then # all or none, and neither root nor the network for what cannot be had
        if can_be_root && ! ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1; then update; fi
        # shellcheck disable=SC2086
        if [ "$(known $absent)" != "$absent" ] || ! can_be_root; then
            say "going on without $absent(optional, and $(can_be_root && echo "not in apt's lists" || echo 'root is needed'))"
            return 0
        fi
    fi
    # shellcheck disable=SC2086
    can_be_root || die "root is needed to install packages, and sudo is not here; run as root: apt-get update; apt-get install" $absent
    say "installing $absent"
    update
    # shellcheck disable=SC2086
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $absent >/dev/null; then
        [ "$need" = optional ] ||
            die "apt-get could not install ${absent}(why stands above; without a network, install them in another way and run this again)"
        say "apt-get could not install $absent; going on without"
    fi
}

# Compilers for GPU code are used where a GPU of their kind could run it; RAPT_GPU_CODE=all builds all that can be built.
gpu_options() {
    found="CPU kernels"; left=""; options=""
    if command -v nvcc >/dev/null && { [ -e /dev/nvidiactl ] || [ "${RAPT_GPU_CODE:-}" = all ]; }; then found="$found, CUDA (nvcc)"
    else options="$options NVCC="; left="$left CUDA kernels ($(command -v nvcc >/dev/null && echo 'no NVIDIA GPU; RAPT_GPU_CODE=all builds them' || echo 'no nvcc'))"
    fi
    if command -v clang-22 >/dev/null && command -v ld.lld-22 >/dev/null && { [ "$1" = check ] || [ -e /dev/kfd ] || [ "${RAPT_GPU_CODE:-}" = all ]; }
    then found="$found, AMD (clang-22)"
    else options="$options HIP_CLANG="; left="$left${left:+;} AMD kernels ($(command -v clang-22 >/dev/null && echo 'no AMD GPU; RAPT_GPU_CODE=all builds them' || echo 'no clang-22; apt.llvm.org has it'))"
    fi
    say "building: $found. Left out:${left:- nothing}"
}

jobs=$(nproc 2>/dev/null || echo 2)
tool_packages="build-essential pkg-config libjansson-dev libcairo2-dev fonts-dejavu-core"

demo() {
    # shellcheck disable=SC2086
    install required $tool_packages
    gpu_options demo
    # shellcheck disable=SC2086
    make -s -j"$jobs" B=build/demo $options all
    sample=tests/data/smollm2-layer17.safetensors
    rapt=build/demo/rapt
    "$rapt" info | sed "/^Kernels/,\$d"
    say "attention of a real language model (q, k, v of one layer, against the f64 result stored beside them):"
    "$rapt" run "$sample" --causal --verify
    say "a longer problem, for the speed:"
    "$rapt" bench "forward f32 b1 h32/8 q2048 kv2048 d128 causal"
    "$rapt" map "$sample" --causal --head 3 --log -o build/demo/map.png
    say "done; the attention map is build/demo/map.png"
}

check() {
    # shellcheck disable=SC2086
    install required $tool_packages libcmocka-dev perl python3
    install optional clang-22 lld-22 llvm-22 llvm-22-dev
    install optional cmake
    install optional qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    gpu_options check
    # shellcheck disable=SC2086
    make -s -j"$jobs" B=build/check $options check-build
    # shellcheck disable=SC2086
    make -s B=build/check $options check
}

case "${1:-}" in
demo) demo ;;
check) check ;;
*) die "usage: ./setup.sh demo | check" ;;
esac
