"""embedded.py: which code objects a library holds, per arch, from `rapt info --json` on its standard input.

usage: rapt info --json | python3 mk/embedded.py LIMIT [NAME_ARCH ...]

Exit code 1 when one of those named is missing, or all together are more than LIMIT bytes."""
import json
import sys


def main():
    limit, wanted = int(sys.argv[1]), set(sys.argv[2:])
    rows = [k for k in json.load(sys.stdin)["kernels"] if k["backend"] != "cpu" and k["arch"] != "any"]
    archs = dict.fromkeys(k["arch"] for k in rows)
    for arch in archs:
        held = [k["bytes"] for k in rows if k["arch"] == arch and k["bytes"]]
        print(f"  {arch:12s} {len(held):4d} of {sum(k['arch'] == arch for k in rows):4d} rows {sum(held):10d} bytes")
    held = {f"{k['name']}_{k['arch']}": k["bytes"] for k in rows if k["bytes"]}
    total, missing = sum(held.values()), sorted(wanted - set(held))
    print(f"{len(held)} code objects for {len(archs)} archs, {total} bytes embedded of at most {limit}")
    for name in missing:
        print(f"missing: {name}")
    if total > limit:
        print(f"too large by {total - limit} bytes")
    return bool(missing) or total > limit


sys.exit(main())
