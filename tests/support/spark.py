"""A Spark session on loopback for tests: two executors of one core, one session for the suite.

Tests that need it are skipped where pyspark or Java is absent.
"""

import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

REASON = "needs Spark: Java 17, and pip install 'lakewriter[spark]'"


def spark_is_absent() -> bool:
    """Return whether pyspark or Java is absent."""
    import importlib.util

    return importlib.util.find_spec("pyspark") is None or shutil.which("java") is None


needs_spark = pytest.mark.skipif(spark_is_absent(), reason=REASON)


@pytest.fixture(scope="session")
def spark_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A master whose session is open in this process, so that each command need not start its own."""
    if spark_is_absent():
        pytest.skip(REASON)
    master = "local-cluster[2,1,1024]"
    work = tmp_path_factory.mktemp("spark")
    variables = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyspark import SparkConf, SparkContext
        from pyspark.java_gateway import launch_gateway

        conf = SparkConf(loadDefaults=False).setMaster(master).setAppName("tests")
        for name, value in (
            ("spark.ui.enabled", "false"),
            ("spark.sql.warehouse.dir", str(work / "warehouse")),
        ):
            conf.set(name, value)
        with (work / "spark.log").open("wb") as log:
            gateway = launch_gateway(conf, {"stdout": log, "stderr": log})
        context = SparkContext(conf=conf, gateway=gateway)
    application = context.applicationId
    try:
        yield master
    finally:
        context.stop()
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(30)
        SparkContext._gateway = SparkContext._jvm = None
        _remove_work(application)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _remove_work(application: str) -> None:
    """Remove what the workers of a local cluster leave in Spark's home."""
    import pyspark

    shutil.rmtree(Path(pyspark.__file__).parent / "work" / application, ignore_errors=True)
