"""Followers: the time from durable to seen, and their CPU, beside a recorder of many series.

    python benchmarks/follow.py --series 300 --minutes 5 --followers 3
    python benchmarks/follow.py --single 900      one candle after the other, without a recorder
    python benchmarks/follow.py --quick           few series, for seconds: whether it works

A sandbox at real speed, `lakewriter record` and so many followers run in processes of
their own. The sandbox's 1s candles of spot close all the time, and its 1m candles together.

Durable is when the recorder has synced a candle and writes its commit mark: the kernel
stamps that file. Seen is when a line of a follower has arrived here through a pipe. Both
are times of the host's clock. CPU is that of the kernel's accounts. The recorder runs the
same time without followers first.
"""

import argparse
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from lakewriter.candle import Candle
from lakewriter.follow.journal_tail import JournalTail
from lakewriter.follow.lake_watch import LakeWatch
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore

MARKET = "spot"
TICKS = os.sysconf("SC_CLK_TCK")
WARM_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=300)
    parser.add_argument("--seconds-series", type=int, default=10, help="how many of them are of 1s")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--followers", type=int, default=3)
    parser.add_argument("--single", type=int, default=0, help="commit so many candles one by one instead")
    parser.add_argument("--quick", action="store_true", help="few series, for seconds: whether it works")
    arguments = parser.parse_args()
    arguments.warm = WARM_S
    if arguments.quick:
        arguments.series, arguments.seconds_series, arguments.followers = 20, 10, 1
        arguments.minutes, arguments.warm = 0.05, 2
    if arguments.single:
        follow_single(arguments.single)
        return
    with tempfile.TemporaryDirectory(prefix="lakewriter-follow-") as directory:
        sandbox = start("sandbox", "--port", "0", "--symbols", str(arguments.series), "--push-every", "2s",
                        stdout=subprocess.PIPE)  # fmt: skip
        try:
            assert sandbox.stdout is not None
            url = sandbox.stdout.readline().decode().strip()
            subscriptions = subscribed(url, arguments.series, arguments.seconds_series)
            load = os.getloadavg()[0]
            for followers in (0, arguments.followers):
                if not arguments.quick:
                    # Whole minutes, from shortly after one begins.
                    time.sleep((65 - time.time()) % 60)
                measure(url, Path(directory) / str(followers), subscriptions, followers, arguments)
            print(f"load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")
        finally:
            stop(sandbox)


def follow_single(count: int) -> None:
    """Commit candles one by one, and print the time from the end of each commit to its line."""
    with tempfile.TemporaryDirectory(prefix="lakewriter-follow-") as directory:
        lake = Path(directory) / "lake"
        LakeStore.create(str(lake), "benchmark")
        journal = create_journal(lake, "benchmark")
        follower = start("follow", "spot:*:1m", "--lake", str(lake), stdout=subprocess.PIPE)
        assert follower.stdout is not None
        time.sleep(5)  # its start is not measured
        times = []
        for minute in range(count):
            begin_ms = 1_719_705_600_000 + minute * 60_000
            numbers = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1, 1.0, 1.0)
            candle = Candle("spot", "BTCUSDT", "1m", begin_ms, begin_ms + 60_000, *numbers, None, 0, "stream")
            journal.commit([candle])
            durable_s = time.monotonic()
            follower.stdout.readline()
            times.append(time.monotonic() - durable_s)
            time.sleep(0.01)
        stop(follower)
        journal.close()
    print_times(times)


def print_times(times: list[float]) -> None:
    times.sort()
    shares = ", ".join(f"{share:g} % within {times[int(len(times) * share / 100) - 1] * 1000:.1f} ms"
                       for share in (50, 99, 99.9))  # fmt: skip
    print(f"durable to seen, {len(times)} candles: {shares}, the last {times[-1] * 1000:.1f} ms")


def subscribed(url: str, series: int, seconds_series: int) -> list[str]:
    with urllib.request.urlopen(f"{url}/{MARKET}/api/v3/exchangeInfo") as answer:
        names = [entry["symbol"] for entry in json.load(answer)["symbols"]]
    minutes = names[: series - seconds_series]
    return [f"{MARKET}:{','.join(minutes)}:1m", f"{MARKET}:{','.join(names[:seconds_series])}:1s"]


def measure(
    url: str, directory: Path, subscriptions: list[str], followers: int, arguments: argparse.Namespace
) -> None:
    """Record so long, with so many followers, and print the CPU and the times."""
    lake = directory / "lake"
    directory.mkdir()
    recorder = start("record", *subscriptions, "--exchange", url, "--lake", str(lake), "--flush-every", "60s")
    children = []
    try:
        while not list(lake.glob("_lakewriter/journal/*/lock")):
            time.sleep(0.05)
        children = [
            start("follow", *subscriptions, "--lake", str(lake), stdout=subprocess.PIPE)
            for _ in range(followers)
        ]
        # The starts are not measured.
        time.sleep(arguments.warm)
        before = [cpu_s(child) for child in (recorder, *children)]
        times = observe(lake, children, arguments.minutes * 60)
        after = [cpu_s(child) for child in (recorder, *children)]
    finally:
        for child in (*children, recorder):
            stop(child)
    used = [f"{last - first:.2f}" for first, last in zip(before, after, strict=True)]
    print(f"{followers} followers, {arguments.minutes:g} minutes: CPU of the recorder {used[0]} s", end="")
    print(f", of each follower {', '.join(used[1:])} s" if children else "")
    if times:
        print_times(times)


def observe(lake: Path, children: list["subprocess.Popen[bytes]"], seconds: float) -> list[float]:
    """Return the seconds from durable to seen, of each candle and follower."""
    watch, tail = LakeWatch(lake), JournalTail(lake)
    tail.check_living()
    tail.read()
    marks = list(lake.glob("_lakewriter/journal/*/lock"))
    durable: dict[tuple[str, str, str], float] = {}
    seen: list[tuple[tuple[str, str, str], float]] = []
    rest = {child.stdout.fileno(): b"" for child in children if child.stdout is not None}
    with selectors.DefaultSelector() as selector:
        selector.register(watch.fileno(), selectors.EVENT_READ)
        for fd in rest:
            selector.register(fd, selectors.EVENT_READ)
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            ready = [key.fd for key, _ in selector.select(left_s)]
            now_s = time.time()
            if watch.fileno() in ready:
                watch.changes()
                durable_s = max(mark.stat().st_mtime_ns for mark in marks) / 1e9
                for candle in tail.read().candles:
                    durable.setdefault(
                        (candle.symbol, candle.interval, time_text(candle.begin_ms)), durable_s
                    )
            for fd in ready:
                if fd in rest:
                    *lines, rest[fd] = (rest[fd] + os.read(fd, 1 << 20)).split(b"\n")
                    for line in lines:
                        row = json.loads(line)
                        key = (row["symbol"], row["interval"], row["candle_begin_time"])
                        seen.append((key, now_s))
    watch.close()
    tail.close()
    return [now_s - durable[key] for key, now_s in seen if key in durable]


def time_text(time_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ms / 1000))


def start(*arguments: str, stdout: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "lakewriter", *arguments], stdout=stdout, stderr=subprocess.DEVNULL
    )


def stop(child: "subprocess.Popen[bytes]") -> None:
    child.send_signal(signal.SIGTERM)
    child.communicate()


def cpu_s(child: "subprocess.Popen[bytes]") -> float:
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
