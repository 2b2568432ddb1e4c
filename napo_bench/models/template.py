"""The variables of a chat template, such as `enable_thinking`, which a user may give values."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from napo_bench.core.errors import NapoBenchError, unknown_name

OPTION = "--chat-template-kwargs"
_OUR_OWN = {
    "messages", "raise_exception", "strftime_now", "bos_token", "eos_token", "pad_token", "unk_token",
}  # fmt: skip
"""Variables and functions that the prompt itself sets."""


def require_variables(given: Mapping[str, Any], template: str, conversation: str) -> None:
    """Refuse values that would change nothing, or that would replace a part of the prompt.

    Args:
        given: Variable -> value.
        template: Text of the chat template.
        conversation: Name of the conversation, for messages.

    Raises:
        NapoBenchError: the template does not use a variable, or the prompt itself sets the variable.
    """
    if not given:
        return
    from transformers import ProcessorMixin

    taken = _OUR_OWN | set(inspect.signature(ProcessorMixin.apply_chat_template).parameters)
    known = _variables(template) - taken
    for name in given:
        if name in taken:
            raise NapoBenchError(
                f"{OPTION} names {name!r}, which napo-bench or transformers sets itself.", "Leave it out."
            )
        if name not in known and known:
            raise unknown_name("variable", name, sorted(known), f"{OPTION}, of the checkpoint's chat template")
        if not known:
            raise NapoBenchError(
                f"{OPTION} names {name!r}; the prompt of this checkpoint ({conversation}) has no variables.",
                "Leave it out.",
            )


def _variables(template: str) -> set[str]:
    """The variables that a template reads; none if the template is damaged, which its first use reports."""
    from jinja2 import Environment, TemplateSyntaxError, meta, nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class Generation(Extension):
        """transformers' mark around the model's own words."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            """The statements inside the mark."""
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    try:
        read = Environment(extensions=["jinja2.ext.loopcontrols", Generation], autoescape=True).parse(template)
    except TemplateSyntaxError:
        return set()
    return meta.find_undeclared_variables(read)
