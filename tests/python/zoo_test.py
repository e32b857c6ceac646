"""Families of transformers under attn_implementation="ingot" equal eager attention, or say why not.

A sample by default, every family that becomes small with INGOT_TEST_FULL=1 (about half an hour).
"""

import os
import warnings

import pytest
import transformers
import zoo

RUNS = (
    "bart bert gemma3_text gpt2 gpt_oss llama llama4_text mistral phimoe qwen3_next siglip t5 "
    "t5gemma vit whisper"
).split()
OWN_CODE = ["bloom", "led"]
EVERY = bool(os.environ.get("INGOT_TEST_FULL"))
REST = sorted({*zoo.families()} - {*RUNS, *OWN_CODE}) if EVERY else []


@pytest.fixture(autouse=True, scope="module")
def quiet(one_thread):
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity_warning()


def build(family):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zoo.build(family)


def results_of(model):
    return {name: zoo.compare(model, check) for name, check in zoo.checks_of(model).items()}


def with_status(results, status):
    return {name: result for name, result in results.items() if result[0] == status}


@pytest.mark.parametrize("family", RUNS)
def test_family_equals_eager(family):
    results = results_of(build(family))
    others = {name: result for name, result in results.items() if result[0] != "ok"}
    # What eager attention cannot do either is nothing that ingot could be compared with.
    assert others == with_status(results, "eager")
    assert len(results) - len(others) >= 3


@pytest.mark.parametrize("family", OWN_CODE)
def test_family_with_attention_of_its_own_equals_eager(family):
    results = results_of(build(family))
    assert results["plain"] == ("own code", "")
    assert not with_status(results, "wrong")


@pytest.mark.parametrize("family", REST)
def test_family_is_never_wrong(family):
    try:
        model = build(family)
    except Exception as error:  # of transformers: these sizes do not fit, or a package is missing
        pytest.skip(f"not built: {type(error).__name__}: {error}"[:150])
    if zoo.compare(model, zoo.checks_of(model)["plain"])[0] == "eager":
        pytest.skip("eager attention does not run on these inputs")
    results = results_of(model)
    print(family, {name: result[0] for name, result in results.items()})
    assert not with_status(results, "wrong")
