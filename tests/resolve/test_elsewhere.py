"""Add-ons that an index has as a source archive alone: which wheel is meant, and that it is taken where it can be had."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from envcheck.checks.context import Context
from envcheck.cli.main import main
from envcheck.facts.model import Environment, Known
from envcheck.matrix.database import load
from envcheck.matrix.settings import Settings
from envcheck.resolve import elsewhere
from envcheck.resolve.elsewhere import remarks, wheel_meant
from envcheck.resolve.judgement import Court
from envcheck.resolve.lockfile import Artifact, Lock, LockedPackage, read_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MATRIX = load(cache=False)
ARCHIVE = Artifact("flash_attn-2.5.8.tar.gz", "https://files.pythonhosted.org/flash_attn-2.5.8.tar.gz")
WHEEL = Artifact("flash_attn-2.5.8-py3-none-any.whl", "https://example.org/flash_attn-2.5.8-py3-none-any.whl")
PYPI = "https://files.pythonhosted.org/torch.whl"
RELEASES = "https://github.com/Dao-AILab/flash-attention/releases/download"


def context(torch: str, python: str = "3.10", system: str = "Linux") -> Context:
    facts = {"python": Known(python), "system": Known(system), "machine": Known("x86_64")}
    court = Court(MATRIX, Environment(facts=dict(facts)), Settings())
    return Context(court.environment({"torch": torch, "flash-attn": "2.5.8"}, {"torch": PYPI}), MATRIX)


@pytest.mark.parametrize(
    ("version", "torch", "python", "name"),
    [
        # as the projects' own install steps name them: VILA 1.5 and NVILA (2.5.8), VILA 1.0 (2.4.2)
        ("2.5.8", "2.3.0", "3.10", "flash_attn-2.5.8+cu122torch2.3cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"),
        ("2.4.2", "2.0.1", "3.10", "flash_attn-2.4.2+cu118torch2.0cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"),
        ("2.6.3", "2.3.1", "3.10", "flash_attn-2.6.3+cu123torch2.3cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"),
        ("2.7.4.post1", "2.6.0", "3.10", "flash_attn-2.7.4.post1+cu12torch2.6cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"),
        ("2.8.3", "2.8.0", "3.12", "flash_attn-2.8.3+cu12torch2.8cxx11abiTRUE-cp312-cp312-linux_x86_64.whl"),
    ],
)
def test_the_wheel_meant_is_named_as_the_release_page_names_it(version: str, torch: str, python: str, name: str) -> None:
    meant = wheel_meant("flash-attn", version, context(torch, python))
    assert meant.name == name
    assert meant.url == f"{RELEASES}/v{version}/{name}".replace("+", "%2B")
    assert not meant.state


def test_what_is_not_known_of_the_name_is_left_open() -> None:
    meant = wheel_meant("causal-conv1d", "1.4.0", context("2.3.0"))
    assert meant.text.endswith("with `torch2.3`, `cu12`, `cxx11abiFALSE`, `cp310` in its name")
    assert not meant.url
    assert wheel_meant("flash-attn", "2.5.8", context("2.3.0", system="Windows")).url == ""
    assert wheel_meant("flash-attn", "2.2.0", context("2.0.1")).url == ""
    bare = Context(Environment(), MATRIX)
    assert wheel_meant("flash-attn", "2.5.8", bare).name == "flash_attn-2.5.8+...whl"


def test_a_combination_without_a_wheel_names_none() -> None:
    lock = Lock((LockedPackage("flash-attn", "2.5.8", sdist=ARCHIVE),))
    (found,) = remarks(lock, context("2.6.0"), ())
    assert found.because[1:] == ("none was published for this combination: its wheels end at torch 2.3",)


def test_a_wheel_and_other_packages_are_not_remarked_on() -> None:
    for package in (
        LockedPackage("flash-attn", "2.5.8", wheels=(WHEEL,), sdist=ARCHIVE),
        LockedPackage("nltk", "3.3", sdist=ARCHIVE),
    ):
        assert not list(remarks(Lock((package,)), context("2.3.0"), ()))


def test_a_version_that_no_table_knows_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = remarks(Lock((LockedPackage("flash-attn", "9.0", sdist=ARCHIVE),)), context("2.3.0"), ())
    assert "is not known" in found.because[-1]
    monkeypatch.setenv("UV_OFFLINE", "1")
    meant = elsewhere.asked(wheel_meant("flash-attn", "9.0", context("2.3.0")))
    assert meant.state == "no network is to be used (UV_OFFLINE); whether one was published for this version is not known"


# ---- a release page of our own


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def page(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is served, and its address."""
    folder = tmp_path / "page"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def matrices(tmp_path: Path, page: tuple[Path, str]) -> str:
    """The matrix with that address in the place of the release page's."""
    folder = tmp_path / "matrices"
    shutil.copytree(MATRIX.folder, folder)
    table = folder / "tables" / "flash_attn.toml"
    table.write_text(table.read_text().replace(RELEASES, page[1]))
    return str(folder)


def publish(folder: Path, local: str, version: str = "2.5.8") -> Path:
    name = f"flash_attn-{version}+{local}-cp310-cp310-linux_x86_64.whl"
    info = f"flash_attn-{version}.dist-info"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: flash-attn\nVersion: {version}\nRequires-Dist: torch\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-cp310-linux_x86_64\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


STACK = ["torch==2.3.0", "--python-version", "3.10", "--driver", "580.65"]


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("version", ["2.5.8", "2.6.3", "2.7.4.post1"])
def test_a_release_page_that_answers_gives_the_wheel_with_its_hash(
    version: str, tmp_path: Path, page: tuple[Path, str], matrices: str, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """2.5.8 cannot even say what it needs without torch; later archives can."""
    cuda = {"2.5.8": "cu122", "2.6.3": "cu123"}.get(version, "cu12")
    wheel = publish(page[0] / f"v{version}", f"{cuda}torch2.3cxx11abiFALSE", version)
    target = tmp_path / "pylock.toml"
    asked = ["lock", f"flash-attn=={version}", *STACK, "--matrices", matrices, "-o", str(target), "--format", "json"]
    assert main(asked) == 0
    assert "locked-as-source" not in [item["id"] for item in json.loads(capsys.readouterr().out)["findings"]]
    (found,) = [item for item in read_lock(str(target)).packages if item.name == "flash-attn"]
    assert found.direct == f"{page[1]}/v{version}/{wheel.name}".replace("+", "%2B")
    assert found.hashes == (f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}",)
    first = target.read_bytes()
    assert main(asked) == 0
    assert target.read_bytes() == first


@pytest.mark.slow
@pytest.mark.network
def test_a_release_page_without_the_wheel_is_said_with_its_name(
    tmp_path: Path, page: tuple[Path, str], matrices: str, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    publish(page[0] / "v2.7.4.post1", "cu12torch2.6cxx11abiFALSE", "2.7.4.post1")
    target = tmp_path / "pylock.toml"
    rest = [*STACK, "--matrices", matrices, "-o", str(target), "--format", "json"]
    assert main(["lock", "flash-attn==2.7.4.post1", *rest]) == 0
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    name = "flash_attn-2.7.4.post1+cu12torch2.3cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"
    assert found["because"][1:] == [f"the wheel meant is `{name}`", "its release page answers 404 (File not found)"]
    target.unlink()
    assert main(["lock", "flash-attn==2.5.8", *rest]) == 4
    said = capsys.readouterr().err
    assert "the wheel meant is `flash_attn-2.5.8+cu122torch2.3cxx11abiFALSE-cp310-cp310-linux_x86_64.whl`" in said
    assert "answers 404" in said
    assert not target.exists()


@pytest.mark.slow
@pytest.mark.network
def test_a_folder_with_the_wheel_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = publish(tmp_path / "wheels", "cu122torch2.3cxx11abiFALSE")
    target = tmp_path / "pylock.toml"
    rest = [*STACK, "--find-links", str(tmp_path / "wheels"), "-o", str(target)]
    assert main(["lock", "flash-attn==2.5.8", *rest]) == 0
    (found,) = [item for item in read_lock(str(target)).packages if item.name == "flash-attn"]
    assert found.version == "2.5.8+cu122torch2.3cxx11abifalse"
    assert found.hashes == (f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}",)
    assert main(["lock", "flash-attn==2.5.8", "torch==2.4.0", *rest[1:]]) == 1
    assert "wheel-for-another-environment" in capsys.readouterr().out
