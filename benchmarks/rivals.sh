#!/bin/sh
# Install what the benchmarks compare with into a folder beside the environment's own packages: benchmarks/rivals.sh [.venv [NAME ...]]
# With names, such as `benchmarks/rivals.sh .venv learn2learn`, only these. The appendix With learn2learn finds it there.
# learn2learn 0.2.0 ships C files that no Python after 3.10 compiles; `build_ext` makes Cython write them anew (a C compiler and Python's headers are needed). pip 23.2 does not hand that option on and stops at longintrepr.h; pip 26.3 does.
# Requirements are left out on purpose: torch must stay the one that is measured, and torchvision and gym, which learn2learn imports, are not needed for MAML.
set -u
venv=${1:-.venv}
if [ $# -gt 0 ]; then shift; fi
wanted=" $* "  # "  ": all
known=""
python=$venv/bin/python
folder=$("$python" -c 'import sys; print(sys.prefix)')/rivals
mkdir -p "$folder"

install() {  # name, version, more options of pip
    name=$1; version=$2; shift 2
    written=$(printf %s "$name" | tr - _)  # so it is named in its files: parallel-metalearn, parallel_metalearn-0.5.6.dist-info
    known="$known $name"
    case "$wanted" in "  " | *" $name "*) ;; *) return ;; esac
    if ls -d "$folder/$written-$version.dist-info" >/dev/null 2>&1; then return; fi
    rm -rf "$folder/$written" "$folder/$written"-*.dist-info
    echo "Installing $name $version into $folder"
    if ! "$python" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target "$folder" "$@" "$name==$version" >"$folder/$name.log" 2>&1; then
        echo "$name $version could not be installed; the benchmarks will say so and go on without it. The end of $folder/$name.log:" >&2
        tail -n 3 "$folder/$name.log" >&2
    fi
}

install learn2learn 0.2.0 --no-binary learn2learn --config-settings=--build-option=build_ext
install higher 0.2.1
install optree 0.20.0
install graphviz 0.21
install torchopt 0.7.3
install parallel-metalearn 0.5.6  # its package is called metalearn
install iteryne 0.1.0
install evaluate 0.4.6
install setfit 1.2.0
install fast-fit 1.2.1  # its package is called fastfit
rm -rf "$folder/tests"  # learn2learn installs its own at the top level
for name in $wanted; do
    case "$known " in *" $name "*) ;; *) echo "$name is none of:$known" >&2; exit 2 ;; esac
done
