# loops.awk: checks the table of tools/amdgpu/report.py, the loops with matrix instructions of AMD's rows. Exit 1 with a sentence
# per failure: a row that leaves room for fewer than two waves per SIMD; LDS conflicts of 2 % of its LDS cycles or more; on
# gfx942 with 128 channels, matrix instructions in less than 75 % of the issue cycles by the emulator or by llvm-mca (60 % in rows whose
# tiles share the keys, which have no aim of their own). Such rows must be in the table.
BEGIN { FS = " *\\| *" }
$3 !~ /^gfx/ { next }
{ rows++; id = $2 "_" $3 }
$7 < 2 { fail("leaves room for " $7 " waves per SIMD (2 hide latency)") }
number($12) >= 2 { fail("loses " $12 " of its LDS cycles to bank conflicts (below 2 %)") }
$3 == "gfx942" && $2 ~ /_d128(_|$)/ {
    aimed++
    least = $2 ~ /_split$/ ? 60 : 75
    if (number($10) < least) fail("matrix instructions take " $10 " of the loop's issue cycles by the emulator (" least " % at least)")
    if (number($11) < least) fail("matrix instructions take " $11 " of the loop's cycles by llvm-mca (" least " % at least)")
}
END {
    if (!aimed) print "no row of 128 channels on gfx942 is in the table"
    exit failed || !aimed
}
function number(text) { if (text !~ /^[0-9.]+ %$/) fail("has no figure: " text); return text + 0 }
function fail(text) { print id ": " text; failed = 1 }
