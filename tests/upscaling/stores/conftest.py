"""A real S3 API (moto's server), and memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.stores import reach, scratch, store

PLACES = ("memory", pytest.param("s3", marks=pytest.mark.slow))


@pytest.fixture(scope="session")
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
    connect, memory = store._filesystem, pytest.importorskip("fsspec").filesystem("memory")
    connect.cache_clear()
    reach.forget()
    yield tmp_path
    reach.forget()
    connect.cache_clear()
    type(memory).store.clear()


def _environment(endpoint: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip


@pytest.fixture(scope="session")
def buckets(endpoint: str) -> Iterator[Any]:
    """The server's own buckets. Connected once, since that takes longer than most of these tests."""
    kind = pytest.importorskip("s3fs").S3FileSystem
    kind.clear_instance_cache()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _environment(endpoint).items():
            patch.setenv(name, value)
        files = kind(use_listings_cache=False, skip_instance_cache=True)
        files.ls("")
    yield files
    kind.clear_instance_cache()


@pytest.fixture
def amazon(endpoint: str, buckets: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket `photos`, and the environment in which srgan finds it."""
    for name, value in _environment(endpoint).items():
        monkeypatch.setenv(name, value)
    buckets.mkdir("photos")
    yield buckets
    buckets.rm("photos", recursive=True)


@pytest.fixture(params=PLACES)
def base(request: pytest.FixtureRequest) -> str:
    """Where pictures are: the URL of a folder."""
    if request.param == "s3":
        request.getfixturevalue("amazon")
        return "s3://photos/all"
    return "memory://all"
