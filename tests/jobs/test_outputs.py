"""Outputs: they can be written, they appear at once, and they hold what the parts held."""

import importlib.util
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespeed.jobs import merging, parquet
from wirespeed.jobs.bodies import suffix_of, write_body
from wirespeed.jobs.errors import JobError
from wirespeed.jobs.lines import Line
from wirespeed.jobs.merging import merged
from wirespeed.jobs.outputs import Directory, Output, Parquet, Stdout, output_of
from wirespeed.jobs.records import encode, encode_bad, number_of
from wirespeed.jobs.summary import Summary

from .samples import line, record, result

needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")


def parts_of(directory: Path, *numbers: Sequence[int]) -> list[Path]:
    made = []
    for index, part in enumerate(numbers):
        made.append(directory / f"part-{index:05d}.ndjson")
        made[-1].write_bytes(b"".join(record(number) for number in part))
    return made


def test_the_name_says_what_an_output_is(tmp_path: Path) -> None:
    assert type(output_of(tmp_path / "x.ndjson")) is Output
    assert type(output_of("x")) is Output
    assert type(output_of("x.PARQUET")) is Parquet
    assert type(output_of(tmp_path)) is Directory
    assert type(output_of("new" + os.sep)) is Directory
    assert type(output_of("-")) is Stdout
    with pytest.raises(JobError, match="no name"):
        output_of("")


def test_what_cannot_be_written_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there is no directory"):
        output_of(tmp_path / "missing" / "x").check()
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="there is no directory"):
        output_of(tmp_path / "file" / "x").check()
    with pytest.raises(JobError, match="is no directory"):
        output_of(f"{tmp_path}/file/").check()
    with pytest.raises(JobError, match="cannot make"):
        output_of(f"{tmp_path}/missing/x/").check()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="there is no such device")
def test_a_device_is_not_replaced_by_a_file() -> None:
    with pytest.raises(JobError, match="not a regular file: write to the standard output"):
        output_of("/dev/null").check()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no such directory")
def test_a_directory_that_takes_no_files_is_named() -> None:
    with pytest.raises(JobError, match="cannot write to /proc"):
        output_of("/proc/x").check()


def test_a_missing_pyarrow_is_named_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JobError, match=r"pip install 'wirespeed\[parquet\]'"):
        output_of(tmp_path / "x.parquet").check()


@pytest.mark.parametrize("can_link", [True, False])
def test_one_part_is_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_link: bool) -> None:
    if not can_link:

        def link(*names: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", link)
    parts = parts_of(tmp_path, [3, 1, 2])
    output = output_of(tmp_path / "out")
    (tmp_path / "out").write_text("of an earlier job")
    output.finish(parts)
    assert (tmp_path / "out").read_bytes() == parts[0].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "part-00000.ndjson"]


def test_one_part_that_repeats_a_line_is_the_output_without_that(tmp_path: Path) -> None:
    output_of(tmp_path / "out").finish(parts_of(tmp_path, [3, 1, 3]))
    assert (tmp_path / "out").read_bytes() == record(3) + record(1)


def test_no_part_is_an_empty_output(tmp_path: Path) -> None:
    output_of(tmp_path / "out").finish([])
    assert (tmp_path / "out").read_bytes() == b""


def test_many_parts_are_one_output_each_line_once(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, [3, 1], [2], [1, 4])
    output_of(tmp_path / "out").finish(parts)
    assert [number_of(raw) for raw in (tmp_path / "out").read_bytes().splitlines(True)] == [3, 1, 2, 4]


@given(st.lists(st.lists(st.integers(1, 60), unique=True), max_size=12))
def test_ordered_parts_are_merged_however_many(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[list[int]]
) -> None:
    directory = tmp_path_factory.mktemp("merging")
    parts = parts_of(directory, *map(sorted, numbers))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "OPEN_MAX", 3)
        found = [number_of(raw) for raw in merged(parts, ordered=True)]
    assert found == sorted({number for part in numbers for number in part})
    assert sorted(directory.iterdir()) == parts


def test_an_output_that_cannot_be_made_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").write_text("of an earlier job")

    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(JobError, match=r"cannot write .*out: No space left on device"):
        output_of(tmp_path / "out").finish(parts_of(tmp_path, [1], [2]))
    assert (tmp_path / "out").read_text() == "of an earlier job"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="there are no links")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "real")
    output_of(tmp_path / "link").finish(parts_of(tmp_path, [1]))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "real").read_bytes() == record(1)


# Directories


def test_a_directory_has_bodies_and_an_index(tmp_path: Path) -> None:
    output = output_of(f"{tmp_path}/out/")
    output.check()
    assert output.bodies is not None
    asked = line(7, id="../../etc/passwd")
    got = result(asked, 200, b"<html>", [("Content-Type", "text/html; charset=utf-8")])
    name = write_body(output.bodies, 7, got)
    assert name == "000000007.html"
    (output.bodies / ".wirespeed-body-99-1").write_text("of a process that was killed")
    part = tmp_path / "part"
    part.write_bytes(encode(asked, got, name))
    output.finish([part])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000007.html", "index.ndjson"]
    assert (tmp_path / "out" / "000000007.html").read_bytes() == b"<html>"
    assert json.loads((tmp_path / "out" / "index.ndjson").read_bytes())["body_file"] == "000000007.html"


def test_a_body_that_cannot_be_written_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space left"):
        write_body(tmp_path, 1, result(line(), 200, b"body"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content_type", "suffix"),
    [
        ("text/html", ".html"),
        ("Text/HTML; charset=x", ".html"),
        ("image/png", ".png"),
        ("application/json", ".json"),
        ("", ".bin"),
        ("../../x", ".bin"),
        ("text/../../x", ".bin"),
        ("no/such-type", ".bin"),
        ("a\0b", ".bin"),
    ],
)
def test_suffixes_are_ours_whatever_the_server_says(content_type: str, suffix: str) -> None:
    assert suffix_of(content_type) == suffix


# Parquet


@needs_pyarrow
def test_parquet_has_the_records_in_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet

    monkeypatch.setattr(parquet, "GROUP_ROWS", 2)
    one, two, three = line(1, id="a"), line(2, id=[1, "\ud800"]), line(3, "http://host/\ud800")
    part = tmp_path / "part"
    headers = [("Set-Cookie", "a"), ("set-cookie", "b"), ("Content-Type", "text/plain; charset=utf-7")]
    part.write_bytes(
        encode(one, result(one, 200, "bödy".encode(), headers[:2], elapsed=0.5, url="http://other/"))
        + encode(two, result(two, 200, b"\xff", attempts=2))
        + encode(three, result(three, 404, b"+2AA-", headers[2:]))
        + encode(line(4), result(line(4), None, error=TimeoutError("slow")))
        + encode_bad(Line(5, None, "no host"))
    )
    output_of(tmp_path / "out.parquet").finish([part])
    with pyarrow.parquet.ParquetFile(tmp_path / "out.parquet") as file:
        assert file.num_row_groups == 3
        rows = file.read().to_pylist()
    assert [row["line"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["id"] for row in rows] == ["a", '[1, "\\ud800"]', None, None, None]
    assert [row["status"] for row in rows] == [200, 200, 404, None, None]
    assert [row["body"] for row in rows] == ["bödy", None, None, "", ""]
    assert [row["body_bytes"] for row in rows] == [None, b"\xff", b"+2AA-", None, None]
    assert [row["error_type"] for row in rows] == [None, None, None, "TimeoutError", "BadLine"]
    assert [row["size"] for row in rows] == [5, 1, 5, 0, 0]
    assert rows[0]["headers"] == [{"name": "Set-Cookie", "value": "a"}, {"name": "Set-Cookie", "value": "b"}]
    assert (rows[0]["final_url"], rows[2]["url"]) == ("http://other/", "http://host/\\ud800")


@pytest.mark.parametrize("name", ["out", "out/", pytest.param("out.parquet", marks=needs_pyarrow)])
def test_an_output_knows_its_figures(tmp_path: Path, name: str) -> None:
    output = output_of(f"{tmp_path}/{name}")
    output.check()
    assert not output.is_there()
    wanted = Summary()
    part = tmp_path / "part"
    with part.open("wb") as file:
        for number in random.Random(1).sample(range(1, 100), 40):
            asked = line(number)
            got = result(asked, random.Random(number).choice([200, 404]), b"body", elapsed=number / 10)
            wanted.note(got)
            file.write(encode(asked, got))
        file.write(encode_bad(Line(100, None, "no host")))
        wanted.note_bad(100, "no host")
    output.finish([part])
    assert output.is_there()
    found = Summary()
    output.recover(found)
    assert found.as_dict() == wanted.as_dict()
    assert found.bad_lines == [(100, "no host")]


@pytest.mark.parametrize("name", ["out", pytest.param("out.parquet", marks=needs_pyarrow)])
def test_another_file_is_no_output(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a letter\n")
    with pytest.raises(JobError, match="is not the output of a job"):
        output_of(tmp_path / name).recover(Summary())
