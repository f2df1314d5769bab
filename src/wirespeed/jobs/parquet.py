"""Records as a Parquet file. Needs pyarrow; imported when it is written.

Columns are those of records, with `id` as text (JSON where it is no string), `error` as two columns, and
bodies in `body` where they are text, else in `body_bytes`.
"""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import JobError
from .records import body_of, decode
from .summary import Summary

GROUP_ROWS = 10_000
GROUP_SIZE = 32 * 2**20
"""Rows, and bytes of records, of a row group: what is in memory at once."""
_COUNTED = ["line", "status", "attempts", "elapsed", "size", "error_type", "error_message"]


def _schema(arrow: Any) -> Any:
    text = arrow.string()
    return arrow.schema(
        [
            ("line", arrow.int64()),
            ("id", text),
            ("method", text),
            ("url", text),
            ("status", arrow.int32()),
            ("attempts", arrow.int32()),
            ("elapsed", arrow.float64()),
            ("size", arrow.int64()),
            ("error_type", text),
            ("error_message", text),
            ("final_url", text),
            # Pairs: a name may come more than once.
            ("headers", arrow.list_(arrow.struct([("name", text), ("value", text)]))),
            ("body", text),
            ("body_bytes", arrow.binary()),
        ]
    )


def write(path: Path, records: Iterator[bytes]) -> None:
    """Write records to a file.

    Args:
        path: of the file; made anew.
        records: as they are in parts.

    Raises:
        OSError: it could not be written.
    """
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    schema = _schema(arrow)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        size = 0
        for raw in records:
            rows.append(_row(raw))
            size += len(raw)
            if len(rows) >= GROUP_ROWS or size >= GROUP_SIZE:
                writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
                rows.clear()
                size = 0
        if rows:
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def _row(raw: bytes) -> dict[str, Any]:
    record = decode(raw)
    assert record is not None, "parts have been recovered"
    error = record.get("error") or {}
    given = record.get("id")
    row = {
        "line": record["line"],
        "id": given if given is None or isinstance(given, str) else json.dumps(given),
        "method": record["method"],
        "url": record["url"],
        "status": record["status"],
        "attempts": record["attempts"],
        "elapsed": record["elapsed"],
        "size": record["size"],
        "error_type": error.get("type"),
        "error_message": error.get("message"),
        "final_url": record.get("final_url"),
        "headers": [
            {"name": _plain(name), "value": _plain(value)} for name, value in _pairs(record["headers"])
        ],
    }
    row = {name: _plain(value) if isinstance(value, str) else value for name, value in row.items()}
    body = record.get("body")
    if body is not None and _plain(body) == body:
        row["body"] = body
    else:
        row["body_bytes"] = body_of(record)
    return row


def _pairs(headers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        for each in value if isinstance(value, list) else [value]:
            yield name, each


def _plain(text: str) -> str:
    """Text that has a UTF-8: a lone surrogate becomes an escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def recover(path: Path, summary: Summary) -> None:
    """Count what is in such a file.

    Raises:
        JobError: it is none.
    """
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(GROUP_ROWS, columns=_COUNTED):
                for row in batch.to_pylist():
                    kind, message = row.pop("error_type"), row.pop("error_message")
                    if kind is not None:
                        row["error"] = {"type": kind, "message": message}
                    summary.note_record(row)
    except (arrow.ArrowException, KeyError) as exc:
        raise JobError(f"{path} is not the output of a job: {exc}") from exc
