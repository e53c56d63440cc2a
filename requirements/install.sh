#!/bin/sh
# Makes .venv and installs pinned, hashed, byte-compiled dependencies and the package itself into it.
#
#   requirements/install.sh [--cpu | --gpu] [--openvino] [--test] [--fuzz]
#
# Without --cpu or --gpu the environment keeps the kind that it has (a new one is for the CPU). Whatever was installed
# from the same lock files before is left alone, so a second call takes a fraction of a second.
# PYTHON names the interpreter for a new environment. pip's own settings (index, certificates, cache) apply.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
venv="$root/.venv"
state="$venv/firstread-setup"

kind=""
with_openvino=""
with_test=""
with_fuzz=""
for option in "$@"; do
    case "$option" in
        --cpu) kind=cpu ;;
        --gpu) kind=gpu ;;
        --openvino) with_openvino=yes ;;
        --test) with_test=yes ;;
        --fuzz) with_fuzz=yes ;;
        *) echo "install.sh: unknown option $option" >&2; exit 2 ;;
    esac
done

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3.11 python3.12 python3 python}; do
        if supported "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    echo "setup: no Python 3.11 or 3.12 found (tried: ${PYTHON:-python3.11 python3.12 python3 python})." >&2
    echo "       Install one, or name one: make setup PYTHON=/path/to/python3.11" >&2
    return 1
}

make_venv() {
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        requirements/system.sh venv
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "setup: $python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2
            return 1
        fi
    fi
    echo "setup: .venv with $("$python" --version) ($python)"
    "$python" -m venv --clear "$venv"
    mkdir -p "$state"
    printf '%s\n' "$root" > "$state/root"
}

# A folder that was moved, an interpreter that is gone, or TensorFlow of the other kind: start anew.
old_kind=$(cat "$state/kind" 2>/dev/null || true)
old_root=$(cat "$state/root" 2>/dev/null || true)
kind=${kind:-${old_kind:-cpu}}
if ! supported "$venv/bin/python" || [ "${old_root:-$root}" != "$root" ] || [ "${old_kind:-$kind}" != "$kind" ]; then
    make_venv
fi
mkdir -p "$state"
printf '%s\n' "$root" > "$state/root"

digest() {
    cat requirements/install.sh "$@" | cksum
}

# pip_lock NAME FILE...: installs a lock file unless the very same one is in already.
pip_lock() {
    lock="requirements/$1.txt"
    sum=$(digest "$lock")
    [ "$(cat "$state/$1" 2>/dev/null || true)" = "$sum" ] && return 0
    echo "setup: installing $(grep -c '==' "$lock") packages of $lock (downloads at first: minutes on a slow line)"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet --compile --no-deps \
        --require-hashes --prefer-binary -r "$lock"
    printf '%s\n' "$sum" > "$state/$1"
}

printf '%s\n' "$kind" > "$state/kind"
pip_lock "$kind"
[ -z "$with_openvino" ] || pip_lock openvino
[ -z "$with_test" ] || pip_lock test
[ -z "$with_fuzz" ] || pip_lock fuzz

sum=$(digest pyproject.toml setup.py)
if [ "$(cat "$state/package" 2>/dev/null || true)" != "$sum" ]; then
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet --no-index --no-deps \
        --no-build-isolation --editable .
    "$venv/bin/python" -m compileall -q firstread firstread_cli firstread_web dicom_listener worker training
    printf '%s\n' "$sum" > "$state/package"
    echo "setup: done; the command is .venv/bin/firstread"
fi
