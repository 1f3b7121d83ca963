#!/bin/sh
# Runs the prebuild tool and leaves a stamp, since its output is a folder: prebuild.sh STAMP TOOL ARGUMENTS...
stamp=$1
shift
"$@" && : > "$stamp"
