"""`POST /v1/upscale`: the picture, its options, and what is refused."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli import Size, UpscaleOptions, WriteOptions, upscale_file
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import save_weights
from srgan_cli.serving.server import HttpServer
from srgan_cli.serving.settings import ServeOptions
from tests.fuzz.corpus import all_seeds
from tests.fuzz.running import case
from tests.networks.test_noise import noisy
from tests.serving.servers import ask, form, gauge, get, png, post, running

CAT = Path(__file__).parents[2] / "examples" / "cat.jpg"


def test_a_picture_comes_back_as_the_library_makes_it(server: HttpServer, options: ServeOptions) -> None:
    answer = post(server, "/v1/upscale?scale=2&format=webp&lossless=true&strip=all", CAT.read_bytes())
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "image/webp"
    assert answer.headers["X-Srgan-Size"] == "676x450"
    assert answer.headers["X-Srgan-Model"] == "tiny"  # the server's own: its name, not where its file is
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    write = WriteOptions(format="webp", lossless=True, strip="all")
    asked = UpscaleOptions(model=options.model, size=Size(scale=2), write=write, engine=options.engine)
    expected = upscale_file(CAT.read_bytes(), None, asked)
    made, wanted = (np.asarray(Pillow.open(io.BytesIO(data))) for data in (answer.body, expected))
    assert np.array_equal(made, wanted)


def test_a_form_has_options_as_fields_and_the_name_of_its_file(server: HttpServer) -> None:
    body, kind = form(("picture", "Käse 1.png", png()), ("long-side", None, b"24"), ("format", None, b"jpeg"))
    answer = post(server, "/v1/upscale", body, Content_Type=kind)
    assert answer.status == 200, answer.body
    assert answer.size == (24, 18)
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert "filename*=UTF-8''K%C3%A4se%201_large.jpg" in answer.headers["Content-Disposition"]


def test_a_name_can_do_no_harm(server: HttpServer) -> None:
    body, kind = form(("picture", "../../etc/pass\r\nX: y\x00wd.png", png()))
    answer = post(server, "/v1/upscale", body, Content_Type=kind)
    assert answer.status in (200, 400)
    named = post(server, "/v1/upscale?name=..%2F..%2Fa%0D%0AX-Evil:1.png", png())
    assert named.status == 200
    assert "X-Evil" not in named.headers
    assert "/" not in named.headers["Content-Disposition"]


def test_grain_seed_and_variation_are_those_of_the_command(options: ServeOptions, tmp_path: Path) -> None:
    save_weights(tmp_path / "noisy.safetensors", noisy(), Card("noisy", "noisy"))
    flat = io.BytesIO()
    Pillow.new("RGB", (24, 24), (120, 110, 100)).save(flat, "PNG")
    with running(replace(options, model=str(tmp_path / "noisy.safetensors"))) as drawing:

        def made(query: str) -> np.ndarray[Any, Any]:
            answer = post(drawing, f"/v1/upscale?scale=2&format=png&{query}", flat.getvalue())
            assert answer.status == 200, answer.body
            return np.asarray(Pillow.open(io.BytesIO(answer.body))).astype(float)

        off = made("variation=0")
        assert np.abs(made("variation=0.5") - off).mean() < np.abs(made("variation=1") - off).mean()
        assert np.array_equal(made("seed=0"), made(""))
        assert (made("seed=1") != made("seed=2")).mean() > 0.2
        grain = made("variation=0&grain=0.5&seed=1") - off
        assert 2 < grain.std() < 12
        assert (grain != made("variation=0&grain=0.5&seed=2") - off).mean() > 0.2
        assert np.array_equal(made("variation=0&grain=auto"), off)
        assert " data-noise" in get(drawing, "/").body.decode()
        assert post(drawing, "/v1/upscale?grain=much", flat.getvalue()).detail.startswith(
            "Invalid value for 'grain': 'much' is"
        )


def test_a_model_without_noise_says_so(server: HttpServer) -> None:
    answer = post(server, "/v1/upscale?variation=0.5", png())
    assert answer.status == 400
    assert "variation needs a model that draws its detail from noise" in answer.detail
    assert get(server, "/").body.decode().count(" data-noise") == 1
    models = get(server, "/v1/models").json["models"]
    assert {model["name"] for model in models if model["has_noise"]} == {"srgan-noise-x4"}


def test_switches_and_colours(server: HttpServer) -> None:
    file = io.BytesIO()
    Pillow.new("RGBA", (8, 8), (0, 0, 0, 0)).save(file, "PNG")
    answer = post(server, "/v1/upscale?format=jpeg&background=%23ff0000&color_lock=false", file.getvalue())
    assert answer.status == 200, answer.body
    red = np.asarray(Pillow.open(io.BytesIO(answer.body)))[16, 16]
    assert red[0] > 240
    assert red[1:].max() < 15
    assert json.loads(answer.headers["X-Srgan-Notes"]) is not None


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("scale=99", 400, "scale must be above 1 and at most 16"),
        ("scale=2&width=100", 400, "give only one of scale, width"),
        ("scale=two", 400, "'two' is not a number"),
        ("scale=2&scale=3", 400, "scale is given twice"),
        ("lossless=perhaps", 400, "lossless must be true or false"),
        ("output=/etc/passwd", 400, "unknown option output"),
        ("device=cuda", 400, "unknown option device"),
        ("model=/etc/passwd", 400, "there is no model called '/etc/passwd' here"),
        ("model=../weights/fast-x4.safetensors", 400, "there is no model called"),
        ("format=heic", 400, "format heic"),
        ("width=5", 400, "srgan only enlarges"),
        ("long_side=5&only_enlarge=true", 400, "large enough already"),
    ],
)
def test_what_makes_no_sense(server: HttpServer, query: str, status: int, words: str) -> None:
    answer = post(server, f"/v1/upscale?{query}", png())
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.body
    assert words in answer.detail


def test_pages_and_frames(server: HttpServer) -> None:
    file = io.BytesIO()
    frames = [Pillow.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    all_pages = post(server, "/v1/upscale?scale=2", file.getvalue())
    one = post(server, "/v1/upscale?scale=2&page=2&format=png", file.getvalue())
    assert all_pages.headers["Content-Type"] == "image/tiff"
    assert getattr(Pillow.open(io.BytesIO(all_pages.body)), "n_frames", 1) == 3
    assert one.size == (16, 16)


def test_large_pictures_may_be_given_back(server: HttpServer) -> None:
    answer = post(server, "/v1/upscale?long_side=5&only_enlarge=true&copy_large=copy", png())
    assert (answer.status, answer.body) == (200, png())


def test_broken_forms(server: HttpServer) -> None:
    body, kind = form(("picture", "a.png", png()))
    cases: list[tuple[bytes, str]] = [
        (body[:-30], kind),
        (b"nonsense", kind),
        (body, "multipart/form-data"),
        (form(("scale", None, b"2"))[0], kind),
        (form(("picture", "a.png", png()), ("picture", "b.png", png()))[0], kind),
        (form(("scale", None, b"2" * 10_000), ("picture", "a.png", png()))[0], kind),
        (form(*[(f"a{i}", None, b"2") for i in range(100)], ("picture", "a.png", png()))[0], kind),
        (b"", "image/png"),
    ]
    for broken, called in cases:
        assert post(server, "/v1/upscale", broken, Content_Type=called).status == 400
    assert post(server, "/v1/upscale", body, Content_Type=kind).status == 200


def test_hostile_uploads_are_answered_and_nothing_stays(server: HttpServer) -> None:
    """Sound and broken files of every format, documents too: each gets an answer, never a server error."""
    statuses = []
    sound = [seed.data for seed in all_seeds()[::4]]
    cut = [data[: len(data) // 2] for data in sound[::2]]
    for data in (*sound, *cut, *(case(5, number).data for number in range(20))):
        for wanted in ("png", "tiff") if data[:4] in (b"PK\3\4", b"%PDF") else ("png",):
            answer = post(server, f"/v1/upscale?scale=2&format={wanted}", data)
            assert answer.status in (200, 400, 413, 422), (data[:60], answer.body)
            assert b"defect" not in answer.body[:2000]
            statuses.append(answer.status)
    assert {200, 422} <= set(statuses)
    assert get(server, "/healthz").status == 200
    assert gauge(server, "srgan_held_bytes") == 0


@pytest.fixture(scope="module")
def strict(options: ServeOptions) -> Iterator[HttpServer]:
    limits = replace(options, max_bytes=20_000, max_pixels=2_000, max_result_pixels=20_000, held_bytes=20_000)
    with running(limits) as started:
        yield started


def test_limits_on_bytes_and_pixels(strict: HttpServer) -> None:
    assert post(strict, "/v1/upscale", png()).status == 200
    cases: list[tuple[bytes, str, str]] = [
        (png(100, 100), "", "larger than the 0.02 MB"),
        (png(50, 50), "", "50x50 px, and this server takes at most 0.002 million px"),
        (png(), "?scale=16", "at most 0.02 million px"),
    ]
    for body, query, words in cases:
        answer = post(strict, f"/v1/upscale{query}", body)
        assert (answer.status, words in answer.detail) == (413, True), answer.body
    asked = post(strict, "/v1/upscale?max_pixels=1000000", png(50, 50))
    assert asked.status != 200, "a client cannot lift the limit"


def test_a_body_without_a_length_is_bounded_too(strict: HttpServer) -> None:
    chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
    answer = ask(strict, "POST", "/v1/upscale", chunk * 10 + b"0\r\n\r\n", {"Transfer-Encoding": "chunked"})
    assert answer.status == 413


def test_what_is_not_there(server: HttpServer) -> None:
    for path, status in (("/v1/nothing", 404), ("/../etc/passwd", 404), ("/v1/jobs/guess/result", 404)):
        assert get(server, path).status == status
    assert get(server, "/v1/upscale").status == 405


def test_openapi_and_models_describe_what_there_is(server: HttpServer) -> None:
    described = get(server, "/v1/openapi.json").json
    operation = described["paths"]["/v1/upscale"]["post"]
    parameters = {one["name"]: one for one in operation["parameters"]}
    assert {"scale", "long_side", "format", "quality", "strip", "tile_size", "print", "timeout"} <= parameters.keys()
    assert parameters["scale"]["schema"] == {"type": "number"}
    assert parameters["bit_depth"]["schema"]["enum"] == ["keep", "8", "16"]
    assert parameters["lossless"]["schema"] == {"type": "boolean"}
    assert not [one for one in parameters.values() if "--" in one["description"]]
    referred = json.dumps(described).split('"#/components/schemas/')[1:]
    assert {text.split('"')[0] for text in referred} <= described["components"]["schemas"].keys()
    for path in described["paths"]:
        status = get(server, path.replace("{id}", "x")).status
        assert status in (200, 404, 405), path
    names = {model["name"] for model in get(server, "/v1/models").json["models"]}
    assert {"srgan-x4", "photo-x2"} <= names


def test_metrics_count(server: HttpServer) -> None:
    before = get(server, "/metrics").body.decode()
    assert post(server, "/v1/upscale", png()).status == 200
    after = get(server, "/metrics").body.decode()
    name = 'srgan_pictures_total{outcome="done"} '

    def count(text: str) -> float:
        return float((text.split(name)[1:] or ["0"])[0].split("\n")[0])

    assert count(after) == count(before) + 1
    assert 'srgan_requests_total{route="/v1/upscale",status="200"}' in after
    for line in after.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2


def test_the_page_describes_its_models_without_options_of_the_command(server: HttpServer) -> None:
    offered = dict(re.findall(r'<option value="([a-z-]+)"[^>]* data-about="([^"]+)"', get(server, "/").body.decode()))
    assert {"auto", "fast", "fidelity", "photo", "srgan", "srgan-noise"} <= set(offered)
    for about in offered.values():
        assert not re.search(r"--\w|[24] times", about), about
