"""The names of results, and the names that are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.config import UpscaleOptions, WriteOptions
from srgan_cli.errors import SettingsError
from srgan_cli.sizes import Size
from tests.upscaling.pictures import picture
from tests.upscaling.planning.plans import names, planned

# ---------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("source", "output", "options", "target"),
    [
        ("a.jpg", None, {}, "a_x4.jpg"),
        ("sub/a.jpg", None, {}, "sub/a_x4.jpg"),
        ("a.JPG", None, {}, "a_x4.JPG"),
        ("a.jpeg", None, {"size": Size(scale=2.5)}, "a_x2.5.jpeg"),
        ("a.jpg", None, {"size": Size(width=30)}, "a_x2.5.jpg"),
        ("a.jpg", None, {"size": Size(scale=2.55)}, "a_x2.55.jpg"),  # 12 px become 31, which is 2.58 times as many
        ("a.jpg", None, {"size": Size(width=31)}, "a_x2.58.jpg"),
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
        ("a.jpg", "large/", {"name_pattern": "{stem}_big.png"}, "large/a_big.png"),
        ("a.jpg", None, {"name_pattern": "{stem}_big.JPEG"}, "a_big.JPEG"),
        ("a.jpg", "large/", {"name_pattern": "{stem}.JPG", "write": WriteOptions(format="jpg")}, "large/a.JPG"),
        ("a.jpg", "large/", {"name_pattern": "{stem}.v2"}, "large/a.v2.jpg"),
        ("a.jpg", "large/", {"name_pattern": "{stem}", "model": "runs/best.safetensors"}, "large/a.jpg"),
        ("a.jpg", "large/", {"name_pattern": "{model}{ext}", "model": "runs/best.safetensors"}, "large/best.jpg"),
    ],
)  # fmt: skip
def test_the_name_of_a_result(source: str, output: str | None, options: dict[str, Any], target: str) -> None:
    picture(Path(source))
    made = planned([source], output, **options)
    assert names(made) == [(source, target)]
    assert not made.failures


def test_the_extension_of_a_name_pattern_is_the_format(here: Path) -> None:
    picture(here / "a.jpg")
    (job,) = planned(["a.jpg"], "large/", name_pattern="{stem}.png").jobs
    assert job.output.format == "png"
    with pytest.raises(SettingsError, match=r"--name '\{stem\}.png' does not match --format jpg"):
        planned(["a.jpg"], "large/", name_pattern="{stem}.png", write=WriteOptions(format="jpg"))
    with pytest.raises(SettingsError, match="cannot write that format"):
        planned(["a.jpg"], "large/", name_pattern="{stem}.heic")


@pytest.mark.parametrize("output", ["b.png", "-"])
def test_a_name_pattern_is_for_results_in_a_folder(here: Path, output: str) -> None:
    picture(here / "a.jpg")
    with pytest.raises(SettingsError, match=f"^-o {output} already names the result"):
        planned(["a.jpg"], output, name_pattern="{stem}.png")


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


# ------------------------------------------------------------------------------------------------------ what is refused


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
