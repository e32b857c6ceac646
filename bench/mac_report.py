"""Checks and times ingot on this machine's GPU and writes one report to send back.

    ./dev mac-report                     on a Mac: device metal:0
    python3 bench/mac_report.py PROGRAM [--device NAME] [--output FOLDER] [--quick]

Writes ingot-report.json (every command with its output, exit status and time) and ingot-report.txt
(what a person reads first). A step that fails is part of the report, and does not end it. Nothing
but the named commands is read from the machine; look at the text before you send it.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

ABOUT_MAC = [
    ["sw_vers"],
    ["sysctl", "-n", "machdep.cpu.brand_string", "hw.ncpu", "hw.memsize"],
    ["system_profiler", "-json", "SPDisplaysDataType"],
]


def steps(program, device, folder, quick):
    """(name, command, seconds it may take)."""
    bench = [program, "bench", "--device", device, "--json", str(folder / "bench.json")]
    if quick:
        bench += ["--filter", "tiny", "--seconds", "0.05"]
    yield "devices", [program, "devices"], 60
    sizes = ["--seqlen-q", "1024", "--head-dim", "64"]
    yield "explain", [program, "explain", *sizes, "--device", device], 60
    yield "check", [program, "check", "--device", device], 3600
    yield "bench", bench, 3600
    yield "bench of the CPU", [program, "bench", "--device", "cpu", "--filter", "tiny"], 600


def run(command, seconds):
    """What a command printed, how it ended and how long it took."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
        )
        ended = {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
    except subprocess.TimeoutExpired:
        ended = {"status": None, "stdout": "", "stderr": f"no end within {seconds} s"}
    except OSError as error:
        ended = {"status": None, "stdout": "", "stderr": str(error)}
    return {"command": command, **ended, "seconds": round(time.monotonic() - start, 3)}


def about_machine():
    about = {
        "system": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if sys.platform == "darwin":
        about["mac"] = [run(command, 120) for command in ABOUT_MAC]
    return about


def text_of(report):
    lines = [
        f"ingot on {report['machine']['system']}, device {report['device']}",
        f"{report['machine']['date']}, commit {report['commit']}",
        "",
    ]
    for name, step in report["steps"].items():
        outcome = "ok" if step["status"] == 0 else f"FAILED, status {step['status']}"
        lines.append(f"== {name}: {outcome}, {step['seconds']} s: {' '.join(step['command'])}")
        lines += [step["stdout"].rstrip(), step["stderr"].rstrip(), ""]
    return "\n".join(line for line in lines if line is not None) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("program", help="build/release/ingot")
    parser.add_argument("--device", default="metal:0")
    parser.add_argument("--output", type=Path, default=Path("build/mac-report"))
    parser.add_argument("--quick", action="store_true", help="time one tiny problem only")
    options = parser.parse_args(arguments)
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").unlink(missing_ok=True)

    root = Path(__file__).resolve().parents[1]
    commit = run(["git", "-C", str(root), "rev-parse", "HEAD"], 30)["stdout"].strip()
    report = {"machine": about_machine(), "device": options.device, "commit": commit, "steps": {}}
    for name, command, seconds in steps(options.program, options.device, folder, options.quick):
        print(f"{name}: {' '.join(command)}", flush=True)
        step = report["steps"][name] = run(command, seconds)
        if step["status"] != 0:
            print(f"  failed, status {step['status']}: {step['stderr'].strip()[-500:]}")
    if (folder / "bench.json").exists():
        report["bench"] = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    (folder / "ingot-report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (folder / "ingot-report.txt").write_text(text_of(report), encoding="utf-8")
    failed = [name for name, step in report["steps"].items() if step["status"] != 0]
    print(f"written: {folder}/ingot-report.txt and ingot-report.json; failed: {failed or 'none'}")
    print("please attach both to an issue of the project, whatever they say")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
