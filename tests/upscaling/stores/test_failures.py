"""Stores that lose connections, lack credentials or packages, or do not exist."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.errors import SettingsError
from srgan_cli.stores import reach, store
from srgan_cli.stores.failures import StoreError, trouble_of
from srgan_cli.stores.paths import StorePath, path_of
from srgan_cli.upscaling.observer import Silent
from tests.upscaling.pictures import picture
from tests.upscaling.stores.buckets import command, fill, session, there

fsspec = pytest.importorskip("fsspec")
pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]  # the stores' own libraries warn


class Flaky:
    """A file system whose method fails `times` times."""

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


class Away:
    """A file system that becomes unreachable after `puts` pictures."""

    def __init__(self, files: Any, puts: int) -> None:
        self._files, self._left = files, puts

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            if self._left <= 0:
                raise ConnectionRefusedError(111, "Connection refused")
            self._left -= name == "put_file"
            return getattr(self._files, name)(*arguments, **more)

        return call


def test_a_store_that_goes_away_fails_what_is_left_and_can_be_resumed(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    fill("memory://in", *(f"{number}.png" for number in range(6)))
    made = session(model, "memory://in", "memory://out", resume=True)
    with monkeypatch.context() as patch:
        away = Away(fsspec.filesystem("memory"), 3)
        patch.setattr(store, "_filesystem", lambda _protocol: away)
        tally = made.run(Silent())
    assert (tally.exit_code, len(tally.done) + len(tally.failures)) == (1, 6)
    assert len(tally.failures) >= 3
    assert all("the connection fails" in failure.sentence for failure in tally.failures)
    again = session(model, "memory://in", "memory://out", resume=True).run(Silent())
    assert (again.exit_code, len(again.done) + len(again.skips)) == (0, 6)
    assert len(there("memory://out")) == 6


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
    request: pytest.FixtureRequest, model: Path, arguments: list[str], code: int, words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if any(argument.startswith("s3:") for argument in arguments):
        request.getfixturevalue("amazon")
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


class Gone:
    """A file system that becomes unreachable after `times` calls of `method`; `asked` counts the later requests."""

    def __init__(self, files: Any, method: str, times: int) -> None:
        self._files, self._method, self._left = files, method, times
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            if self._left <= 0:
                self.asked += 1
                raise ConnectionRefusedError(111, "Connection refused")
            self._left -= name == self._method
            return getattr(self._files, name)(*arguments, **more)

        return call


@pytest.mark.parametrize(("method", "output"), [("get_file", "out"), ("put_file", "memory://out")])
def test_a_store_that_does_not_answer_is_given_up_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, model: Path, method: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("memory://in", *(f"{number:02}.png" for number in range(20)))
    arguments = ["memory://in", "-o", output, "-r", "--resume", "--failed", "failed.txt"]
    gone = Gone(fsspec.filesystem("memory"), method, 5)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_filesystem", lambda _protocol: gone)
        assert command(model, *arguments) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("memory:// in a row; no more requests are sent to it") == 1
    assert said.count("Connection refused") <= 8, "those that were tried, and those under way"
    assert gone.asked <= 8 * 3, "each three times, where all would be 15 and more"
    left = Path("failed.txt").read_text(encoding="utf-8").splitlines()
    assert 12 <= len(left) <= 17
    assert command(model, "--files-from", "failed.txt", "-o", output, "--resume") == 0
    results = there(output) if output.startswith("memory") else {path.name for path in Path(output).glob("*.png")}
    assert len(results) == 20


def test_a_store_is_asked_again_after_a_while_and_when_it_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = trouble_of(ConnectionRefusedError(111, "Connection refused"), "https")
    one, other = StorePath("https:", "one.org", "a.png"), StorePath("https:", "two.org", "a.png")
    for _ in range(5):
        reach.silent(one, silence)
    reach.check(one)  # a single object says nothing of the others
    reach.answered(one.with_name("b.png"))
    for name in ("a.png", "b.png"):
        reach.silent(one.with_name(name), silence)
    reach.check(one)
    reach.silent(one.with_name("c.png"), silence)
    reach.check(other)
    with pytest.raises(StoreError, match=r"3 objects of https://one\.org in a row"):
        reach.check(one)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61.0)
    reach.check(one)


@pytest.mark.parametrize(("status", "is_silent"), [(503, True), (500, True), (429, False), (403, False), (404, False)])
def test_a_server_that_refuses_is_not_silent(status: int, is_silent: bool) -> None:
    err = OSError()
    err.status = status  # type: ignore[attr-defined]
    assert trouble_of(err, "https").is_silent == is_silent


def test_a_file_system_that_needs_settings_says_which(
    model: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(model, "ftp://server/a.png", "-o", "b.png") == 2
    err = capsys.readouterr().err
    assert (
        "ftp:// needs settings that an address does not have: host; give them to fsspec, as in FSSPEC_FTP_HOST=" in err
    )
    monkeypatch.setitem(fsspec.config.conf, "ftp", {"host": "127.0.0.1", "port": 1})
    store._filesystem.cache_clear()
    assert command(model, "ftp://server/a.png", "-o", "b.png") == 2
    assert "needs settings" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["file://[bad/a.png", "https://", "s3:///"])
def test_what_is_no_address_is_one_sentence(text: str) -> None:
    with pytest.raises(SettingsError, match="address"):
        path_of(text)
