"""One Spark session for all tests of a process, on two threads of this machine."""

import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

REASON = "needs Java and the extra `spark`"


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A session whose Python workers are this interpreter. Warnings of Spark are ignored."""
    if importlib.util.find_spec("pyspark") is None or shutil.which("java") is None:
        pytest.skip(REASON)
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = (
            SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "2")
            .getOrCreate()
        )
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()
