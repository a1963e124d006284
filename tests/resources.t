#!/bin/sh
# resources.t: the build's check of registers, shared memory and spills (mk/resources.awk) passes what fits and fails each
# planted excess with a sentence that names the object.
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
count=0
awk=$(dirname "$0")/../mk/resources.awk

row()   # name arch threads dynamic-shared
{
    echo "$1 $2 vendor source.cu -DKERNEL_NAME=$1 -DTHREADS=$3 -DSHARED_BYTES=\"($4)\"" > "$folder/rows.txt"
}

nvidia()   # name arch registers static-shared spill-stores
{
    cat > "$folder/$1_$2.log" <<END
ptxas info    : Compiling entry function '$1' for '$2'
    0 bytes stack frame, $5 bytes spill stores, $5 bytes spill loads
ptxas info    : Used $3 registers, used 1 barriers, $4 bytes smem
END
}

amd()   # name arch vgprs lds scratch spills waves-per-SIMD scalar-spills
{
    cat > "$folder/$1_$2.log" <<END
source.cu:1:1: remark: Function Name: $1 [-Rpass-analysis=kernel-resource-usage]
source.cu:1:1: remark:     VGPRs: $3 [-Rpass-analysis=kernel-resource-usage]
source.cu:1:1: remark:     AGPRs: 0 [-Rpass-analysis=kernel-resource-usage]
source.cu:1:1: remark:     ScratchSize [bytes/lane]: $5 [-Rpass-analysis=kernel-resource-usage]
source.cu:1:1: remark:     Occupancy [waves/SIMD]: ${7:-3} [-Rpass-analysis=kernel-resource-usage]
source.cu:1:1: remark:     SGPRs Spill: ${8:-0} [-Rpass-analysis=kernel-resource-usage]
source.cu:1:1: remark:     VGPRs Spill: $6 [-Rpass-analysis=kernel-resource-usage]
source.cu:1:1: remark:     LDS Size [bytes/block]: $4 [-Rpass-analysis=kernel-resource-usage]
END
}

expect()   # what, the words of the failure or "" to pass, names of objects that must have a report
{
    count=$((count + 1))
    logs=$(find "$folder" -maxdepth 1 -name '*_*.log' -o -maxdepth 1 -name '*_*.txt')
    # shellcheck disable=SC2086
    if text=$(awk -v wanted="${3:-}" -f "$awk" "$folder/rows.txt" $logs 2>&1); then code=0; else code=1; fi
    rm -f "$folder"/*_*.log "$folder"/*_*.txt
    if [ -z "$2" ] && [ $code = 0 ]; then echo "ok $count - $1"; return; fi
    if [ -n "$2" ] && [ $code = 1 ] && echo "$text" | grep -q "$2"; then echo "ok $count - $1"; return; fi
    echo "not ok $count - $1"
    echo "$text" | sed 's/^/# /'
}

echo 1..23
row k sm_80 256 '40 * 1024';   nvidia k sm_80 255 1024 0;  expect "what fits an sm_80" ""
row k sm_80 256 0;             nvidia k sm_80 64 0 4;      expect "a spill" "k_sm_80: k spills 8 (no kernel may spill)"
row k sm_80 512 0;             nvidia k sm_80 136 0 0;     expect "registers of a block" "needs more registers than a block of 512 threads has"
row k sm_86 128 '101 * 1024';  nvidia k sm_86 64 0 0;      expect "dynamic shared memory" "needs 103424 bytes of shared memory (sm_86 has 101376)"
row k sm_90a 128 '200 * 1024'; nvidia k sm_90a 64 32768 0; expect "static and dynamic together" "needs 237568 bytes of shared memory (sm_90a has 232448)"
row k compute_80 128 '99 * 1024'; nvidia k compute_80 168 0 0; expect "PTX that fits every newer GPU" ""
row k compute_80 128 102400;   nvidia k compute_80 168 0 0; expect "shared memory of PTX" "needs 102400 bytes of shared memory (compute_80 has 101376)"
row k compute_80 128 0;        echo > "$folder/k_compute_80.log"; expect "a log without a report" "k_compute_80: no report in the compiler's log"
row k sm_80 256 0;             nvidia k sm_80 64 0 0;      expect "an object without a log" "j_sm_80: no report of its compiler" "k_sm_80 j_sm_80"
row k sm_80 256 0;             nvidia k sm_80 64 0 0;      expect "an object with a log" "" k_sm_80
row k sm_80 256 0;             echo "k sm_80 64" > "$folder/k_sm_80.txt"; expect "a prebuilt object's report" "" k_sm_80
row k sm_80 256 0;             : > "$folder/k_sm_80.txt";  expect "an empty report" "k_sm_80: no report of its compiler" k_sm_80
row k gfx942 256 32768;        amd k gfx942 128 0 0 0;     expect "what fits a gfx942" ""
row k gfx942 256 0;            amd k gfx942 128 0 0 3;     expect "a spill on AMD" "k_gfx942: k spills 3"
row k gfx1100 256 0;           amd k gfx1100 128 65552 0 0; expect "LDS" "needs 65552 bytes of shared memory (gfx1100 has 65536)"
row k gfx942 256 0;            amd k gfx942 600 0 0 0;     expect "registers of a lane" "needs more registers than a block of 256 threads has"
row k gfx942 256 32768;        amd k gfx942 128 0 0 0 2;   expect "two waves" ""
row k gfx942 256 0;            amd k gfx942 300 0 0 0 1;   expect "one wave by registers" "k leaves room for 1 waves per SIMD"
row k gfx942 256 40960;        amd k gfx942 128 0 0 0 4;   expect "one wave by LDS" "k leaves room for 1 waves per SIMD"
row k gfx942 128 65536;        amd k gfx942 128 0 0 0 4;   expect "half a wave by LDS" "k leaves room for 0 waves per SIMD"
row k gfx1100 128 65536;       amd k gfx1100 128 0 0 0 4;  expect "two waves on RDNA" ""
row k gfx942 256 0;            amd k gfx942 128 0 0 0 2 6; expect "scalars in vector registers" "k_gfx942: k keeps 6 scalars"
# Scratch counts where the disassembly touches it: this disassembler always shows that.
mkdir "$folder/bin" && printf '#!/bin/sh\necho "scratch_store_dword off, v0"\n' > "$folder/bin/llvm-objdump-22"
chmod +x "$folder/bin/llvm-objdump-22" && PATH=$folder/bin:$PATH
row k gfx942 256 0;            amd k gfx942 128 0 16 0;    expect "scratch" "k uses 16 bytes of scratch"
