"""The shared options that choose an engine: processes of this host, or a Spark cluster."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from lakewriter.engines.engine import Engine
from lakewriter.errors import UsageError


class EngineOptions(NamedTuple):
    """The raw values of the options that choose an engine."""

    engine: str
    master: str | None
    spark_conf: tuple[str, ...]
    jobs: int | None

    def open_workers(self, command: str) -> Engine | None:
        """Return the engine, which the caller enters; None for work in this process alone.

        Raises:
            UsageError, LakewriterError: as `chosen`.
        """
        in_process = self.engine == "local" and self.jobs in (None, 1)
        engine = self.chosen(command)  # also checks the options
        return None if in_process else engine

    def chosen(self, command: str) -> Engine:
        """Return the engine, which the caller enters.

        Args:
            command: the command's name, for errors.

        Raises:
            UsageError: if the options do not fit together.
            LakewriterError: if Spark is absent, or not reachable.
        """
        if self.engine == "local":
            for option, value in (("--master", self.master), ("--spark-conf", self.spark_conf)):
                if value:
                    raise UsageError(f"{option}: needs --engine spark", f"--engine spark {option} …")
            from lakewriter.engines.local import LocalEngine

            return LocalEngine(command, self.jobs)
        if not self.master:
            raise UsageError("--engine spark: needs --master", "--master spark://host:7077")
        if self.jobs is not None:
            raise UsageError("--jobs: is for --engine local", "Spark uses all cores that it has")
        options = dict(_name_and_value(text) for text in self.spark_conf)
        from lakewriter.engines.spark import SparkEngine

        return SparkEngine(command, self.master, options)


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.startswith("spark."):
        raise UsageError(f"--spark-conf: {text!r} is not NAME=VALUE", "spark.executor.memory=2g")
    return name, value


def with_engine(function: Callable[..., Any], *, jobs_default: str = "one per core") -> Callable[..., Any]:
    """Add the options that choose an engine.

    The command takes them as the keyword argument `engine_options`.

    Args:
        jobs_default: the number of processes without `--jobs`, in words.
    """

    @functools.wraps(function)
    def with_choice(
        engine: str, master: str | None, spark_conf: tuple[str, ...], jobs: int | None, **others: Any
    ) -> Any:
        return function(engine_options=EngineOptions(engine, master, spark_conf, jobs), **others)

    for option in (
        click.option(
            "--jobs", type=click.IntRange(1, 64), metavar="N", help=f"Processes.  [default: {jobs_default}]"
        ),
        click.option(
            "--spark-conf", multiple=True, metavar="NAME=VALUE", help="Configuration of Spark; repeatable."
        ),
        click.option(
            "--master", metavar="URL", help="Spark's master: spark://…, local[…], yarn, k8s://… or sc://…"
        ),
        click.option(
            "--engine",
            type=click.Choice(("local", "spark")),
            default="local",
            show_default=True,
            help="Where the work runs: processes of this host, or a Spark cluster.",
        ),
    ):
        option(with_choice)
    return with_choice
