"""The settings file's JSON Schema, for editors: `# yaml-language-server: $schema=...` on its first line names it.

It is made of the models that check the file, so it says the same; what holds of two settings together only they know.
"""

import json
from typing import Any

from eks_rolling_config.file import SET_BY_THE_STACK, File

Json = dict[str, Any]

FILE_NAME = "eks-rolling.schema.json"
MODELINE = f"# yaml-language-server: $schema=./{FILE_NAME}"
"""Read by editors with the YAML language server, among them VS Code, IntelliJ, Neovim and Emacs."""


def schema() -> Json:
    """As JSON Schema 2020-12, without what only the stack sets."""
    document = File.model_json_schema()
    cluster = document["$defs"]["Cluster"]["properties"]
    for name in SET_BY_THE_STACK:
        del cluster[name]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document, "title": "eks-rolling settings"}


def text() -> str:
    """The document as it is published."""
    return json.dumps(schema(), indent=2) + "\n"
