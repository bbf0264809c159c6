"""Configurations that nobody would write: `config.toml` and `experiments_config.toml` as hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from utils.config.corpus import CorpusConfig
from utils.config.schema import TrainingConfig
from utils.data.labels.columns import CANONICAL_CLASSES

Table = dict[str, Any]
ODD_TEXTS = (
    "",
    " ",
    "a\0b",
    "two\nlines",
    "\x1b[31mred",
    "P",
    "../../etc",
    "a/b",
    ".",
    "..",
    "C:\\",
    "ä" * 200,
    "\x7f",
    "wavlm-tiny-random",
    "auto",
    "nan",
)
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 5) | st.floats() | st.floats(0, 2)
VALUES = st.recursive(
    st.booleans() | NUMBERS | TEXTS | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
"""Whatever TOML can hold."""


def _properties(section: type[CorpusConfig] | type[TrainingConfig]) -> dict[str, Table]:
    properties: dict[str, Table] = section.model_json_schema()["properties"]
    return properties


def _fitting(schema: Table) -> st.SearchStrategy[Any]:
    """Draw a value of the type and within the bounds that a key states, at its bounds above all."""
    if "anyOf" in schema:
        return st.one_of(
            *(_fitting(kind) for kind in schema["anyOf"] if kind.get("type") != "null" and "$ref" not in kind)
        )
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            low = schema.get("minimum", 0)
            return st.sampled_from([low, low + 1, low + 2, 7, 2**31])
        case "number":
            bounds: dict[str, float] = schema
            low = float(bounds.get("minimum", bounds.get("exclusiveMinimum", -1e3)))
            high = float(bounds.get("maximum", bounds.get("exclusiveMaximum", 1e300)))
            is_above, is_below = "exclusiveMinimum" in schema, "exclusiveMaximum" in schema
            near = st.floats(low, min(high, low + 1), exclude_min=is_above, exclude_max=is_below)
            return near | st.floats(low, high, exclude_min=is_above, exclude_max=is_below)
        case "array":
            items = schema["prefixItems"][0] if "prefixItems" in schema else schema["items"]
            return st.lists(_fitting(items), min_size=schema.get("minItems", 0), max_size=schema.get("maxItems", 3))
        case "object":
            return st.dictionaries(st.sampled_from(["train", "development", "test1", "x"]), st.lists(TEXTS, max_size=2))
        case _:
            return TEXTS


def tables_of(section: type[CorpusConfig] | type[TrainingConfig], own: Table) -> st.SearchStrategy[Table]:
    """Draw a table of some of a section's keys, mostly with values that fit, some misspelt or of any kind.

    Args:
        section: What the keys are of.
        own: Keys that stand in most tables.
    """
    properties = _properties(section)
    fitting = st.fixed_dictionaries({}, optional={key: _fitting(schema) for key, schema in properties.items()})
    few = st.sets(st.sampled_from(list(properties)), max_size=5)
    chosen = st.builds(lambda table, keys: {k: v for k, v in table.items() if k in keys}, fitting, few)
    wild = st.dictionaries(st.sampled_from([*properties, "lerning_rate", "Epoch", ""]) | TEXTS, VALUES, max_size=2)
    return st.builds(
        lambda table, odd, is_odd: {**own, **table, **(odd if is_odd else {})}, chosen, wild, st.booleans()
    )


def experiment_lists(base: Table) -> st.SearchStrategy[Table]:
    """Draw an experiment list whose base config has some keys in most cases."""
    names = st.sampled_from(["one", "two", "One"]) | TEXTS
    updates = tables_of(TrainingConfig, {})
    entry = st.fixed_dictionaries(
        {"name": names}, optional={"config_update": updates, "model_type": st.sampled_from(["UpstreamGender"]) | TEXTS}
    )
    odd = st.dictionaries(
        st.sampled_from(["name", "config", "model_type", "config_update", "extra"]), VALUES, max_size=3
    )
    entries = st.lists(entry | entry | entry | odd, min_size=1, max_size=3)
    bases = tables_of(TrainingConfig, base)
    plain = st.builds(lambda table, listed: {"base_config": table, "experiments": listed}, bases, entries)
    return plain | plain | plain | st.dictionaries(TEXTS, VALUES, max_size=3)


def corpus_lists(own: Table) -> st.SearchStrategy[Table]:
    """Draw a table of corpora, in most cases one of them."""
    right = st.just({"P": own})
    return (
        right
        | right
        | st.builds(lambda table: {"P": table}, tables_of(CorpusConfig, own))
        | st.dictionaries(TEXTS, VALUES)
    )


def trainable(base: Table) -> st.SearchStrategy[Table]:
    """Draw the keys of an experiment that fit by themselves and may not fit together; nothing takes long."""
    properties = _properties(TrainingConfig)
    bounded: dict[str, st.SearchStrategy[Any]] = {
        "task": st.sampled_from(["categorical", "dimensional", "multitask"]),
        "classes": st.lists(st.sampled_from(CANONICAL_CLASSES[:9]), max_size=4),
        "test_corpora": st.just([]),
        "seeds": st.just([1]),
        "upstream_model": st.sampled_from(["wavlm-tiny-random", "wavlm-tiny-group-random"]),
        "epoch": st.integers(1, 2),
        "min_epochs": st.integers(0, 2),
        "num_workers": st.integers(0, 1),
        "tracking": st.just("none"),
        "augment_reverb": st.just("nowhere"),
        "augment_noise": st.sampled_from(["white", "pink", "nowhere"]),
    }
    optional = {**{key: _fitting(schema) for key, schema in properties.items() if key != "corpus"}, **bounded}
    few = st.sets(st.sampled_from(list(optional)), max_size=8)
    chosen = st.builds(
        lambda table, keys: {k: v for k, v in table.items() if k in keys},
        st.fixed_dictionaries({}, optional=optional),
        few,
    )
    return chosen.map(lambda table: {**base, **table})
