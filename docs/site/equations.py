"""Plain-text equations, as docstrings and pages write them, as MathML that a browser sets.

`tau_mem dv/dt = -(v - v_rest) + r_mem I,  where v >= v_th: spike` becomes a fraction, subscripts
and Greek letters; words stay words. Nothing has to be loaded, from the network or from a file.
"""

import html
import re

GREEK = dict(
    zip(
        "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi "
        "chi psi omega Delta Sigma Phi Omega".split(),
        "αβγδεζηθκλμνξπρστφχψωΔΣΦΩ",
        strict=True,
    )
)
FUNCTIONS = set(
    "exp ln log log2 expm1 max min argmax sin cos tan tanh sign Var clip softmax onehot round ceil "
    "floor sup arctan sqrt diag erf sum".split()
)
SYMBOLS = {
    "<-": "←",
    "->": "→",
    ">=": "≥",
    "<=": "≤",
    "+-": "±",
    "-": "−",
    "*": "·",
    "!=": "≠",
    "...": "…",
}
WORDLIKE = {"a", "A", "i", "s"}  # beside a word: an article, a name, a unit

TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<code>`[^`]*`)
    |(?P<derivative>d[A-Za-zα-ωΑ-Ω](?:_\w+)?/d[a-z](?![\w]))
    |(?P<number>\d[\d,]*(?:\.\d+)?(?:e[-+−]?\d+)?(?![A-Za-z])|\.\d+)
    |(?P<change>Δ(?=[A-Za-z]))
    |(?P<name>(?:[A-Za-zα-ωΑ-Ωµℓ∇]+\d?|Σ|∑|∂)'*(?:_(?:\{[^}]*\}|[A-Za-z0-9α-ω+∞]+(?:_[A-Za-z0-9]+)*))?)
    |(?P<symbol><-|->|>=|<=|!=|\+-|\.\.\.|.)""",
    re.VERBOSE | re.DOTALL,
)
RAISED = {
    **dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789−+", strict=True)),
    "ᵏ": "k", "ᵀ": "T", "ᵇ": "b", "ⁿ": "n",
}  # fmt: skip
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+−", strict=True))


def is_equation(block: str) -> bool:
    """Whether an indented block is equations, and neither code nor a drawing."""
    drawn = re.search(
        r"[─│╲╱┌└├⟲]|python -m|^\s*\w+=\w|^\s*\$|lambda |^\s*(make|git|pip) ", block, re.M
    )
    return not drawn and bool(re.search(r"\s(=|<-|←|<=|≤|≥|becomes|→|->)\s|^\w+ / \w", block))


def display(block: str) -> str:
    """Lines of equations as a block of their own, the gaps between their parts kept."""
    lines = [line for line in block.strip("\n").split("\n") if line.strip()]
    least = min(len(line) - len(line.lstrip()) for line in lines)
    rows = (_row(line[least:]) for line in lines)
    return '<div class="equations">' + "".join(f"<div>{row}</div>" for row in rows) + "</div>"


def _row(line: str) -> str:
    indent = len(line) - len(line.lstrip())
    parts = re.split(r" {3,}", line.strip())
    gap = f'<span style="padding-left: {indent / 2}em"></span>' if indent else ""
    return gap + '<span class="gap"></span>'.join(f"<span>{inline(part)}</span>" for part in parts)


def inline(text: str) -> str:
    """Text in which what is mathematics has become MathML."""
    return "".join(_math(run) if math else _plain(run) for math, run in _runs(text))


def prose(text: str) -> str:
    """Text of a page in which lowered and Greek symbols, and what they stand among, are set."""
    parts = re.split(r"(`[^`]*`|\]\([^)]*\)|<[^>]*>|\*\*|^#.*$)", text, flags=re.MULTILINE)
    for i in range(0, len(parts), 2):
        runs = _runs(parts[i])
        said = ("".join(token for _, token in run) for _, run in runs)
        parts[i] = "".join(
            _math(run) if math and re.search(SYMBOLIC, plain) and _closed(plain) else plain
            for (math, run), plain in zip(runs, said, strict=True)
        )
    return "".join(parts)


SYMBOLIC = r"[a-zα-ωA-Z]_[\w{∞]|[α-ωΔΣ∞√]|(^|[ (])[a-zA-Z]\w? = "


def _closed(text: str) -> bool:
    return all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}")) and "|" not in text


def _plain(tokens: list[tuple[str, str]]) -> str:
    said = "".join(t if kind == "code" else html.escape(t, quote=False) for kind, t in tokens)
    return re.sub(r"([*_\[\]])(?=[^`]*(?:`[^`]*`[^`]*)*$)", r"\\\1", said)


def _tokens(text: str) -> list[tuple[str, str]]:
    return [(m.lastgroup or "", m.group()) for m in TOKEN.finditer(text)]


def _is_word(kind: str, token: str) -> bool:
    if kind != "name":
        return kind == "code"
    base = token.partition("_")[0].rstrip("'")
    known = base in GREEK or base in FUNCTIONS or re.fullmatch(r"d[a-zα-ωA-Z]|[Σ∑∂]", base)
    return len(base.rstrip("0123456789")) > 1 and "_" not in token and not known and base.isascii()


def _runs(text: str) -> list[tuple[bool, list[tuple[str, str]]]]:
    """Stretches of mathematics and of words, in turns."""
    tokens = _tokens(text)
    words = [_is_word(*token) for token in tokens]
    for i, (kind, token) in enumerate(tokens):  # a function of one's own, and an article
        after = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        if words[i] and kind == "name" and after == "(":
            words[i] = False
        if words[i] and kind == "name" and _between_operators(tokens, i):
            words[i] = False
        beside = [j for j in (i - 2, i + 2) if 0 <= j < len(tokens)]
        if token in WORDLIKE and beside and all(words[j] for j in beside[-1:]):
            words[i] = True
    runs: list[tuple[bool, list[tuple[str, str]]]] = []
    for token, word in zip(tokens, words, strict=True):
        math = not word
        if token[0] == "space" and runs:
            math = runs[-1][0]
        if not runs or runs[-1][0] != math:
            runs.append((math, []))
        runs[-1][1].append(token)
    return [part for math, run in runs for part in (_trimmed(run) if math else [(False, run)])]


def _between_operators(tokens: list[tuple[str, str]], i: int) -> bool:
    """Whether a word stands where a quantity would: `exp(-lag / tau)`."""
    said = [token for token in tokens[:i] if token[0] != "space"][-1:]
    then = [token for token in tokens[i + 1 :] if token[0] != "space"][:1]
    before = bool(said) and said[0][1] in "(-−+/=·*"
    after = bool(then) and (then[0][1] in ")-−+/=·*" or then[0][1] in FUNCTIONS)
    return before and after


def _trimmed(run: list[tuple[str, str]]) -> list[tuple[bool, list[tuple[str, str]]]]:
    """Punctuation and blanks at the ends of a stretch of mathematics belong to the text."""
    edge = {",", ";", ":", ".", "?"}
    first, last = 0, len(run)
    while first < last and (run[first][0] == "space" or run[first][1] in edge | {")"}):
        first += 1
    while last > first and (run[last - 1][0] == "space" or run[last - 1][1] in edge | {"("}):
        last -= 1
    body = run[first:last]
    if not any(kind in ("name", "change", "derivative") or t in "=≥≤←√∞" for kind, t in body):
        return [(False, run)]  # numbers and brackets alone
    parts = [(False, run[:first]), (True, body), (False, run[last:])]
    return [part for part in parts if part[1]]


def _math(tokens: list[tuple[str, str]]) -> str:
    """One element of MathML for each part between which a line may break: browsers break none."""
    parts: list[list[tuple[str, str]]] = [[]]
    joints = [""]
    depth, length = 0, 0
    for kind, token in tokens:
        depth += (token in "([{⌈") - (token in ")]}⌉")
        length += len(token)
        relation = token in ("=", "←", "<-", ">=", "<=", "≥", "≤", "≈", "→")
        sum_of_many = token in ("+", "-", "−") and length > 24 and parts[-1][-1:][0][0] == "space"
        relation = relation and length - len(token) > 9  # a short left side keeps its relation
        if not depth and parts[-1] and token == ",":
            parts.append([])
            joints.append(",")
            length = 0
        elif not depth and parts[-1] and (relation or sum_of_many):
            parts.append([(kind, token)])
            joints.append(" ")
            length = 0
        else:
            parts[-1].append((kind, token))
    said = ""
    for joint, part in zip(joints, parts, strict=True):
        said += joint + " " * (joint == "," and part[:1] != [] and part[0][0] == "space")
        row = _row_of(part)
        if joint == " ":
            row = re.sub(r"^<mo", '<mo form="infix"', row)
        said += f"<math>{row}</math>" if part else ""
    return said


def _row_of(tokens: list[tuple[str, str]]) -> str:
    """Operands one after another; what is raised or lowered goes to the one before."""
    out: list[str] = []
    i = 0
    while i < len(tokens):
        kind, token = tokens[i]
        if kind == "space":
            if out and _operand(tokens, i - 1) and _operand(tokens, i + 1):
                out.append('<mspace width="0.2em"/>')
        elif token == "^" and out:
            i, power = _group(tokens, i + 1)
            out.append(f"<msup>{out.pop()}<mrow>{power}</mrow></msup>")
        elif token in RAISED and out or token in LOWERED and out:
            table, tag = (RAISED, "msup") if token in RAISED else (LOWERED, "msub")
            shifted = table[token]
            while i + 1 < len(tokens) and tokens[i + 1][1] in table:
                i += 1
                shifted += table[tokens[i][1]]
            out.append(f"<{tag}>{out.pop()}<mrow>{_row_of(_tokens(shifted))}</mrow></{tag}>")
        else:
            out.append(_element(kind, token))
        i += 1
    return "".join(out)


def _operand(tokens: list[tuple[str, str]], i: int) -> bool:
    if not 0 <= i < len(tokens):
        return False
    kind, token = tokens[i]
    return kind in ("name", "number", "derivative") or token in "()[]{}⌈⌉‖" or token in RAISED


def _group(tokens: list[tuple[str, str]], i: int) -> tuple[int, str]:
    """The bracket or the one token from `i` on, and where it ends."""
    closing = {"{": "}", "(": ")"}.get(tokens[i][1] if i < len(tokens) else "")
    if not closing:
        j = i + 1 if i + 1 < len(tokens) and tokens[i][1] in "-−+" else i
        return j, _row_of(tokens[i : j + 1])
    depth, j = 0, i
    while j < len(tokens):
        depth += (tokens[j][1] == tokens[i][1]) - (tokens[j][1] == closing)
        if not depth:
            break
        j += 1
    inner = tokens[i + 1 : j] if closing == "}" else tokens[i : j + 1]
    return j, _row_of(inner)


def _element(kind: str, token: str) -> str:
    if kind == "number":
        return f"<mn>{token}</mn>"
    if kind == "derivative":
        above, below = token.split("/")
        over, under = (f"<mrow><mi>d</mi>{_element('name', x[1:])}</mrow>" for x in (above, below))
        return f"<mfrac>{over}{under}</mfrac>"
    if kind == "name":
        return _name(token)
    if kind == "change":
        return "<mi>Δ</mi>"
    symbol = html.escape(SYMBOLS.get(token, token))
    symbol = symbol.replace("*", "&#42;").replace("|", "&#124;")
    fence = ' stretchy="false"' if token in "()[]{}|‖⌈⌉" else ""
    return f"<mo{fence}>{symbol}</mo>"


def _name(token: str) -> str:
    base, _, low = token.partition("_")
    primes = len(base) - len(base.rstrip("'"))
    base = base.rstrip("'")
    base, digit = (base[:-1], base[-1]) if base[-1].isdigit() and len(base) == 2 else (base, "")
    low = low.strip("{}") or digit
    if base in ("sum", "Σ", "∑"):
        letter = '<mo largeop="false">∑</mo>'
    elif re.fullmatch(r"d[a-zα-ωA-Z]", base):
        letter = f"<mrow><mi>d</mi><mi>{base[1:]}</mi></mrow>"
    else:
        letter = f"<mi>{GREEK.get(base, '√' if base == 'sqrt' else base)}</mi>"
    if primes:
        letter = f"<msup>{letter}<mo>{'′' * primes}</mo></msup>"
    if not low:
        return letter
    return f"<msub>{letter}<mrow>{_low(low)}</mrow></msub>"


def _low(low: str) -> str:
    """Indices one by one, words as they are."""
    if re.fullmatch(r"[A-Za-z0-9_]{3,}", low) or re.fullmatch(r"th|in|up", low):
        return f"<mtext>{html.escape(low.replace('_', ' '))}</mtext>"
    set_ = _row_of(_tokens(low))
    return re.sub(r"<mi>([a-z])([a-z])</mi>", r"<mi>\1</mi><mi>\2</mi>", set_)
