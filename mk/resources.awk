# resources.awk: checks what the device compilers report per entry point against the hardware's budgets.
# Input: rows.txt (the expanded kernels.def), then the compilers' logs, NAME_ARCH.log, and for objects that were compiled elsewhere
# NAME_ARCH.txt, the lines that this script wrote there. Output: one line per entry point; exit 1 when one spills, uses scratch on AMD
# (LLVM also reserves slots for scalars that no instruction touches: the disassembly tells), or asks for more registers or shared
# memory than a block can have; or when there is no report of an object named in `wanted`. On AMD every entry point must also keep
# scalars out of vector registers and leave room for two waves per SIMD.
BEGIN {
    # Largest shared memory of a block, bytes: CUDA C++ Programming Guide, table of compute capabilities (opt-in size); AMD: LDS of a
    # work-group, from the LLVM AMDGPU processor table.
    budget["sm_80"] = 166912; budget["sm_86"] = budget["sm_89"] = budget["sm_120"] = 101376
    budget["sm_90a"] = budget["sm_90"] = budget["sm_100"] = budget["sm_100a"] = 232448
    budget["gfx950"] = 163840
    budget["compute_80"] = budget["sm_120"] # the least that a newer GPU may have
    printf "%-40s %9s %7s %6s %6s %6s %7s %7s %5s\n", "entry point", "registers", "scalars", "shared", "spills", "scalar", "scratch",
        "threads", "waves"
}
FILENAME ~ /rows\.txt$/ {
    key = $1 "_" $2; arch[key] = $2
    match($0, /-DTHREADS=[0-9]+/); threads[key] = substr($0, RSTART + 10, RLENGTH - 10)
    match($0, /-DSHARED_BYTES="[^"]*"/); command = "echo $(( " substr($0, RSTART + 16, RLENGTH - 17) " ))"; command | getline dynamic[key]; close(command)
    next
}
FNR == 1 {
    path = FILENAME; sub(/\.[a-z]*$/, "", path); key = path; sub(/.*\//, "", key); object[key] = path ".co"
}
FILENAME ~ /\.txt$/ { reported[key] = 1; print; next }
/Compiling entry function/ { entry = $7; gsub(/'/, "", entry); spills = scalar = 0 }
/bytes spill stores/       { spills += $5 + $9 }
/ptxas info *: Used/ {
    shared = 0; for (i = 2; i <= NF; i++) if ($i ~ /^smem/) shared = $(i - 2)
    scalars = "-"; waves = scalar = 0
    report(entry, $5, shared, spills, 0, int(($5 + 7) / 8) * 8 * threads[key] > 65536)
}
/remark: Function Name:/   { entry = $5; registers = 0 }
/remark: +TotalSGPRs:/     { scalars = $4 }
/remark: +VGPRs:/          { registers = $4 }
/remark: +AGPRs:/          { registers += $4 }
/remark: +ScratchSize/     { scratch = $5 }
/remark: +Occupancy/       { waves = $5 } # per SIMD, as registers allow
/remark: +SGPRs Spill:/    { scalar = $5 } # into lanes of a vector register: no memory traffic
/remark: +VGPRs Spill:/    { spills = $5 }
/remark: +LDS Size/        { report(entry, registers, $6, spills, scratch, registers > 512) }

function report(name, registers, shared, spills, scratch, too_many,   limit, total) {
    reported[key] = 1
    limit = arch[key] in budget ? budget[arch[key]] : 65536
    total = shared + (name ~ /_(prepare|combine)$/ ? 0 : dynamic[key])
    if (waves) waves = least(waves, lds_waves(arch[key], total, threads[key]))
    printf "%-40s %9d %7s %6d %6d %6d %7d %7d %5s\n", name " " arch[key], registers, scalars, total, spills, scalar, scratch,
        threads[key], waves ? waves : "-"
    if (arch[key] ~ /^gfx/ && waves < 2) failed = failed "\n" key ": " name " leaves room for " waves " waves per SIMD (2 hide latency)"
    if (arch[key] ~ /^gfx/ && scalar + 0) failed = failed "\n" key ": " name " keeps " scalar " scalars in lanes of vector registers (load them again instead)"
    if (spills)        failed = failed "\n" key ": " name " spills " spills " (no kernel may spill)"
    if (scratch && touches(object[key])) failed = failed "\n" key ": " name " uses " scratch " bytes of scratch per lane (index arrays by constants)"
    if (too_many)      failed = failed "\n" key ": " name " needs more registers than a block of " threads[key] " threads has"
    if (total > limit) failed = failed "\n" key ": " name " needs " total " bytes of shared memory (" arch[key] " has " limit ")"
}
function least(a, b) { return a < b ? a : b }
# Waves per SIMD that LDS allows: CDNA has one LDS per 4 SIMDs and waves of 64, RDNA 128 KiB per 4 SIMDs and waves of 32.
function lds_waves(gfx, bytes, block,   cdna) {
    cdna = gfx ~ /^gfx9/
    return bytes ? int(int((cdna ? (gfx in budget ? budget[gfx] : 65536) : 131072) / bytes) * block / (cdna ? 64 : 32) / 4) : 16
}
# Instructions of an object that reach scratch memory; 1 where no disassembler can tell.
function touches(file,   command, count) {
    command = "llvm-objdump-22 -d " file " 2> /dev/null | grep -cE 'scratch_|buffer_(load|store)'"
    if (system("command -v llvm-objdump-22 > /dev/null")) return 1
    command | getline count
    close(command)
    return count + 0
}
END {
    for (key in object) if (!reported[key]) failed = failed "\n" key ": no report in the compiler's log"
    count = split(wanted, names, " ")
    for (i = 1; i <= count; i++) if (!(names[i] in object))
        failed = failed "\n" names[i] ": no report of its compiler (of a prebuilt object it is " names[i] ".txt beside it, which make prebuilt writes)"
}
END { if (failed) { print failed; exit 1 } }
