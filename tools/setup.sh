#!/usr/bin/env bash
# Makes .venv from requirements.lock with a uv of our own in .uv, and installs av1part into it.
# Needs a Python 3.11 to 3.13 and nothing else; does nothing where .venv is already as asked.
#
#   PYTHON    the interpreter of a new .venv, instead of the first suitable one on PATH
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stamp=.venv/.av1part-setup
uv=.uv/bin/uv

say() { printf 'setup: %s\n' "$*"; }

die() {
  printf 'setup: error: %s\n' "$*" >&2
  exit 1
}

# Whether an interpreter runs here (a version manager's shim may not) and has a fitting version.
suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    suits "$PYTHON" ||
      die "PYTHON=$PYTHON is not a Python 3.11 to 3.13 that runs: name another or unset it"
    command -v "$PYTHON"
    return
  fi
  for candidate in python3.11 python3.12 python3.13 python3; do
    if suits "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  die "no Python 3.11 to 3.13 on PATH: install one, or run \`make setup PYTHON=/path/to/python\`"
}

# What .venv depends on: contents rather than dates, and the folder, which it refers to by name.
state() {
  cat requirements.lock pyproject.toml tools/uv.txt | cksum
  pwd
}

# See to .uv/bin/uv: the pinned one by pip, else (no venv module here) the one on PATH.
bring_uv() {
  local pinned
  pinned=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' tools/uv.txt)
  [ "$("$uv" --version 2>/dev/null | cut -d' ' -f2)" != "$pinned" ] || return 0
  rm -rf .uv
  if "$python" -m venv .uv >/dev/null 2>&1; then
    say "fetching uv $pinned"
    .uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
      -r tools/uv.txt || die "pip could not fetch uv $pinned: see its words above"
  elif uv --version >/dev/null 2>&1; then
    say "$python makes no environments; using the uv on PATH"
    mkdir -p .uv/bin
    printf '#!/bin/sh\nexec "%s" "$@"\n' "$(command -v uv)" >"$uv"
    chmod +x "$uv"
  else
    rm -rf .uv
    die "$python cannot make an environment: run \`apt install python3-venv\` or install uv"
  fi
}

main() {
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(state)" ] && suits .venv/bin/python; then
    return
  fi
  python=$(find_python)
  bring_uv
  if ! suits .venv/bin/python; then
    say "making .venv with $python"
    "$uv" venv --quiet --clear --python "$python" .venv
  fi
  rm -f "$stamp"
  say "installing requirements.lock (a first time fetches some gigabytes of torch)"
  # Compiled here, once: else each process does it anew where Python may not write bytecode.
  "$uv" pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes requirements.lock ||
    die "uv could not install requirements.lock: see its words above"
  "$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e . ||
    die "uv could not install av1part itself: see its words above"
  state >"$stamp"
  say "done: .venv/bin/av1part"
}

# Not when a test sources this for one function. With its exit, so that bash reads no further: the
# file may have been replaced (a `git pull`) while this ran.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  main
  exit
fi
