"""The stubs say what the modules have: the same names, parameters and defaults."""

import ast
import importlib
import importlib.resources
import inspect

import ingot
import pytest

MODULES = ["ingot", "ingot.torch", "ingot.transformers", "ingot.jax", "ingot.compat.flash_attn"]
MODULES += ["ingot.mlx"]


def functions_of(tree):
    """{name: [every definition of it]}"""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, []).append(node)
    return found


def stub_parameters(definition):
    """[(name, default as text or None)], positional before keyword-only."""
    a = definition.args
    positional = a.posonlyargs + a.args
    defaults = [None] * (len(positional) - len(a.defaults)) + a.defaults
    named = [
        *zip(positional, defaults, strict=True),
        *zip(a.kwonlyargs, a.kw_defaults, strict=True),
    ]
    assert all(argument.annotation is not None for argument, _ in named)
    return [(argument.arg, default and ast.literal_eval(default)) for argument, default in named]


def real_parameters(function):
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in parameters if p.kind not in kinds]


@pytest.mark.parametrize("name", MODULES)
def test_stubs_agree_with_the_modules(name):
    if name == "ingot.mlx":
        pytest.importorskip("mlx.core")
    module = importlib.import_module(name)
    package, _, last = name.rpartition(".")
    folder = importlib.resources.files(package or name)
    stub = folder / (f"{last}.pyi" if package else "__init__.pyi")
    functions = functions_of(ast.parse(stub.read_text()))
    public = [n for n in module.__all__ if inspect.isfunction(getattr(module, n))]
    assert sorted(functions) == sorted(public)
    for function, definitions in functions.items():
        wanted = real_parameters(getattr(module, function))
        for definition in definitions:
            got = stub_parameters(definition)
            assert [n for n, _ in got] == [n for n, _ in wanted], function
            literals = {n: d for n, d in got if d is not None}
            assert literals.items() <= dict(wanted).items(), function


def test_every_public_name_has_a_text():
    for name in ingot.__all__:
        assert inspect.getdoc(getattr(ingot, name)), name
