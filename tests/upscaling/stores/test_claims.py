"""Runs that share a bucket: each picture is made once, and the claims of ended processes are taken over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from srgan_cli.stores.paths import StorePath, path_of
from srgan_cli.upscaling import claims, sharing
from srgan_cli.upscaling.observer import Silent
from srgan_cli.upscaling.store_claims import StoreClaims
from tests.upscaling.stores.buckets import fill, session, there
from tests.upscaling.test_sharing import run_at_once

fsspec = pytest.importorskip("fsspec")
pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]  # the stores' own libraries warn


def claims_in(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return [name for name in files.find(root) if ".srgan-claim" in name]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_runs_that_share_a_bucket_divide_the_work(
    amazon: Any, model: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "POLL_SECONDS", 0.05)
    made = fill("s3://photos/in", *(f"{number:02}.png" for number in range(4 * count)))
    session(model, "made", "alone").run(Silent())
    tallies = run_at_once([session(model, "s3://photos/in", "s3://photos/out", resume=True) for _ in range(count)])
    assert sorted(job.source.name for tally in tallies for job in tally.done) == sorted(made), "each once"
    assert all(tally.done for tally in tallies)
    assert [(tally.exit_code, tally.failures) for tally in tallies] == [(0, [])] * count
    assert there("s3://photos/out") == {path.name: path.read_bytes() for path in Path("alone").glob("*.png")}
    assert not claims_in("s3://photos/out")
    assert not session(model, "s3://photos/in", "s3://photos/out", resume=True).plan.jobs


def claims_of(folder: str) -> StoreClaims:
    return StoreClaims(cast("StorePath", path_of(folder)))


@pytest.mark.parametrize("end", ["killed here", "silent elsewhere", "without a heartbeat"])
def test_claims_of_those_that_are_gone_are_taken_over(
    amazon: Any, model: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "POLL_SECONDS", 0.05)
    fill("s3://photos/in", "a.png", "b.png")
    left = claims_of("s3://photos/out")
    assert left.take("a.png")
    assert left.holds("a.png")
    assert not claims_of("s3://photos/out").take("a.png"), "while it lives"
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
