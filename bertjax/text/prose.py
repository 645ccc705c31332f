"""Prose from program documentation: its paragraphs without code, tables, signatures and markup.

What is between the sentences of a docstring would teach a language model little English: it is left
out line by line by its form, and then sentence by sentence by its share of plain words.
"""

import re

_UNDERLINE = re.compile(r"([=\-~^*#+`.\"'])\1{2,}")
_BULLET = re.compile(r"(?:[*+•-]|\(?\d{1,2}[.)]|[a-z]\)) +(?=\S)")
_FIELD = re.compile(r"[:@](?:\w+)(?: +[^:]*)?: *")
_ARGUMENT = re.compile(r"`{0,2}\*{0,2}[a-z_]\w*`{0,2}(?: ?\([^)]*\))?(?::| +--) +(?=\S)")
_CODE_DIRECTIVE = re.compile(
    r"\.\. *(?:code|sourcecode|math|plot|doctest|testcode|parsed-literal|productionlist)"
)

_MARKUP = (
    (re.compile(r":[a-zA-Z][\w:+.-]*:`~?([^`<]*?)(?: *<[^`>]*>)?`"), r"\1"),  # :class:`x`
    (re.compile(r"`([^`<]+) <[^`>]+>`_{0,2}"), r"\1"),  # `x <address>`_
    (re.compile(r"``([^`]*)``|`([^`']*)['`]_{0,2}"), r"\1\2"),
    (re.compile(r"(?<![\w*])(\*\*?)(?=[^\s*])([^*]{1,80}?)(?<=\S)\1(?![\w*])"), r"\2"),  # *x*
    (
        re.compile(r"[“”\"]([^\s“”\"]{1,40})[“”\"]"),
        r"\1",
    ),  # the quotes around a name, none around a phrase
    (re.compile(r" ?\[\d+\]_?"), ""),  # a footnote's number
    (re.compile(r"[‘’]"), "'"),
    (re.compile(r"\s+"), " "),
)
_SENTENCE_END = re.compile(r"(?:(?<=[.!?:])|(?<=[.!?:][\"')])) +(?=[\"'(]?[A-Z])")
_PLAIN_WORD = re.compile(r"[\"'(]*[A-Za-z]+(?:['-][A-Za-z]+)*[\"')]*[.,;:!?]?[\"')]*")
_CODE_CHARACTERS = re.compile(r"[=<>{}\[\]|\\@#$%^~]|https?:|\w\.\w+\(")


def extract_prose(text: str) -> list[str]:
    """Returns the paragraphs of a docstring or a page of documentation, one line each, only whole
    sentences of plain words.

    Args:
        text: Documentation in reStructuredText, numpy's or Google's style, or none; not indented as
            a whole.
    """
    paragraphs = map(_clean_paragraph, _find_paragraphs(text))
    return [paragraph for paragraph in paragraphs if paragraph]


def _find_paragraphs(text: str) -> list[str]:
    """Joins lines that belong together. A list's item is a paragraph; literal blocks, examples and
    titles are dropped.
    """
    paragraphs: list[str] = []
    lines: list[str] = []
    start = 0  # the indentation of the paragraph's first line
    hanging: int | None = None  # the least indentation that continues the item of a list
    literal: int | None = None  # what is indented more than this is code
    example = False

    def flush() -> None:
        nonlocal literal
        if lines:
            paragraph = " ".join(lines)
            if paragraph.endswith("::"):
                literal = start
                paragraph = paragraph[:-1]
            paragraphs.append(paragraph)
            lines.clear()

    for line in text.expandtabs().splitlines():
        content = line.strip()
        indent = len(line) - len(line.lstrip())
        if not content:
            flush()
            example = False
            continue
        if literal is not None:
            if indent > literal:
                continue
            literal = None
        if example or content.startswith((">>>", "... ", "$ ")):
            flush()
            example = True
            continue
        if _UNDERLINE.fullmatch(content):
            lines.clear()
            continue
        if content.startswith(".."):
            flush()
            literal = indent if _CODE_DIRECTIVE.match(content) else None
            continue
        if field := _FIELD.match(content):
            flush()
            content, hanging = _capitalize(content[field.end() :]), indent + 1
        elif bullet := _BULLET.match(content):
            flush()
            content, hanging = _capitalize(content[bullet.end() :]), indent + 1
        elif argument := _ARGUMENT.match(content):
            flush()
            content, hanging = _capitalize(content[argument.end() :]), indent
        elif not lines:
            hanging = None
        elif indent < hanging if hanging is not None else indent != start:
            flush()
            hanging = None
        if not lines:
            start = indent
        if content:
            lines.append(content)
    flush()
    return paragraphs


def _capitalize(content: str) -> str:
    """Capitalizes a text: the description of an argument or a list's item often starts in lower
    case.
    """
    return content[:1].upper() + content[1:]


def _clean_paragraph(paragraph: str) -> str:
    """Returns the paragraph's good sentences, without markup."""
    for pattern, replacement in _MARKUP:
        paragraph = pattern.sub(replacement, paragraph)
    return " ".join(
        sentence[:-1] + "." if sentence.endswith(":") else sentence
        for sentence in _SENTENCE_END.split(paragraph.strip())
        if _is_prose(sentence)
    )


def _is_prose(sentence: str) -> bool:
    """Returns whether this is a whole sentence, mostly of plain words."""
    words = sentence.split()
    if not 4 <= len(words) <= 80 or not sentence.rstrip("\"')").endswith((".", "!", "?", ":")):
        return False
    if not sentence.lstrip("\"'(")[:1].isupper() or len(_CODE_CHARACTERS.findall(sentence)) > 1:
        return False
    if any(sentence.count(opening) != sentence.count(closing) for opening, closing in ("()", "[]")):
        return False
    return sum(map(bool, map(_PLAIN_WORD.fullmatch, words))) >= 0.8 * len(words)
