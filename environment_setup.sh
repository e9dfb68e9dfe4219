#!/usr/bin/env bash
# Makes an environment from a lock in which every file is fixed by its digest, and checks it.
#
#   bash environment_setup.sh               make the environment and show `envcheck check` on it
#   bash environment_setup.sh --no-check    the same without the check
#   bash environment_setup.sh --test        the same with the test tools, then run all checks and tests
#
# Needs Python 3.10 or newer (PYTHON=/path/to/python chooses one); no root. ENVCHECK_VENV names another folder. Run it again at
# any time: what is there is kept, and a run that was killed half-way is completed.
# Written by `envcheck setup write`; change the lock, not this file.
# shellcheck disable=SC2016
set -euo pipefail

name=environment_setup
python_words='Python 3.10 or newer'
python_condition='sys.version_info >= (3, 10)'
python_names='python3 python3.14 python3.13 python3.12 python3.11 python3.10 python'
python_request='>=3.10'
system=''
machine=''
venv=.venv
conda_name=''
lock=requirements/runtime.txt
lock_file=requirements.txt
lock_form=requirements
test_lock=requirements/dev.txt
test_script=tests/run.sh
editable=.
build=''
profile=''
by_hand=''
left_out=''
by_hand_steps=''
probe=no
patches='[]'
plan=f196998d1e444bca1aa664835055535ed03860ecdf403a2bdd57a81539513a87
uv_least=0.9
uv_lock='uv==0.13.9 \
    --hash=sha256:16963d19594e18d746a70c7fce82237bde4f2cac4cfcf0ca2b84796fe9d0c6e9 \
    --hash=sha256:2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25 \
    --hash=sha256:3eeeb51a267a2144640fcd8f38d4a2f63439b39bc47445fd84727c3fc462c843 \
    --hash=sha256:5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe \
    --hash=sha256:56ec37616c00220032fc7b8c9d0ef51367fd0d70d9cd6ddd841660f949f84fed \
    --hash=sha256:66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63 \
    --hash=sha256:6a44b2ed8111d2f60d2b92627c5dccda3f7ed7570b18ce115e569cd68c28246b \
    --hash=sha256:6b0c7b9f47a5d011939d61e324d3fe18a8bc155d8dd53add738709a92f290a7c \
    --hash=sha256:6d5114bba238adddacb32fb11904f2b3ff4e988f8e9ff0d8d3b5e9822cf836b8 \
    --hash=sha256:7ec1e1dd9b6cb335c301afdf877989df384227313981850755a59561f75e4ab8 \
    --hash=sha256:a2ee66fe8b6608e1482ab1bde5799da04705c1cb40324c7f66054ecf46ae6e40 \
    --hash=sha256:a6e845f387e4ed55bb59342957a9179e24a631fcc7668bda3426ae1cef8ed4b9 \
    --hash=sha256:c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5 \
    --hash=sha256:c5dbdb7c8737cd183a9dce95b39cfd1f3d54ec2a27a1bb58f160293f9ba2c805 \
    --hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19 \
    --hash=sha256:db5c8df7145c21ffea9c0f74e38823bac3af60cbadf0e26b8633f08627b17bab \
    --hash=sha256:dd6f4f93ddf8a668c73f0945f3638444b2140a4e15a3912067493fc6335543e4 \
    --hash=sha256:ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375 \
    --hash=sha256:eeb92051c2123b9730c46b04cc843cfa4bc7d7b0aec56df431a2215ef4cb0273'
keeper='"""Keep the state of an environment that is being set up: what was begun, what is finished, what is installed.

Run as python -I -c TEXT COMMAND ARGUMENTS, by a setup script or by envcheck setup run. Standard library only, Python 3.8
syntax. It holds neither single quotes nor dollar signs nor backquotes, so that it stands unchanged inside single
quotes of a script.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time

MYPY = False  # typing is slow to import, and is not needed where this runs
if MYPY:
    from collections.abc import Callable, Iterator  # noqa: TC003 - as above
    from typing import Any, NoReturn

OWN = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")


def fail(message: str, code: int = 4) -> NoReturn:
    print("error: " + message, file=sys.stderr)
    sys.exit(code)


def content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def store(path: str, data: bytes) -> None:
    temporary = "%s.%d.tmp" % (path, os.getpid())
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def prepare(folder: str, state: str) -> None:
    """Make the state folder; a folder that holds nothing else is ours from now on."""
    ours = not os.path.isdir(folder) or set(os.listdir(folder)) <= {os.path.basename(state)}
    os.makedirs(state, exist_ok=True)
    if ours:
        store(os.path.join(state, "made"), b"")


def hold(descriptor: str, seconds: str) -> None:
    """Wait for the lock on an open descriptor, which the caller and its children keep."""
    import fcntl

    until = time.monotonic() + float(seconds)
    told = False
    while True:
        try:
            fcntl.flock(int(descriptor), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                fail("another run is still at work on this environment")
        else:
            return
        if not told:
            print("waiting for another run on this environment", file=sys.stderr)
            told = True
        time.sleep(0.2)


def digest(text: str, *files: str) -> None:
    """One digest over a text and the content of files."""
    total = hashlib.sha256(text.encode())
    for name in files:
        data = content(name)
        if data is None:
            fail("%s is not there" % name, 2)
        total.update(b"\0" + data)
    print(total.hexdigest())


def standing(folder: str, wanted: str, manifest_too: str = "no", by_hand: str = "") -> None:
    """done; open; or where a run was cut off or files were changed since: begun in a folder of ours, again in another."""
    finished = content(os.path.join(folder, "stamp")) == wanted.encode()
    cut_off = content(os.path.join(folder, "begun")) is not None
    if cut_off or (finished and manifest_too == "manifest" and not unchanged(folder, by_hand.split())):
        print("begun" if content(os.path.join(folder, "made")) is not None else "again")
    else:
        print("done" if finished else "open")


def unchanged(folder: str, by_hand: list[str]) -> bool:
    """Whether what is installed is what the manifest says, but for packages that are put in by hand."""
    try:
        before = json.loads(content(os.path.join(folder, "manifest.json")) or b"{}")
    except ValueError:
        return False
    known, found = before.get("distributions", {}), distributions()
    if "*" in by_hand:
        return True
    names = (set(known) | set(found)) - set(by_hand)
    return all(known.get(name) == found.get(name) for name in names)


def begin(folder: str) -> None:
    store(os.path.join(folder, "begun"), b"")
    stamp = os.path.join(folder, "stamp")
    if os.path.exists(stamp):
        os.unlink(stamp)


def finish(folder: str, wanted: str) -> None:
    store(os.path.join(folder, "stamp"), wanted.encode())
    os.unlink(os.path.join(folder, "begun"))


def clear(folder: str, state: str) -> None:
    """Remove everything but the state folder; only where the folder was made by us."""
    if content(os.path.join(state, "made")) is None:
        fail("%s was there before and is not ours to clear; remove it, or name another folder" % folder)
    if not os.path.isdir(folder):
        return  # conda was cut off before it made the folder; the state stands beside it
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.realpath(path) == os.path.realpath(state):
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    if not os.listdir(folder):
        os.rmdir(folder)


def conda_prefix(name: str) -> None:
    """The folder of a conda environment by its name, from what conda says of itself on standard input.

    As conda looks a name up: in its folders of environments only, in their order; a new one goes to the first writable.
    """
    told = json.load(sys.stdin)
    folders = told.get("envs_dirs") or told.get("envs directories") or []
    if not folders:
        fail("conda does not say where it keeps environments")
    places = [os.path.join(folder, name) for folder in folders]
    open_to_us = [place for place, folder in zip(places, folders) if os.access(nearest(folder), os.W_OK)]
    print(next((place for place in places if os.path.isdir(place)), (open_to_us or places)[0]))


def nearest(path: str) -> str:
    """The path, or the nearest folder above it that is there."""
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def at_least(text: str, version: str) -> NoReturn:
    """Whether the first version in a text is at least so."""
    import re

    found = re.search(r"\d+(?:\.\d+)+", text)
    numbers = [int(part) for part in found.group(0).split(".")] if found else []
    sys.exit(0 if numbers >= [int(part) for part in version.split(".")] else 1)


def site_packages() -> list[str]:
    import sysconfig

    paths = sysconfig.get_paths()
    return list(dict.fromkeys([paths["purelib"], paths["platlib"]]))


def patch(base: str, plan: str) -> None:
    """Copy files over installed ones, each only where the digest before, and the digest of the copy, is the stated one."""
    for entry in json.loads(plan):
        target = next(
            (path for path in (os.path.join(root, entry["file"]) for root in site_packages()) if os.path.exists(path)), ""
        )
        target = target or os.path.join(site_packages()[0], entry["file"])
        before = content(target)
        found = sha256(before) if before is not None else "absent"
        if found == entry["after"]:
            continue
        expected = entry["before"] if entry["before"] != "locked" else recorded(entry["file"])
        if found != expected:
            fail(
                "%s is not the file that the patch is for\n  expected sha256 %s\n  found    sha256 %s" % (target, expected, found)
            )
        data = content(os.path.join(base, entry["source"]))
        if data is None:
            fail("the patch %s is not there" % os.path.join(base, entry["source"]), 2)
        if sha256(data) != entry["after"]:
            fail("the patch %s\n  expected sha256 %s\n  found    sha256 %s" % (entry["source"], entry["after"], sha256(data)), 2)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        # To a name of its own first, and renamed: the file there may be a hard link into the cache of the installer.
        store(target, data)


def recorded(file: str) -> str:
    """The SHA-256 that a RECORD gives for an installed file, as hex digits; absent where none lists it."""
    import base64
    import csv

    for root in site_packages():
        for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
            record = content(os.path.join(root, name, "RECORD")) if name.endswith(".dist-info") else None
            for row in csv.reader((record or b"").decode("utf-8", "replace").splitlines()):
                if len(row) > 1 and row[0] == file and row[1].startswith("sha256="):
                    return base64.urlsafe_b64decode(row[1][7:] + "==").hex()
    return "absent"


def distributions() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for root in site_packages():
        for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
            if name.endswith((".dist-info", ".egg-info")) and not name.startswith("~"):
                entry = distribution(root, name)
                found.setdefault(normal(name.split("-")[0]), entry)
    return found


def normal(name: str) -> str:
    import re

    return re.sub(r"[-_.]+", "-", name).lower()


def distribution(root: str, name: str) -> dict[str, Any]:
    folder = os.path.join(root, name)
    stem = name.rsplit(".", 1)[0]
    version = stem.split("-")[1] if "-" in stem else ""
    headers = (content(os.path.join(folder, "METADATA")) or content(os.path.join(folder, "PKG-INFO")) or b"").decode(
        "utf-8", "replace"
    )
    for line in headers.split("\n\n")[0].splitlines():
        if line.lower().startswith("version:"):
            version = line.split(":", 1)[1].strip()
    entry: dict[str, Any] = {"version": version}
    url = content(os.path.join(folder, "direct_url.json"))
    try:
        direct = json.loads(url) if url else {}
    except ValueError:
        direct = {}
    if direct.get("dir_info", {}).get("editable"):
        entry["editable"] = True
        return entry
    tags = [
        line.split(b":")[1].strip().decode()
        for line in (content(os.path.join(folder, "WHEEL")) or b"").splitlines()
        if line.startswith(b"Tag:")
    ]
    if tags:
        entry["tags"] = sorted(tags)
    record = content(os.path.join(folder, "RECORD"))
    if record is None:
        return entry
    rows = sorted(record_rows(record, root, folder, name))
    entry["files"] = len(rows)
    entry["record"] = sha256("\n".join(rows).encode())
    return entry


def record_rows(record: bytes, root: str, folder: str, own: str) -> Iterator[str]:
    """path,digest of what the wheel brought: neither what the installer writes itself nor what holds the path of the
    environment."""
    import csv

    points = (content(os.path.join(folder, "entry_points.txt")) or b"").decode("utf-8", "replace")
    scripts = {line.split("=")[0].strip() for line in points.splitlines() if "=" in line}
    for row in csv.reader(record.decode("utf-8", "replace").splitlines()):
        if len(row) < 2 or row[0].endswith(".pyc") or row[0] in (own + "/" + name for name in OWN):
            continue
        path, value = row[0], row[1]
        if path.startswith("..") or os.path.isabs(path):
            base = os.path.basename(path)
            if base in scripts:
                continue
            data = content(os.path.join(root, path)) or b""
            if data.startswith(b"#!"):
                value = "sha256=" + sha256(data.split(b"\n", 1)[-1])
            path = "../" + base
        yield path + "," + value


def conda_packages() -> dict[str, str]:
    folder = os.path.join(sys.prefix, "conda-meta")
    names = [name[:-5] for name in os.listdir(folder) if name.endswith(".json")] if os.path.isdir(folder) else []
    return {name.rsplit("-", 2)[0]: "-".join(name.rsplit("-", 2)[1:]) for name in sorted(names) if name.count("-") > 1}


def manifest(target: str, wanted: str = "", plan: str = "[]") -> None:
    """Write what is installed here, with a digest over each RECORD, and the facts of the machine."""
    import platform

    uname = os.uname()
    driver = (content("/proc/driver/nvidia/version") or b"").decode("utf-8", "replace")
    numbers = [word for word in driver.split("\n")[0].split() if word[0].isdigit() and "." in word]
    try:
        glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").split(" ")[-1]
    except (AttributeError, OSError, ValueError):
        glibc = ""
    facts = {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "system": uname.sysname,
        "machine": uname.machine,
        "glibc": glibc,
        "driver": numbers[0] if numbers else "",
    }
    patched = {}
    for entry in json.loads(plan):
        data = next(
            (found for found in (content(os.path.join(root, entry["file"])) for root in site_packages()) if found is not None),
            None,
        )
        patched[entry["file"]] = sha256(data) if data is not None else "absent"
    document = {
        "schema": "envcheck.setup-manifest/1",
        "plan": wanted,
        "facts": facts,
        "distributions": distributions(),
        "patched": patched,
        "conda": conda_packages(),
    }
    store(target, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


COMMANDS: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "hold": hold,
    "digest": digest,
    "state": standing,
    "begin": begin,
    "finish": finish,
    "clear": clear,
    "conda-prefix": conda_prefix,
    "at-least": at_least,
    "patch": patch,
    "manifest": manifest,
}


def main(arguments: list[str]) -> None:
    try:
        COMMANDS[arguments[0]](*arguments[1:])
    except OSError as error:
        fail("%s: %s" % (error.filename or arguments[0], error.strerror or error))


if __name__ == "__main__":
    main(sys.argv[1:])'
indexes=()

write_lock() { :; }

cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

mode=check
at=0
steps=5
if [ "$patches" != "[]" ]; then steps=$((steps + 1)); fi

say() { printf '%s: %s\n' "$name" "$*" >&2; }

step() {
  at=$((at + 1))
  say "[$at/$steps] $*"
}

die() {
  say "error: $1"
  shift
  for hint in "$@"; do say "hint: $hint"; done
  exit 4
}

for argument in "$@"; do
  case "$argument" in
    --no-check) mode=none ;;
    --test) mode=test lock=$test_lock ;;
    *) mode=usage ;;
  esac
  if [ "$mode" = usage ] || { [ "$mode" = test ] && [ -z "$test_lock" ]; }; then
    say "usage: bash $name.sh [--no-check]${test_lock:+ [--test]}"
    exit 2
  fi
done

suits() { "$1" -I -S -c "import sys; sys.exit(not ($python_condition))" >/dev/null 2>&1; }

# The first interpreter that fits the lock: $PYTHON, then what is on PATH, then what uv knows.
find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    suits "$PYTHON" || die "PYTHON=$PYTHON is not a $python_words"
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in $python_names; do
    if command -v "$candidate" >/dev/null 2>&1 && suits "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  if command -v uv >/dev/null 2>&1 && candidate=$(uv python find --no-project --no-python-downloads "$python_request" 2>/dev/null) &&
    suits "$candidate"; then
    printf '%s\n' "$candidate"
    return
  fi
  die "no $python_words on PATH" "set PYTHON to one: PYTHON=/path/to/python bash $name.sh"
}

find_conda() {
  local candidate
  for candidate in "${CONDA_EXE:-}" conda mamba micromamba; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  die "conda is not on PATH" "set CONDA_EXE to it, or write the script without --conda"
}

# The keeper with the interpreter that makes the environment, and inside the environment.
keep() { "$python" -I -S -c "$keeper" "$@"; }
keep_there() { "$there" -I -c "$keeper" "$@"; }

find_uv() {
  local tools=$state/tools
  if command -v uv >/dev/null 2>&1 && keep at-least "$(uv --version 2>/dev/null)" "$uv_least"; then
    command -v uv
    return
  fi
  if ! "$tools/bin/uv" --version >/dev/null 2>&1; then
    say "installing uv into $tools"
    rm -rf -- "$tools"
    "$python" -m venv -- "$tools" >&2 || die "could not make a venv for uv" "on Debian and Ubuntu install python3-venv, or put uv on PATH"
    printf '%s\n' "$uv_lock" >"$state/uv.txt"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$state/uv.txt" >&2 ||
      die "could not install uv" "is the package index reachable? (pip config, proxy)"
  fi
  printf '%s\n' "$tools/bin/uv"
}

# What a profile leaves to do: $1 is the heading, $2 one line for each.
tell() {
  if [ -z "$2" ]; then return; fi
  say "$1"
  printf '%s\n' "$2" | sed 's/^/  /' >&2
}

make_environment() {
  if [ -n "$conda_name" ]; then
    local action=create
    # `create` over an environment without Python would remove what is in it.
    if [ -d "$folder/conda-meta" ]; then action=install; fi
    say "making $folder with Python $python_request"
    "$conda" "$action" --yes --quiet --prefix "$folder" "python=$python_request" >&2 || die "conda could not make the environment"
    return
  fi
  say "making $folder with $("$python" --version)"
  if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --allow-existing --no-project --python "$python" -- "$folder" || die "uv could not make the environment"
  else
    "$python" -m venv --without-pip -- "$folder" || die "could not make a venv" "on Debian and Ubuntu install python3-venv, or put uv on PATH"
  fi
}

install_packages() {
  local uv=$1 action=install
  shift
  if [ -f "$state/made" ] && [ -z "$conda_name" ]; then action=sync; fi
  if [ "$action" = install ]; then set -- "$@" -r "$lock"; else set -- "$@" "$lock"; fi
  "$uv" pip "$action" "$@" || die "the installation failed" "is the package index reachable? (UV_INDEX_URL, proxy)"
}

install() {
  local uv
  uv=$(find_uv)
  set -- --compile-bytecode --python "$there" ${indexes[@]+"${indexes[@]}"}
  if [ ! -t 2 ]; then set -- "$@" --quiet; fi
  if [ "$lock_form" = requirements ]; then set -- "$@" --require-hashes; fi
  if [ "$standing" = again ]; then set -- "$@" --reinstall; fi
  if [ -n "$build" ]; then
    printf '%s\n' "$build" >"$state/build.txt"
    set -- "$@" --build-constraints "$state/build.txt"
  fi
  install_packages "$uv" "$@"
  if [ -n "$editable" ]; then
    "$uv" pip install --quiet --python "$there" --no-deps --no-build-isolation --editable "$editable" ||
      die "the project in $editable could not be installed"
  fi
}

export UV_PYTHON_DOWNLOADS=never
unset PYTHONPATH PYTHONHOME

step "looking for $python_words"
if [ -n "$system" ] && [ "$(uname -s)" != "$system" ]; then die "the lock is for $system, and this is $(uname -s)"; fi
if [ -n "$machine" ] && [ "$(uname -m)" != "$machine" ]; then die "the lock is for $machine, and this is $(uname -m)"; fi
if [ -n "$conda_name" ]; then
  conda=$(find_conda)
  python=$(command -v python3) || die "no python3 on PATH" "conda's base environment has one"
  folder=$("$conda" info --json | "$python" -I -S -c "$keeper" conda-prefix "$conda_name")
  state=${folder%/*}/.envcheck-${folder##*/}
else
  python=$(find_python)
  folder=${ENVCHECK_VENV:-$venv}
  state=$folder/.envcheck
fi
there=$folder/bin/python

# One run at a time: the lock is on the descriptor, so that what a killed run left at work still holds it.
keep prepare "$folder" "$state"
exec 9>"$state/lock"
keep hold 9 7200
if [ -z "$lock" ]; then
  lock=$state/$lock_file
  write_lock >"$lock"
fi
wanted=$(keep digest "$plan" "$lock" ${editable:+"$editable/pyproject.toml"})
standing=$(keep state "$state" "$wanted")

step "the environment $folder"
if [ "$standing" = "done" ] && suits "$there"; then
  standing=$(keep_there state "$state" "$wanted" manifest "$by_hand")
  standing=${standing##*$'\n'}
fi
if [ "$standing" = begun ] || { [ -e "$folder/bin" ] && ! suits "$there"; }; then
  say "a run was cut off, or something was changed since: beginning anew, from what is downloaded already"
  keep clear "$folder" "$state"
  standing=open
fi

if [ "$standing" = "done" ]; then
  say "$folder is up to date with $lock"
  at=$((steps - 1))
else
  keep begin "$state"
  if [ ! -e "$there" ]; then make_environment; fi
  suits "$there" || die "$there is not a $python_words"
  step "installing $lock"
  install
  if [ "$patches" != "[]" ]; then
    step "files copied over installed ones"
    keep_there patch "$PWD" "$patches"
  fi
  step "writing $state/manifest.json"
  keep_there manifest "$state/manifest.json" "$plan" "$patches"
  keep finish "$state" "$wanted"
fi
exec 9>&-

tell "put in by hand, since the lock cannot hold it:" "$left_out"
if [ "$mode" = none ]; then
  tell "verify yourself:" "$by_hand_steps"
  exit 0
fi
if [ "$mode" = test ]; then
  step "tests"
  bin=$(cd -- "$folder/bin" && pwd)
  PATH=$bin:$PATH exec bash "$test_script"
fi

step "envcheck check"
code=0
if [ -x "$folder/bin/envcheck" ]; then
  set -- "$folder/bin/envcheck"
elif command -v "${ENVCHECK:-envcheck}" >/dev/null 2>&1; then
  set -- "${ENVCHECK:-envcheck}"
else
  say "the environment is made, but not checked: envcheck is neither in it nor on PATH"
  say "hint: set ENVCHECK to it, or use --no-check"
  tell "verify yourself:" "$by_hand_steps"
  exit 3
fi
"$1" check --python "$there" ${profile:+--profile "$profile"} || code=$?
if [ "$probe" = yes ] && [ "$code" = 0 ]; then
  say "envcheck probe"
  "$1" probe --python "$there" || code=$?
fi
exit "$code"
