#!/bin/sh
# examples.t: every example runs and finds its own result right. TAP.
set -u
count=0
for program in "${RAPT_BUILD:?the build folder}"/examples/*; do
    case $program in *.d | *.o) continue ;; esac
    count=$((count + 1))
    if text=$("$program" 2>&1); then printf 'ok %d - %s: %s\n' $count "$(basename "$program")" "$text"
    else printf 'not ok %d - %s: %s\n' $count "$(basename "$program")" "$text"
    fi
done
printf '1..%d\n' $count
