#!/usr/bin/env python3
"""Breaks the sources in known ways, one at a time, and demands that a test turns red for each.

run.py [--scratch FOLDER] [--jobs N] [FILTER...]: works on a copy of the sources in FOLDER (default
build/mutations), builds the tests there and runs them until the first failure. FILTER: part of a
file name or of a description. A break that no test notices is printed as SURVIVED; exit status 1
if there is one, or if the tests are red without any break. A break with suite = "metal" is tried on
device metal:0, which is softmetal's, one with suite = "softcuda" on cuda:0, which is softcuda's
(both need clang++ 19); the others in the tests of the release.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TIMEOUT_S = 600  # a break may make a kernel hang, which counts as noticed


@dataclass(frozen=True)
class Suite:
    """A build of the tests, and which of them are run."""

    folder: str
    options: list[str]
    filter: str = "*"
    environment: dict[str, str] = field(default_factory=dict)  # {folder}: the build's


SUITES = {
    "release": Suite("build", []),
    "metal": Suite(
        "build-metal",
        [
            "-DCMAKE_C_COMPILER=clang-19",
            "-DCMAKE_CXX_COMPILER=clang++-19",
            "-DINGOT_METAL=softmetal",
        ],
        "Metal*:*.AgreesWithReference/metal_0_*",
        {"INGOT_TEST_QUICK": "1", "SOFTMETAL_DEVICE": "m1"},
    ),
    "softcuda": Suite(
        "build-softcuda",
        ["-DINGOT_SOFTCUDA=ON"],
        "*.AgreesWithReference/cuda_0_*",
        {
            "INGOT_TEST_QUICK": "1",
            "INGOT_CACHE_DIR": "off",
            "INGOT_LIBCUDA": "{folder}/softcuda/libsoftcuda.so",
            "INGOT_LIBNVRTC": "{folder}/softcuda/libsoftcuda_nvrtc.so",
        },
    ),
}


def copy_sources(scratch: Path) -> None:
    """Copies what the build needs, and only what differs: a second build is short."""
    wanted = set()
    folders = ["cmake", "include", "src", "tests", "tools", "fuzz", "softmetal", "softcuda"]
    for name in ["CMakeLists.txt", *folders]:
        source = ROOT / name
        files = [source] if source.is_file() else [f for f in source.rglob("*") if f.is_file()]
        wanted.update(f.relative_to(ROOT) for f in files)
    for name in wanted:
        target = scratch / name
        if target.exists() and target.read_bytes() == (ROOT / name).read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    for folder in ("src", "tests", "tools", "softmetal", "softcuda"):
        for path in (scratch / folder).rglob("*"):
            if path.is_file() and path.relative_to(scratch) not in wanted:
                path.unlink()


def build(scratch: Path, suite: Suite, jobs: int) -> bool:
    folder = scratch / suite.folder
    if not (folder / "build.ninja").exists():
        options = ["-DCMAKE_BUILD_TYPE=Release", "-DINGOT_WARNINGS_AS_ERRORS=OFF", *suite.options]
        subprocess.run(
            ["cmake", "-G", "Ninja", "-S", scratch, "-B", folder, *options],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    command = ["ninja", "-C", folder, f"-j{jobs}", "ingot_tests"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        print(result.stdout[-3000:])
    return result.returncode == 0


def first_failure(scratch: Path, suite: Suite) -> str:
    """Name of the first test that fails; "" where all pass."""
    folder = scratch / suite.folder
    program = folder / "tests/ingot_tests"
    command = [program, f"--gtest_filter={suite.filter}", "--gtest_fail_fast", "--gtest_brief=1"]
    try:
        result = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=TIMEOUT_S,
            env=os.environ | {k: v.format(folder=folder) for k, v in suite.environment.items()},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end after {TIMEOUT_S} s"
    if result.returncode == 0:
        return ""
    failed = [line for line in result.stdout.splitlines() if line.startswith("[  FAILED  ] ")]
    return failed[0].split()[3].rstrip(",") if failed else f"exit status {result.returncode}"


def suite_of(mutation: dict) -> Suite:
    return SUITES[mutation.get("suite", "release")]


def check_up_to_date(mutations: list[dict]) -> None:
    for m in mutations:
        count = (ROOT / m["file"]).read_text().count(m["old"])
        if count != 1:
            sys.exit(f"{m['file']}: must hold once, holds {count} times: {m['old']}")


def verdict_of(scratch: Path, mutation: dict, jobs: int) -> str:
    """Breaks the file, builds, tests, and mends the file."""
    path = scratch / mutation["file"]
    suite = suite_of(mutation)
    sound = path.read_text()
    path.write_text(sound.replace(mutation["old"], mutation["new"]))
    try:
        if not build(scratch, suite, jobs):
            return "DOES NOT BUILD"
        failure = first_failure(scratch, suite)
        return f"noticed by {failure}" if failure else "SURVIVED"
    finally:
        path.write_text(sound)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, default=ROOT / "build/mutations")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--check", action="store_true", help="only see that the list fits the sources"
    )
    parser.add_argument("filters", nargs="*", metavar="FILTER")
    args = parser.parse_args()
    scratch = args.scratch.resolve()

    mutations = tomllib.loads((HERE / "mutations.toml").read_text())["mutation"]
    chosen = [
        m
        for m in mutations
        if not args.filters or any(f in m["file"] + " " + m["what"] for f in args.filters)
    ]
    check_up_to_date(chosen)
    if args.check:
        return 0
    copy_sources(scratch)
    for suite in [s for s in SUITES.values() if any(suite_of(m) is s for m in chosen)]:
        if not build(scratch, suite, args.jobs):
            sys.exit(f"the sound sources do not build: {suite.folder}")
        if failure := first_failure(scratch, suite):
            sys.exit(f"the tests are red without any break: {failure}")

    noticed = 0
    for number, mutation in enumerate(chosen, 1):
        start = time.monotonic()
        verdict = verdict_of(scratch, mutation, args.jobs)
        noticed += verdict.startswith("noticed")
        seconds = time.monotonic() - start
        title = f"{number}/{len(chosen)} {mutation['file']}: {mutation['what']}"
        print(f"{title}: {verdict} ({seconds:.0f} s)", flush=True)
    print(f"{noticed} noticed, {len(chosen) - noticed} not")
    return 0 if noticed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
