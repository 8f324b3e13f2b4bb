"""Manifests in Parquet files, read with pyarrow batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wfvae_cli.dataset import remote
from wfvae_cli.dataset.item_lists import OPTIONAL
from wfvae_cli.errors import InputError, MissingExtraError
from wfvae_cli.unreadable import why_unreadable

_ROWS = 4096


def read_parquet(source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Read the rows of a manifest from front to back, numbered from 1.

    Columns of bytes are left out: pictures and videos within the file cannot travel as text.

    Raises:
        InputError: it cannot be read, or has no column `path`.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", f"reading {source}") from error
    try:
        opened = remote.open_remote(source) if remote.is_url(source) else source
        with parquet.ParquetFile(opened) as file:
            schema = file.schema_arrow
            if "path" not in schema.names:
                raise InputError(
                    f"{source}: expected the column path (and {OPTIONAL}), got "
                    f"{', '.join(schema.names) or 'no column'}: rename one"
                )
            names = [each.name for each in schema if not _is_bytes(each.type)]
            number = 0
            for batch in file.iter_batches(_ROWS, columns=names):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
    except FileNotFoundError as error:
        raise InputError(f"{source}: {why_unreadable(source, 'a manifest', error)}") from error
    except (OSError, pyarrow.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: cannot be read as a Parquet manifest: {error}") from error


def _is_bytes(kind: Any) -> bool:
    """Return True where a column holds bytes, by itself or within structs and lists."""
    from pyarrow import types

    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    return any(_is_bytes(kind.field(i).type) for i in range(kind.num_fields))
