"""Two results with the same name: both are renamed, with a note."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_cli.config import WriteOptions
from srgan_cli.errors import SettingsError
from tests.upscaling.pictures import picture
from tests.upscaling.planning.plans import names, planned

PNG = WriteOptions(format="png")

pytestmark = pytest.mark.usefixtures("here")


def test_the_endings_of_the_inputs_tell_them_apart(here: Path) -> None:
    for name in ("a.JPG", "a.png", "b.png"):
        picture(here / "in" / name)
    made = planned(["in"], "out/", write=PNG)
    assert names(made) == [
        ("in/a.JPG", "out/a.jpg.png"),
        ("in/a.png", "out/a.png.png"),
        ("in/b.png", "out/b.png"),
    ]
    assert made.notes == ("2 results would be a.png, so a.JPG becomes a.jpg.png, a.png becomes a.png.png",)


def test_beside_the_inputs_too(here: Path) -> None:
    picture(here / "a.jpg")
    picture(here / "a.png")
    made = planned(["a.jpg", "a.png"], write=PNG)
    assert [target for _, target in names(made)] == ["a.jpg_x4.png", "a.png_x4.png"]


def test_the_folders_of_the_inputs_tell_them_apart(here: Path) -> None:
    picture(here / "x/a.png")
    picture(here / "y/a.png")
    made = planned(["x", "y"], "out/")
    assert [target for _, target in names(made)] == ["out/x_a.png", "out/y_a.png"]


def test_else_their_numbers_do(here: Path) -> None:
    for folder in ("x/2024", "y/2024"):
        picture(here / folder / "a.png")
    made = planned(["x/2024", "y/2024"], "out/")
    assert [target for _, target in names(made)] == ["out/a_1.png", "out/a_2.png"]


def test_another_name_takes_no_third_ones(here: Path) -> None:
    for name in ("a.jpg", "a.png", "a.jpg.png"):
        picture(here / "in" / name)
    made = planned(["in"], "out/", write=PNG)
    targets = [target for _, target in names(made)]
    assert len(set(targets)) == 3
    assert "out/a.jpg.png" in targets  # of the picture that is called so


def test_the_same_pictures_have_the_same_names_again(here: Path) -> None:
    for name in ("a.jpg", "a.png"):
        picture(here / "in" / name)
    assert names(planned(["in"], "out/", write=PNG)) == names(planned(["in/a.jpg", "in/a.png"], "out/", write=PNG))


def test_too_many_inputs_for_one_file_one_of_which_does_not_exist(here: Path) -> None:
    """As in `-n photo`, which is the model in another program."""
    picture(here / "a.png")
    picture(here / "b.png")
    with pytest.raises(SettingsError, match=r"there are 2 inputs \(and photo does not exist\): give a folder"):
        planned(["a.png", "photo"], "out.png")
    with pytest.raises(SettingsError, match="there are 2 inputs: give a folder"):
        planned(["a.png", "b.png"], "out.png")


def test_a_picture_that_is_named_in_several_ways_is_made_once(here: Path) -> None:
    picture(here / "a.png")
    (here / "sub").mkdir()
    (here / "link.png").symlink_to("a.png")  # a name, and so a result, of its own
    made = planned(["a.png", "./a.png", "sub/../a.png", here / "a.png", ".", "link.png"], "out/")
    assert names(made) == [("a.png", "out/a.png"), ("link.png", "out/link.png")]


def test_the_name_of_a_folder_makes_no_result_hidden(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "two", "two/deep", ".old"):
        picture(here / folder / "a.png")
    monkeypatch.chdir(here / "two/deep")
    made = planned(["../../one/a.png", "../a.png", "a.png", "../../.old/a.png"], "out/")
    assert [target for _, target in names(made)] == [f"out/{name}_a.png" for name in ("one", "two", "deep", "old")]
