"""What files, paths and the command line hold is shown, never obeyed by a terminal."""

import json
import os
import pty
import re
import struct
import subprocess
import xml.etree.ElementTree as ET

import numpy
import pytest
from attention import safetensors_bytes

EVIL = "\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\u200b\x7f\r\n"
NPY = ["--q", "q.npy", "--k", "k.npy", "--v", "v.npy"]


def is_plain(text):
    """Lines of characters that a terminal shows, in UTF-8."""
    bad = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]")
    return bad.search(text.decode()) is None


@pytest.fixture
def raw(program, tmp_path):
    """raw("demo", ...): the finished process, its output as bytes."""

    def call(*arguments, code=0):
        command = [os.fsencode(program), *(os.fsencode(a) for a in arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=600)
        assert done.returncode == code, done.stderr
        assert is_plain(done.stdout) and is_plain(done.stderr)
        return done

    return call


def sentence(tokens=("a", "b", "c"), **metadata):
    tensors = {n: numpy.ones((1, 1, 3, 8), "float32") for n in "qkv"}
    return safetensors_bytes(tensors, {"tokens": json.dumps(tokens), **metadata})


def test_a_sentence_full_of_escapes(raw, tmp_path):
    tokens = [EVIL + "a", "b" + EVIL, "c"]
    data = sentence(tokens, text=EVIL, model=EVIL)
    (tmp_path / "x").write_bytes(data)
    done = raw("demo", "--data", "x", "--device", "reference", "--svg", "a.svg")
    assert done.stdout.startswith(rb'"\x1b]0;PWNED\x07\x1b[2J\u009b31m\u202egnp')
    assert is_plain((tmp_path / "a.svg").read_bytes())
    ET.parse(tmp_path / "a.svg")


def test_the_sentence_of_the_current_folder_is_not_taken(raw, tmp_path):
    (tmp_path / "examples/data").mkdir(parents=True)
    (tmp_path / "examples/data/minilm.safetensors").write_bytes(sentence(text="PWNED"))
    assert b"PWNED" not in raw("demo", "--device", "reference").stdout


NAME = json.dumps(EVIL)[1:-1]
HEADERS = [
    '{"NAME":1}',
    '{"NAME":{"dtype":"F32","shape":["NAME"],"data_offsets":[0,0]}}',
    '{"NAME":{"dtype":"F32","shape":[1],"data_offsets":[0,0]}}',
    '{"__metadata__":{"NAME":1}}',
    '{"q":{"dtype":"NAME","shape":[1],"data_offsets":[0,4]}}',
]


@pytest.mark.parametrize("header", HEADERS)
def test_errors_that_quote_a_header(raw, tmp_path, header):
    text = header.replace("NAME", NAME).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    done = raw("run", "--in", "x", "--out", "y", code=1)
    assert rb"\x1b" in done.stderr and done.stderr.count(b"\n") == 1


def test_errors_that_quote_an_npy_header(raw, tmp_path):
    for name in "qkv":
        numpy.save(tmp_path / f"{name}.npy", numpy.ones((2, 5, 4), "float32"))
    good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
    for changed in (
        good.replace("<f4", EVIL),
        good.replace("'shape'", f"'{EVIL}'"),
        good.replace("(2,", "(" + EVIL),
        EVIL,
        good + EVIL + "x",
    ):
        body = changed.encode("latin-1", "replace")
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body + bytes(8)
        (tmp_path / "q.npy").write_bytes(data)
        done = raw("run", *NPY, "--o", "o.npy", code=1)
        assert done.stderr.count(b"\n") == 1


def test_errors_that_quote_the_command_line(raw):
    for arguments in (
        ["run", "--q", EVIL + "q", "--k", "k", "--v", "v", "--o", "o"],
        ["explain", "--seqlen-q", EVIL, "--head-dim", "64"],
        ["explain", "--seqlen-q", "9", "--head-dim", "64", "--causal", EVIL],
        ["explain", "--seqlen-q", "9", "--head-dim", "64", "--device", EVIL],
        ["run", "--" + EVIL],
        [EVIL],
        [b"\xfe\x9b"],
    ):
        code = 1 if "--q" in arguments or "--device" in arguments else 2
        done = raw(*arguments, code=code)
        assert done.stderr.startswith(b"ingot: ") and done.stderr.count(b"\n") == 1
    raw("check", "--device", "cuda" + EVIL, "--filter", "b2_h6x2")
    raw("check", "--device", EVIL, code=1)


@pytest.mark.parametrize("name", [b"o\xfe.npy", EVIL.replace("\0", "").encode(), "ö.npy".encode()])
def test_names_of_outputs(raw, tmp_path, name):
    for x in "qkv":
        numpy.save(tmp_path / f"{x}.npy", numpy.ones((2, 5, 4), "float32"))
    said = raw("run", *NPY, "--o", name).stdout
    assert said.count(b"\n") == 2
    done = raw("run", *NPY, "--o", name, "--json")
    assert done.stdout.isascii()
    path = json.loads(done.stdout)["outputs"]["o"]["path"]
    assert path == ("o\\xfe.npy" if name == b"o\xfe.npy" else name.decode())
    assert os.fsencode(tmp_path) + b"/" + name in [
        e.path for e in os.scandir(os.fsencode(tmp_path))
    ]


def on_a_terminal(program, *arguments, term):
    """What the program writes to a terminal."""
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": term}
    process = subprocess.Popen(
        [program, *arguments], stdout=side, stderr=side, stdin=side, env=environment
    )
    os.close(side)
    text = b""
    try:
        while data := os.read(main, 65536):
            text += data
    except OSError:
        pass  # the other side is closed
    os.close(main)
    assert process.wait(timeout=600) == 0
    return text


def test_a_dumb_terminal_gets_plain_text(program):
    check = ["check", "--device", "reference", "--filter", "b2_h6x2"]
    assert b"\x1b" not in on_a_terminal(program, *check, term="dumb")
    assert b"\x1b[K" in on_a_terminal(program, *check, term="xterm")
