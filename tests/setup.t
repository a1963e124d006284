#!/bin/sh
# setup.t: setup.sh on a machine without packages, root or sudo, on one without a network, and on one that is no Debian: it says what to do, and
# begins nothing.
set -u
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
echo 1..4
failed=0
say() { # passed, number, what
    if [ "$1" = 0 ]; then echo "ok $2 - $3"; else echo "not ok $2 - $3"; sed 's/^/# /' "$folder/log"; failed=1; fi
}
# The only programs that setup.sh finds: those of this list, and make, which says what it is asked for.
mkdir "$folder/bin" && cp setup.sh "$folder/"
for program in sh dirname grep sed env; do ln -s "$(command -v $program)" "$folder/bin/"; done
stand_in() { # name, what it does
    printf '#!/bin/sh\n%s\n' "$2" > "$folder/bin/$1"
    chmod +x "$folder/bin/$1"
}
stand_in id 'echo 1000'
stand_in nproc 'echo 2'
stand_in make 'echo "make $*"; exit 1'
run() { env -i PATH="$folder/bin" "$folder/setup.sh" "$@" > "$folder/log" 2>&1; }

run; [ $? = 2 ] && [ "$(cat "$folder/log")" = 'rapt: usage: ./setup.sh demo | check' ]; say $? 1 "no word: the usage"
run demo; grep -q '^rapt: not a Debian system; taking for granted: build-essential ' "$folder/log" && grep -q '^make .* all$' "$folder/log"
say $? 2 "no Debian: the packages are taken for granted"
stand_in dpkg-query 'exit 1'
run demo; [ $? = 2 ] && [ "$(cat "$folder/log")" = "rapt: root is needed to install packages, and sudo is not here; run as root: \
apt-get update; apt-get install build-essential pkg-config libjansson-dev libcairo2-dev fonts-dejavu-core" ]
say $? 3 "no root: the command that installs all that is missing"
stand_in id 'echo 0'
stand_in apt-get 'echo "E: no network" >&2; exit 100'
run demo; [ $? = 2 ] && [ "$(tail -n 2 "$folder/log")" = "E: no network
rapt: apt-get could not install build-essential pkg-config libjansson-dev libcairo2-dev fonts-dejavu-core (why stands above; without a network, \
install them in another way and run this again)" ]
say $? 4 "no network: what could not be installed, and that it may come in another way"
exit $failed
