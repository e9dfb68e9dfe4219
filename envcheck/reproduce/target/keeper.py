"""Keep the state of an environment that is being set up: what was begun, what is finished, what is installed.

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
    main(sys.argv[1:])
