#!/usr/bin/env bash
# Builds and measures a hit beside the caches that are installed. Options as for compare.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
profile=${PROFILE:-release}
cargo build --profile "$profile" --bin larder --example bare
PROFILE=$profile exec python3 load-tests/compare.py hit "$@"
