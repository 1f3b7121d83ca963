#!/bin/sh
# Installs the prebuilt kernels, if any: install_prebuilt.sh FOLDER DATA_DIR
set -e
mkdir -p "$DESTDIR$2/ptx-generic"
find "$1" -name '*.ptx' -exec cp {} "$DESTDIR$2/ptx-generic/" \; 2>/dev/null || true
