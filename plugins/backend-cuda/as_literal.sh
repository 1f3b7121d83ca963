#!/bin/sh
# A file as a C++ raw string literal: as_literal.sh INPUT OUTPUT
{ printf 'R"APR_TEXT(\n'; cat "$1"; printf ')APR_TEXT"\n'; } > "$2"
