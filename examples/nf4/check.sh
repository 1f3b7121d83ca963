#!/bin/sh
# usage: check.sh APRCTL FOLDER     the conformance test of the plugin in FOLDER
# A plugin that others could change is refused, and some systems' umask lets the group write.
set -e
chmod go-w "$2" "$2/plugin.toml" "$2/libexample-nf4.so"
exec "$1" plugins check "$2"
