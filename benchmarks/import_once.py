"""One import of zips by the clone on PYTHONPATH; `history.py --beside` runs it for two clones in turns.

    PYTHONPATH=CLONE python benchmarks/import_once.py ZIPS LAKE [--without-deflate]

It prints the seconds of the wall and of the processor, the rows and the bytes, as JSON. The
first file is imported twice: imports of modules and threads do not count.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zips", type=Path)
    parser.add_argument("lake", type=Path)
    parser.add_argument("--without-deflate", action="store_true")
    options = parser.parse_args()
    if options.without_deflate:
        sys.modules["deflate"] = None  # type: ignore[assignment]

    from lakewriter.evidence.claims import ImportOptions
    from lakewriter.importer.import_files import ImportJob, find_files, import_files
    from lakewriter.lake.lake import LakeStore
    from lakewriter.without_pandas import without_pandas

    job = ImportJob(ImportOptions(market="spot"), time.time_ns() // 10**6)
    files = list(find_files([options.zips]))
    with without_pandas():
        list(import_files(LakeStore.create(f"{options.lake}-first", "benchmark"), files[:1], job))
        store = LakeStore.create(str(options.lake), "benchmark")
        before, start_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        done = list(import_files(store, files, job))
        wall_s, after = time.perf_counter() - start_s, resource.getrusage(resource.RUSAGE_SELF)
    assert not [each.error for each in done if each.error]
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    written = sum(path.stat().st_size for path in options.lake.rglob("*.parquet"))
    print(json.dumps([wall_s, cpu_s, sum(each.rows for each in done), written]))


if __name__ == "__main__":
    main()
