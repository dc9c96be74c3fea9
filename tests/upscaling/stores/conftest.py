"""A real S3 API (moto's server), and memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.stores import scratch, store

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
    yield tmp_path
    connect.cache_clear()
    type(memory).store.clear()


@pytest.fixture
def amazon(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
                        "AWS_DEFAULT_REGION": "us-east-1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    kind = pytest.importorskip("s3fs").S3FileSystem
    # fsspec keeps connections, which may be to a server of other tests that has ended.
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
