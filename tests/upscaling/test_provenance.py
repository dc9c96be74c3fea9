"""Results that record how they were made: in every format, and how later runs use this."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image as Pillow

from srgan_cli import __version__
from srgan_cli.config import EngineOptions, UpscaleOptions, WriteOptions
from srgan_cli.errors import SettingsError
from srgan_cli.files import file_sha256
from srgan_cli.imaging.metadata import provenance
from srgan_cli.imaging.metadata.provenance import Record
from srgan_cli.imaging.reading import read_header
from srgan_cli.sizes import Size
from srgan_cli.upscaling.observer import Silent
from srgan_cli.upscaling.plan import Plan
from srgan_cli.upscaling.record_storage import FILE_NAME
from srgan_cli.upscaling.session import Session, prepare
from tests.upscaling.pictures import picture


def session(model: Path, *inputs: Path, output: Path | None = None, scale: int = 2, **options: object) -> Session:
    write = options.pop("write", WriteOptions())
    return prepare(
        UpscaleOptions(
            inputs=inputs,
            output=output,
            model=str(model),
            size=Size(scale=scale),
            write=write,  # type: ignore[arg-type]
            engine=EngineOptions(device="cpu", precision="fp32"),
            recursive=True,
            **options,  # type: ignore[arg-type]
        )
    )


def make(model: Path, *inputs: Path, **options: object) -> Plan:
    made = session(model, *inputs, **options)  # type: ignore[arg-type]
    assert not made.run(Silent()).failures
    return made.plan


def record_of(path: Path) -> Record | None:
    return provenance.read(read_header(path, max_pixels=10**9).metadata)


def change_times(folder: Path) -> None:
    """As a copy or a checkout does."""
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, ns=(10**18 + number, 10**18 + number))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.png", "b.jpg", "sub/c.png"):
        picture(tmp_path / "photos" / name, 20, 16, seed=len(name))
    return tmp_path / "photos"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.avif"])
@pytest.mark.parametrize("own", ["a.jpg", "a.png"])
def test_every_format_carries_the_record(own: str, name: str, tmp_path: Path, model: Path) -> None:
    source = picture(tmp_path / "in" / own, 24, 20)
    if own == "a.jpg":
        exif = Pillow.Exif()
        exif[0x010F], exif[0x0131] = "Tester", "Camera 1.0"
        picture(source, 24, 20)
        with Pillow.open(source) as opened:
            opened.load()
            opened.save(source, exif=exif)
    result = tmp_path / name
    made = session(model, source, output=result)
    made.run(Silent())
    found = record_of(result)
    assert found is not None
    assert found.program == f"srgan {__version__}"
    assert (found.model, found.scale, found.source_size) == ("tiny", "2", "24x20")
    assert found.settings == made.settings_key
    assert found.weights == file_sha256(model)[:16]
    assert found.source_digest == provenance.bytes_digest(source)
    assert str(tmp_path) not in result.read_bytes().decode("latin-1")
    with Pillow.open(result) as opened:
        tags = dict(opened.getexif())
    assert tags[0x0131] == f"srgan {__version__}"
    assert tags.get(0x010F) == ("Tester" if own == "a.jpg" else None)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_strip_leaves_no_record(name: str, tmp_path: Path, model: Path) -> None:
    source = picture(tmp_path / "in.png", 24, 20)
    make(model, source, output=tmp_path / name, write=WriteOptions(strip="all"))
    assert record_of(tmp_path / name) is None
    assert b"srgan" not in (tmp_path / name).read_bytes()
    make(model, source, output=tmp_path / name, write=WriteOptions(strip="gps"), overwrite=True)
    assert record_of(tmp_path / name) is not None


@pytest.mark.parametrize("lost", ["times", "record", "both"])
def test_a_run_beside_its_inputs_does_not_take_its_results(lost: str, photos: Path, model: Path) -> None:
    first = make(model, photos)
    if lost != "record":
        change_times(photos)
    if lost != "times":
        (photos / FILE_NAME).unlink()
    again = session(model, photos, scale=4).plan
    assert [job.source for job in again.jobs] == [job.source for job in first.jobs]


def test_without_a_record_of_their_own_the_folders_knows_them_after_times_changed(photos: Path, model: Path) -> None:
    first = make(model, photos, write=WriteOptions(strip="all"))
    change_times(photos)
    again = session(model, photos, scale=4).plan
    assert [job.source for job in again.jobs] == [job.source for job in first.jobs]


@pytest.mark.parametrize("lost", ["nothing", "times", "record", "both", "embedded"])
def test_a_second_output_folder_does_not_take_the_results_of_the_first(lost: str, photos: Path, model: Path) -> None:
    write = WriteOptions(strip="all") if lost == "embedded" else WriteOptions()
    first = make(model, photos, output=photos / "one", write=write)
    if lost in ("times", "both"):
        change_times(photos)
    if lost in ("record", "both"):
        (photos / "one" / FILE_NAME).unlink()
    again = session(model, photos, output=photos / "two", write=write).plan
    assert [job.source for job in again.jobs] == [job.source for job in first.jobs]


def test_results_beside_their_inputs_are_not_taken_into_another_folder(
    photos: Path, tmp_path: Path, model: Path
) -> None:
    first = make(model, photos)
    again = session(model, photos, output=tmp_path / "out").plan
    assert [job.source for job in again.jobs] == [job.source for job in first.jobs]


def test_results_can_be_enlarged_again_when_they_are_asked_for(photos: Path, tmp_path: Path, model: Path) -> None:
    make(model, photos, output=tmp_path / "large")
    assert len(session(model, tmp_path / "large", output=tmp_path / "larger").plan.jobs) == 3
    assert len(session(model, tmp_path / "large" / "a.png", output=tmp_path / "larger").plan.jobs) == 1


@pytest.mark.parametrize("lost", ["times", "record", "both"])
def test_resume_knows_what_is_done_by_the_results_own_word(
    lost: str, photos: Path, tmp_path: Path, model: Path
) -> None:
    out = tmp_path / "out"
    make(model, photos, output=out)
    copy, copied = tmp_path / "copy of photos", tmp_path / "copy"
    shutil.copytree(photos, copy)
    shutil.copytree(out, copied)
    if lost != "record":
        change_times(copy)
        change_times(copied)
    if lost != "times":
        (copied / FILE_NAME).unlink()
    found = session(model, copy, output=copied, resume=True).plan
    assert (len(found.jobs), len(found.skips)) == (0, 3)


def test_resume_makes_again_what_was_made_of_other_bytes_or_settings(photos: Path, tmp_path: Path, model: Path) -> None:
    out = tmp_path / "out"
    make(model, photos, output=out)
    (out / FILE_NAME).unlink()
    picture(photos / "a.png", 20, 16, seed=99)
    found = session(model, photos, output=out, resume=True).plan
    assert [job.source.name for job in found.jobs] == ["a.png"]
    assert len(session(model, photos, output=out, resume=True, scale=4).plan.jobs) == 3


def test_resume_still_refuses_files_of_unknown_origin(photos: Path, tmp_path: Path, model: Path) -> None:
    picture(tmp_path / "out" / "a.png", 40, 32)
    with pytest.raises(SettingsError, match="no earlier run made it"):
        session(model, photos, output=tmp_path / "out", resume=True)
