#!/bin/sh
# Make the environment of the book: tools/environment.sh FOLDER [EXTRA...]
# PYTHON=... chooses the interpreter; otherwise the first of python3, python3.13, python3.12, python3.11 that is new enough is taken.
set -eu
folder=$1; shift
supported='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$supported" >/dev/null 2>&1; then echo "$candidate"; return; fi
    done
    echo "No usable Python: the book needs Python 3.11, 3.12 or 3.13 with the modules venv and ensurepip (on Debian: apt install python3-venv)." >&2
    echo "Looked at:" >&2
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        echo "  $candidate: $("$candidate" --version 2>/dev/null || echo "not found")" >&2
    done
    echo "Name one with: make book PYTHON=/path/to/python3.12" >&2
    return 1
}

if ! "$folder/bin/python" -c "$supported" >/dev/null 2>&1; then
    python=$(find_python)
    if [ -e "$folder" ] && [ ! -e "$folder/pyvenv.cfg" ] && [ -n "$(ls -A "$folder" 2>/dev/null)" ]; then
        echo "$folder is there and is no Python environment; it is left alone. Name another folder with VENV=..." >&2
        exit 1
    fi
    rm -rf "$folder"
    echo "The book gets an environment of its own in $folder, with $("$python" --version). Nothing outside this folder is changed."
    echo "This happens once. It takes 3 to 10 minutes, most of them for PyTorch, and 1.8 GB of disk with its CPU build, 5.6 GB with the one for GPUs."
    "$python" -m venv "$folder"
    # The resolver of the pip that comes with older Pythons needs a quarter of an hour for what a current one does in seconds.
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
else
    echo "Bringing $folder up to date."
fi
exec "$folder/bin/python" tools/install.py "$@"
