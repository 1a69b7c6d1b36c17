#!/bin/sh
# Make the environment of the book: tools/environment.sh FOLDER [EXTRA...]
# PYTHON=... chooses the interpreter; otherwise the first of python3, python3.13, python3.12, python3.11 that is new enough is taken.
set -eu
folder=$1; shift
extras=$(echo "$*" | tr ' ' ',')
supported='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$supported" >/dev/null 2>&1; then echo "$candidate"; return; fi
    done
    echo "No usable Python: the book needs Python 3.11, 3.12 or 3.13 with the modules venv and ensurepip (on Debian: apt install python3-venv)." >&2
    echo "Looked at: ${PYTHON:-python3 python3.13 python3.12 python3.11 python}. Name one with: make book PYTHON=/path/to/python3.12" >&2
    return 1
}

if ! "$folder/bin/python" -c "$supported" >/dev/null 2>&1; then
    python=$(find_python)
    rm -rf "$folder"
    echo "Making $folder with $($python --version) and installing the book's tools: once, some minutes (PyTorch is the largest part)."
    "$python" -m venv "$folder"
    # The resolver of the pip that comes with older Pythons needs a quarter of an hour for what a current one does in seconds.
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
else
    echo "Bringing $folder up to date."
fi
# --no-compile: Python compiles what is imported when it is imported, which is a small part of what is installed
"$folder/bin/python" -m pip install --no-compile --quiet --quiet --disable-pip-version-check -c tools/constraints.txt -e ".[$extras]"
