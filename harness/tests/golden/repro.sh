#!/bin/sh
# Runs tx::a_case as it was run: on kernel 6.1 (6.1.192), with seed 7.
# NLRING is the ci/nlring to run it with, if not that of the tree it was run from.
nlring='/it'\''s here/ci/nlring'
exec "${NLRING:-$nlring}" repro "$(dirname "$0")" "$@"
