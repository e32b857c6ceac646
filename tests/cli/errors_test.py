"""Every bad input: one clear line, the right exit code, and no file left behind."""

import os
import resource
import struct
import subprocess

import numpy
import pytest
from attention import safetensors_bytes
from conftest import SENTENCE

NPY = ["--q", "q.npy", "--k", "k.npy", "--v", "v.npy"]


@pytest.fixture
def inputs(tmp_path, rng):
    """q, k, v and g as .npy and x.safetensors in tmp_path."""
    arrays = {n: rng.standard_normal((2, 5, 4)).astype("float32") for n in ("q", "k", "v", "g")}
    for name, array in arrays.items():
        numpy.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes({n: arrays[n] for n in "qkv"}))
    return arrays


@pytest.fixture
def fails(ingot, tmp_path):
    """fails("run", ..., says=TEXT, code=1): one line of error, nothing new in the folder."""

    def call(*arguments, says, code=1, **options):
        before = sorted(p.name for p in tmp_path.iterdir())
        done = ingot(*arguments, code=code, **options)
        assert says in done.stderr
        assert done.stderr.startswith("ingot: ") and done.stderr.count("\n") == 1
        assert done.stdout == ""
        assert sorted(p.name for p in tmp_path.iterdir()) == before

    return call


def header(text, version=1, pad=True):
    """A .npy file of this header and six float32."""
    body = text.encode() + (b" " * 20 + b"\n" if pad else b"")
    length = struct.pack("<H" if version == 1 else "<I", len(body))
    return b"\x93NUMPY" + bytes([version, 0]) + length + body + bytes(24)


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
BAD_NPY = {
    "empty": (b"", "q.npy: is empty"),
    "other file": (b"\x89PNG\r\n\x1a\n" + bytes(50), "q.npy: not a .npy file"),
    "magic only": (b"\x93NUMPY", "q.npy: truncated: the .npy header is incomplete"),
    "length missing": (
        b"\x93NUMPY\x02\x00\x10\x00",
        "q.npy: truncated: the .npy header is incomplete",
    ),
    "header cut": (header(GOOD)[:40], "q.npy: truncated: the .npy header is incomplete"),
    "data cut": (
        header(GOOD)[:-1],
        "q.npy: truncated: shape [2, 3] of f32 takes 24 bytes, 23 follow",
    ),
    "trailing": (header(GOOD) + b"x", "q.npy: trailing bytes after the array: shape [2, 3]"),
    "version": (b"\x93NUMPY\x09\x00" + bytes(40), "q.npy: .npy version 9 is not 1, 2 or 3"),
    "huge header": (
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(100),
        "q.npy: header too large: 2147483647 bytes, at most 65536 are read",
    ),
    "overflow": (
        header(GOOD.replace("2, 3", "4294967296, 4294967296")),
        "q.npy: shape [4294967296, 4294967296] is over 2^63 bytes",
    ),
    "overflow beside zero": (
        header(GOOD.replace("2, 3", "0, 4294967296, 4294967296")),
        "is over 2^63 bytes",
    ),
    "size too long": (
        header(GOOD.replace("2, 3", "9" * 30)),
        "q.npy: bad .npy header: a size is over 2^63 - 1",
    ),
    "negative": (
        header(GOOD.replace("2, 3", "-2, -3")),
        "q.npy: shape [-2, -3] has a negative size",
    ),
    "not a size": (header(GOOD.replace("2, 3", "2, x")), "q.npy: bad .npy header: shape holds"),
    "int": (header(GOOD.replace("<f4", "<i4")), "q.npy: dtype '<i4' is not one of <f2, <f4, <f8"),
    "big endian": (
        header(GOOD.replace("<f4", ">f4")),
        "convert big-endian data with x.astype('<f4')",
    ),
    "object": (header(GOOD.replace("<f4", "|O")), "arrays of Python objects are never read"),
    "raw bf16": (header(GOOD.replace("<f4", "<V2")), "bf16 travels in safetensors files"),
    "structured": (
        header(GOOD.replace("'<f4'", "[('a', '<f4')]")),
        "q.npy: structured dtypes are not supported",
    ),
    "key missing": (header("{'descr': '<f4', 'shape': (2, 3)}"), "key 'fortran_order' is missing"),
    "key twice": (header(GOOD.replace("{", "{'descr': '<f4', ")), "key 'descr' appears twice"),
    "unknown key": (header(GOOD.replace("{", "{'x': 1, ")), "unknown key 'x'"),
    "no dictionary": (header("[1, 2]"), "q.npy: bad .npy header: '{' expected"),
    "text after": (header(GOOD + " 1"), "q.npy: bad .npy header: text after the closing brace"),
    "open string": (header("{'descr", pad=False), "q.npy: bad .npy header: a string does not end"),
    "bad order": (header(GOOD.replace("False", "0")), "fortran_order is not True or False"),
    "many axes": (header(GOOD.replace("2, 3", "1, " * 65)), "more than 64 axes"),
}


@pytest.mark.parametrize("case", BAD_NPY)
def test_bad_npy(fails, inputs, tmp_path, case):
    data, says = BAD_NPY[case]
    (tmp_path / "q.npy").write_bytes(data)
    fails("run", *NPY, "--o", "o.npy", says=says)


def tensor_file(header, data=bytes(24)):
    text = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(text)) + text + data


Q = '"q":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}'
BAD_SAFETENSORS = {
    "short": (b"1234", "x: truncated: no safetensors header"),
    "huge header": (b"\xff" * 8 + b"{}", "x: header too large: 18446744073709551615 bytes"),
    "header cut": (struct.pack("<Q", 100) + b"{}", "x: truncated: a header of 100 bytes, 2 follow"),
    "no json": (tensor_file("{q}"), "x: bad safetensors header: not a JSON object"),
    "bad utf-8": (tensor_file(b'{"\xff":1}'), "x: bad safetensors header: not a JSON object"),
    "list": (tensor_file("[1]"), "x: bad safetensors header: not a JSON object"),
    "deep": (
        tensor_file('{"q":' + "[" * 9 + "]" * 9 + "}"),
        "nested deeper than the format allows",
    ),
    "twice": (tensor_file("{" + Q + "," + Q + "}"), "tensor 'q' appears twice"),
    "not an object": (tensor_file('{"q":1}'), "'q' is not an object"),
    "no dtype": (
        tensor_file("{" + Q.replace("dtype", "type") + "}"),
        "dtype of tensor 'q' is not a string",
    ),
    "unknown dtype": (
        tensor_file("{" + Q.replace("F32", "F31") + "}"),
        "dtype F31 of tensor 'q' is not one of F16, BF16, F32, F64",
    ),
    "no shape": (
        tensor_file("{" + Q.replace("[2,3]", "6") + "}"),
        "shape of tensor 'q' is not a list",
    ),
    "negative": (
        tensor_file("{" + Q.replace("[2,3]", "[-2,-3]") + "}"),
        "shape of tensor 'q' holds '-2', not a size",
    ),
    "fraction": (
        tensor_file("{" + Q.replace("[2,3]", "[2.5]") + "}"),
        "shape of tensor 'q' holds '2.5', not a size",
    ),
    "overflow": (
        tensor_file("{" + Q.replace("[2,3]", "[4294967296,4294967296]") + "}"),
        "shape [4294967296, 4294967296] is over 2^63 bytes",
    ),
    "backwards": (tensor_file("{" + Q.replace("[0,24]", "[24,0]") + "}"), "are not [begin, end]"),
    "one offset": (tensor_file("{" + Q.replace("[0,24]", "[24]") + "}"), "are not [begin, end]"),
    "data cut": (
        tensor_file("{" + Q + "}", bytes(23)),
        "x: truncated: tensor 'q' ends at byte 24 of 23",
    ),
    "wrong size": (
        tensor_file("{" + Q.replace("[0,24]", "[0,20]") + "}"),
        "shape [2, 3] of F32 takes 24 bytes, its data_offsets hold 20",
    ),
    "trailing": (
        tensor_file("{" + Q + "}", bytes(25)),
        "x: trailing bytes after the last tensor: 1",
    ),
    "gap": (
        tensor_file("{" + Q.replace("[0,24]", "[4,28]") + "}", bytes(28)),
        "tensors leave a gap at data byte 0",
    ),
    "overlap": (
        tensor_file("{" + Q + "," + Q.replace('"q"', '"r"') + "}"),
        "tensors overlap at data byte 0",
    ),
    "metadata": (tensor_file('{"__metadata__":1}', b""), "__metadata__ is not an object"),
    "metadata value": (
        tensor_file('{"__metadata__":{"a":1}}', b""),
        "metadata 'a' is not a string",
    ),
    "missing": (tensor_file("{" + Q + "}"), "x: there is no tensor 'k'"),
    "integers": (
        tensor_file("{" + Q.replace("F32", "I32") + "}"),
        "dtype I32 of tensor 'q' is not one of F16, BF16",
    ),
}


@pytest.mark.parametrize("case", BAD_SAFETENSORS)
def test_bad_safetensors(fails, tmp_path, case):
    data, says = BAD_SAFETENSORS[case]
    (tmp_path / "x").write_bytes(data)
    fails("run", "--in", "x", "--out", "y", says=says)


BAD_SHAPES = {
    "rank 1": ({"q": (5,)}, "q: shape [5]: rank must be 2, 3 or 4, is 1"),
    "rank 5": ({"q": (1, 1, 1, 5, 4)}, "rank must be 2, 3 or 4, is 5"),
    "ranks differ": ({"k": (5, 4)}, "k: rank must be 3, is 2"),
    "head_dim": ({"k": (2, 5, 6)}, "k: head_dim (as of q) must be 4, is 6"),
    "seqlen": ({"v": (2, 6, 4)}, "v: seqlen (as of k) must be 5, is 6"),
    "heads": ({"v": (1, 5, 4)}, "v: number of heads (as of k) must be 2, is 1"),
    "batch": (
        {"q": (2, 2, 5, 4), "k": (3, 2, 5, 4), "v": (2, 2, 5, 4)},
        "k: batch (as of q) must be 2, is 3",
    ),
    "groups": ({"q": (3, 5, 4)}, "num_heads"),
    "width": ({"q": (2, 5, 1025), "k": (2, 5, 1025)}, "head_dim"),
}


@pytest.mark.parametrize("case", BAD_SHAPES)
def test_shapes_that_do_not_fit(fails, inputs, tmp_path, case):
    shapes, says = BAD_SHAPES[case]
    for name, shape in shapes.items():
        numpy.save(tmp_path / f"{name}.npy", numpy.zeros(shape, "float32"))
    fails("run", *NPY, "--o", "o.npy", says=says)


def test_shape_of_dout(fails, inputs, tmp_path):
    numpy.save(tmp_path / "g.npy", numpy.zeros((2, 6, 4), "float32"))
    says = "dout: shape must be that of o, [2, 5, 4], is [2, 6, 4]"
    fails("run", *NPY, "--dout", "g.npy", "--dq", "d.npy", says=says)


def test_inputs_that_are_no_files(fails, inputs, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    rest = ["--k", "k.npy", "--v", "v.npy", "--o", "o.npy"]
    fails("run", "--q", "none.npy", *rest, says="none.npy: No such file or directory")
    fails("run", "--q", "folder", *rest, says="folder: is a directory")
    fails("run", "--q", "pipe", *rest, says="pipe: is not a regular file")
    fails("run", "--in", "none", "--out", "y", says="none: No such file or directory")


def test_outputs_that_cannot_be(fails, inputs, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.npy").symlink_to("q.npy")
    fails("run", *NPY, "--o", "folder", says="folder: is a directory")
    fails("run", *NPY, "--o", "none/o.npy", says="none/o.npy: No such file or directory")
    fails("run", *NPY, "--o", "q.npy", says="q.npy: the output is the same file as the input q.npy")
    fails(
        "run",
        *NPY,
        "--o",
        "./k.npy",
        says="./k.npy: the output is the same file as the input k.npy",
    )
    fails(
        "run",
        *NPY,
        "--o",
        "link.npy",
        says="link.npy: the output is the same file as the input q.npy",
    )
    fails(
        "run",
        *NPY,
        "--o",
        "o.npy",
        "--lse",
        "./o.npy",
        says="./o.npy: two outputs have the same name",
    )
    fails("run", *NPY, "--o", "/dev/null", says="/dev/null: exists and is not a regular file")
    fails(
        "run",
        "--in",
        "x.safetensors",
        "--out",
        "x.safetensors",
        says="the output is the same file as the input",
    )
    assert (tmp_path / "q.npy").stat().st_size == 128 + 160


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_folder_without_permission(fails, inputs, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    fails("run", *NPY, "--o", "locked/o.npy", says="locked/o.npy: Permission denied")


def limited(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_no_room_for_the_output(fails, inputs, tmp_path):
    (tmp_path / "lse.npy").write_bytes(b"old")
    fails(
        "run",
        *NPY,
        "--lse",
        "lse.npy",
        "--o",
        "o.npy",
        says="o.npy: File too large",
        preexec_fn=limited(200),
    )
    assert (tmp_path / "lse.npy").read_bytes() == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_standard_output_that_is_full(program):
    with open("/dev/full", "w") as full:
        done = subprocess.run([program, "devices"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "ingot: cannot write to standard output\n")


WRONG_USAGE = [
    ([], "a command is missing"),
    (["fly"], "fly"),
    (["run"], "--q: is missing (or --in and --out)"),
    (["run", "--q", "q.npy", "--v", "v.npy", "--o", "o.npy"], "--k: is missing"),
    (["run", *NPY], "nothing to write: give --o, --lse, --dq, --dk, --dv, --dbias or --dsinks"),
    (["run", *NPY, "--dq", "d.npy"], "--dout: is missing, gradients need it"),
    (["run", *NPY, "--o", "o.npy", "--dout", "g.npy"], "--dout: needs --dq, --dk"),
    (["run", *NPY, "--out", "y"], "--out: goes with --in"),
    (["run", "--in", "x.safetensors"], "--out: is missing, --in needs it"),
    (["run", "--in", "x.safetensors", "--out", "y", "--q", "q.npy"], "--q: cannot go with --in"),
    (
        ["run", *NPY, "--o", "o.npy", "--out-dtype", "bf16"],
        "the .npy format has no bf16; use --in and --out",
    ),
    (["run", *NPY, "--o", "o.npy", "--out-dtype", "f31"], "--out-dtype"),
    (
        ["run", *NPY, "--o", "o.npy", "--scale", "0"],
        "--scale: must be a finite number other than 0",
    ),
    (
        ["run", *NPY, "--o", "o.npy", "--scale", "nan"],
        "--scale: must be a finite number other than 0",
    ),
    (["run", *NPY, "--o", "o.npy", "--softcap", "0"], "--softcap: must be a finite number above 0"),
    (["run", *NPY, "--o", "o.npy", "--window", "3"], "--window: must be LEFT,RIGHT"),
    (["run", *NPY, "--o", "o.npy", "--window", "3,-2"], "--window: must be LEFT,RIGHT"),
    (["run", *NPY, "--o", "o.npy", "--window", "3,4,5"], "--window: must be LEFT,RIGHT"),
    (["run", *NPY, "--o", "o.npy", "--causal", "left"], "--causal"),
    (["run", *NPY, "--o", "o.npy", "--layout", "sbhd"], "--layout"),
    (["run", *NPY, "--o", "o.npy", "--threads", "-1"], "--threads"),
    (["explain", "--head-dim", "64"], "--seqlen-q is required"),
    (
        ["explain", "--seqlen-q", "9", "--head-dim", "64", "--dtype", "int8"],
        "--dtype: must be f32, f16, bf16 or f64, got int8",
    ),
    (["explain", "--seqlen-q", "9", "--head-dim", "64", "--json", "--source"], "excludes"),
    (["check", "--quick", "--full"], "excludes"),
    (["bench", "--seconds", "-1"], "--seconds"),
    (["demo", "--head", "99"], "--head: must be 1 to 12"),
]


@pytest.mark.parametrize(
    "arguments, says", WRONG_USAGE, ids=lambda x: " ".join(x)[:60] if isinstance(x, list) else ""
)
def test_wrong_usage(ingot, inputs, tmp_path, arguments, says):
    if arguments[0:1] == ["demo"]:
        arguments = [*arguments, "--data", str(SENTENCE)]
    before = sorted(tmp_path.iterdir())
    done = ingot(*arguments, code=2)
    assert (
        done.stderr.startswith("ingot: ") and says in done.stderr and done.stderr.count("\n") == 1
    )
    assert sorted(tmp_path.iterdir()) == before


def test_unknown_device(fails, inputs):
    fails("run", *NPY, "--o", "o.npy", "--device", "abacus", says="abacus")
    fails(
        "check", "--device", "abacus", says="--device: there is no device abacus, this machine has"
    )
    fails("bench", "--filter", "tiny", "--device", "abacus", says="abacus")


def test_filters_that_match_nothing(fails):
    fails("check", "--filter", "nothing", says="--filter: no case has 'nothing' in its name")
    fails("bench", "--filter", "nothing", says="--filter: no benchmark has 'nothing' in its name")
