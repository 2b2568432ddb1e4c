"""Commands whose help lists the installed benchmarks and engines."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class ListedCommand(TyperCommand):
    """A command that fills {benchmarks}, {tasks}, {suite} and {engines} in the help of its options."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help. The benchmarks are listed only here, so that no other command waits for the list."""
        from napo_bench.benchmarks import all_benchmarks, all_tasks, default_suite
        from napo_bench.engines.registry import engine_names

        lists = {
            "{benchmarks}": ", ".join(name.replace("_", "-") for name in all_benchmarks()),
            "{tasks}": ", ".join(all_tasks()),
            "{engines}": ", ".join(engine_names()),
            "{suite}": ", ".join(default_suite()),
        }
        for parameter in self.params:
            text = getattr(parameter, "help", None) or ""
            for place, listed in lists.items():
                text = text.replace(place, listed)
            vars(parameter)["help"] = text
        super().format_help(ctx, formatter)
