#!/usr/bin/env bash
# Makes every lock of this folder anew from its .in file. Needs `uv` (pip install uv) and the package index.
# `--upgrade` moves what the .in files leave open to the newest versions.
set -euo pipefail
cd "$(dirname "$0")"

# The first one decides versions that the others share.
for name in metaworld gymnasium gymnasium-mujoco gymnasium-robotics dm-control dev maniskill schemathesis; do
    uv pip compile "$name.in" --output-file "$name.lock" \
        --universal --python-version 3.11 --generate-hashes --only-binary :all: \
        --no-emit-index-url --custom-compile-command "requirements/lock.sh" "$@"
done
