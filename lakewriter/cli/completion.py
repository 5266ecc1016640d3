"""Completion by the shell: click's scripts, for words with colons and commas and for parts of words.

Bash splits a word at colons. Its script therefore passes the line, and the part of the word that
bash will replace. A value of the type `part` gets no space after it.
"""

import os
from typing import Any

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from lakewriter.cli.completion_values import PART

# Bash's own characters for a split, when one of them is the whole part.
_BREAKS = ":="


class _Bash(BashComplete):
    source_template = BashComplete.source_template.replace(
        'COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD',
        'COMP_WORDS="${COMP_LINE:0:$COMP_POINT}" COMP_PART="${COMP_WORDS[$COMP_CWORD]}"',
    ).replace(
        "        elif [[ $type == 'plain' ]]; then\n",
        f"        elif [[ $type == '{PART}' ]]; then\n"
        "            COMPREPLY+=($value)\n"
        "            compopt -o nospace\n"
        "        elif [[ $type == 'plain' ]]; then\n",
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the last one, and the last one, of the line up to the cursor."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        if not words or line[-1].isspace():
            words.append("")
        part = os.environ["COMP_PART"].lstrip(_BREAKS)
        self._kept = words[-1].removesuffix(part)
        return words[:-1], words[-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return the type and the text that replaces the part."""
        return f"{item.type},{item.value.removeprefix(self._kept)}"


class _Zsh(ZshComplete):
    source_template = ZshComplete.source_template.replace(
        '        elif [[ "$type" == "dir" ]]; then\n',
        f'        elif [[ "$type" == "{PART}" ]]; then\n'
        '            compadd -U -S "" -V unsorted -- "$key"\n'
        '        elif [[ "$type" == "dir" ]]; then\n',
    )


class _Fish(FishComplete):
    # A value may contain a comma. Fish adds no space after a colon or a comma.
    source_template = FishComplete.source_template.replace('split ","', 'split --max 1 ","')

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return the item, whose type fish does not need to know."""
        return super().format_completion(CompletionItem(item.value, help=item.help))


SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def install() -> None:
    """Make click use these classes in this process."""
    for name, kind in SHELLS.items():
        add_completion_class(kind, name)
