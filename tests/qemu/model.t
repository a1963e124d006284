#!/bin/sh
# model.t: on an emulated CPU: which instructions it refuses, which level rapt takes there, that a mask for a level it lacks does not
# crash, and the tool on the real sample. $1: folder of the programs under emulation; $2: the level expected; $3: an instruction set
# that runs there, or none; $4: one that does not.
set -u
folder=$1 level=$2 has=$3 lacks=$4
count=0
failed=0
say() { # passed, what
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; failed=1; fi
}
if [ "$has" != none ]; then
    "$folder/newer" "$has" 2> /dev/null
    say $? "this CPU runs $has"
fi
! "$folder/newer" "$lacks" 2> /dev/null
say $? "this CPU refuses $lacks"
if [ -x "$folder/rapt" ]; then
    "$folder/rapt" info --json | grep -q "\"arch\": *\"$level\""
    say $? "rapt takes the level $level"
    "$folder/rapt" run tests/data/smollm2-layer17.safetensors --causal --verify --device cpu > /dev/null
    say $? "rapt run computes the sample"
    for mask in amx avx512 avx2 scalar; do
        RAPT_CPU=$mask "$folder/rapt" run tests/data/smollm2-layer17.safetensors --causal --verify --device cpu > /dev/null
        say $? "RAPT_CPU=$mask computes it with what is there"
    done
    "$folder/rapt" bench "forward f32 b1 h1 q16 kv16 d16" > /dev/null
    say $? "rapt bench finds a ceiling"
fi
echo "1..$count"
exit $failed
