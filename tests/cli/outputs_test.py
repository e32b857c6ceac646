"""Outputs of the program: all or none, whatever ends it, and nothing of other users in them."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest

NPY = ["--q", "q.npy", "--k", "k.npy", "--v", "v.npy"]
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root has files of other users")
LINUX = sys.platform == "linux"


@pytest.fixture
def small(tmp_path):
    for name in "qkv":
        numpy.save(tmp_path / f"{name}.npy", numpy.ones((2, 5, 4), "float32"))
    return tmp_path


def entries(folder):
    return sorted(p.name for p in folder.iterdir())


def is_result(path, shape=(2, 5, 4)):
    array = numpy.load(path)
    return array.shape == shape and (array == 1).all()


@needs_root
def test_a_file_that_another_user_put_there_decides_nothing(ingot, small):
    small.chmod(0o777)
    (small / "o.npy").write_bytes(b"theirs")
    os.chown(small / "o.npy", 65534, 65534)
    (small / "o.npy").chmod(0o6777)
    ingot("run", *NPY, "--o", "o.npy", preexec_fn=lambda: os.umask(0o022))
    status = (small / "o.npy").stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o644)


def test_an_own_file_that_runs_as_its_owner_becomes_one_that_does_not(ingot, small):
    (small / "o.npy").write_bytes(b"old")
    (small / "o.npy").chmod(0o6751)
    ingot("run", *NPY, "--o", "o.npy")
    assert (small / "o.npy").stat().st_mode & 0o7777 == 0o751


def as_nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


@needs_root
@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_another_users_file_in_a_sticky_folder_costs_nothing(program, small, mode):
    place = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        for path in small.iterdir():
            shutil.copy(path, place)
        (place / "o.npy").write_text("PRECIOUS")
        os.chown(place / "o.npy", 65534, 65534)
        (place / "lse.npy").write_text("other")
        (place / "lse.npy").chmod(mode)
        place.chmod(0o1777)
        before = entries(place)
        try:
            done = subprocess.run(
                [program, "run", *NPY, "--o", "o.npy", "--lse", "lse.npy"],
                cwd=place,
                capture_output=True,
                text=True,
                preexec_fn=as_nobody,
            )
        except PermissionError:
            pytest.skip("another user may not run this build")
        assert done.returncode == 1 and done.stderr.startswith("ingot: lse.npy: ")
        assert entries(place) == before
        assert (place / "o.npy").read_text() == "PRECIOUS"
        assert (place / "lse.npy").read_text() == "other"
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(not (ROOT and LINUX), reason="only root can mount")
def test_a_file_that_is_mounted_cannot_be_replaced_and_the_others_stay(program, small):
    (small / "o.npy").write_text("PRECIOUS")
    (small / "lse.npy").write_text("mounted")
    (small / "source").write_text("mounted")
    before = entries(small)
    command = 'mount --bind source lse.npy && exec "$@"'
    run = [str(program), "run", *NPY, "--o", "o.npy", "--lse", "lse.npy"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, "sh", *run],
        cwd=small,
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this container lets nobody mount: " + done.stderr.strip())
    assert (done.returncode, done.stderr) == (1, "ingot: lse.npy: Device or resource busy\n")
    assert entries(small) == before
    assert (small / "o.npy").read_text() == "PRECIOUS"


def test_a_file_that_is_read_only_stays(ingot, small):
    (small / "o.npy").write_text("old")
    (small / "o.npy").chmod(0o444)
    before = entries(small)
    done = ingot("run", *NPY, "--o", "o.npy", code=1)
    assert done.stderr == "ingot: o.npy: exists and is read-only\n"
    assert entries(small) == before and (small / "o.npy").read_text() == "old"


def test_the_target_of_a_dangling_link_is_created(ingot, small):
    (small / "folder").mkdir()
    (small / "o.npy").symlink_to("folder/real.npy")
    ingot("run", *NPY, "--o", "o.npy")
    assert (small / "o.npy").is_symlink() and is_result(small / "folder/real.npy")


def test_the_longest_names(ingot, small):
    for length in (249, 255):
        name = "o" * length
        ingot("run", *NPY, "--o", name)
        assert is_result(small / name)
    done = ingot("run", *NPY, "--o", "o" * 256, code=1)
    assert done.stderr.endswith(": File name too long\n")
    assert len(entries(small)) == 5


ENDING = [
    s
    for s in (
        "HUP INT QUIT ABRT BUS FPE ILL SEGV SYS TRAP USR1 USR2 PIPE ALRM TERM XCPU VTALRM PROF"
    ).split()
]


class Long:
    """A run that takes longer than any test waits, over old outputs."""

    def __init__(self, program, folder, *prefix, **options):
        self.folder = folder
        for name in "qkv":
            numpy.save(folder / f"{name}.npy", numpy.ones((1, 20000, 64), "float32"))
        (folder / "o.npy").write_text("old")
        self.before = entries(folder)
        run = [str(program), "run", *NPY, "--o", "o.npy", "--lse", "l.npy"]
        self.process = subprocess.Popen(
            [*prefix, *run, "--device", "reference", "--threads", "1"],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def open_outputs(self):
        """Files of the folder that are open and have no name, or one of the program's own."""
        found = []
        try:
            for entry in os.scandir(f"/proc/{self.process.pid}/fd"):
                found.append(os.readlink(entry.path))
        except OSError:
            return []
        mine = [x for x in found if x.startswith(str(self.folder))]
        return [x for x in mine if x.endswith("(deleted)") or x.endswith(".part")]

    def wait_for_outputs(self):
        deadline = time.monotonic() + 60
        while len(self.open_outputs()) < 2:
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.01)

    def ends(self):
        """(return code, standard error); the folder is as it was before."""
        _, stderr = self.process.communicate(timeout=60)
        assert entries(self.folder) == self.before
        assert (self.folder / "o.npy").read_text() == "old"
        return self.process.returncode, stderr


def defaults():
    for name in ENDING:
        signal.signal(getattr(signal, "SIG" + name), signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


linux_only = pytest.mark.skipif(not LINUX, reason="looks into /proc")


@linux_only
@pytest.mark.parametrize("name", [*ENDING, "KILL"])
def test_whatever_signal_ends_it_leaves_nothing(program, tmp_path, name):
    long = Long(program, tmp_path, preexec_fn=defaults)
    long.wait_for_outputs()
    if name == "KILL" and list(tmp_path.glob("*.part")):
        long.process.kill()
        long.process.communicate()
        pytest.skip("this file system has no files without a name")
    number = getattr(signal, "SIG" + name)
    long.process.send_signal(number)
    assert long.ends() == (-number, "")


@pytest.mark.skipif(not (ROOT and LINUX), reason="only root can take /proc away")
@pytest.mark.parametrize("name", ["INT", "PIPE", "XCPU"])
def test_files_that_need_a_name_are_removed_too(program, tmp_path, name):
    hide = 'mount -t tmpfs none /proc && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", hide, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("this container lets nobody mount")
    long = Long(program, tmp_path, *prefix, preexec_fn=defaults)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ingot-*.part"))) < 2:
        assert time.monotonic() < deadline and long.process.poll() is None
        time.sleep(0.01)
    number = getattr(signal, "SIG" + name)
    long.process.send_signal(number)
    assert long.ends() == (-number, "")


@linux_only
def test_what_the_caller_ignores_stays_ignored(program, tmp_path):
    long = Long(program, tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    long.wait_for_outputs()
    long.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert long.process.poll() is None
    long.process.terminate()
    assert long.ends()[0] == -signal.SIGTERM


@linux_only
def test_an_input_that_becomes_shorter_while_it_is_read(program, tmp_path):
    long = Long(program, tmp_path)
    long.wait_for_outputs()
    os.truncate(tmp_path / "v.npy", 4096)
    assert long.ends() == (1, "ingot: v.npy: became shorter while it was read\n")


def test_a_reader_that_goes_away_leaves_no_temporary_file(program, tmp_path):
    bench = [program, "bench", "--filter", "tiny 1x1x16x64 f32 forward", "--seconds", "0.01"]
    process = subprocess.Popen([*bench, "--json", "b.json"], cwd=tmp_path, stdout=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(timeout=120) == -signal.SIGPIPE
    assert entries(tmp_path) == []


CLOSED = [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)]


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_standard_streams_that_are_closed(program, small, closed):
    (small / "o.npy").write_text("old")
    close = " ".join(f"{number}>&-" for number in closed)
    command = f'"$0" run {" ".join(NPY)} --o o.npy --lse lse.npy {close}'
    done = subprocess.run(["sh", "-c", command, str(program)], cwd=small, capture_output=True)
    assert done.returncode == 0
    assert is_result(small / "o.npy") and numpy.load(small / "lse.npy").shape == (2, 5)
    assert entries(small) == ["k.npy", "lse.npy", "o.npy", "q.npy", "v.npy"]


def test_figures_are_whole_where_standard_output_is_closed(program, tmp_path):
    (tmp_path / "b.json").write_text("old")
    command = '"$0" bench --filter "tiny 1x1x16x64 f32 forward" --seconds 0.01 --json b.json >&-'
    subprocess.run(["sh", "-c", command, str(program)], cwd=tmp_path, check=True)
    assert len(json.loads((tmp_path / "b.json").read_text())["results"]) == 1
    assert entries(tmp_path) == ["b.json"]
