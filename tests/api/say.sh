# say.sh: the lines of a script's tests; $folder/log has what a test that fails has printed.
# shellcheck shell=sh disable=SC2034,SC2154
failed=0
count=0
say() { # passed, what
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; sed 's/^/# /' "$folder/log"; failed=1; fi
}
skip() { # what, why
    count=$((count + 1))
    echo "ok $count - $1 # SKIP $2"
}
