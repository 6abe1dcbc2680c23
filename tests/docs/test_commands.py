"""Every command line and piece of Python in the documentation can be typed as it stands."""

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import arq.cli
import pytest

from bridge.enqueue import parse_request
from bridge.settings import VARIABLES
from cli import gateway_options
from tests.docs.command_tree import COMMANDS, ROOT_COMMAND
from tests.docs.pages import PAGES, ROOT, Block
from tests.docs.routes import routes

ASSIGNMENT: Final = re.compile(r"([A-Z_]+)=.*")
TARGETS: Final = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def command_lines() -> Iterator[pytest.ParameterSet]:
    for page in PAGES:
        for block in page.blocks:
            if block.language == "sh":
                for command in split(block.text):
                    yield pytest.param(command, id=f"{page}:{block.line}: {shlex.join(command)[:50]}")


def split(text: str) -> Iterator[list[str]]:
    """The commands of a script, each as its words."""
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = [*lexer]
        while words:
            end = next((n for n, word in enumerate(words) if word in {"&&", "|", ";"}), len(words))
            yield words[:end]
            words = words[end + 1 :]


@pytest.mark.parametrize("command", [*command_lines()])
def test_command_line_is_one_that_exists(command: list[str]) -> None:
    words = [word for word in command if word != "export"]
    while words and (assignment := ASSIGNMENT.fullmatch(words[0])):
        assert assignment[1] in VARIABLES
        words = words[1:]
    match words:
        case []:
            pass
        case ["make", target, *options]:
            assert target in TARGETS
            assert all(option.startswith("ARGS=") for option in options)
        case ["curl", *options]:
            check_request(options)
        case ["arq", import_path, *options]:
            check_arq(import_path, options)
        case ["redis-cli", *_]:
            pass
        case [program, *options]:
            assert Path(program).name == "aegis-tasks"
            check_our_command(options)


def check_our_command(words: list[str]) -> None:
    gateway_options.forget()
    options_before = {name: parameter for parameter in ROOT_COMMAND.params for name in parameter.opts}
    while words[0] in options_before:
        words = words[1 if options_before[words[0]].is_flag else 2 :]
    if "<" in words:
        words = words[: words.index("<")]
    name, *options = words
    if name not in COMMANDS:  # a command of a group
        name, options = f"{name} {options[0]}", options[1:]
    assert name in COMMANDS
    COMMANDS[name].make_context(name, options)  # raises a usage error that says what is wrong


def check_request(words: list[str]) -> None:
    options = dict(pairwise(words))
    (url,) = [word for word in words if word.startswith("http")]
    method = options.get("-X", "GET")
    place = urlsplit(url)
    assert place.netloc == "localhost:8000"
    assert (method, place.path.rstrip("/")) in routes()
    if method == "POST":
        assert options["-H"] == "Content-Type: application/json"
        parse_request(options["-d"].encode())


def check_arq(import_path: str, options: list[str]) -> None:
    module, _, name = import_path.rpartition(".")
    assert hasattr(import_module(module), name)
    arq.cli.cli.make_context("arq", [import_path, *options])


def python_blocks() -> Iterator[pytest.ParameterSet]:
    for page in PAGES:
        for block in page.blocks:
            if block.language == "python":
                yield pytest.param(block, id=f"{page}:{block.line}")


@pytest.mark.parametrize("block", [*python_blocks()])
def test_python_can_be_compiled(block: Block) -> None:
    compile(block.text, "documentation", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


def test_blocks_say_their_language() -> None:
    languages = {block.language for page in PAGES for block in page.blocks}
    assert languages <= {"console", "sh", "python", "json", "text"}
