"""Jepsen's own files: what is read, how it is paired, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.checkers import check_history
from bench.record.columns import CAS, INFO, NEVER, OK, Columns
from bench.record.edn import events as edn_events
from bench.record.edn.events import Events, read_events
from bench.record.edn.history import paired
from bench.record.edn.parser import BadForm, CutShort, read_form, read_only_form
from bench.record.history import BadHistory
from bench.record.models.operations import Operations
from bench.record.models.read import read_any
from bench.record.transactions.columns import Transactions

CASES = Path(__file__).parent / "edn_cases"


def operations(text: str) -> Operations:
    return paired(read_events(iter([text.encode()]), "h.edn"), "h.edn")


def told(o: Operations) -> list[tuple[Any, ...]]:
    """Process, operation, key, value, outcome of each row."""
    shown = [o.operation(row) for row in range(len(o))]
    return [(each.process, each.op, each.key, each.value, each.outcome) for each in shown]


def registers(tmp_path: Path, text: str, **options: Any) -> Columns:
    path = tmp_path / "h.edn"
    path.write_text(text)
    history = read_any(path, **options).history
    assert isinstance(history, Columns)
    return history


# --- forms ---


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("nil", None),
        ("true", True),
        ("-7", -7),
        ("12345678901234567890N", 12345678901234567890),
        ("1.5e3", 1500.0),
        ("2.5M", 2.5),
        ("6/3", 2),
        ("1/3", "1/3"),
        (":a.b/c-d?", "a.b/c-d?"),
        ("sym*bol", "sym*bol"),
        (r'"a\n\"\u00e9;"', 'a\n"é;'),
        (r"\a", "a"),
        (r"\newline", "\n"),
        ("[1, (2 3) #{4 5}]", [1, [2, 3], [4, 5]]),
        ("{:a 1, [1 2] nil}", {"a": 1, (1, 2): None}),
        ("[1 #_ 2 ; three\n 4 #_[5]]", [1, 4]),
        ('#inst "2026-01-01"', "2026-01-01"),
        ("#jepsen.history.Op{:index 0}", {"index": 0}),
        (" ,[ ] , ; end", []),
    ],
)
def test_forms(text: str, form: Any) -> None:
    assert read_only_form(text) == form


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("[1 2", CutShort, "nobody closes"),
        ('"abc', CutShort, "without its closing quote"),
        ("", CutShort, "ends within"),
        ("[1)", BadForm, "closes a"),
        ("1 2", BadForm, "more than one form"),
        ("{:a}", BadForm, "no value"),
        ("{:a 1 :a 2}", BadForm, "given twice"),
        ("{{} 1}", BadForm, "a map as a key"),
        ("[" * 100, BadForm, "more than 64 deep"),
        ("#a " * 100 + "1", BadForm, "more than 64 deep"),
        ("9" * 5000, BadForm, "more than 400 digits"),
        ("1x", BadForm, "no number"),
        ("1/0", BadForm, "no number"),
        (r'"\q"', BadForm, "means nothing"),
        (r"\nope", BadForm, "no character"),
        ("::a", BadForm, "no keyword"),
        ("##Foo", BadForm, "no EDN"),
    ],
)
def test_what_is_no_form(text: str, kind: type[BadForm], reason: str) -> None:
    with pytest.raises(kind, match=reason):
        read_only_form(text)


# --- events ---

LAYOUTS = {
    "as Jepsen wrote it": "{{:type :{type}, :f :{f}, :value {value}, :process {process}, "
    ":time {time}, :index {index}}}",
    "as Jepsen writes it": "#jepsen.history.Op{{:index {index}, :time {time}, :type :{type}, "
    ":process {process}, :f :{f}, :value {value}}}",
    "with an error": "{{:type :{type}, :f :{f}, :value {value}, :process {process}, :time {time}, "
    ':error [:timeout "a b"], :index {index}}}',
    "as Knossos has it": " {{:process {process}, :type :{type}, :f :{f}, :value {value}}}",
    "on several lines": "{{:type :{type}\n :f :{f}, :value {value} ; a comment\n "
    ":process {process}}}",
}


def some_events(layout: str, seed: int, count: int = 400) -> str:
    rng = random.Random(seed)
    lines: list[str] = []
    going_on: dict[int, tuple[str, str]] = {}
    values = ["nil", "7", "-3", ":a", '"x y"', "[1 2]", "[[:append 3 4] [:r :k nil]]", "#{1 2}"]
    for index in range(count):
        process: Any = rng.randrange(6)
        kind, f, value = "info", "kill", "{:n1 [1 2]}"
        if rng.random() < 0.05:
            process = ":nemesis"
        elif process in going_on:
            f, value = going_on.pop(process)
            kind = rng.choice(("ok", "ok", "fail", "info"))
        else:
            kind, f, value = "invoke", rng.choice(("read", "write")), rng.choice(values)
            going_on[process] = f, value
        lines.append(
            layout.format(
                type=kind, f=f, value=value, process=process, time=index * 9, index=index + 4
            )
        )
    return "\n".join(lines) + "\n"


def columns(events: Events) -> list[Any]:
    values = [events.values[code] if code >= 0 else None for code in events.value.tolist()]
    names = [events.names[code] for code in events.f.tolist()]
    some: list[Any] = [events.kind, events.process, events.time, events.index, events.line]
    return [values, names, *(None if each is None else each.tolist() for each in some)]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("around", ["{}", "[{}]", "; said first\n({})\n"])
def test_lines_of_one_layout_are_read_as_any_others(
    monkeypatch: pytest.MonkeyPatch, name: str, around: str
) -> None:
    data = around.replace("{}", some_events(LAYOUTS[name], seed=5)).encode()
    half = data.index(b"\n", len(data) // 2) + 1

    def blocks() -> Iterator[bytes]:
        return iter([data[:half], data[half:]])

    quickly = columns(read_events(blocks(), "h.edn"))
    monkeypatch.setattr(edn_events, "_TRIES", 0)
    assert columns(read_events(blocks(), "h.edn")) == quickly
    assert len(quickly[0]) > 300


def test_most_lines_are_read_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slowly: list[int] = []

    def watched(text: str, at: int) -> tuple[Any, int]:
        slowly.append(at)
        return read_form(text, at)

    monkeypatch.setattr(edn_events, "read_form", watched)
    for name in ("as Jepsen wrote it", "as Jepsen writes it", "with an error", "as Knossos has it"):
        slowly.clear()
        assert len(read_events(iter([some_events(LAYOUTS[name], seed=5).encode()]), "h.edn")) > 300
        assert len(slowly) < 5, name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{:process 1, :type :ok}\n", "h.edn:1: :f is missing"),
        ("; one\n{:process 1, :f :read}\n", "h.edn:2: :type is one of"),
        ("{:f :read, :type :ok}", "h.edn:1: an event has no :process"),
        ("{:process 1\n :type :ok", "h.edn:1: a { that nobody closes"),
        ("[1 2]", "h.edn:1: an event is a map"),
        ("[{:process 1 :type :invoke :f :read}", "h.edn:1: the file ends, and its [ is not closed"),
        ("[]\n{}", "h.edn:2: there is more behind the end"),
        ("({:process 1 :type :invoke :f :read}]", "h.edn:1: ] closes a ("),
        ('{:process 1\n :type "', "h.edn:2: a text without its closing quote"),
        ("{:process 1 :type :invoke :f :read :time 1.5}", ":time is no integer of 64 bits"),
        ("{:process 99999999999999999999 :type :ok :f :read}", "more than 64 bits"),
        (
            "{:process 1, :type :invoke, :f :read, :value nil, :time 1}\n"
            f"{{:process 1, :type :ok, :f :read, :value nil, :time {'1' * 5000}}}\n",
            "h.edn:2: a number of more than 400 digits",
        ),
        (
            "{:process 1, :type :invoke, :f :read, :value nil, :time 1}\n"
            "{:process 1, :type :ok, :f :read, :value nil, :time 007}\n",
            "h.edn:2: :time is no integer",
        ),
        ("{:process 1, :type :ok, :f :read, :value nil}", "h.edn:1: process 1 completes what it"),
        (
            "{:process 1 :type :invoke :f :read :value nil}\n" * 2,
            "h.edn:2: process 1 has another operation open",
        ),
        (
            "{:process 1 :type :invoke :f :read :value 1}\n"
            "{:process 1 :type :ok :f :write :value 1}",
            "h.edn:2: process 1 completes another :f",
        ),
    ],
)
def test_what_is_refused_has_its_line(text: str, says: str) -> None:
    with pytest.raises(BadHistory) as caught:
        operations(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("##NaN", "a number is NaN or infinite, in :value"),
        ("##-Inf", "a number is NaN"),
        ("1e999", "a number is NaN"),
        ("[1 ##NaN]", "a number is NaN"),
        ("[1 1e999]", "a number is NaN"),
        ("{:a ##Inf}", "a number is NaN"),
        ("9223372036854775808", "an integer has more than 64 bits, in :value"),
        ("-9223372036854775809", "an integer has"),
        ("[1 [10000000000000000000000N]]", "an integer has"),
        ("{:fence 10000000000000000000}", "an integer has"),
        ("{10000000000000000000 1}", "an integer has"),
    ],
)
def test_a_number_is_finite_and_of_64_bits(value: str, says: str) -> None:
    event = "{:process 0, :type :invoke, :f :write, :value 1}\n"
    nemesis = "{:process :nemesis, :type :info, :f :clock, :value ##Inf}\n"
    assert len(operations(event + nemesis)) == 1
    with pytest.raises(BadHistory, match=f":2: {says}"):
        operations(event + event.replace("1}", f"{value}}}"))


def test_bytes_that_are_no_text_have_their_line() -> None:
    with pytest.raises(BadHistory, match=r"h\.edn:3: byte 0xff is not UTF-8"):
        read_events(iter([b"\n\n{:a \xff}\n"]), "h.edn")


# --- pairs ---

PAIRED = """
{:type :invoke, :f :write, :value 1, :process 0, :time 30}
{:type :invoke, :f :read, :value nil, :process 1, :time 20}
{:type :info, :f :start, :value [:n1], :process :nemesis, :time 35}
{:type :info, :f :write, :value 1, :process 0, :time 40}
{:type :ok, :f :read, :value 1, :process 1, :time 50}
{:type :invoke, :f :cas, :value [1 2], :process 5, :time 60}
{:type :fail, :f :cas, :value [1 2], :process 5, :time 65}
{:type :invoke, :f :cas, :value [1 3], :process 5, :time 70}
"""


def test_invocations_and_completions_are_paired() -> None:
    o = operations(PAIRED)
    assert told(o) == [
        ("0", "write", None, 1, "info"),
        ("1", "read", None, 1, "ok"),
        ("5", "cas", None, [1, 2], "fail"),
        ("5", "cas", None, [1, 3], "info"),  # still open at the end
    ]
    assert [int(end) for end in o.completed[[0, 3]]] == [NEVER, NEVER]


def test_real_time_is_the_order_of_the_file() -> None:
    """The read was invoked after the write by the file, though its clock says otherwise."""
    o = operations(PAIRED)
    assert o.invoked[1] > o.invoked[0]
    shown = o.operation(1)
    assert (shown.invoked_ns, shown.completed_ns) == (30, 50)


def test_who_goes_on_under_its_old_number_leaves_its_operation_open() -> None:
    o = operations(
        "{:process 0 :type :invoke :f :write :value 1}\n{:process 0 :type :info :f :write :value 1}"
        "\n{:process 0 :type :invoke :f :read :value nil}\n{:process 0 :type :ok :f :read :value 1}"
    )
    assert (o.outcome.tolist(), o.completed[0], o.gave_up[0]) == ([INFO, OK], NEVER, 1)


def test_independent_keys_are_told_from_the_values_of_a_cas(tmp_path: Path) -> None:
    line = "{{:process {} :type :invoke :f :{} :value {}}}\n"
    c = registers(tmp_path, line.format(0, "write", "[:x 1]") + line.format(1, "cas", "[:y [1 2]]"))
    assert (c.keys, c.values[c.value[1]], c.values[c.expected[1]]) == (["x", "y"], 2, 1)
    c = registers(tmp_path, line.format(0, "write", "1") + line.format(1, "cas", "[1 2]"))
    assert (len(c.keys), c.values[c.value[1]], c.op[1]) == (1, 2, CAS)
    c = registers(tmp_path, line.format(0, "cas", "[7 [1 2]]"))
    assert (c.keys, c.values[c.expected[0]]) == (["7"], 1)
    with pytest.raises(BadHistory, match=r"h\.edn:2: not a tuple of key and value"):
        registers(tmp_path, line.format(0, "write", "[:x 1]") + line.format(1, "read", "nil"))


def test_a_nil_read_is_unknown_unless_it_is_said_to_be_null(tmp_path: Path) -> None:
    path = tmp_path / "h.edn"
    path.write_text(
        "{:process 0 :type :invoke :f :write :value 1}\n{:process 0 :type :ok :f :write :value 1}\n"
        "{:process 1 :type :invoke :f :read :value nil}\n{:process 1 :type :ok :f :read :value nil}"
    )
    assert check_history(path).verdict == "valid"
    assert check_history(path, nil_reads="null").verdict == "invalid"
    lines = tmp_path / "h.jsonl"
    lines.write_text("")
    with pytest.raises(BadHistory, match="can be said of EDN only"):
        check_history(lines, nil_reads="null")


def test_transactions(tmp_path: Path) -> None:
    path = tmp_path / "h.edn"
    path.write_text(
        "{:process 0 :type :invoke :f :txn :value [[:append 9 1] [:r :x nil]]}\n"
        "{:process 0 :type :ok :f :txn :value [[:append 9 1] [:r :x [3 4]]]}\n"
        "{:process 1 :type :invoke :f :txn :value [[:r 9 nil]]}\n"
    )
    read = read_any(path)
    assert (read.model, read.is_chosen) == ("list-append", True)
    assert isinstance(read.history, Transactions)
    assert read.history.operations(0) == [("append", "9", 1), ("read", "x", [3, 4])]
    assert read.history.outcome.tolist() == [OK, INFO]
    path.write_text("{:process 0 :type :invoke :f :txn :value [[:w 9]]}\n")
    with pytest.raises(BadHistory, match=r"h\.edn:1: write of null"):
        read_any(path)


# --- verdicts on what others published ---


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("rethink-fail-minimal", "invalid"),
        ("immediate-failure", "invalid"),
        ("bad-analysis", "invalid"),
        ("cas-register-bug", "valid"),
        ("memstress3-38", "valid"),
    ],
)
def test_histories_of_knossos(name: str, verdict: str) -> None:
    assert check_history(CASES / f"{name}.edn").verdict == verdict


# --- which model ---


@pytest.mark.parametrize(
    ("values", "model"),
    [
        ([("read", "nil", "3")], "register"),
        ([("write", "1", "1"), ("cas", "[1 2]", "[1 2]")], "cas-register"),
        ([("get", "nil", '"ab"'), ("append", '"a"', '"a"')], "append-kv"),
        ([("add", "1", "1"), ("read", "nil", "[1]")], "set-full"),
        ([("add", "1", "1"), ("read", "nil", "#{1}")], "set-full"),
        ([("add", "1", "1"), ("read", "nil", "5")], "counter"),
        ([("enqueue", "1", "1"), ("drain", "nil", "[1]")], "queue"),
        ([("acquire", "nil", "nil"), ("release", "nil", "nil")], "lock"),
        ([("generate", "nil", "5")], "unique-ids"),
        ([("transfer", "{:from 1 :to 2 :amount 3}", "nil"), ("read", "nil", "{1 3}")], "bank"),
        ([("txn", "[[:r 1 nil]]", "[[:r 1 nil]]")], "rw-register"),
        ([("txn", "[[:append 1 2]]", "[[:append 1 2]]")], "list-append"),
    ],
)
def test_operations_show_their_model(
    tmp_path: Path, values: list[tuple[str, str, str]], model: str
) -> None:
    path = tmp_path / "h.edn"
    line = "{{:process 0 :type :{} :f :{} :value {}}}\n"
    path.write_text(
        "".join(
            line.format("invoke", f, asked) + line.format("ok", f, answered)
            for f, asked, answered in values
        )
    )
    assert read_any(path).model == model


@pytest.mark.parametrize("f", ["add", "debit", "start"])
def test_operations_that_do_not_show_it_are_refused(tmp_path: Path, f: str) -> None:
    path = tmp_path / "h.edn"
    path.write_text(f"{{:process 0 :type :invoke :f :{f} :value 1}}\n")
    with pytest.raises(BadHistory, match=rf"\({f}\) do not tell the model; say it: --model"):
        read_any(path)


@pytest.mark.parametrize("seen", ["{0 10, 1 10}", "[1 2]"])
def test_reads_alone_do_not_say_what_holds_a_map_or_a_list(tmp_path: Path, seen: str) -> None:
    """Taken for a register, a value that nobody wrote would be a violation."""
    path = tmp_path / "h.edn"
    path.write_text(
        f"{{:process 0 :type :invoke :f :read :value nil}}\n"
        f"{{:process 0 :type :ok :f :read :value {seen}}}\n"
    )
    with pytest.raises(BadHistory, match=r"\(read\) do not tell the model; say it: --model"):
        read_any(path)


def test_a_list_is_edn_even_if_it_is_empty_or_goes_on_in_the_next_line(tmp_path: Path) -> None:
    event = "{:process 0 :type :invoke :f :write :value 1}"
    assert [len(registers(tmp_path, text)) for text in ("[]", "[ ]\n", f"[\n{event}\n]\n")] == [
        *(0, 0, 1)
    ]
    with pytest.raises(BadHistory, match=r":2: the file ends, and its \[ is not closed"):
        registers(tmp_path, "[\n")
