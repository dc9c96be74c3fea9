"""Pictures in object stores and on web servers: a real S3 API (moto's server), a web server of this machine, memory."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from srgan_cli.cli import main
from srgan_cli.config import EngineOptions, UpscaleOptions
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import save_weights
from srgan_cli.sizes import Size
from srgan_cli.stores import scratch, store
from srgan_cli.stores.paths import StorePath, path_of
from srgan_cli.upscaling import claims, sharing, shelves
from srgan_cli.upscaling.observer import Silent
from srgan_cli.upscaling.session import Session, prepare
from srgan_cli.upscaling.store_claims import StoreClaims
from tests.networks.test_noise import noisy
from tests.upscaling.pictures import picture
from tests.upscaling.test_sharing import run_at_once

fsspec = pytest.importorskip("fsspec")
pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]  # the stores' own libraries warn
PLACES = ("memory", pytest.param("s3", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 server of this process."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(scratch.for_inputs, "made", None, raising=False)
    monkeypatch.setattr(store, "_WAITS", (0.01, 0.01))
    connect, memory = store._filesystem, fsspec.filesystem("memory")
    connect.cache_clear()
    yield tmp_path
    connect.cache_clear()
    type(memory).store.clear()


@pytest.fixture
def amazon(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
                        "AWS_DEFAULT_REGION": "us-east-1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    kind = pytest.importorskip("s3fs").S3FileSystem
    # fsspec keeps connections, to the port of a server that may have ended when other modules' tests came in between.
    kind.clear_instance_cache()
    files = kind(use_listings_cache=False, skip_instance_cache=True)
    files.mkdir("photos")
    yield files
    files.rm("photos", recursive=True)
    kind.clear_instance_cache()


@pytest.fixture(params=PLACES)
def base(request: pytest.FixtureRequest) -> str:
    """Where pictures are: the URL of a folder."""
    if request.param == "s3":
        request.getfixturevalue("amazon")
        return "s3://photos/all"
    return "memory://all"


def fill(url: str, *names: str) -> dict[str, bytes]:
    """Pictures below a URL."""
    made = {}
    for number, name in enumerate(names):
        local = Path("made", name)
        picture(local, 20 + number, 16, seed=number)
        made[name] = local.read_bytes()
        fsspec.open(f"{url}/{name}", "wb").fs.pipe_file(f"{url}/{name}", made[name])
    return made


def there(url: str) -> dict[str, bytes]:
    """What is below a URL, but for the record."""
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    found = files.find(root)
    return {name[len(root) :].strip("/"): files.cat_file(name) for name in found if ".srgan-" not in name}


def records(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return [name for name in files.find(root) if ".srgan-manifest" in name]


def command(model: Path, *arguments: str) -> int:
    return main(
        ["upscale", *arguments, "--model", str(model), "--device", "cpu", "--precision", "fp32", "--scale", "2"]
    )


def session(model: Path, source: str, output: str, **options: Any) -> Session:
    settings: dict[str, Any] = {
        "inputs": (path_of(source),), "output": path_of(output), "model": str(model), "recursive": True,
        "engine": EngineOptions("cpu", "fp32", 32), "size": Size(scale=2), **options,
    }  # fmt: skip
    return prepare(UpscaleOptions(**settings))


def test_a_folder_becomes_what_it_becomes_on_this_machine(base: str, model: Path, here: Path) -> None:
    fill(f"{base}/in", "a.png", "sub/b.jpg", "sub/.hidden.png", "c.webp")
    assert command(model, f"{base}/in", "-r", "-o", f"{base}/out", "--exclude", "c.*") == 0
    assert command(model, "made", "-r", "-o", "local", "--exclude", "c.*") == 0
    local = {
        p.relative_to("local").as_posix(): p.read_bytes() for p in Path("local").rglob("*.*") if ".srgan" not in p.name
    }
    assert there(f"{base}/out") == local
    assert set(local) == {"a.png", "sub/b.jpg"}
    assert not list((here / "tmp").rglob("*.png")), "nothing is left of what was on its way"


def test_resume_makes_what_is_missing_or_has_changed(base: str, model: Path) -> None:
    fill(f"{base}/in", "a.png", "b.png", "c.png")
    session(model, f"{base}/in", f"{base}/out", resume=True).run(Silent())
    assert len(records(f"{base}/out")) == 1
    again = session(model, f"{base}/in", f"{base}/out", resume=True)
    assert (len(again.plan.jobs), len(again.plan.skips)) == (0, 3)
    before = there(f"{base}/out")
    picture(Path("other.png"), 33, 12, seed=9)
    fsspec.core.url_to_fs(base)[0].pipe_file(f"{base}/in/b.png", Path("other.png").read_bytes())
    fsspec.core.url_to_fs(base)[0].rm_file(f"{base}/out/c.png")
    third = session(model, f"{base}/in", f"{base}/out", resume=True)
    assert [job.source.name for job in third.plan.jobs] == ["b.png", "c.png"]
    third.run(Silent())
    after = there(f"{base}/out")
    assert after["b.png"] != before["b.png"]
    assert {**after, "b.png": b""} == {**before, "b.png": b""}


def test_a_lost_record_is_replaced_by_what_results_say_of_themselves(base: str, model: Path) -> None:
    fill(f"{base}/in", "a.png", "b.png")
    session(model, f"{base}/in", f"{base}/out", resume=True).run(Silent())
    for name in records(f"{base}/out"):
        fsspec.core.url_to_fs(base)[0].rm_file(name)
    assert not session(model, f"{base}/in", f"{base}/out", resume=True).plan.jobs


def test_results_that_are_there_are_refused_as_on_this_machine(
    base: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(base, "a.png")
    assert command(model, f"{base}/a.png", "-o", f"{base}/b.png") == 0
    assert command(model, f"{base}/a.png", "-o", f"{base}/b.png") == 2
    assert f"{base}/b.png exists already; give --overwrite" in capsys.readouterr().err
    assert command(model, f"{base}/a.png", "-o", f"{base}/a.png", "--overwrite") == 2
    assert "would be overwritten by its own result" in capsys.readouterr().err
    assert command(model, f"{base}/a.png", "-o", f"{base}/b.png", "--overwrite") == 0
    assert command(model, f"{base}/a.png") == 0, "beside its input"
    assert set(there(base)) == {"a.png", "b.png", "a_x2.png"}


def test_what_appears_meanwhile_is_left_alone(base: str, model: Path) -> None:
    fill(base, "a.png")
    made = session(model, f"{base}/a.png", f"{base}/b.png")
    fsspec.core.url_to_fs(base)[0].pipe_file(f"{base}/b.png", b"another's")
    tally = made.run(Silent())
    assert "has appeared since the run began" in tally.failures[0].sentence
    assert there(base)["b.png"] == b"another's"


def test_from_a_store_to_this_machine_and_back(base: str, model: Path, here: Path) -> None:
    fill(f"{base}/in", "a.png")
    assert command(model, f"{base}/in/a.png", "-o", "local.png", "--keep-time") == 0
    assert command(model, "made/a.png", "-o", f"{base}/out/a.png", "--keep-time") == 0
    assert there(f"{base}/out")["a.png"] == Path("local.png").read_bytes()
    Path("list").write_text(f"{base}/in/a.png\n{base}/in/none.png\n", encoding="utf-8")
    assert command(model, "--files-from", "list", "-o", "more", "--failed", "failed") == 1
    assert Path("failed").read_text(encoding="utf-8") == f"{base}/in/none.png\n"


@pytest.mark.parametrize("name", ["many.tif", "pages.cbz"])
def test_documents_stay_documents(model: Path, name: str, here: Path) -> None:
    if name.endswith("tif"):
        from PIL import Image

        pages = [Image.new("RGB", (20, 16), colour) for colour in ("red", "green")]
        pages[0].save(name, save_all=True, append_images=pages[1:])
    else:
        import zipfile

        picture(Path("1.png"), 20, 16)
        with zipfile.ZipFile(name, "w") as archive:
            archive.write("1.png")
    fsspec.filesystem("memory").pipe_file(f"/in/{name}", Path(name).read_bytes())
    assert command(model, f"memory://in/{name}", "-o", f"memory://out/{name}") == 0
    assert command(model, name, "-o", f"local-{name}") == 0
    assert there("memory://out")[name] == Path(f"local-{name}").read_bytes()


def test_lines_go_on_in_another_object_and_are_one_at_the_end(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(shelves, "_SEGMENT_BYTES", 400)
    fill("memory://in", *(f"{number}.png" for number in range(6)))
    most = []
    real = store.write

    def write(path: Any, data: bytes) -> None:
        real(path, data)
        most.append(len(records("memory://out")))

    monkeypatch.setattr(store, "write", write)
    session(model, "memory://in", "memory://out", resume=True).run(Silent())
    assert max(most) > 1
    assert len(records("memory://out")) == 1
    assert not session(model, "memory://in", "memory://out", resume=True).plan.jobs


def claims_in(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return [name for name in files.find(root) if ".srgan-claim" in name]


@pytest.mark.parametrize("count", [2, 3])
def test_runs_that_share_a_bucket_divide_the_work(
    amazon: Any, model: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 0.05)
    made = fill("s3://photos/in", *(f"{number:02}.png" for number in range(12)))
    session(model, "s3://photos/in", "s3://photos/alone").run(Silent())
    tallies = run_at_once([session(model, "s3://photos/in", "s3://photos/out", resume=True) for _ in range(count)])
    assert sorted(job.source.name for tally in tallies for job in tally.done) == sorted(made), "each once"
    assert all(tally.done for tally in tallies)
    assert [(tally.exit_code, tally.failures) for tally in tallies] == [(0, [])] * count
    assert there("s3://photos/out") == there("s3://photos/alone")
    assert not claims_in("s3://photos/out")
    assert not session(model, "s3://photos/in", "s3://photos/out", resume=True).plan.jobs


@pytest.mark.parametrize("end", ["killed here", "silent elsewhere", "without a heartbeat"])
def test_claims_of_those_that_are_gone_are_taken_over(
    amazon: Any, model: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 0.05)
    fill("s3://photos/in", "a.png", "b.png")
    left = StoreClaims(cast("StorePath", path_of("s3://photos/out")))
    assert left.take("a.png")
    assert left.holds("a.png")
    assert not StoreClaims(cast("StorePath", path_of("s3://photos/out"))).take("a.png"), "while it lives"
    beat = f"s3://photos/out/.srgan-claim.{left.token}"
    machine, process, _ = claims.this_process()
    if end == "killed here":
        says = {"machine": machine, "process": process, "started": "another's"}
        amazon.pipe_file(beat, json.dumps(says).encode())
    elif end == "silent elsewhere":
        amazon.pipe_file(beat, json.dumps({"machine": "another", "process": 1, "started": ""}).encode())
        monkeypatch.setattr(claims, "LEASE_SECONDS", 0.2)
    else:
        amazon.rm_file(beat)
    tally = session(model, "s3://photos/in", "s3://photos/out", resume=True).run(Silent())
    assert (len(tally.done), tally.failures) == (2, [])
    if end != "killed here":  # which are swept away before
        assert left.is_taken_over("a.png") or not [name for name in claims_in("s3://photos/out") if name.endswith(".1")]


def test_a_store_cannot_keep_times_and_says_so(base: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(f"{base}/in", "a.png")
    assert command(model, f"{base}/in", "-o", f"{base}/out/", "--keep-time") == 0
    assert "--keep-time does nothing in a store" in capsys.readouterr().err
    assert command(model, f"{base}/in", "-o", "local/", "--keep-time") == 0
    assert "--keep-time" not in capsys.readouterr().err


def test_a_large_result_goes_on_where_it_was(base: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted inside a picture whose result is on its way to a store: the journal is on this machine meanwhile."""
    monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 0)
    monkeypatch.setattr("srgan_cli.upscaling.plan.CANVAS_BYTES", 0)
    fill(f"{base}/in", "a.png")
    Path("made/a.png").unlink()
    fsspec.open(f"{base}/in/a.png", "wb").fs.pipe_file(f"{base}/in/a.png", picture(Path("a.png"), 30, 60).read_bytes())
    options = {"resume": True, "engine": EngineOptions("cpu", "fp32", 16)}

    class Cut(Silent):
        rows = 0

        def advanced(self, job: object, network_pixels: int) -> None:
            self.rows += 1
            if self.rows == 2:
                raise KeyboardInterrupt

    assert session(model, f"{base}/in", f"{base}/out", **options).run(Cut()).interrupted
    assert not there(f"{base}/out")
    notes: list[str] = []

    class Watch(Silent):
        def note(self, sentence: str) -> None:
            notes.append(sentence)

    tally = session(model, f"{base}/in", f"{base}/out", **options).run(Watch())
    assert (tally.exit_code, len(tally.done)) == (0, 1)
    assert any("resuming at row" in note for note in notes)
    assert session(model, f"{base}/in", f"{base}/alone", **options).run(Silent()).exit_code == 0
    assert there(f"{base}/out") == there(f"{base}/alone")


def test_variants_are_objects_of_their_own(base: str, here: Path) -> None:
    drawing = here / "noisy.safetensors"
    save_weights(drawing, noisy(), Card("noisy", "noisy"))
    fill(f"{base}/in", "a.png", "b.png")
    tally = session(drawing, f"{base}/in", f"{base}/out", resume=True, variants=2).run(Silent())
    assert (tally.exit_code, len(tally.done)) == (0, 4)
    made = there(f"{base}/out")
    assert len(made) == 4
    assert len(set(made.values())) == 4
    assert not session(drawing, f"{base}/in", f"{base}/out", resume=True, variants=2).plan.jobs


# -------------------------------------------------------------------------------------------------------------- faults


class Flaky:
    """A file system whose method fails so many times."""

    def __init__(self, files: Any, method: str, times: int, error: Exception) -> None:
        self._files, self._method, self._error = files, method, error
        self.left = times

    def __getattr__(self, name: str) -> Any:
        if name != self._method:
            return getattr(self._files, name)

        def call(*arguments: Any, **more: Any) -> Any:
            if self.left:
                self.left -= 1
                raise self._error
            return getattr(self._files, name)(*arguments, **more)

        return call


@pytest.mark.parametrize(("times", "code"), [(2, 0), (3, 1)])
@pytest.mark.parametrize("method", ["get_file", "put_file"])
def test_lost_connections_are_tried_again(
    monkeypatch: pytest.MonkeyPatch, model: Path, times: int, code: int, method: str
) -> None:
    fill("memory://in", "a.png", "b.png")
    flaky = Flaky(fsspec.filesystem("memory"), method, times, ConnectionResetError(104, "Connection reset by peer"))
    monkeypatch.setattr(store, "_filesystem", lambda _protocol: flaky)
    tally = session(model, "memory://in", "memory://out").run(Silent())
    assert tally.exit_code == code
    if code:
        assert "the connection fails: Connection reset by peer (3 tries)" in tally.failures[0].sentence
    assert len(there("memory://out")) == len(tally.done)


def test_a_put_that_fails_half_way_leaves_nothing(amazon: Any, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    fill("s3://photos/in", "a.png")
    made = session(model, "s3://photos/in", "s3://photos/out")
    real = amazon.__class__._call_s3

    async def call(self: Any, method: str, *arguments: Any, **more: Any) -> Any:
        if method == "put_object" and "manifest" not in more["Key"]:
            raise ConnectionResetError(104, "Connection reset by peer")
        return await real(self, method, *arguments, **more)

    monkeypatch.setattr(amazon.__class__, "_call_s3", call)
    tally = made.run(Silent())
    assert "s3://photos/out/a.png cannot be written: the connection fails" in tally.failures[0].sentence
    monkeypatch.undo()
    assert amazon.find("photos/out") == [name for name in amazon.find("photos/out") if "manifest" in name]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["s3://photos/none.png", "-o", "x.png"], 3, "s3://photos/none.png cannot be opened: there is no such object"),
        (["s3://nowhere/a.png", "-o", "x.png"], 3, "there is no such object"),
        (["made/a.png", "-o", "s3://nowhere/out.png"], 2, "there is no bucket s3://nowhere"),
        (["made/a.png", "-o", "https://example.org/a.png"], 2, "a web server can only be read from"),
        (["https://", "-o", "x.png"], 2, "the name of a bucket or a server is missing"),
        (["nosuch://a/b.png", "-o", "x.png"], 2, "nosuch:// is not a protocol that fsspec knows"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    amazon: Any, model: Path, arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(Path("made/a.png"), 20, 16)
    assert command(model, *arguments) == code
    assert words in capsys.readouterr().err


def test_missing_credentials_are_one_sentence(
    amazon: Any, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    assert command(model, "s3://photos/a.png", "-o", "x.png") == 2
    assert "no credentials were found for s3:// (set AWS_ACCESS_KEY_ID" in capsys.readouterr().err
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()


def test_missing_packages_are_named(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_arguments: Any, **_more: Any) -> Any:
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    assert command(model, "gs://bucket/a.png", "-o", "x.png") == 2
    assert "gs:// needs a package for fsspec: pip install gcsfs" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------------- web


class Handler(http.server.SimpleHTTPRequestHandler):
    """No ranges; `?silent` says no length; `/busy` is so twice."""

    busy = 2

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        if self.path.startswith("/busy") and Handler.busy:
            Handler.busy -= 1
            self.send_error(503)
        elif "silent" in self.path:
            self.send_response(200)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(Path("made/a.png").read_bytes())
        elif "forbidden" in self.path:
            self.send_error(403)
        else:
            super().do_GET()


@pytest.fixture
def web(here: Path) -> Iterator[str]:
    picture(here / "made/a.png", 20, 16)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(here / "made")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("query", ["", "?size=large/1", "?silent"])
def test_web_servers_are_read_from(web: str, model: Path, query: str) -> None:
    assert command(model, f"{web}/a.png{query}", "-o", "out/") == 0
    assert command(model, "made/a.png", "-o", "local.png") == 0
    assert Path("out/a.png").read_bytes() == Path("local.png").read_bytes()


@pytest.mark.parametrize(
    ("path", "words"), [("none.png", "there is no such object"), ("forbidden.png", "access is denied")]
)
def test_what_a_web_server_refuses_is_one_sentence(
    web: str, model: Path, path: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(model, f"{web}/{path}", "-o", "x.png") == 3
    assert words in capsys.readouterr().err


def test_a_web_server_lists_nothing_and_takes_nothing(
    web: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(model, f"{web}/a.png") == 2
    assert "a web server can only be read from" in capsys.readouterr().err
