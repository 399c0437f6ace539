#!/usr/bin/env bash
# Set-up and the site, in build/site: bash tools/docs.sh [--serve]
#   --serve   shows it at http://127.0.0.1:8000 and follows changes
# Nothing is fetched but the packages. `python tools/notebooks.py` runs the notebooks anew and stores what they print.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

export NO_MKDOCS_2_WARNING=1
set_up docs
if [ "${1:-}" = --serve ]; then
  exec "$python" -m mkdocs serve --strict
fi
stage "site" "$python" -m mkdocs build --strict
echo "site        $root/build/site/index.html"
