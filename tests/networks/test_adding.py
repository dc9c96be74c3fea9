"""The user's own models: from a file or an address, added completely or not at all. The server is local."""

from __future__ import annotations

import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path

import pytest
import torch

from srgan_cli import files
from srgan_cli.config import ExportOptions
from srgan_cli.errors import SettingsError, WeightsError
from srgan_cli.files import file_sha256
from srgan_cli.networks import adding, download, library, registry
from srgan_cli.networks.adding import AddOptions, add
from srgan_cli.networks.exporting import export
from srgan_cli.networks.weights import load_model
from tests.faults import save_tiny, tiny_generator, tiny_model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(library, "data_folder", lambda: tmp_path / "data")
    monkeypatch.setattr(download, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(download, "_CHUNK_BYTES", 1000)
    return tmp_path / "data" / "models"


def foreign(path: Path, scale: int = 4, seed: int = 0) -> Path:
    torch.save({"params": tiny_generator("srvgg", scale, seed=seed).state_dict()}, path)
    return path


# ---------------------------------------------------------------------------------------------------------- from files


def test_a_file_gets_a_name_and_keeps_its_facts(tmp_path: Path, home: Path) -> None:
    source = foreign(tmp_path / "4x photos (v2).pth")
    own = add(AddOptions(str(source), licence="CC-BY-4.0"))
    assert (own.name, own.scale, own.kind, own.architecture) == ("4x-photos--v2", 4, "spandrel", "srvgg")
    assert (own.licence, own.source, own.size_bytes) == ("CC-BY-4.0", str(source), source.stat().st_size)
    assert own.sha256 == {"4x-photos--v2.pth": file_sha256(source)}
    assert library.own_models() == (own,)
    source.unlink()
    low = torch.rand(1, 3, 5, 5)
    model = load_model("4x-photos--v2")
    assert (model.name, model.path.parent.parent) == ("4x-photos--v2", home)
    with torch.no_grad():
        torch.testing.assert_close(model.network(low), tiny_generator("srvgg", 4).eval()(low), atol=1e-6, rtol=0)
    assert [path.name for path in home.iterdir()] == ["4x-photos--v2"], "nothing half-made stays"


def test_one_of_ours_brings_its_name_and_a_run_is_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    save_tiny(tmp_path / "run" / "model.safetensors", 2, adversarial=True)
    own = add(AddOptions(str(tmp_path / "run"), name="mine"))
    assert (own.kind, own.scale, own.adversarial, own.licence) == ("srgan", 2, True, "")
    assert load_model("mine").adversarial


@pytest.mark.parametrize(("suffix", "module", "kind"), [(".onnx", "onnxruntime", "onnx"), (".param", "ncnn", "ncnn")])
def test_other_formats_are_own_models_too(tmp_path: Path, server: Server, suffix: str, module: str, kind: str) -> None:
    pytest.importorskip(module)
    done = export(tiny_model("srvgg", 2), ExportOptions(tmp_path / f"2x_there{suffix}"))
    server.files = {f"/at/{path.name}": path.read_bytes() for path in done.files}
    own = add(AddOptions(f"{server.address}/at/2x_there{suffix}", name="theirs"))
    assert (own.kind, own.scale, own.name) == (kind, 2, "theirs")
    assert {path.name for path in own.folder.iterdir()} == {"model.json", *own.sha256}
    assert load_model("theirs").scale == 2
    last = own.folder / list(own.sha256)[-1]
    last.write_bytes(last.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="is not the file that was added"):
        load_model("theirs")


def test_a_family_takes_what_is_large_enough(tmp_path: Path) -> None:
    for scale in (2, 4):
        add(AddOptions(str(foreign(tmp_path / f"x{scale}.pth", scale)), name=f"mine-x{scale}"))
    assert [registry.resolve("mine", wanted)[0].stem for wanted in (None, 1.5, 2, 3, 8)] == [
        "mine-x4", "mine-x2", "mine-x2", "mine-x4", "mine-x4",
    ]  # fmt: skip
    assert registry.resolve("mine-x2", 4)[0].stem == "mine-x2"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("srgan", "a name of the models that come with srgan"),
        ("SRGAN-x4", "a name of the models that come"),
        ("fast-x3", "a name of the models that come"),
        ("auto", "a name of the models that come"),
        ("../up", "cannot be a model's name"),
        (".hidden", "cannot be a model's name"),
        ("a@0.5", "cannot be a model's name"),
        ("", "cannot be a model's name"),
        ("x" * 81, "cannot be a model's name"),
    ],
)
def test_no_name_shadows_a_bundled_one_or_leads_elsewhere(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        add(AddOptions(str(foreign(tmp_path / "a.pth")), name=name))
    assert library.own_models() == ()


def test_a_model_of_that_name_is_replaced_only_when_asked(tmp_path: Path) -> None:
    first, second = foreign(tmp_path / "a.pth"), foreign(tmp_path / "b.pth", seed=1)
    add(AddOptions(str(first), name="mine"))
    with pytest.raises(WeightsError, match="a model called mine already"):
        add(AddOptions(str(second), name="mine"))
    with pytest.raises(WeightsError, match="a model called mine already"):
        add(AddOptions(str(second), name="Mine"))
    own = add(AddOptions(str(second), name="mine", overwrite=True))
    assert load_model("mine").sha256 == own.sha256["mine.pth"] == file_sha256(second)


def test_what_is_no_model_is_not_added(tmp_path: Path, home: Path) -> None:
    for name, content in (("a.pth", b"<html>"), ("a.safetensors", b"\0" * 100), ("a.txt", b"hello")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError):
            add(AddOptions(str(tmp_path / name)))
    with pytest.raises(WeightsError, match="there is no file"):
        add(AddOptions(str(tmp_path / "none.pth")))
    with pytest.raises(WeightsError, match="only http and https"):
        add(AddOptions("ftp://example.org/a.pth"))
    with pytest.raises(SettingsError, match="64 hexadecimal digits"):
        AddOptions("a.pth", sha256="12")
    assert not home.exists() or list(home.iterdir()) == []


def leftover(home: Path, name: str) -> Path:
    (home / name).mkdir(parents=True)
    (home / name / "mine.pth").write_bytes(b"half")
    return home / name


def test_what_killed_runs_left_is_cleared_and_what_others_write_is_not(tmp_path: Path, home: Path) -> None:
    stale = leftover(home, ".mine.0123456789ab.part")
    (home / ".mine.0123456789ab.part.lock").touch()
    (home / ".mine.00000000000a.part.lock").touch()
    leftover(home, ".old.removed")
    download_too = leftover(home, ".0123456789abcdef.download")
    with adding._part_of(home / "other") as busy:
        (busy / "other.pth").write_bytes(b"half")
        # Another process adds a model at the same time.
        script = (
            "import sys; from pathlib import Path; from srgan_cli.networks import adding, library; "
            "library.data_folder = lambda: Path(sys.argv[1]); adding.add(adding.AddOptions(sys.argv[2], name='mine'))"
        )
        source = foreign(tmp_path / "a.pth")
        subprocess.run([sys.executable, "-c", script, str(tmp_path / "data"), str(source)], check=True)
        assert (busy / "other.pth").read_bytes() == b"half"
        assert not stale.exists()
    assert {path.name for path in home.iterdir()} == {"mine", download_too.name}


def test_without_locks_only_what_is_old_is_cleared(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "lock", lambda path: files.Lock(path, None))
    young, old = leftover(home, ".mine.0123456789ab.part"), leftover(home, ".mine.ba9876543210.part")
    for path in (old, old / "mine.pth"):
        os.utime(path, (1e9, 1e9))
    add(AddOptions(str(foreign(tmp_path / "a.pth")), name="mine"))
    assert {path.name for path in home.iterdir()} == {"mine", young.name}


def test_a_changed_file_is_found_and_not_used(tmp_path: Path) -> None:
    own = add(AddOptions(str(foreign(tmp_path / "a.pth")), name="mine"))
    assert library.fault(own) == ""
    foreign(own.path, seed=3)
    assert "is not the file that was added" in library.fault(own)
    with pytest.raises(WeightsError, match="is not the file that was added"):
        load_model("mine")
    own.path.unlink()
    assert "cannot be read" in library.fault(own)


def test_removing(tmp_path: Path, home: Path) -> None:
    add(AddOptions(str(foreign(tmp_path / "a.pth")), name="mine"))
    assert library.remove("mine") == home / "mine"
    assert list(home.iterdir()) == []
    with pytest.raises(WeightsError, match="no model of your own called 'mine'"):
        library.remove("mine")


def test_a_removal_that_was_interrupted_does_not_prevent_the_next(tmp_path: Path, home: Path) -> None:
    add(AddOptions(str(foreign(tmp_path / "a.pth")), name="mine"))
    (home / ".mine.removed").mkdir()
    (home / ".mine.removed" / "mine.pth").write_bytes(b"large")
    library.remove("mine")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "name": "mine"}', "[" * 9999])
def test_a_damaged_record_is_reported_and_can_be_removed(tmp_path: Path, record: str) -> None:
    own = add(AddOptions(str(foreign(tmp_path / "a.pth")), name="mine"))
    (own.folder / "model.json").write_text(record)
    assert library.own_models() == ()
    assert library.damaged() == (own.folder,)
    library.remove("mine")
    assert library.damaged() == ()


@pytest.mark.parametrize("change", [{"sha256": {"../../x": "0"}}, {"scale": "4"}, {"name": "other"}, {"licence": None}])
def test_a_record_cannot_lead_elsewhere(tmp_path: Path, change: dict[str, object]) -> None:
    own = add(AddOptions(str(foreign(tmp_path / "a.pth")), name="mine"))
    record = json.loads((own.folder / "model.json").read_text())
    (own.folder / "model.json").write_text(json.dumps({**record, **change}))
    assert library.damaged() == (own.folder,)


# ------------------------------------------------------------------------------------------------------ from addresses


@dataclass
class Server:
    """The server's files and faults. `cut`: the number of bytes after which it hangs up, for each response."""

    files: dict[str, bytes]
    cut: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    always_partial: bool = False  # answers 206 to whoever asks
    redirects: dict[str, str] = field(default_factory=dict)
    tag: str = '"v1"'
    length: str | None = None  # in place of the true one
    kind: str = "application/octet-stream"
    ranges: list[str | None] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server({})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            status = told.status.pop(0) if told.status else 0
            if path in told.redirects:
                self.send_response(302)
                self.send_header("Location", told.redirects[path])
                self.end_headers()
            elif status or path not in told.files:
                self.send_error(status or 404)
            else:
                self.answer(told.files[path])

        def answer(self, content: bytes) -> None:
            wanted = self.headers.get("Range")
            told.ranges.append(wanted)
            fits = wanted is not None and self.headers.get("If-Range") == told.tag
            start = int(wanted[6:-1]) if fits and wanted else 0
            self.send_response(206 if fits or told.always_partial else 200)
            self.send_header("Content-Type", told.kind)
            self.send_header("Content-Length", told.length or str(len(content) - start))
            self.send_header("ETag", told.tag)
            if fits or told.always_partial:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            end = start + told.cut.pop(0) if told.cut else len(content)
            self.wfile.write(content[start:end])

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        told.address = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        listening.shutdown()
        thread.join()


@pytest.fixture
def content(tmp_path: Path, server: Server) -> bytes:
    data = foreign(tmp_path / "there.pth").read_bytes()
    server.files["/4x_there.pth"] = data
    return data


def test_an_address_is_downloaded_with_progress(server: Server, content: bytes, home: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    own = add(AddOptions(f"{server.address}/4x_there.pth?download=true"), lambda *told: seen.append(told))
    assert (own.name, own.source) == ("4x_there", f"{server.address}/4x_there.pth?download=true")
    assert own.path.read_bytes() == content
    assert seen[-1] == (len(content), len(content))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert [path.name for path in home.iterdir()] == ["4x_there"]


def test_a_length_that_is_no_number_is_ignored(server: Server, content: bytes) -> None:
    server.length = "\N{SUPERSCRIPT TWO}"
    assert add(AddOptions(f"{server.address}/4x_there.pth")).path.read_bytes() == content


def test_a_cut_connection_goes_on_where_it_was(server: Server, content: bytes) -> None:
    server.cut = [5000, 3000]
    own = add(AddOptions(f"{server.address}/4x_there.pth"))
    assert own.path.read_bytes() == content
    assert server.ranges == [None, "bytes=5000-", "bytes=8000-"]


def test_what_came_stays_for_the_next_command(server: Server, content: bytes) -> None:
    server.cut = [5000, 0, 0]
    with pytest.raises(WeightsError, match="was cut, after 5,000 bytes; the same command resumes from there"):
        add(AddOptions(f"{server.address}/4x_there.pth"))
    server.cut, server.ranges = [], []
    assert add(AddOptions(f"{server.address}/4x_there.pth")).path.read_bytes() == content
    assert server.ranges == ["bytes=5000-"]


def test_a_part_that_was_not_asked_for_is_the_whole(server: Server, content: bytes) -> None:
    server.always_partial = True
    model = add(AddOptions(f"{server.address}/4x_there.pth"))
    assert model.path.read_bytes() == content


@pytest.mark.parametrize("version", ["[" * 100_000, "\x00", "9" * 5000, "{}"])
def test_a_damaged_note_of_a_version_begins_again(server: Server, content: bytes, tmp_path: Path, version: str) -> None:
    (tmp_path / "part").write_bytes(b"of another file")
    (tmp_path / "version.json").write_text(version, encoding="utf-8")
    assert download.download(f"{server.address}/4x_there.pth", tmp_path).read_bytes() == content
    assert server.ranges == [None]


@pytest.mark.parametrize("address", ["http://[bad", "http://[::1/x.pth", "//[bad", "file://[bad"])
def test_what_is_no_address_is_a_sentence(address: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(address)):
        add(AddOptions(address))


def test_parts_of_two_versions_are_not_joined(server: Server, content: bytes, tmp_path: Path) -> None:
    server.cut = [5000, 0, 0]
    with pytest.raises(WeightsError, match="was cut"):
        add(AddOptions(f"{server.address}/4x_there.pth"))
    server.cut, server.tag = [], '"v2"'
    server.files["/4x_there.pth"] = foreign(tmp_path / "new.pth", seed=7).read_bytes()
    own = add(AddOptions(f"{server.address}/4x_there.pth"))
    assert own.path.read_bytes() == server.files["/4x_there.pth"] != content


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: Server, content: bytes) -> None:
    server.status = [503, 500]
    assert add(AddOptions(f"{server.address}/4x_there.pth")).path.read_bytes() == content
    with pytest.raises(WeightsError, match="the server answered 404 Not Found"):
        add(AddOptions(f"{server.address}/none.pth"))
    server.status = [503, 503, 503]
    with pytest.raises(WeightsError, match="the server answered 503"):
        add(AddOptions(f"{server.address}/4x_there.pth", name="other"))


def test_a_redirect_is_followed_but_not_everywhere(server: Server, content: bytes) -> None:
    server.redirects = {"/go": "/4x_there.pth", "/away": "file:///etc/passwd", "/round.pth": "/round.pth"}
    assert add(AddOptions(f"{server.address}/go")).name == "4x_there"
    with pytest.raises(WeightsError, match=r"the server answered 302 .*file:///etc/passwd"):
        add(AddOptions(f"{server.address}/away"))
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        add(AddOptions(f"{server.address}/round.pth"))
    request = urllib.request.Request("https://example.org/a.pth")
    with pytest.raises(WeightsError, match="it leads to http://example"):
        download._SafeRedirects().redirect_request(request, io.BytesIO(), 302, "", Message(), "http://example.org/b")


def test_the_hash_is_checked(server: Server, content: bytes, tmp_path: Path, home: Path) -> None:
    right = file_sha256(tmp_path / "there.pth")
    with pytest.raises(WeightsError, match=f"not the file asked for: its SHA-256 is {right}"):
        add(AddOptions(f"{server.address}/4x_there.pth", sha256="0" * 64))
    assert list(home.iterdir()) == [], "what is wrong is not kept"
    assert add(AddOptions(f"{server.address}/4x_there.pth", sha256=right.upper())).scale == 4


def test_what_is_no_model_is_a_sentence(server: Server, content: bytes, home: Path) -> None:
    server.files["/page.pth"] = b"<html>not here</html>"
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        add(AddOptions(f"{server.address}/page.pth"))
    server.files["/readme"] = b"hello"
    with pytest.raises(WeightsError, match="is not a model; models are files ending in"):
        add(AddOptions(f"{server.address}/readme"))
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(WeightsError, match="is a web page"):
        add(AddOptions(f"{server.address}/4x_there.pth"))
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        add(AddOptions("http://127.0.0.1:1/a.pth"))
    assert list(home.iterdir()) == []


def test_too_large_a_file_is_not_begun(server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_MAX_BYTES", 9999)
    with pytest.raises(WeightsError, match="accepts at most 9,999"):
        add(AddOptions(f"{server.address}/4x_there.pth"))


def test_one_download_of_a_file_at_a_time(server: Server, content: bytes, home: Path) -> None:
    address = f"{server.address}/4x_there.pth"
    with (
        adding._fetched(AddOptions(address), None),
        pytest.raises(WeightsError, match="another srgan is downloading"),
    ):
        add(AddOptions(address))
