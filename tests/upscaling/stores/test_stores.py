"""A run from a store, into one, and both: the same results, names, records and refusals as with local files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srgan_cli.config import EngineOptions, WriteOptions
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import save_weights
from srgan_cli.stores import store
from srgan_cli.upscaling import record_storage
from srgan_cli.upscaling.crew.messages import AccessChecked, CheckAccess, UnitEnded
from srgan_cli.upscaling.crew.worker import Worker
from srgan_cli.upscaling.observer import Silent, Tally
from srgan_cli.upscaling.session import Session
from tests.networks.test_noise import noisy
from tests.upscaling.crews import Threads, by_threads
from tests.upscaling.pictures import picture
from tests.upscaling.stores.buckets import command, fill, records, session, there

fsspec = pytest.importorskip("fsspec")
pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]  # the stores' own libraries warn


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
    monkeypatch.setattr(record_storage, "_SEGMENT_BYTES", 400)
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


def test_a_store_cannot_keep_times_and_says_so(base: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(f"{base}/in", "a.png")
    assert command(model, f"{base}/in", "-o", f"{base}/out/", "--keep-time") == 0
    assert "--keep-time has no effect in a store" in capsys.readouterr().err
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


def blind(made: Session, monkeypatch: pytest.MonkeyPatch) -> Tally:
    """A run by workers that do not see this machine's files."""

    def check_access(self: Worker, check: CheckAccess) -> UnitEnded:
        self._say(AccessChecked(sees=False))
        return UnitEnded()

    monkeypatch.setattr(Threads, "sees_all", False)
    monkeypatch.setattr(Worker, "_check_access", check_access)
    tally, _, _ = by_threads(made)
    return tally


def test_results_that_workers_send_back_reach_the_store(
    base: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(f"{base}/in", "a.png", "b.png")
    session(model, "made", "alone").run(Silent())
    for _ in range(2):
        tally = blind(session(model, "made", f"{base}/out", overwrite=True), monkeypatch)
        assert (len(tally.done), tally.failures) == (2, [])
        assert there(f"{base}/out") == {path.name: path.read_bytes() for path in Path("alone").glob("*.png")}
    resumed = blind(session(model, "made", f"{base}/resumed", resume=True), monkeypatch)
    assert (len(resumed.done), resumed.failures) == (2, [])
    assert not session(model, "made", f"{base}/resumed", resume=True).plan.jobs


def test_a_result_that_appears_in_the_store_before_a_worker_sends_its_own_is_left_alone(
    base: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(f"{base}/in", "a.png")
    made = session(model, "made", f"{base}/out")
    fsspec.core.url_to_fs(base)[0].pipe_file(f"{base}/out/a.png", b"mine")
    (failure,) = blind(made, monkeypatch).failures
    assert "has appeared since the run began" in failure.reason
    assert there(f"{base}/out") == {"a.png": b"mine"}


def test_results_that_workers_send_back_get_the_time_of_an_object(
    base: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(f"{base}/in", "a.png")
    made = session(model, f"{base}/in", "out", write=WriteOptions(keep_time=True))
    tally = blind(made, monkeypatch)
    assert (len(tally.done), tally.failures) == (1, [])
    (job,) = made.plan.jobs
    found = store.stat(job.source)  # type: ignore[arg-type]
    assert found is not None
    assert Path("out/a.png").stat().st_mtime_ns == found.modified_ns
