"""The provenance record: written beside everything else, found again, and never trusted too much."""

from __future__ import annotations

import time
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PIL import Image as Pillow

from srgan_cli.errors import shown
from srgan_cli.imaging.image import Metadata
from srgan_cli.imaging.metadata import provenance
from srgan_cli.imaging.metadata.provenance import Record, added, read
from tests.imaging import samples

RECORD = Record("srgan 1.0", 'a "model" <&>', "ab" * 8, "4", "key", "name", "30x40", "digest")
OTHER = Record("srgan 2.0", "other", "cd" * 8, "2", "key2", "name2", "3x4", "digest2")
UTF16 = samples.XMP.decode().encode("utf-16")


@pytest.mark.parametrize("xmp", [None, samples.XMP, UTF16])
@pytest.mark.parametrize("exif", [None, samples.exif("<"), samples.exif(">")])
def test_a_record_is_read_again_and_replaced(xmp: bytes | None, exif: bytes | None) -> None:
    once = added(Metadata(xmp=xmp, exif=exif), RECORD)
    assert read(once) == RECORD
    twice = added(once, OTHER)
    assert read(twice) == OTHER
    packet = (twice.xmp or b"").decode("utf-16" if xmp == UTF16 else "utf-8")
    assert packet == ((added(Metadata(xmp=xmp), OTHER).xmp) or b"").decode("utf-16" if xmp == UTF16 else "utf-8")
    assert packet.count("srgan:Settings") == 1
    assert packet.count(provenance.NAMESPACE) == 1


@pytest.mark.parametrize("model", ["m" * 198 + "&&&&", '"' * 300, "not UTF-8: \udcff", "a bell \a", "\ud800"])
def test_any_name_of_a_model_leaves_the_packet_well_formed(model: str) -> None:
    made = added(Metadata(), replace(RECORD, model=model))
    ElementTree.fromstring((made.xmp or b"").decode())
    assert (read(made) or RECORD).model == shown(model)[:200]


def test_nothing_else_of_the_packet_changes() -> None:
    packet = added(Metadata(xmp=samples.XMP), RECORD).xmp or b""
    start, end = samples.XMP.split(b"</rdf:RDF>")
    assert packet.startswith(start)
    assert packet.endswith(b"</rdf:RDF>" + end)


@pytest.mark.parametrize("order", ["<", ">"])
def test_software_is_set_and_no_byte_of_the_block_moves(order: str) -> None:
    before = samples.exif(order)
    block = added(Metadata(exif=before), RECORD).exif or b""
    assert block[8 : len(before)] == before[8:]
    found = Pillow.Exif()
    found.load(block)
    assert found[0x0131] == "srgan 1.0"
    assert found[0x010F] == "Tester"
    assert found.get_ifd(0x8769)[0x927C] == samples.MAKER_NOTE
    assert found.get_ifd(0x8825)[1] == "N"
    again = added(Metadata(exif=block), RECORD).exif
    assert again == block, "the same word is not written twice"


def test_blocks_that_make_no_sense_are_left_as_they_are() -> None:
    for exif in (b"II", b"garbage" * 9, b"II*\0\xff\xff\xff\xff", b"MM\0+" + bytes(20)):
        assert added(Metadata(exif=exif), RECORD).exif == exif
    for xmp in (b"\xff\xfe\0", b"<no rdf/>", b"\x80"):
        assert added(Metadata(xmp=xmp), RECORD).xmp == xmp


def test_a_block_stays_as_it_is_rather_than_outgrow_a_segment() -> None:
    xmp = samples.XMP.replace(b"AAAA", b"A" * (64_900 - len(samples.XMP)))
    assert added(Metadata(xmp=xmp), RECORD).xmp == xmp


@pytest.mark.parametrize("form", ["attributes", "elements", "another prefix"])
def test_a_record_that_another_program_has_rewritten_is_found(form: str) -> None:
    packet = (added(Metadata(xmp=samples.XMP), OTHER).xmp or b"").decode()
    if form == "another prefix":
        packet = (
            packet.replace("srgan:", "ns1:").replace("xmlns:srgan=", "xmlns:ns1 = ").replace("urn:ns1:", "urn:srgan:")
        )
    if form == "elements":
        for name in provenance._NAMES:
            start = packet.index(f"srgan:{name}=")
            end = packet.index('"', packet.index('"', start) + 1) + 1
            value = packet[start:end].partition("=")[2].strip('"')
            packet = packet[:start] + packet[end:]
            packet = packet.replace("</rdf:Description></rdf:RDF>", "").replace(
                "</rdf:RDF>", f"<srgan:{name}>{value}</srgan:{name}></rdf:RDF>"
            )
    metadata = Metadata(xmp=packet.encode())
    assert read(metadata) == OTHER
    assert read(added(metadata, RECORD)) == RECORD


def test_a_hostile_packet_takes_no_time() -> None:
    head = f'<x xmlns:srgan="{provenance.NAMESPACE}">'
    for part in ("srgan:Program", "<srgan:Program>", 'srgan:Program="', "srgan:Program = ", "<srgan:Program" + " " * 50,
                 f'xmlns:srgan="{provenance.NAMESPACE}"', "</rdf:RDF>"):  # fmt: skip
        metadata = Metadata(xmp=(head + part * (500_000 // len(part))).encode())
        began = time.thread_time()
        assert read(metadata) is None
        added(metadata, RECORD)
        assert time.thread_time() - began < 2.0
    assert read(Metadata(xmp=(head + 'srgan:Program="' + "a" * 300 + '"').encode())) is None
