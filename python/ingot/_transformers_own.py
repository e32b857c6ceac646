"""Models of transformers whose attention is code of their own, which never calls ingot."""

import functools
import inspect
import re
import sys
import warnings

from transformers import PreTrainedModel


def use_eager_for_own_code():
    """A model whose attention is code of its own never calls ingot. It gets "eager" then, as its
    code expects, and a warning says so; if a part of it is, the warning names that."""
    original = PreTrainedModel.get_correct_attn_implementation
    if hasattr(original, "_ingot"):
        return

    @functools.wraps(original)
    def get_correct_attn_implementation(self, *args, **kwargs):
        name = original(self, *args, **kwargs)
        own, all_of_it = _own_code(type(self).__module__) if name == "ingot" else ([], False)
        if own:
            how = 'attn_implementation is "eager"' if all_of_it else "it runs as in eager attention"
            warnings.warn(
                f"ingot: {type(self).__name__}: attention that is code of its own does not call "
                f"ingot ({', '.join(own)}): {how}",
                stacklevel=2,
            )
        return "eager" if all_of_it else name

    get_correct_attn_implementation._ingot = True
    PreTrainedModel.get_correct_attn_implementation = get_correct_attn_implementation


@functools.cache
def _own_code(name):
    """The classes of attention in the module of a model that do not look into transformers' table
    of attention functions, and whether none does, or a table of the module's own chooses them."""
    try:
        code = inspect.getsource(sys.modules[name])
    except (KeyError, OSError, TypeError):
        return [], False
    pieces = re.split(r"^(?=class |def |@)", code, flags=re.MULTILINE)
    classes = {}
    for piece in pieces:
        found = re.match(r"class (\w*(?:Attention|Attn)\w*)\([^)]*Module\):", piece)
        if found:
            classes[found.group(1)] = piece
    own = [
        name
        for name, piece in classes.items()
        if "ALL_ATTENTION_FUNCTIONS" not in piece and "softmax(" in piece
    ]
    chosen = re.search(r"_CLASSES\[[^\]]*attn_implementation", code)
    none = bool(classes) and "ALL_ATTENTION_FUNCTIONS" not in code
    if none or chosen:
        own = own or list(classes)
    return own, bool(none or chosen)
