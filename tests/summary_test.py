"""summary.py counts what really happened: crashes, missing reports and skips included."""

import pytest
from summary import main

PASS = '<testcase name="{0}" classname="S" status="run" result="completed"/>'
FAIL = '<testcase name="{0}" classname="S" status="run"><failure message="x"/></testcase>'
SKIP = '<testcase name="{0}" classname="S"><skipped message="a.cpp:1&#10;no GPU"/></testcase>'
CTEST_PASS = '<testcase name="{0}" classname="{0}" status="run"/>'
CTEST_FAIL = '<testcase name="{0}" classname="{0}" status="fail"><failure message=""/></testcase>'


def report(*cases):
    return "<testsuites><testsuite>" + "".join(cases) + "</testsuite></testsuites>"


@pytest.mark.parametrize(
    "status, reports, expected",
    [
        ("0", {}, "1 passed, 0 failed, 0 skipped"),
        ("3", {}, "0 passed, 1 failed, 0 skipped"),
        ("77\nno GPU", {}, "0 passed, 0 failed, 1 skipped"),
        ("0", {"p": report(PASS.format(1), SKIP.format(2))}, "1 passed, 0 failed, 1 skipped"),
        ("1", {"p": report(PASS.format(1), FAIL.format(2))}, "1 passed, 1 failed, 0 skipped"),
        ("1", {"p": report(PASS.format(1))}, "1 passed, 1 failed, 0 skipped"),
        ("0", {"p": "<testsuites><testcase"}, "0 passed, 1 failed, 0 skipped"),
        (
            "0",
            {
                "ctest": report(CTEST_PASS.format("t.1")),
                "t.1": report(PASS.format(1), PASS.format(2)),
            },
            "2 passed, 0 failed, 0 skipped",
        ),
        (
            "8",
            {
                "ctest": report(CTEST_FAIL.format("t.1")),
                "t.1": report(PASS.format(1), FAIL.format(2)),
            },
            "1 passed, 1 failed, 0 skipped",
        ),
        (  # the shard crashed before it wrote its report
            "8",
            {"ctest": report(CTEST_FAIL.format("t.1"), CTEST_PASS.format("c_api"))},
            "1 passed, 1 failed, 0 skipped",
        ),
    ],
)
def test_counts(tmp_path, capsys, status, reports, expected):
    (tmp_path / "part.status").write_text(status)
    (tmp_path / "part").mkdir()
    for name, text in reports.items():
        (tmp_path / "part" / f"{name}.xml").write_text(text)
    code = main(tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == expected
    assert code == (0 if ", 0 failed" in expected and not expected.startswith("0 passed") else 1)
