#!/usr/bin/env python3
"""Adds up the parts of ./dev test and prints "N passed, N failed, N skipped" as the last line.

summary.py FOLDER: FOLDER/NAME.status holds the exit status of part NAME (77: skipped, then a line
that says why), FOLDER/NAME/*.xml its JUnit reports. A part without reports counts as one test. A
part that ended badly without reporting a failed test counts as one failed test. Exit status 1 where
one failed.
"""

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

SKIPPED = 77


def outcome(case: ET.Element) -> tuple[str, str]:
    """("passed" | "failed" | "skipped", why) of a test case of GoogleTest, ctest or pytest."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed", ""
    skip = case.find("skipped")
    if skip is not None or case.get("status") in ("notrun", "disabled"):
        message = skip.get("message", "") if skip is not None else ""
        # GoogleTest puts file:line on the first line of its messages and the text after it.
        return "skipped", message.strip().splitlines()[-1].removeprefix(
            "skipped: "
        ) if message.strip() else "disabled"
    return "passed", ""


def full_name(case: ET.Element) -> str:
    suite, name = case.get("classname", ""), case.get("name", "")
    return name if suite in ("", name) else f"{suite}.{name}"


def read(report: Path) -> list[tuple[str, str, str]]:
    """(name, outcome, why) of every case. A report that cannot be read is one failed case."""
    try:
        cases = list(ET.parse(report).iter("testcase"))
    except ET.ParseError as error:
        return [(f"{report.name}: {error}", "failed", "")]
    return [(full_name(case), *outcome(case)) for case in cases]


def expand(reports: dict[str, list], program: str) -> list:
    """Cases of all reports; where a shard of GoogleTest reports itself, ctest's line gives way.

    ctest calls shard 1 "ingot_tests.1" and the shard writes ingot_tests.1.xml. Where ctest saw a
    failure that the shard did not report (a crash, a time limit), ctest's line stays.
    """
    cases = []
    for name, result, why in reports.pop(program, []):
        shard = reports.get(name)
        shard_failed = shard is not None and any(r == "failed" for _, r, _ in shard)
        if shard is None or (result == "failed" and not shard_failed):
            cases.append((name, result, why))
    return cases + [case for report in reports.values() for case in report]


def part(folder: Path, name: str) -> list[tuple[str, str, str]]:
    status, _, why = (folder / f"{name}.status").read_text().partition("\n")
    reports = {path.stem: read(path) for path in sorted((folder / name).glob("*.xml"))}
    cases = expand(reports, "ctest")
    if int(status) == SKIPPED:
        return [*cases, (name, "skipped", why.strip())]
    if int(status) != 0 and not any(result == "failed" for _, result, _ in cases):
        return [*cases, (f"{name}: ended with status {status}", "failed", "")]
    return cases or [(name, "passed", "")]


def main(folder: Path) -> int:
    total, reasons = Counter(), Counter()
    for status in sorted(folder.glob("*.status"), key=lambda p: p.stat().st_mtime_ns):
        cases = part(folder, status.stem)
        counts = Counter(result for _, result, _ in cases)
        total += counts
        reasons.update(why for _, result, why in cases if result == "skipped")
        line = ", ".join(f"{counts[r]} {r}" for r in ("passed", "failed", "skipped") if counts[r])
        print(f"  {status.stem:<20} {line}")
        for name, result, _ in cases:
            if result == "failed":
                print(f"    failed: {name}")
    for why, count in reasons.items():
        print(f"  skipped {count}: {why}")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
