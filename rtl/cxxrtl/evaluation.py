"""What is done to the evaluation of a converted design, so that it compiles in minutes and runs faster."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["with_straight_commit", "without_idle_work", "without_idle_writes"]

PART_LENGTH = 60_000
"""Characters after which a part of the evaluation ends: shorter ones compile faster and run slower."""

_EVALUATION = re.compile(
    r"^bool p_top::eval\(performer \*performer\) \{\n\tbool converged = true;\n(.*?)^\treturn converged;\n\}\n",
    re.MULTILINE | re.DOTALL,
)
_VALUE = re.compile(r"\tvalue<\d+> (\w+);")
_TEMPORARY = re.compile(r"\tauto tmp_\d+ = ")
_NAME = re.compile(r"\b\w+\b")
_STRUCT_END = "}; // struct p_top\n"
_MASK_PARTS = re.compile(r"\.(?:slice<[\d,]+>|val|repeat<\d+>)\(\)|\.concat\(|\)")
_WRITE = re.compile(r"^(\t+)(memory_\w+)\.update\((.*)\);$", re.MULTILINE)
_ASSIGNMENT = re.compile(r"\t(\w+) = (.*);")
_UPDATE = re.compile(r"\tif \(posedge_p_clk\) \{\n\t\t(\w+)\.next = (.*);\n\t\}")
_COMMIT = re.compile(r"^\t\tif \(((memory_)?\w+)\.commit\(observer\)\) changed = true;\n", re.MULTILINE)


def without_idle_writes(text: str) -> str:
    """The converted design with memory writes that are left out where they change no bit.

    As converted, every write port queues a word in every cycle, mostly under a mask of zeros.
    """
    return _WRITE.sub(_guarded, text)


def _guarded(found: re.Match[str]) -> str:
    indent, cells, arguments = found.groups()
    ends = list(_outside(arguments, ", "))
    index, word, mask, priority = (
        arguments[low:high].removeprefix(", ") for low, high in zip([0, *ends], [*ends, None], strict=True)
    )
    # Mostly the mask repeats bits of one signal: where that is zero, so is the mask.
    signals = set(re.sub(r"\.curr\b", "", _MASK_PARTS.sub(" ", mask)).split())
    if len(signals) == 1:
        (enable,) = signals
        enable += ".curr" if f"{enable}.curr" in mask else ""
        return f"{indent}if ({enable}) {cells}.update({index}, {word}, {mask}, {priority});"
    return f"{indent}if (const auto mask = {mask}; mask) {cells}.update({index}, {word}, mask, {priority});"


def with_straight_commit(text: str) -> str:
    """The converted design with `advance()`: `commit()` that does not find out what changes.

    Comparing each register with its next value costs a jump that no processor foresees, and a third of the
    whole simulation's time.
    """
    copies = "".join(map(_copy, _COMMIT.finditer(text)))
    advance = f"\tvoid advance() {{\n\t\tobserver observer;\n{copies}\t}}\n"
    return text.replace(_STRUCT_END, advance + _STRUCT_END, 1)


def _copy(found: re.Match[str]) -> str:
    name, is_memory = found.groups()
    return f"\t\t{name}.commit(observer);\n" if is_memory else f"\t\t{name}.curr = {name}.next;\n"


def without_idle_work(text: str) -> str:
    """The converted design with an evaluation that computes what registers take only where they take it, in parts.

    As converted, a value that is used twice is computed in every cycle, even where all its users are registers
    whose enable is low: whole pipelines run empty at full cost. And a compiler's time grows faster than the length of
    a function: 16 rows of 16 lanes take g++ over 400 s in one function and 40 s in parts. Values that pass from
    part to part become members. Text that does not look as expected stays as it is.
    """
    found = _EVALUATION.search(text)
    if found is None:
        return text
    edges, values, statements = _statements(found[1])
    evaluation, members = _in_parts(edges, values, _under_enables(statements, values))
    text = text[: found.start()] + evaluation + text[found.end() :]
    return text.replace(_STRUCT_END, members + _STRUCT_END, 1)


def _statements(text: str) -> tuple[list[str], dict[str, str], list[str]]:
    """The clock edges, the declarations of the values by name, and the statements.

    The place in a memory that is read outside of a clock edge is a temporary value: with all that reads it, up to the
    end of a branch, it is one statement.
    """
    edges, values, statements = [], {}, []
    statement: list[str] = []
    depth = 0
    for line in text.splitlines():
        value = _VALUE.fullmatch(line)
        if value is not None and not statement:
            values[value[1]] = line
        elif line.startswith("\tbool posedge_"):
            edges.append(line)
        elif line and not line.lstrip().startswith("//"):
            statement.append(line)
            depth += line.count("{") - line.count("}")
            if depth == 0 and (line == "\t}" or not _TEMPORARY.match(statement[0])):
                statements.append("\n".join(statement))
                statement = []
    return edges, values, statements


class _Enable(NamedTuple):
    """When registers take a new value; while the reset is up, where they have one, their initial value."""

    condition: str
    reset: str = ""


class _Update(NamedTuple):
    """The next value of a register, and its initial one where it has a reset."""

    register: str
    value: str
    initial: str = ""


def _under_enables(statements: Iterable[str], values: Iterable[str]) -> list[str]:
    """Registers that have an enable, and all that only they use, come last and under that enable.

    A value is assigned before it is read, as a whole in one statement or in slices, and no statement reads what
    a register takes next; so statements may move down to their only users.
    """
    names = set(values)
    updates: dict[_Enable, list[_Update]] = defaultdict(list)
    others = []
    for statement in statements:
        enabled = _enabled(statement)
        if enabled is None:
            others.append(statement)
        else:
            updates[enabled[0]].append(enabled[1])

    # Who uses a value: registers of one enable, or (None) anything else.
    users: dict[str, _Enable | None] = {}

    def use(text: str, user: _Enable | None) -> None:
        for name in names.intersection(_NAME.findall(text)):
            users[name] = user if users.get(name, user) == user else None

    for enable, registers in updates.items():
        use(" ".join(enable), None)
        for register in registers:
            use(register.value, enable)
    kept = []
    moved: dict[_Enable, list[tuple[str, str]]] = defaultdict(list)
    for statement in reversed(others):
        assignment = _ASSIGNMENT.fullmatch(statement)
        user = users.get(assignment[1]) if assignment is not None else None
        if assignment is None or user is None:
            use(statement, None)
            kept.append(statement)
        else:
            use(assignment[2], user)
            moved[user].append((assignment[1], assignment[2]))
    kept.reverse()
    for enable, registers in updates.items():
        kept += _blocks(enable, moved[enable][::-1], registers)
    return kept


def _enabled(statement: str) -> tuple[_Enable, _Update] | None:
    """The update of a register that keeps its value where its enable is low."""
    update = _UPDATE.fullmatch(statement)
    if update is None:
        return None
    register, value = update.groups()
    chosen = _choice(value)
    reset, initial = "", ""
    if chosen is not None and chosen[0].endswith("_rst"):
        reset, initial, value = chosen
        chosen = _choice(value)
    if chosen is None or chosen[2] != f"{register}.curr":
        return None
    return _Enable(chosen[0], reset), _Update(register, chosen[1], initial)


def _blocks(enable: _Enable, moved: Sequence[tuple[str, str]], updates: Sequence[_Update]) -> Iterable[str]:
    """A block for each set of registers of one enable that have values in common, so that blocks stay short."""
    values = [value for _, value in moved] + [update.value for update in updates]
    home = {name: index for index, (name, _) in enumerate(moved)}
    joined = list(range(len(values)))

    def find(index: int) -> int:
        while joined[index] != index:
            joined[index] = joined[joined[index]]
            index = joined[index]
        return index

    for index, value in enumerate(values):
        for name in home.keys() & set(_NAME.findall(value)):
            joined[find(home[name])] = find(index)
    taken: dict[int, list[str]] = defaultdict(list)
    initial: dict[int, list[str]] = defaultdict(list)
    for index, (name, value) in enumerate(moved):
        taken[find(index)].append(f"\t\t\t{name} = {value};")
    for index, update in enumerate(updates, len(moved)):
        taken[find(index)].append(f"\t\t\t{update.register}.next = {update.value};")
        initial[find(index)].append(f"\t\t\t{update.register}.next = {update.initial};")
    for block, lines in taken.items():
        reset = [f"\t\tif ({enable.reset}) {{", *initial[block], "\t\t} else"] if enable.reset else []
        yield "\n".join(["\tif (posedge_p_clk) {", *reset, f"\t\tif ({enable.condition}) {{", *lines, "\t\t}", "\t}"])


def _choice(expression: str) -> tuple[str, str, str] | None:
    """The condition and the two values of ``(condition ? value : other)``."""
    inner = expression[1:-1]
    marks = list(_outside(inner, " ? ")), list(_outside(inner, " : "))
    if expression[:1] != "(" or expression[-1:] != ")" or len(marks[0]) != 1 or len(marks[1]) != 1:
        return None
    (question,), (colon,) = marks
    return inner[:question], inner[question + 3 : colon], inner[colon + 3 :]


def _outside(text: str, mark: str) -> Iterable[int]:
    """Where a mark stands outside of all brackets; nowhere, where they do not pair."""
    depth, places = 0, []
    for at, character in enumerate(text):
        depth += (character in "({") - (character in ")}")
        if depth < 0:
            return []
        if not depth and text.startswith(mark, at):
            places.append(at)
    return places


def _in_parts(edges: Sequence[str], values: dict[str, str], statements: Iterable[str]) -> tuple[str, str]:
    """The evaluation in functions of its parts, and the members that they need."""
    parts = [""]
    for each in statements:
        if len(parts[-1]) > PART_LENGTH:
            parts.append("")
        parts[-1] += each + "\n"
    used = [[name for name in dict.fromkeys(_NAME.findall(part)) if name in values] for part in parts]
    uses = Counter(name for names in used for name in names)

    def function(index: int, names: Sequence[str], part: str) -> str:
        held = "".join(f"\tauto &{name} = held.{name};\n" if uses[name] > 1 else f"{values[name]}\n" for name in names)
        opening = "".join(f"{line}\n" for line in ("\tbool converged = true;", *edges))
        return f"bool p_top::part_{index}(performer *performer) {{\n{opening}{held}{part}\treturn converged;\n}}\n"

    calls = "".join(f"\tconverged = part_{index}(performer) && converged;\n" for index in range(len(parts)))
    evaluation = "".join(map(function, range(len(parts)), used, parts))
    evaluation += (
        f"bool p_top::eval(performer *performer) {{\n\tbool converged = true;\n{calls}\treturn converged;\n}}\n"
    )
    members = "\tstruct {\n" + "".join(f"{values[name]}\n" for name, count in uses.items() if count > 1) + "\t} held;\n"
    members += "".join(
        f"\t__attribute__((noinline)) bool part_{index}(performer *performer);\n" for index in range(len(parts))
    )
    return evaluation, members
