"""The data source `lakewriter` of Spark: `spark.read.format("lakewriter").load("s3://bucket/lake")`.

Spark finds this package by its name, and imports it at the first use of any Python data
source. So it imports nothing but Spark until a lake is read. `lakewriter.query.spark_source`
has the options, the tasks and the rows.

Filters are not pushed down: Spark 4.2 and 4.3 keep a scan with pushed filters for later
queries of the same DataFrame, which then lack rows. The selection is made by options.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition


class DefaultSource(DataSource):
    """A lake on a disk that all executors see, or on an object store."""

    def __init__(self, options: dict[str, str]) -> None:
        from lakewriter.clock import present_ms  # noqa: PLC0415 - see above
        from lakewriter.query.spark_source.request import parse_options  # noqa: PLC0415

        super().__init__(options)
        self._request = parse_options(options, present_ms())

    @classmethod
    def name(cls) -> str:
        """Return the name of the format."""
        return "lakewriter"

    def schema(self) -> str:
        """Return the chosen columns and their types, as Spark's DDL."""
        return self._request.ddl

    def reader(self, schema: Any) -> "LakeReader":
        """Return the reader of the chosen rows.

        Raises:
            UsageError: if the caller gave a schema with other columns.
        """
        self._request.check_columns(schema.fieldNames())
        return LakeReader(self._request)


class LakeReader(DataSourceReader):
    """The reader of one DataFrame, which Spark sends to each task.

    Args:
        request: a `SparkRequest`.
    """

    def __init__(self, request: Any) -> None:
        self._request = request

    def partitions(self) -> Sequence[InputPartition]:
        """List the files once, and return a slice of them for each task."""
        from lakewriter.query.spark_source.slices import plan_slices  # noqa: PLC0415 - see above

        return [InputPartition(each) for each in plan_slices(self._request)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a slice."""
        from lakewriter.query.spark_source.rows import read_slice  # noqa: PLC0415 - see above

        return read_slice(self._request, partition.value)
