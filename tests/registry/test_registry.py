"""Registry: specs have one canonical form, errors are one line, and nothing is evaluated."""

import keyword
import re
import string
import subprocess
import sys
import textwrap
import typing
import warnings
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small import SMALL_NETWORKS

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.errors import UserError
from nodepert.registry import check, everything, full, make, names, resolve, usage
from nodepert.registry.catalogue import ALIASES, BUILT_IN, CONTEXT
from nodepert.registry.signatures import described, read
from nodepert.registry.spec import BY_NODE, Spec, parse

EVERY = [(kind, name) for kind, name, _ in everything()]
bare = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True).filter(lambda w: not keyword.iskeyword(w))
name = st.lists(bare.filter(lambda w: w[0] != "_"), min_size=1, max_size=3).map("-".join)
floats = st.floats(allow_nan=False, allow_infinity=False)
plain = st.one_of(st.integers(-(10**20), 10**20), floats, st.booleans(), st.none(), name)
quoted = st.text(st.characters(codec="ascii"), max_size=12).map(lambda s: f"{s} .")  # no word: shown in quotes
literal = plain | quoted


def spec_of(values):
    kwargs = st.dictionaries(bare, values, max_size=3).map(lambda d: tuple(d.items()))
    return st.builds(Spec, name, st.lists(values, max_size=2).map(tuple), kwargs)


def written_as_call(spec):
    return bool(spec.args or spec.kwargs)  # a nested spec without arguments is written, and read back, as a word


specs = st.recursive(spec_of(literal), lambda inner: spec_of(literal | inner.filter(written_as_call)), max_leaves=6)


def refusal(kind, spec):
    with pytest.raises(UserError) as caught:
        check(kind, spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(max_examples=300, deadline=None)
@given(specs)
def test_a_spec_is_parsed_from_its_text(spec):
    text = str(spec)
    if len(text) <= 1000:
        read = parse(text)
        assert read == spec and str(read) == text
        assert [type(v) for _, v in read.kwargs] == [type(v) for _, v in spec.kwargs]  # 1 is not True, nor 1.0


@pytest.mark.parametrize("word", ["True", "None", "if", "a-1", "a--b", "-a", "a-", "-", "\ufb01"])
def test_a_string_that_only_looks_like_a_word_is_read_back(word):
    spec = Spec("f", (), (("x", word),))
    assert parse(str(spec)) == spec


@pytest.mark.parametrize("text", ["conv-large", "cross-entropy", "tiny-imagenet", "f(x=conv-large)", "a-b(c-d(x=1))"])
def test_hyphens_belong_to_names(text):
    assert str(parse(text)) == text


def test_spellings_of_one_spec_have_one_canonical_form():
    spellings = ["np(sigma=1e-3, samples=4)", " np( sigma = 0.001,samples=4, )\n", "np(\nsigma=.001, samples=0x4)"]
    assert {str(check("rule", spelling)) for spelling in spellings} == {"np(sigma=0.001, samples=4)"}
    assert str(check("rule", "np(noise='rademacher')")) == "np(noise=rademacher)"


def test_whole_numbers_become_floats_for_float_arguments_only():
    (_, sigma), (_, samples) = check("rule", "np(sigma=1, samples=1)").kwargs
    assert type(sigma) is float and type(samples) is int


def test_an_alias_becomes_the_name():
    assert check("rule", "bp") == check("rule", "sgd") == Spec("sgd")
    for kind, table in ALIASES.items():
        assert set(table.values()) <= set(names(kind)) and not set(table) & set(names(kind))


def test_full_fills_in_defaults_and_keeps_given_arguments():
    assert str(full("network", "fc(depth=3)")) == "fc(width=500, depth=3, activation=relu)"
    assert full("rule", "np") == full("rule", full("rule", "np"))
    given_, defaults = dict(full("rule", "np(samples=4)").kwargs), dict(full("rule", "np").kwargs)
    assert defaults["samples"] == 1 and given_ == defaults | {"samples": 4}


@pytest.mark.parametrize(
    ("kind", "spec", "parts"),
    [
        ("rule", "nosuch", ["unknown rule 'nosuch'", *BUILT_IN["rule"]]),
        ("network", "conv_large", ["did you mean 'conv-large'?", *BUILT_IN["network"]]),
        ("loss", "crossentropy", ["did you mean 'cross-entropy'?", *BUILT_IN["loss"]]),
        ("dataset", "mnist_5k", ["did you mean 'mnist5k'?", *BUILT_IN["dataset"]]),
        ("optimizer", "Adam", ["did you mean 'adam'?", *BUILT_IN["optimizer"]]),
        (
            "rule",
            "np(sigm=1)",
            ["no argument 'sigm'", "sigma=0.001", "gaussian (or rademacher, sphere, orthogonal, sparse)"],
        ),
        ("rule", "sgd(sigma=1)", ["no argument 'sigma'", "it takes none"]),
        ("rule", "np(1e-3)", ["give its arguments by name", "sigma=0.001"]),
        ("rule", "np(samples=1, samples=2)", ["samples is given twice"]),
        ("rule", "np(sigma=small)", ["sigma must be a number", "small"]),
        ("rule", "np(sigma='1')", ["sigma must be a number"]),
        ("rule", "np(sigma=True)", ["sigma must be a number; got True"]),
        ("rule", "np(sigma=None)", ["sigma must be a number; got None"]),
        ("rule", "np(sigma=np(samples=1))", ["sigma must be a number", "np(samples=1)"]),
        ("rule", "np(samples=2.0)", ["samples must be a whole number; got 2.0"]),
        ("rule", "np(samples=True)", ["samples must be a whole number; got True"]),
        ("rule", "np(noise=uniform)", ["noise must be one of gaussian, rademacher, sphere", "uniform"]),
        ("rule", "np(noise=1)", ["noise must be one of gaussian, rademacher, sphere, orthogonal, sparse; got 1"]),
        ("optimizer", "momentum(nesterov=1)", ["nesterov must be True or False; got 1"]),
    ],
)
def test_an_invalid_spec_is_an_error_with_the_valid_options(kind, spec, parts):
    message = refusal(kind, spec)
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    "spec",
    ["np(sigma=0)", "np(sigma=-1e-3)", "np(sigma=1e999)", "np(samples=0)", "np(samples=-1)", "np(sigma=1e-999)"],
)
def test_an_error_of_a_factory_is_a_user_error_naming_the_spec(spec):
    model = make("network", "fc(width=2)", (2,), 2)
    with pytest.raises(UserError, match=r"rule 'np\(.*must be"):
        make("rule", spec, model, None)


def test_a_whole_number_too_large_for_a_float_is_refused():
    assert "sigma" in refusal("rule", f"np(sigma=1{'0' * 400})")


TRICKS = [
    "__import__('os').system('echo caught')",
    "np(sigma=__import__('os').getpid())",
    "np(sigma=(lambda: 1)())",
    "lambda: 1",
    "np(sigma=[x for x in (1,)][0])",
    "np(sigma=f'{1}')",
    "np(sigma=1+1)",
    "np(sigma=x.y)",
    "np(**{'sigma': 1})",
    "np(*(1,))",
    "np()(sigma=1)",
    "(np := sgd)",
    "np if True else sgd",
    "np(sigma=1j)",
    "np(sigma=b'1')",
    "np(sigma=...)",
    "np(sigma=not 1)",
    "np(sigma=-True)",
    "np; sgd",
    "'np'",
    "1",
    "",
    " \t",
    "\0",
    "np(",
    "np)",
    "(" * 900,
    "-" * 990 + "1",
    "f(" * 300 + ")" * 300,
    "a" + ".a" * 400,
    "not " * 240 + "a",
    "\ud800",
    "np" * 501,
]


@pytest.mark.parametrize("text", TRICKS, ids=range(len(TRICKS)))
def test_other_text_is_an_error_and_is_never_executed(text, capfd):
    with pytest.raises(UserError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


VALID = ["np(sigma=1e-3, samples=4, noise=rademacher)", "conv-large", "f(g(x='a b'), y=-1.5e-7, z=None)", "sgd()"]
cut = st.tuples(st.sampled_from(VALID), st.integers(0, 40), st.integers(0, 5), st.text(max_size=6))
mutated = cut.map(lambda c: c[0][: c[1]] + c[3] + c[0][c[1] + c[2] :])
symbols = st.text(st.sampled_from("np(), =-.'\"#\\1eE_[]{}:*\n" + string.ascii_lowercase[:3]), max_size=30)


@settings(max_examples=2000, deadline=None)
@given(st.one_of(st.text(max_size=60), mutated, symbols))
@example("a\nb(")
@example(r"f('\d')")
@example("f(1if 0else 2)")
def test_any_text_is_a_spec_or_an_error_of_one_line(text):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            spec = parse(text)
        except UserError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert isinstance(spec, Spec)
    assert not warned  # Python's own remarks on the text would be a second line on the terminal


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_entry_resolves_and_takes_keyword_arguments_with_types_and_defaults(kind, name):
    parameters = described(resolve(kind, name)).parameters[CONTEXT[kind] :]
    wrapped = [p for p in parameters if p.annotation is Spec and p.default is p.empty]
    for p in parameters:
        if p in wrapped:  # a combinator: of one spec, or of one for each pattern of nodes
            assert p.kind in (p.POSITIONAL_OR_KEYWORD, p.VAR_KEYWORD)
            continue
        assert p.kind is p.KEYWORD_ONLY
        several = [tuple[one, ...] for one in (int, float, str)] if kind == "experiment" else []
        assert (
            p.annotation in (int, float, bool, str, list, dict, Spec, *several)
            or typing.get_origin(p.annotation) is typing.Literal
        )
        assert p.default is not p.empty
        assert re.search(rf"\b{p.name}\b", usage(kind, name))
    around = "*=sgd" if name == BY_NODE else f"{name}({names(kind)[0]})" if wrapped else name
    assert check(kind, full(kind, around)) == full(kind, around)  # the defaults are of the declared types


@pytest.mark.parametrize(("kind", "name", "entry"), list(everything()))
def test_every_entry_has_a_sentence(kind, name, entry):
    assert entry.about[0].isupper() or entry.about[0].isdigit() or entry.about.startswith("scikit-learn")
    assert entry.about.endswith(".") and "\n" not in entry.about and len(entry.about) < 120


@pytest.mark.parametrize("name", names("network"))
def test_every_network_builds_for_mnist(name):
    model = make("network", SMALL_NETWORKS.get(name, name), (28, 28, 1), 10)
    params = jax.eval_shape(model.init, jax.random.key(0))
    outputs = jax.eval_shape(model.apply, params, jax.ShapeDtypeStruct((3, 28, 28, 1), "float32"))
    assert (outputs.shape[0], outputs.shape[-1]) == (3, 10)


def test_list_shows_every_name_with_its_sentence_and_arguments(capsys):
    cli.main(["list"])
    words = capsys.readouterr().out.split()
    for kind, name, entry in everything():
        assert name in words
        for word in (entry.about + " " + usage(kind, name)).split():
            assert word in words, f"{kind} {name}: {word}"


@pytest.mark.parametrize("kind, name", EVERY)
def test_signatures_from_the_source_equal_those_of_an_import(kind, name):
    found, expected = read(BUILT_IN[kind][name].target), described(resolve(kind, name))
    assert found and found.parameters[CONTEXT[kind] :] == expected.parameters[CONTEXT[kind] :]
    assert found.doc == expected.doc
    assert [p.name for p in found.parameters] == [p.name for p in expected.parameters]


def test_listing_and_checking_specs_imports_neither_jax_nor_numpy():
    code = """
        import sys
        from nodepert.cli import app as cli
        from nodepert.studies.run import Run
        cli.main(["list"])
        Run(rule="decorrelate(np(samples=4)); out=exact", network="conv-large").id
        print([m for m in ("jax", "numpy", "matplotlib", "optax") if m in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble, jnp.float32, np.array])
def test_a_scalar_of_numpy_or_jax_is_the_number_that_it_shows(kind):
    run = npt.Run(dataset="digits", lr=1e-3, wd=0.5, seed=3)
    seed = np.int64(3) if kind is np.float64 else jnp.int32(3)
    same = npt.Run(dataset="digits", lr=kind("0.001") if kind is np.longdouble else kind(1e-3), wd=kind(0.5), seed=seed)
    assert same == run and same.id == run.id and type(same.lr) is float and type(same.seed) is int
    spec = Spec("np", (), (("sigma", jnp.float32(0.01)), ("samples", np.uint8(2))))
    assert str(check("rule", spec)) == "np(sigma=0.01, samples=2)"


def test_grids_take_arrays_and_their_scalars():
    grid = npt.make_grid(
        {"grid": {"lr": np.array([0.001, 0.01], "float32"), "wd": jnp.float32(0.1)}, "seeds": np.int64(2)}
    )
    assert [(run.lr, run.wd, run.seed) for run in grid.runs] == [(lr, 0.1, s) for lr in (0.001, 0.01) for s in (0, 1)]


def test_threads_read_specs_side_by_side():
    """Python 3.11 loses count of the depth of a tree when several threads build one."""
    text = "decorrelate(np(sigma=1e-3, samples=4, noise=rademacher))"
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: check("rule", text), range(400)))) == 1
