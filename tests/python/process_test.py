"""ingot and the process it runs in: its end, its signals, its threads, its interpreters."""

import subprocess
import sys
import textwrap

import pytest

START = """
import sys, threading, time
import numpy as np, ingot
x = np.ones({shape}, "float32")
def forever(*arrays, **options):
    def work():
        while True:
            ingot.attention(*arrays, **options)
    threading.Thread(target=work, daemon=True).start()
class Producer:
    shape = x.shape
    def __dlpack__(self, **options):
        for _ in range(100):
            sum(range(10))
        return x.__dlpack__(**options)
"""


def python(program, shape=(1, 2, 16, 16), run=(), **options):
    text = START.format(shape=shape) + textwrap.dedent(program)
    return subprocess.run(
        [*run, sys.executable, "-c", text], capture_output=True, text=True, timeout=120, **options
    )


def quiet(done):
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


SHORT, MIDDLE, LONG = (1, 1, 4, 8), (1, 8, 256, 64), (1, 8, 4096, 64)


@pytest.mark.parametrize("shape", [SHORT, MIDDLE, LONG], ids=str)
@pytest.mark.parametrize("arrays", ["x, x, x", "x, Producer(), Producer()"])
def test_daemon_threads_end_quietly_with_the_process(shape, arrays):
    """Before Python 3.14 they are ended as they ask for the interpreter's lock."""
    quiet(python(f"for _ in range(3): forever({arrays})\ntime.sleep(0.2)", shape))


def test_daemon_threads_in_the_gradient():
    program = """
        o, lse = ingot.attention(x, x, x, return_lse=True)
        def work():
            while True:
                ingot.attention_backward(x, x, x, o, lse, o)
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.2)
    """
    quiet(python(program, MIDDLE))


@pytest.mark.skipif(sys.platform != "linux", reason="skipped: limits as Linux has them")
def test_long_calls_go_on_without_a_thread_to_be_had():
    """Threads of 100 GB of stack do not fit into 50 GB."""
    program = """
        want = ingot.attention(x, x, x)
        np.testing.assert_allclose(want, 1)
        try:
            threading.Thread(target=print).start()
        except RuntimeError:
            sys.exit(0)
        sys.exit("threads were there to be had")
    """
    limits = ["bash", "-c", 'ulimit -s 100000000; ulimit -v 50000000; exec "$@"', "bash"]
    alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    quiet(python(program, (1, 2, 2048, 64), limits, env=alone))


def test_errors_are_the_ones_that_were_imported_first():
    program = """
        first = ingot
        for name in [n for n in sys.modules if n.split(".")[0] == "ingot"]:
            del sys.modules[name]
        import ingot
        assert ingot is not first
        for module in (first, ingot):
            for other in (first, ingot):
                try:
                    module.attention(x, x, x[0])
                except other.InvalidArgument as error:
                    assert str(error).startswith("v: must have 4"), error
    """
    quiet(python(program))


def test_subinterpreters_have_errors_of_their_own():
    """Such as mod_wsgi makes: they share the library, not the modules."""
    program = """
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            sys.exit(0)
        try:
            other = interpreters.create(isolated=False)
        except TypeError:
            other = interpreters.create("legacy")
        interpreters.run_string(other, '''if True:
            import ingot
            try:
                ingot.explain(seqlen_q=5, head_dim=0)
            except ingot.InvalidArgument as error:
                assert str(error).startswith("head_dim: must be"), error
        ''')
        try:
            ingot.explain(seqlen_q=5, head_dim=0)
        except ingot.InvalidArgument as error:
            assert str(error).startswith("head_dim: must be"), error
    """
    quiet(python(program))
