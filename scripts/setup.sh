#!/bin/sh
# Makes a fresh checkout ready to run: the locked packages, and the Bun executable among them.
# The npm scripts run it first. It is shell, because Node 20 cannot run the project's TypeScript,
# and Bun may not be there yet. A second run changes nothing and takes a few milliseconds.
set -eu
cd "$(dirname "$0")/.."

# The lock file as it was when the packages were installed.
installed=node_modules/.installed-package-lock.json

if ! cmp -s package-lock.json "$installed"; then
  case "${npm_config_user_agent:-}" in
    bun/*) "$npm_execpath" install >&2 ;;
    # Not `npm ci`: that would take node_modules away under a program that is running from it.
    *) npm install --no-save --no-audit --no-fund >&2 ;;
  esac
  cp package-lock.json "$installed"
fi

# The package `bun` fetches its executable in a post-install script, which npm does not run
# everywhere (--ignore-scripts, npm 12).
if ! node_modules/.bin/bun --version >/dev/null 2>&1; then
  case "${npm_config_user_agent:-}" in
    bun/*) "$npm_execpath" node_modules/bun/install.js >&2 ;;
    *) node node_modules/bun/install.js >&2 ;;
  esac
  node_modules/.bin/bun --version >/dev/null
fi
