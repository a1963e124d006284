#!/bin/sh
# stale.t: problems whose maxima rise from tile to tile in the order in which keys are taken, the last first, catch matrix-unit kernels that do not rescale what they have summed up: the
# library's own kernels pass, and those built without the rescaling (mk/amdgpu.mk) fail with a wrong result. The device is an
# emulated GPU (RAPT_HIP_LIBRARY, RAPT_EMULATE).
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${RAPT_BUILD:-build}
case $RAPT_EMULATE in gfx9*) unit=mfma ;; *) unit=wmma ;; esac
count=0 failed=0
say() { # passed, what
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; return; fi
    echo "not ok $count - $2"
    echo "$text" | head -n 5 | sed 's/^/# /'
    failed=1
}

echo 1..4
for d in 64 128; do
    problem=extreme/falling-d$d-bf16 kernel=${unit}_bf16_d$d
    text=$("$build/rapt" check --device hip:0 --kernel $kernel --select $problem 2>&1)
    say $? "$kernel passes $problem on $RAPT_EMULATE"
    text=$("$build/tests/amdgpu/stale/rapt" check --device hip:0 --kernel $kernel --select $problem 2>&1)
    [ $? = 1 ] && echo "$text" | grep -q "$problem .* of its bound"
    say $? "$kernel without the rescaling fails it"
done
exit $failed
