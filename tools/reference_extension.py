"""The extension of Markdown that puts generated text into pages of the docs site.

A page has a part such as this one. Readers of the file see the text between the
comments; readers of the site see the generated one.

    <!-- generated: commands -->
    In a terminal: `lakewriter record --help`.
    <!-- end -->
"""

import re
from typing import Any

import markdown
from markdown.preprocessors import Preprocessor
from reference_text import GENERATORS

_PART = re.compile(r"^<!-- generated: (\w+) -->\n.*?^<!-- end -->$", re.DOTALL | re.MULTILINE)


class _Generated(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        """Return the page with each generated part in its place."""
        return _PART.sub(lambda found: GENERATORS[found[1]](), "\n".join(lines)).split("\n")


class GeneratedParts(markdown.Extension):
    """Replace the marked parts of a page before anything else reads it."""

    def extendMarkdown(self, md: markdown.Markdown) -> None:  # noqa: N802 - the library's name
        """Register the preprocessor before that of code blocks."""
        md.preprocessors.register(_Generated(md), "generated_parts", 1000)


def makeExtension(**options: Any) -> GeneratedParts:  # noqa: N802 - the library's name
    """Return the extension; Markdown calls this function."""
    return GeneratedParts(**options)
