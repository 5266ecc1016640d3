"""One Spark session for all tests of a process: two threads of this machine, or two executors."""

import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.lengths import either

REASON = "needs Java and the extra `spark`"

# Two executors take three Java processes.
MASTER = either("local[2]", "local-cluster[2,1,1024]")


def spark_is_absent() -> bool:
    """Return whether pyspark or Java is absent."""
    return importlib.util.find_spec("pyspark") is None or shutil.which("java") is None


needs_spark = pytest.mark.skipif(spark_is_absent(), reason=REASON)


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A session whose Python workers are this interpreter. Warnings of Spark are ignored."""
    if spark_is_absent():
        pytest.skip(REASON)
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = (
            SparkSession.builder.master(MASTER)
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "2")
            .getOrCreate()
        )
    session.sparkContext.setLogLevel("OFF")
    application = session.sparkContext.applicationId
    yield session
    session.stop()
    _remove_work(application)


def _remove_work(application: str) -> None:
    """Remove what the workers of a local cluster leave in Spark's home."""
    import pyspark

    shutil.rmtree(Path(pyspark.__file__).parent / "work" / application, ignore_errors=True)
