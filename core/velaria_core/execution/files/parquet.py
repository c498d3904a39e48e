"""Parquet: the engine reads it, statistics and all; we say which files, and what is wrong with them."""

from __future__ import annotations

from velaria_core.errors import DataError, Place
from velaria_core.execution.duck import Engine
from velaria_core.execution.files import scan
from velaria_core.execution.files.options import ParquetOptions
from velaria_core.execution.files.paths import File, engine_list

MAGIC = b"PAR1"


def plan(engine: Engine, files: tuple[File, ...], options: ParquetOptions) -> scan.Plan:
    """How to read Parquet files of one schema, or by name of several.

    Raises:
        DataError[file.invalid]: a file does not begin and end as Parquet does.
        DataError[file.mixed_schemas]: the files have other columns and `union_by_name` was not asked for.
    """
    for file in files:
        check(file)
    call = f"read_parquet({engine_list([file.path for file in files])}"
    if options.union_by_name:
        call += ", union_by_name=true"
    if options.hive_partitioning is not None:
        call += f", hive_partitioning={str(options.hive_partitioning).lower()}"
    if len(files) > 1 and not options.union_by_name:
        same_schema(engine, files)
    return scan.Plan("parquet", files, call + ")")


def check(file: File) -> None:
    """Raise for a file that is no whole Parquet file. Reads 8 bytes."""
    with open(file.path, "rb") as stream:
        first = stream.read(4)
        stream.seek(max(file.size - 4, 0))
        last = stream.read(4)
    if first == MAGIC and last == MAGIC and file.size >= 12:
        return
    why = "is empty" if not file.size else "is cut off" if first == MAGIC else "is not Parquet"
    raise DataError(
        "file.empty" if not file.size else "file.truncated" if first == MAGIC else "file.invalid",
        f'"{file.path}" {why}',
        hint="fetch or write it again" if first == MAGIC or not file.size else "read finds the format of a file",
        place=Place(file=file.path),
    )


def same_schema(engine: Engine, files: tuple[File, ...]) -> None:
    """Raise for a file whose columns are not those of the first, by name. 0.3 ms a file."""
    with engine.cursor() as cursor:
        expected = cursor.schema(f"SELECT * FROM read_parquet({engine_list([files[0].path])}, hive_partitioning=false)")
        for file in files[1:]:
            found = cursor.schema(f"SELECT * FROM read_parquet({engine_list([file.path])}, hive_partitioning=false)")
            names, wanted = [name.lower() for name in found.names], [name.lower() for name in expected.names]
            if missing := [name for name in expected.names if name.lower() not in names]:
                problem = f"lacks {', '.join(missing)}"
            elif more := [name for name in found.names if name.lower() not in wanted]:
                problem = f"adds {', '.join(more)}"
            else:
                continue
            raise DataError(
                "file.mixed_schemas",
                f'"{file.path}" has other columns than "{files[0].path}": it {problem}',
                hint="union_by_name=True joins them by name, with NULL for what is missing",
                place=Place(file=file.path),
            )
