"""YAML as people mean it, which is version 1.2: `off` is a word, `22:00` a time of day and `0755` no octal number.

PyYAML reads version 1.1, in which `on_change: off` is a boolean and an unquoted `22:00` a number to the base of sixty.
"""

import re

import yaml

_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")

_CORE = (
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("tag:yaml.org,2002:int", re.compile(r"^(?:[-+]?(?:0|[1-9][0-9]*))$"), "-+0123456789"),
    ("tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$"), "-+0123456789."),
)
"""Of the core schema (YAML 1.2.2, section 10.3.2) what a settings file has use for."""


class Loader(yaml.SafeLoader):
    """Reads a document by version 1.2's core schema."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in _CORE:
    Loader.add_implicit_resolver(_tag, _pattern, list(_first))
