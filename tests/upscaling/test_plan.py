"""The plan: which pictures, under which names, how large; and what is refused before anything is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgan_cli.config import UpscaleOptions, WriteOptions
from srgan_cli.errors import NothingToDoError, SettingsError
from srgan_cli.sizes import Size
from srgan_cli.upscaling.ledger import FILE_NAME, Ledger, identity
from srgan_cli.upscaling.plan import Plan
from srgan_cli.upscaling.planning import plan
from tests.upscaling.pictures import picture

KEY = "settings"


def planned(inputs: Sequence[Path | str], output: Path | str | None = None, *, scales: tuple[int, ...] = (4,),
            key: str = KEY, stdin: bytes | None = None, **options: Any) -> Plan:  # fmt: skip
    out = None if output is None else Path(output)
    folder = str(output).endswith("/")
    options = {"inputs": tuple(map(Path, inputs)), "output": out, "output_is_folder": folder, **options}
    return plan(UpscaleOptions(**options), scales, key, stdin=stdin)


def names(made: Plan) -> list[tuple[str, str]]:
    return [(str(job.source), str(job.target)) for job in made.jobs]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests work in a folder of their own, with names as a person types them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(here: Path) -> Path:
    for name in ("b.jpg", "a.png", "deep/c.PNG", "deep/er/d.webp"):
        picture(here / "photos" / name)
    (here / "photos" / "notes.txt").write_text("no picture")
    return Path("photos")


# -------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("source", "output", "options", "target"),
    [
        ("a.jpg", None, {}, "a_x4.jpg"),
        ("sub/a.jpg", None, {}, "sub/a_x4.jpg"),
        ("a.JPG", None, {}, "a_x4.JPG"),
        ("a.jpeg", None, {"size": Size(scale=2.5)}, "a_x2.5.jpeg"),
        ("a.jpg", None, {"size": Size(width=30)}, "a_x2.5.jpg"),
        ("a.gif", None, {}, "a_x4.png"),
        ("a.jpg", None, {"write": WriteOptions(format="png")}, "a_x4.png"),
        ("a.jpg", None, {"write": WriteOptions(format="jpeg")}, "a_x4.jpg"),
        ("a.tif", None, {"write": WriteOptions(format="tiff")}, "a_x4.tif"),
        ("a.b.c.jpg", None, {}, "a.b.c_x4.jpg"),
        ("{stem} %s.jpg", None, {}, "{stem} %s_x4.jpg"),
        ("a.jpg", "large.png", {}, "large.png"),
        ("a.jpg", "new/large.png", {}, "new/large.png"),
        ("a.jpg", "large/", {}, "large/a.jpg"),
        ("a.jpg", "large", {}, "large/a.jpg"),
        ("a.jpg", "v1.5/", {}, "v1.5/a.jpg"),
        ("a.jpg", "large/", {"write": WriteOptions(format="webp")}, "large/a.webp"),
        ("a.jpg", None, {"name_pattern": "big-{stem}{ext}"}, "big-a.jpg"),
        ("a.jpg", "large/", {"name_pattern": "{stem}_{width}x{height}{ext}"}, "large/a_48x36.jpg"),
        ("a.jpg", "large/", {"name_pattern": "{index:03}_{model}_{scale}{ext}"}, "large/001_auto_4.jpg"),
        ("a.jpg", "large/", {"name_pattern": "{stem}"}, "large/a.jpg"),
        ("a.jpg", "large/", {"name_pattern": "{stem}", "model": "runs/best.safetensors"}, "large/a.jpg"),
        ("a.jpg", "large/", {"name_pattern": "{model}{ext}", "model": "runs/best.safetensors"}, "large/best.jpg"),
    ],
)  # fmt: skip
def test_the_name_of_a_result(source: str, output: str | None, options: dict[str, Any], target: str) -> None:
    picture(Path(source))
    made = planned([source], output, **options)
    assert names(made) == [(source, target)]
    assert not made.failures


def test_a_folder_is_taken_sorted_and_flat(photos: Path) -> None:
    made = planned([photos], "large/")
    assert names(made) == [("photos/a.png", "large/a.png"), ("photos/b.jpg", "large/b.jpg")]


def test_recursive_keeps_the_tree(photos: Path) -> None:
    made = planned([photos], "large/", recursive=True)
    assert [target for _, target in names(made)] == [
        "large/a.png", "large/b.jpg", "large/deep/c.PNG", "large/deep/er/d.webp",
    ]  # fmt: skip


def test_a_folder_without_output_gets_its_results_beside_the_pictures(photos: Path) -> None:
    made = planned([photos], recursive=True)
    assert ("photos/deep/c.PNG", "photos/deep/c_x4.PNG") in names(made)


def test_a_picture_named_twice_is_taken_once(photos: Path) -> None:
    made = planned([photos / "a.png", photos / "a.png", photos, "./photos/b.jpg"])
    assert [source for source, _ in names(made)] == ["photos/a.png", "photos/b.jpg"]


def test_index_counts_through(photos: Path) -> None:
    made = planned([photos], "large/", recursive=True, name_pattern="{index:02}{ext}")
    assert [Path(target).stem for _, target in names(made)] == ["01", "02", "03", "04"]


def test_names_are_kept_byte_by_byte(here: Path) -> None:
    odd = [os.fsdecode(b"\xff\xfe.png"), "-o.png", "line\nbreak.png", "ü [x](y).png", " .png"]
    for name in odd:
        picture(here / "in" / name)
    made = planned(["in"], "out/")
    assert {Path(target).name for _, target in names(made)} == set(odd)


def test_stdin_and_stdout(here: Path) -> None:
    data = picture(here / "a.jpg").read_bytes()
    (job,) = planned(["-"], "-", stdin=data).jobs
    assert (job.source, job.target, job.data) == (Path("-"), Path("-"), data)
    assert (job.output.width, job.output.height) == (48, 36)
    assert names(planned(["-"], "big.png", stdin=data)) == [("-", "big.png")]
    assert names(planned(["-"], "large/", stdin=data)) == [("-", "large/stdin.jpg")]


# --------------------------------------------------------------------------------------------------- what is refused


def test_two_pictures_with_one_name_are_refused_with_both(here: Path) -> None:
    picture(here / "in/a.jpg")
    picture(here / "in/a.png")
    with pytest.raises(SettingsError) as caught:
        planned(["in"], "out/", write=WriteOptions(format="png"), strict_names=True)
    assert "in/a.jpg" in str(caught.value)
    assert "in/a.png" in str(caught.value)
    made = planned(["in"], "out/", write=WriteOptions(format="png"), name_pattern="{stem}_{index}{ext}")
    assert len(made.jobs) == 2


def test_pictures_of_two_folders_with_one_name_are_refused(here: Path) -> None:
    picture(here / "x/a.png")
    picture(here / "y/a.png")
    with pytest.raises(SettingsError, match=r"x/a\.png and y/a\.png"):
        planned(["x", "y"], "out/", strict_names=True)


def test_names_that_differ_in_case_alone_are_refused(here: Path) -> None:
    picture(here / "in/photo.png")
    picture(here / "in/Photo.png")
    if len(list((here / "in").iterdir())) == 1:
        pytest.skip("this file system does not tell case apart")
    with pytest.raises(SettingsError, match=r"in/Photo\.png and in/photo\.png"):
        planned(["in"], "out/", strict_names=True)


def test_a_pattern_that_gives_all_one_name_is_refused(photos: Path) -> None:
    with pytest.raises(SettingsError, match="would both become"):
        planned([photos], "out/", name_pattern="same.png", write=WriteOptions(format="png"))


@pytest.mark.parametrize("how", ["overwrite", "skip_existing", "resume", "fail_fast"])
def test_a_result_over_its_own_input_is_refused(photos: Path, how: str) -> None:
    options: dict[str, Any] = {how: True}
    before = (photos / "a.png").read_bytes()
    for inputs, output in (
        ([photos / "a.png"], "photos/"),
        ([photos], "photos/"),
        ([photos / "a.png"], photos / "a.png"),
    ):
        with pytest.raises(SettingsError, match=r"photos/a\.png") as caught:
            planned(inputs, output, **options)
        assert str(caught.value).count("a.png") >= 2, "both names"
    with pytest.raises(SettingsError, match="overwrit"):
        planned([photos], name_pattern="{stem}{ext}", **options)
    assert (photos / "a.png").read_bytes() == before


def test_a_result_over_its_input_through_a_link_is_refused(here: Path) -> None:
    picture(here / "a.png")
    (here / "link.png").symlink_to("a.png")
    with pytest.raises(SettingsError, match="overwrit"):
        planned(["a.png"], "link.png", overwrite=True)


def test_a_result_over_another_input_is_refused(here: Path) -> None:
    picture(here / "a.png")
    picture(here / "a_x4.png")
    with pytest.raises(SettingsError, match=r"a\.png.*a_x4\.png"):
        planned(["a.png", "a_x4.png"], overwrite=True)


@pytest.mark.parametrize("output", ["out.png", "-"])
def test_several_inputs_need_a_folder(photos: Path, output: str) -> None:
    with pytest.raises(SettingsError, match="inputs"):
        planned([photos], output)


def test_an_output_that_is_a_file_is_no_folder(photos: Path, here: Path) -> None:
    (here / "out").write_text("x")
    with pytest.raises(SettingsError, match="is a file"):
        planned([photos], "out")


@pytest.mark.parametrize(("output", "message"), [("out.heic", "heic"), ("out.xyz", "xyz"), ("out.psd", "psd")])
def test_a_format_that_cannot_be_written_is_refused(here: Path, output: str, message: str) -> None:
    picture(here / "a.png")
    with pytest.raises(SettingsError, match=message):
        planned(["a.png"], output)


@pytest.mark.parametrize(
    "pattern",
    [
        "{nothing}",
        "{stem",
        "a/{stem}",
        "..\\x",
        "",
        "{0}",
        "{stem.__class__}",
        "{stem!r}",
        "{stem:>9999}",
        "{stem:{index}}",
        "a\0b",
    ],
)
def test_a_bad_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError, match="name_pattern"):
        UpscaleOptions(name_pattern=pattern)


@pytest.mark.parametrize("pair", [("overwrite", "resume"), ("skip_existing", "resume"), ("overwrite", "skip_existing")])
def test_only_one_answer_to_existing_results(pair: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match="only one of"):
        UpscaleOptions(**dict.fromkeys(pair, True))  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------- what is found


def test_hidden_files_and_folders_are_left_out(here: Path) -> None:
    for name in ("a.png", ".b.png", "._a.png", ".hidden/c.png", "d/.e.png"):
        picture(here / "in" / name)
    assert [source for source, _ in names(planned(["in"], "out/", recursive=True))] == ["in/a.png"]
    assert len(planned(["in/.b.png"], "out/").jobs) == 1, "who names a file means it"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include": ("*.jpg",)}, {"b.jpg"}),
        ({"include": ("*.JPG", "c.*")}, {"b.jpg", "deep/c.PNG"}),
        ({"include": ("deep/*",)}, {"deep/c.PNG", "deep/er/d.webp"}),
        ({"exclude": ("*.png",)}, {"b.jpg", "deep/er/d.webp"}),
        ({"exclude": ("deep/*",)}, {"a.png", "b.jpg"}),
        ({"include": ("*.png",), "exclude": ("a.*",)}, {"deep/c.PNG"}),
        ({}, {"a.png", "b.jpg", "deep/c.PNG", "deep/er/d.webp"}),
    ],
)
def test_globs_choose_from_folders(photos: Path, options: dict[str, Any], expected: set[str]) -> None:
    made = planned([photos], "out/", recursive=True, **options)
    assert {Path(source).relative_to(photos).as_posix() for source, _ in names(made)} == expected


def test_globs_do_not_touch_what_was_named(photos: Path) -> None:
    assert len(planned([photos / "a.png"], "out/", exclude=("*",)).jobs) == 1


def test_the_output_folder_inside_the_input_is_not_walked(photos: Path) -> None:
    picture(photos / "large/a.png")
    picture(photos / "large/deep/c.PNG")
    made = planned([photos], photos / "large", recursive=True, overwrite=True)
    assert not [source for source, _ in names(made) if "large" in source]
    assert len(made.jobs) == 4


def test_results_of_this_folder_are_not_taken_for_pictures(photos: Path) -> None:
    picture(photos / "a_x4.png", 48, 36)
    made = planned([photos], skip_existing=True)
    assert [source for source, _ in names(made)] == ["photos/b.jpg"]
    assert [skip.source.name for skip in made.skips] == ["a.png"]


def test_results_of_a_run_with_other_settings_are_not_taken_either(photos: Path) -> None:
    for job in planned([photos]).jobs:
        picture(job.target, 48, 36)
        assert job.ledger is not None
        Ledger.load(job.ledger).finish(job.target, identity(job.source), KEY)
    made = planned([photos], key="other", size=Size(scale=2))
    assert names(made) == [("photos/a.png", "photos/a_x2.png"), ("photos/b.jpg", "photos/b_x2.jpg")]


def test_results_that_only_changed_their_format_are_not_taken_either(here: Path) -> None:
    picture(here / "in/a.jpg")
    options: dict[str, Any] = {"name_pattern": "{stem}{ext}", "write": WriteOptions(format="png")}
    (job,) = planned(["in"], **options).jobs
    picture(job.target)
    assert job.ledger is not None
    Ledger.load(job.ledger).finish(job.target, identity(job.source), KEY)
    made = planned(["in"], resume=True, **options)
    assert not made.jobs
    assert [skip.source.name for skip in made.skips] == ["a.jpg"]


def test_results_of_this_folder_are_not_counted_by_index(here: Path) -> None:
    picture(here / "in/a.png")
    picture(here / "in/b.png")
    made = planned(["in"], name_pattern="{index}{ext}")
    assert names(made) == [("in/a.png", "in/1.png"), ("in/b.png", "in/2.png")]
    first = made.jobs[0]
    picture(first.target)
    assert first.ledger is not None
    Ledger.load(first.ledger).finish(first.target, identity(first.source), KEY)
    assert names(planned(["in"], name_pattern="{index}{ext}", resume=True)) == [("in/b.png", "in/2.png")]


def test_a_folder_of_results_may_be_enlarged_again(here: Path) -> None:
    picture(here / "in/a.png")
    (job,) = planned(["in"], "out/").jobs
    picture(job.target)
    Ledger.load(Path("out")).finish(job.target, identity(job.source), KEY)
    assert names(planned(["out"], "larger/")) == [("out/a.png", "larger/a.png")]


@pytest.mark.parametrize("recursive", [True, False])
def test_nothing_found_is_an_error(here: Path, recursive: bool) -> None:
    (here / "in/deep").mkdir(parents=True)
    (here / "in/notes.txt").write_text("x")
    with pytest.raises(NothingToDoError, match="no pictures") as caught:
        planned(["in"], "out/", recursive=recursive)
    assert ("--recursive" in str(caught.value)) is not recursive
    assert caught.value.exit_code == 3


def test_a_folder_that_cannot_be_listed_does_not_hide_the_others(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if os.fspath(path).endswith("er"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    picture(photos / "z/last.png")
    monkeypatch.setattr(os, "scandir", scandir)
    made = planned([photos], "out/", recursive=True)
    assert "photos/z/last.png" in [source for source, _ in names(made)]
    (failure,) = made.failures
    assert failure.source == photos / "deep/er"
    assert "permission" in failure.reason.lower()


# ----------------------------------------------------------------------------------------------- failures one by one


def test_a_bad_picture_leaves_the_others(photos: Path) -> None:
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.jpg").write_text("I am no picture")
    (photos / "folder.png").mkdir()
    made = planned([photos, "missing.png"], "out/")
    assert len(made.jobs) == 2
    assert {failure.source.name for failure in made.failures} == {"empty.png", "text.jpg", "missing.png"}
    assert all(failure.unreadable and failure.reason for failure in made.failures)


def test_a_picture_that_cannot_be_written_leaves_the_others(here: Path) -> None:
    picture(here / "in/a.png", mode="RGBA")
    picture(here / "in/b.png")
    made = planned(["in"], "out/", write=WriteOptions(format="jpeg"))
    assert names(made) == [("in/b.png", "out/b.jpg")]
    (failure,) = made.failures
    assert "--background" in failure.reason
    assert not failure.unreadable
    laid = planned(["in"], "out/", write=WriteOptions(format="jpeg", background=(255, 255, 255)))
    assert len(laid.jobs) == 2


def test_a_picture_that_is_large_enough_leaves_the_others(here: Path) -> None:
    picture(here / "in/a.png", 100, 100)
    picture(here / "in/b.png", 40, 40)
    made = planned(["in"], "out/", size=Size(long_side=80))
    assert names(made) == [("in/b.png", "out/b.png")]
    assert "smaller" in made.failures[0].reason
    with pytest.raises(SettingsError, match="smaller"):
        planned(["in/a.png"], "out/", size=Size(long_side=80))


def test_too_many_pixels_are_refused_by_the_header(here: Path) -> None:
    picture(here / "a.png", 20, 20)
    made = planned(["a.png"], max_pixels=399)
    assert made.failures[0].unreadable
    assert "--max-pixels" in made.failures[0].reason
    assert len(planned(["a.png"], max_pixels=400).jobs) == 1


def test_fail_fast_does_not_even_start(photos: Path) -> None:
    (photos / "empty.png").write_bytes(b"")
    made = planned([photos], "out/", fail_fast=True)
    assert made.jobs == ()
    assert "empty.png" in made.failures[0].reason
    assert made.exit_code == 1


def test_a_target_that_is_a_folder_fails_alone(photos: Path, here: Path) -> None:
    (here / "out/a.png").mkdir(parents=True)
    made = planned([photos], "out/")
    assert names(made) == [("photos/b.jpg", "out/b.jpg")]
    assert "folder" in made.failures[0].reason


# --------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("size", "expected", "networks"),
    [
        (Size(), (400, 200), (4,)),
        (Size(scale=2), (200, 100), (4,)),
        (Size(scale=2.5), (250, 125), (4,)),
        (Size(scale=8), (800, 400), (4, 4)),
        (Size(scale=16), (1600, 800), (4, 4)),
        (Size(width=300), (300, 150), (4,)),
        (Size(height=300), (600, 300), (4, 4)),
        (Size(long_side=400), (400, 200), (4,)),
        (Size(long_side=404), (404, 202), (4,)),
        (Size(fit=(300, 300)), (300, 150), (4,)),
        (Size(fit=(1000, 150)), (300, 150), (4,)),
        (Size(width=100), (100, 50), (4,)),
    ],
)
def test_sizes(here: Path, size: Size, expected: tuple[int, int], networks: tuple[int, ...]) -> None:
    picture(here / "a.png", 100, 50)
    (job,) = planned(["a.png"], size=size).jobs
    assert (job.output.width, job.output.height) == expected
    assert job.scales == networks
    assert job.network_scale == {(4,): 4, (4, 4): 16}[networks]
    assert job.network_pixels == 5000 * job.network_scale**2


def test_networks_of_a_family_are_put_together(here: Path) -> None:
    picture(here / "a.png")
    assert planned(["a.png"], scales=(2, 4), size=Size(scale=8)).jobs[0].scales == (2, 4)
    assert planned(["a.png"], scales=(2, 4), size=Size(scale=2)).jobs[0].scales == (2,)


def test_a_rotated_photo_counts_as_it_is_seen(here: Path) -> None:
    from PIL import Image as Pillow

    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.new("RGB", (40, 30)).save("a.jpg", exif=exif)
    (job,) = planned(["a.jpg"], size=Size(width=60)).jobs
    assert (job.header.width, job.header.height) == (30, 40)
    assert (job.output.width, job.output.height) == (60, 80)


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(1.01, 16))
def test_a_scaled_size_is_within_half_a_pixel(width: int, height: int, scale: float) -> None:
    w, h, ratio, note = Size(scale=scale).target(width, height)
    assert (ratio, note) == (scale, "")
    assert abs(w - width * scale) <= 0.5
    assert abs(h - height * scale) <= 0.5


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 9000), st.integers(1, 9000))
def test_a_box_is_filled_and_not_left(width: int, height: int, box_width: int, box_height: int) -> None:
    try:
        w, h, ratio, note = Size(fit=(box_width, box_height)).target(width, height)
    except SettingsError:
        assert min(box_width / width, box_height / height) < 1
        return
    if note:
        assert (w, h, ratio) == (16 * width, 16 * height, 16)
        return
    assert w <= box_width
    assert h <= box_height
    assert w == box_width or h == box_height


@pytest.mark.parametrize("text", ["", "x", "12", "12x", "axb", "-1x5", "1.5x2", "0x10"])
def test_a_bad_box_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="fit"):
        Size(fit=Size.parse_box(text))


@pytest.mark.parametrize("given", [
    {"scale": 1.0}, {"scale": 0.5}, {"scale": 16.1}, {"scale": float("nan")}, {"scale": float("inf")}, {"scale": -4.0},
    {"width": 0}, {"height": -1}, {"long_side": 0}, {"scale": 2.0, "width": 10}, {"width": 10, "height": 10},
])  # fmt: skip
def test_a_bad_size_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"(scale|width|height|long_side) |only one of"):
        Size(**given)


# ---------------------------------------------------------------------------------------------------- existing results


@pytest.fixture
def two_done(here: Path) -> tuple[Path, Path]:
    """in/a.png with its result, by our record; in/b.png without; both into out/."""
    picture(here / "in/a.png")
    picture(here / "in/b.png")
    made = planned(["in"], "out/")
    first = made.jobs[0]
    picture(first.target, 48, 36)
    assert first.ledger == Path("out")
    ledger = Ledger.load(first.ledger)
    ledger.begin(first.target, identity(first.source), KEY)
    ledger.finish(first.target, identity(first.source), KEY)
    return first.source, first.target


def todo(**options: Any) -> list[str]:
    made = planned(["in"], "out/", **options)
    assert len(made.jobs) + len(made.skips) == 2
    return [job.source.name for job in made.jobs]


@pytest.mark.usefixtures("two_done")
def test_existing_results_are_refused_unless_told() -> None:
    with pytest.raises(SettingsError, match=r"out/a\.png exists already") as caught:
        todo()
    assert all(flag in str(caught.value) for flag in ("--overwrite", "--skip-existing", "--resume"))
    assert todo(overwrite=True) == ["a.png", "b.png"]
    assert todo(skip_existing=True) == ["b.png"]


@pytest.mark.usefixtures("two_done")
def test_resume_leaves_what_is_done() -> None:
    assert todo(resume=True) == ["b.png"]


@pytest.mark.usefixtures("two_done")
def test_resume_does_again_what_other_settings_made() -> None:
    assert todo(resume=True, key="other settings, or other weights") == ["a.png", "b.png"]


def test_resume_does_again_what_a_changed_input_made(two_done: tuple[Path, Path]) -> None:
    os.utime(two_done[0], (1, 1))
    assert todo(resume=True) == ["a.png", "b.png"]


def test_resume_does_again_what_was_changed_since(two_done: tuple[Path, Path]) -> None:
    two_done[1].write_bytes(b"half a pict")
    assert todo(resume=True) == ["a.png", "b.png"]


def test_resume_does_again_what_is_gone(two_done: tuple[Path, Path]) -> None:
    two_done[1].unlink()
    assert todo(resume=True) == ["a.png", "b.png"]


def test_resume_does_again_what_was_only_begun(two_done: tuple[Path, Path]) -> None:
    Ledger.load(Path("out")).begin(two_done[1], identity(two_done[0]), KEY)
    assert todo(resume=True) == ["a.png", "b.png"]


@pytest.mark.usefixtures("two_done")
def test_resume_refuses_a_file_that_is_not_ours(here: Path) -> None:
    picture(here / "out/b.png")
    with pytest.raises(SettingsError, match=r"out/b\.png exists, but no earlier run"):
        todo(resume=True)


@pytest.mark.usefixtures("two_done")
def test_resume_survives_a_damaged_record(here: Path) -> None:
    record = here / "out" / FILE_NAME
    record.write_bytes(b"\xff\xfe{\n[1]\n" + record.read_bytes() + b'{"target": "b.p')
    assert todo(resume=True) == ["b.png"]


def test_the_record_moves_with_its_folder(two_done: tuple[Path, Path], here: Path) -> None:
    (here / "out").rename(here / "moved")
    made = planned(["in"], "moved/", resume=True)
    assert [job.source.name for job in made.jobs] == ["b.png"]


def test_resume_works_for_files_named_one_by_one(here: Path) -> None:
    picture(here / "a.png")
    picture(here / "b.png")
    first = planned(["a.png", "b.png"]).jobs[0]
    picture(first.target)
    assert first.ledger is not None, "a run over several files keeps a record, or it could not go on"
    Ledger.load(first.ledger).finish(first.target, identity(first.source), KEY)
    assert [job.source.name for job in planned(["a.png", "b.png"], resume=True).jobs] == ["b.png"]


def test_names_in_the_record_may_be_any_bytes(here: Path) -> None:
    name = os.fsdecode(b"\xff\n.png")
    source = picture(here / "in" / name)
    ledger = Ledger.load(here / "out")
    target = picture(here / "out" / name)
    ledger.finish(target, identity(source), KEY)
    assert Ledger.load(here / "out").state(target, identity(source), KEY) == "done"


def test_a_plan_touches_nothing(photos: Path, here: Path) -> None:
    before = sorted(here.rglob("*"))
    planned([photos], "new/folder/", recursive=True)
    assert sorted(here.rglob("*")) == before
