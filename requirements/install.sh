#!/bin/sh
# Makes .venv, the control machine's environment, from the hash-pinned locks. Run by `make`; running it
# again after a lock changed brings the environment up to date.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "PYTHON=$python: Pergola needs Python 3.11 or later on this machine; name one: make PYTHON=python3.13" >&2
    exit 1
}

# Debian ships Python without what venv needs to put pip into an environment.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    if ! command -v apt-get >/dev/null || ! command -v ${sudo:-true} >/dev/null; then
        echo "python: this Python has no venv module; install your system's python3-venv package" >&2
        exit 1
    fi
    echo "Installing python3-venv"
    $sudo apt-get -q update >/dev/null
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install python3-venv >/dev/null
fi

# uv reads neither pip's settings nor, unasked, the system's certificate authorities: a site that set up
# pip for its own index means uv as well.
index=$("$python" -m pip config get global.index-url 2>/dev/null || :)
[ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
export UV_SYSTEM_CERTS=true

echo "Installing the control machine's environment in .venv"
[ -x .venv/bin/python ] || "$python" -m venv --clear .venv
.venv/bin/pip --disable-pip-version-check -q install --require-hashes -r requirements/uv.txt
.venv/bin/uv pip sync -q --python .venv/bin/python --require-hashes requirements/control.txt
# `pergola` and what imports it: Ansible's plugins, the tests, the benchmark. After the sync, which removes what the lock
# does not name; editable, so that it is always this checkout's; offline, as uv itself contains the build backend.
.venv/bin/uv pip install -q --python .venv/bin/python --offline --no-deps --editable .
touch .venv/ready
