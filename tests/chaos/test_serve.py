"""`capbench serve`: real requests to a real server."""

from __future__ import annotations

import html
import http.client
import re
import signal
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.record.run_folder import BadRunFolder
from chaos.clusters.processes import free_ports
from chaos.commands.serve import in_order, make_server, rows
from chaos.errors import TargetFailed
from reports.data import compare
from reports.data.metrics import load
from tests import browser
from tests.chaos.test_simulate import ROOT
from tests.processes import begun
from tests.reports import synthetic
from tests.waiting import patience

EVIL = "<script>alert(1)</script>"
Get = Callable[[str], tuple[int, str]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    for protocol in ("raft", "gossip"):
        synthetic.healthy(root / "healthy" / protocol, protocol)
        synthetic.leader_partition(root / "leader-partition" / protocol, protocol)
    folder = synthetic.healthy(root / "evil", "raft")
    manifest = folder.manifest()
    manifest.experiment_name = EVIL
    folder.write_manifest(manifest)
    (root / "secret.txt").write_text("nobody is to see this")
    return root


@pytest.fixture(scope="module")
def get(results: Path) -> Iterator[Get]:
    (port,) = free_ports(1)
    with make_server(results, port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def ask(path: str) -> tuple[int, str]:
            if path == "address":
                return 0, f"http://127.0.0.1:{port}"
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}{path}", timeout=patience(30)
                ) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        yield ask
        server.shutdown()
        thread.join()


def test_the_list_can_be_filtered(get: Get) -> None:
    code, page = get("/")
    assert code == 200
    assert "5 of 5 runs" in page
    for query, count in (
        ("protocol=gossip", 2),
        ("protocol=gossip&experiment=healthy", 1),
        ("verdict=invalid", 0),
        ("text=LEADER", 2),
        ("text=nothing-like-that", 0),
    ):
        code, page = get(f"/?{query}")
        assert (code, f"{count} of 5 runs" in page) == (200, True), query


def test_a_run_is_opened_and_several_are_compared(get: Get) -> None:
    code, page = get("/report?run=leader-partition/raft")
    assert code == 200
    assert page.count('class="run"') == 1
    code, page = get("/report?run=leader-partition/raft&run=leader-partition/gossip")
    assert (code, page.count('class="run"')) == (200, 2)


@pytest.mark.parametrize(
    "path",
    [
        "/report?run=" + urllib.parse.quote("../results/healthy/raft"),
        "/report?run=" + urllib.parse.quote("healthy/../healthy/raft"),
        "/report?run=/etc",
        "/report?run=secret.txt",
        "/report?run=" + urllib.parse.quote(EVIL),
        "/report",
        "/secret.txt",
        "/../secret.txt",
        "/healthy/raft/manifest.json",
    ],
)
def test_what_is_not_in_the_list_is_not_found(get: Get, path: str) -> None:
    code, page = get(path)
    assert code == 404
    assert "nobody is to see this" not in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("host", "status"), [("localhost", 200), ("127.0.0.1", 200), ("evil.example", 403), ("", 403)]
)
def test_a_name_that_another_site_made_lead_here_is_refused(
    get: Get, results: Path, host: str, status: int
) -> None:
    with make_server(results, 0) as server:
        port = server.server_address[1]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience(30))
        connection.request("GET", "/", headers={"Host": f"{host}:{port}" if host else ""})
        answer = connection.getresponse()
        page = answer.read().decode()
        connection.close()
        thread.join()
    assert answer.status == status
    assert ("leader-partition" in page) is (status == 200)


def test_a_page_of_another_origin_is_refused(get: Get) -> None:
    port = urllib.parse.urlsplit(get("address")[1]).port
    for origin, status in (("http://evil.example", 403), (f"http://127.0.0.1:{port}", 200)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience(30))
        connection.request("GET", "/", headers={"Origin": origin})
        answer = connection.getresponse()
        page = answer.read().decode()
        connection.close()
        assert (answer.status, "leader-partition" in page) == (status, status == 200)


def test_a_browser_shows_the_list_and_what_was_filtered(get: Get, tmp_path: Path) -> None:
    port = urllib.parse.urlsplit(get("address")[1]).port
    url = f"http://127.0.0.1:{port}/?protocol=gossip&text=partition"
    seen = browser.dom(url, tmp_path)
    assert seen.count('type="checkbox"') == 1
    assert 'href="/report?run=leader-partition/gossip"' in seen
    assert '<option value="gossip" selected="">gossip</option>' in seen


@pytest.mark.parametrize("scheme", ["0", "1"])
def test_axe_finds_nothing_to_object_to_in_the_list(get: Get, tmp_path: Path, scheme: str) -> None:
    """In dark and in light."""
    _, page = get("/")
    found = browser.axe(page, tmp_path, f"--blink-settings=preferredColorScheme={scheme}")
    assert found["violations"] == []
    assert {"color-contrast", "label", "document-title"} <= set(found["passes"])


def test_html_in_a_run_stays_text(get: Get) -> None:
    _, page = get("/")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    _, page = get("/?text=" + urllib.parse.quote('"><script>x'))
    assert "<script" not in page


def test_a_folder_without_runs_and_a_port_that_is_taken_are_said(
    results: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadRunFolder, match="no run in it"):
        make_server(tmp_path, 1)
    with pytest.raises(BadRunFolder, match="no such folder"):
        make_server(tmp_path / "nowhere", 1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(TargetFailed, match=f"port {port} on 127.0.0.1: .* --port"):
            make_server(results, port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_stop(results: Path, number: signal.Signals) -> None:
    (port,) = free_ports(1)
    with begun("serve", results, "--port", str(port), cwd=ROOT) as server:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}/" in server.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=patience(30)) as answer:
            assert b"5 of 5 runs" in answer.read()
        server.send_signal(number)
        said, errors = server.communicate(timeout=patience(20))
    assert (server.returncode, said.strip()) == (0, "stopped"), errors
    assert "Traceback" not in errors


def column(page: str, number: int) -> list[str]:
    """The cells of a column, of the runs that have figures."""
    table = re.findall(r"<tr>(<td.*?)</tr>", page, re.DOTALL)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table]
    return [html.unescape(row[number]) for row in rows if len(row) > 12]


def test_the_list_has_the_figures_and_sorts_by_them(get: Get, results: Path) -> None:
    _, page = get("/?sort=op/s")
    rates = [float(text) for text in column(page, 9)]
    assert rates == sorted(rates)
    assert len(rates) == 5
    assert "✔ holds" in column(page, 7), "the words of all other pages"
    raft = load(results / "leader-partition" / "raft").summary
    assert compare.per_second(raft.throughput.during) == column(page, 9)[0]
    _, down = get("/?sort=-op/s&protocol=raft")
    of_raft = [float(text) for text in column(down, 9)]
    assert of_raft == sorted(of_raft, reverse=True)
    assert len(of_raft) == 3
    assert 'aria-sort="descending"' in down
    assert "protocol=raft&amp;sort=p99" in down, "sorting keeps the filter"
    _, back = get("/?sort=-back in".replace(" ", "%20"))
    cell = compare.Cell("raft", "leader-partition", [raft])
    assert cell.back_in in column(back, 11)
    assert cell.latency("p99") in column(back, 10)
    assert get("/?sort=nonsense")[0] == 200


def test_a_run_that_was_not_checked_has_no_figures_and_is_last(tmp_path: Path) -> None:
    synthetic.healthy(tmp_path / "a", "raft", seconds=3.0)
    synthetic.healthy(tmp_path / "b", "raft", seconds=3.0).verdict_path.unlink()
    for sort in ("p99", "-p99"):
        assert [row.name for row in in_order(rows(tmp_path), sort)] == ["a", "b"]


def test_objectives_are_counted(tmp_path: Path) -> None:
    folder = synthetic.healthy(tmp_path / "a", "raft", seconds=3.0)
    manifest = folder.manifest()
    wanted = {"before": {"availability": ">= 0.5", "throughput": ">= 9000/s"}}
    manifest.experiment["objectives"] = wanted
    folder.write_manifest(manifest)
    (row,) = rows(tmp_path)
    assert row.figures[-1].text == "1 of 2 missed"
