"""Load on a running cluster, with Locust.

    locust -f bench/load/locustfile.py --headless -u 1 -t 20s --rate 300 --mix read=50,write=50

`OpenLoopUser` sends operations when they are due, however slow the answers, and its latencies
count from the *intended* time: a stall of the cluster shows in every operation that it delayed, not
in one per user. One user sends at the whole rate; N users divide the plan into N parts.

`ClosedLoopUser` sends the next operation when it has the answer to the last one. It runs if the
rate is 0 or if it is named on the command line.

Locust's statistics have one row per operation kind, with ``fail`` and ``info`` as failures (Locust
then exits with 1, unless started with ``--exit-code-on-error 0``). Operations dropped because too
many were open are in no row, but are counted in the summary.

With ``--run-folder DIR`` a client process NAME writes ``history/NAME.jsonl``,
``load/NAME.started`` (the start of the intended times, and the workload) and, at its end,
``load/NAME.json`` (`LoadSummary`).

gevent's timers are as coarse as epoll's milliseconds, so operations leave 0.6 ms late in the
median. ``GEVENT_BACKEND=select`` in the environment reduces that to 0.2 ms.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
import uuid
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

# Locust searches the working folder first: a bench.py or msgspec.py there would be taken for ours.
_ROOT = str(Path(__file__).resolve().parents[2])
sys.path[:] = [_ROOT, *(place for place in sys.path if place not in ("", _ROOT, os.getcwd()))]

# ruff: noqa: E402
import gevent
import msgspec
from flask import request
from gevent.event import Event
from locust import User, constant, events, tag, task
from locust.exception import StopUser
from locust.runners import (
    STATE_RUNNING,
    STATE_SPAWNING,
    LocalRunner,
    MasterRunner,
    WorkerRunner,
)

from bench.load.client import Client, Lateness
from bench.load.cluster_tab import ClusterWatch, add_tab, guard
from bench.load.distributed import (
    NOTHING_SENT,
    Master,
    Share,
    on_share,
    report_done,
    report_failure,
    shares,
    this_host,
)
from bench.load.locust_shape import UsersShape
from bench.load.locust_users import SettledUsers
from bench.load.losses import NOT_WHOLE
from bench.load.mqtt_client import BrokerUnreachable
from bench.load.options import UNTIL_STOPPED_S, add_options, workload_of
from bench.load.shapes import parse_shape
from bench.load.transport import make_transport
from bench.load.workload import BadWorkload, PlannedOperation, Workload, plan
from bench.record.cluster_file import (
    BadClusterFile,
    ClusterFile,
    SystemFile,
    read_cluster_file,
    read_reachable,
)
from bench.record.history import HistoryWriter, OperationRecord
from bench.record.models.run import ModelRecord
from bench.record.run_folder import LoadSummary, write_json
from nodes.contract.names import BadName, check_name
from nodes.contract.replica import Reply, Request

log = logging.getLogger("capbench")

INVALID_INPUT, INFRASTRUCTURE_FAILED = 2, 3
FRAME_BYTES = 1_000_000
BATCH = 256
FLUSH_EVERY_NS = 200_000_000
QUICKLY_S = 0.2
SHAPE_SLACK_S = 2.0
TASK = "operations"


Recorded = TypeVar("Recorded", OperationRecord, ModelRecord)


class OperationFailed(Exception):
    """An operation that did not end ok, for Locust's table of failures."""


class Load:
    """The load that this process puts on the cluster during a test."""

    def __init__(
        self,
        environment: Any,
        cluster: ClusterFile | SystemFile,
        workload: Workload,
        name: str,
    ) -> None:
        self.workload = workload
        self._environment = environment
        self.runner = environment.runner
        self._cluster = cluster
        self._name = name
        self._share: Share | None = None
        self._part = 1.0
        self._ahead_ns = 0
        self._client = Client(
            f"{name}-{uuid.uuid4().hex[:8]}",
            timeout_s=workload.timeout_s,
            label=name,
            may_lead=cluster.nodes if workload.ask == "leader" else (),
        )
        self._transport = make_transport(
            cluster, self._client.name, self._on_reply, timeout_s=workload.timeout_s
        )
        self._outbox: dict[str, list[Request]] = {}
        self._frame_limit = max(1, FRAME_BYTES // (2 * workload.value_bytes + 1000))
        folder = environment.parsed_options.run_folder
        self._folder = Path(folder) if folder else None
        self._history: HistoryWriter | None = None
        self._model: HistoryWriter | None = None
        self._model_operations = 0
        self._flushed_ns = 0
        self._waiting: dict[int, Event] = {}
        self._closed_plan: Iterator[PlannedOperation] | None = None
        self._started = Event()
        self._stop = Event()
        self._finished = Event()
        self._give_up_ns = sys.maxsize
        self._reading = True
        self._reader: gevent.Greenlet | None = None
        self._users_done = self._next_user = self._pacing = 0
        self._started_ns, self._stopped_ns = 0, sys.maxsize
        self._ended = False
        self._intended = self._invoked = 0
        self._dropped = 0
        self._dropped_ns: list[int] = []
        self._dropped_nodes: list[str] = []
        self._lateness = Lateness()

    def connect(self) -> None:
        """Connect to the cluster and open the history. Raises BrokerUnreachable, or BadWorkload if
        the run folder already has operations of this client."""
        if self._folder is not None:
            path = self._folder / "history" / f"{self._name}.jsonl"
            if path.exists():
                raise BadWorkload(
                    f"{path} exists: give a new --run-folder or another --client-name"
                )
            (self._folder / "load").mkdir(parents=True, exist_ok=True)
        self._transport.connect()
        if self._folder is not None:
            self._history = HistoryWriter(path)
            if self.workload.kind != "register":
                self._model = HistoryWriter(self._folder / "model" / f"{self._name}.jsonl")
        self._reader = gevent.spawn(self._read)
        self._reader.link_exception(self.broken)

    @property
    def stopping(self) -> bool:
        """Whether no more operations are wanted."""
        return bool(self._stop.is_set())

    def start(self, share: Share) -> None:
        """All users have started: begin this process's share of the plan."""
        if self._started.is_set() or self.stopping:
            return
        self._share = share
        self.workload = msgspec.structs.replace(self.workload, duration_s=share.duration_s)
        self._ahead_ns = share.ahead_ns(this_host(), time.time_ns(), time.monotonic_ns())
        self._started_ns = share.begin_ns + self._ahead_ns
        self._part = share.users / max(1, share.all_users)
        if self.workload.rate_per_s is not None:
            # Its part of the limit; closed-loop users need none.
            self._client.in_flight = max(1, int(self.workload.in_flight * self._part))
        self._closed_plan = self._plan(share.index, share.count)
        if self._folder is not None:
            started = {
                "started_ns": share.begin_ns,
                "workload": self.workload,
                "host": this_host(),
            }
            write_json(self._folder / "load" / f"{self._name}.started", started)
        self._started.set()

    def run_part(self, part: Callable[[Load], None]) -> None:
        """Run a user; ``part`` is all that it does."""
        try:
            part(self)
        except BaseException as error:
            # Locust stops users (GreenletExit), and only counts an exception as a failure.
            if not self.stopping and self._environment.shape_class is None:
                self.not_whole(f"a user ended before its part of the plan: {error!r}")
            raise
        finally:
            self._user_done()

    def run_open(self) -> None:
        """One user's part of the plan."""
        user, self._next_user = self._next_user, self._next_user + 1
        share = self._wait_for_share()
        if user >= share.users:
            log.warning("the plan is divided already: user %d has nothing to do", user + 1)
            return
        part, parts = share.first_user + user, share.all_users
        timeout_ns = int(self.workload.timeout_s * 1e9)
        self._pacing += 1
        try:
            in_turn = 0
            for planned in self._plan(part, parts):
                assert planned.intended_ns is not None
                due_ns = self._started_ns + planned.intended_ns
                while (now_ns := time.monotonic_ns()) < due_ns < self._stopped_ns:
                    in_turn = 0
                    self._stop.wait((due_ns - now_ns) / 1e9)
                if due_ns >= self._stopped_ns:
                    break
                self._intended += 1 + (planned.then is not None)
                if now_ns - due_ns > timeout_ns or now_ns >= self._give_up_ns:
                    # This process is late: nobody would wait for the answer any more.
                    self._drop(planned, due_ns)
                    continue
                if self._invoke(planned, now_ns, due_ns):
                    self._lateness.add(now_ns - due_ns)
                in_turn += 1
                if in_turn == BATCH:
                    # When late, this loop would never let replies in.
                    in_turn = 0
                    gevent.sleep(0)
        finally:
            self._pacing -= 1

    def run_closed(self) -> None:
        """One user, which sends an operation, waits for its end, and so on."""
        self._wait_for_share()
        assert self._closed_plan is not None
        if (wait_ns := self._started_ns - time.monotonic_ns()) > 0:
            self._stop.wait(wait_ns / 1e9)
        end_ns = self._started_ns + int(self.workload.duration_s * 1e9)
        while not self.stopping and (now_ns := time.monotonic_ns()) < end_ns:
            planned = next(self._closed_plan)
            self._intended += 1 + (planned.then is not None)
            ended = self._waiting[(planned.then or planned).id] = Event()
            self._invoke(planned, now_ns, None)
            ended.wait()

    def _plan(self, part: int, parts: int) -> Iterator[PlannedOperation]:
        cluster = self._cluster
        return plan(
            self.workload, cluster.nodes, operations=cluster.operations, part=part, parts=parts
        )

    def _wait_for_share(self) -> Share:
        self._started.wait()
        assert self._share is not None
        return self._share

    def _user_done(self) -> None:
        """A user has finished; the load ends with the last one. Users that follow a shape start and
        stop until its end."""
        if self._environment.shape_class is not None:
            return
        self._users_done += 1
        share = self._share
        if share is not None and self._users_done == share.users and not self.stopping:
            gevent.spawn(self._end).link_exception(self.broken)

    def finish(self, grace_s: float) -> None:
        """Send no more, wait for open operations at most ``grace_s``, and record everything."""
        now_ns = time.monotonic_ns()
        self._give_up_ns = min(self._give_up_ns, now_ns + int(grace_s * 1e9))
        if self.stopping:
            self._finished.wait()
            return
        self._stopped_ns = now_ns
        self._stop.set()
        try:
            self._finish()
        except OSError as error:
            self.not_whole(f"its operations cannot be recorded: {error}")
        finally:
            self._finished.set()

    def _finish(self) -> None:
        # Users that are late finish first, or count what they did not get to.
        while self._pacing or (self._client.open_count and time.monotonic_ns() < self._give_up_ns):
            gevent.sleep(0.002)
        self._reading = False
        if self._reader is not None:
            self._reader.join()
            self._transport.close()
        for record in self._client.abandon():
            self._record(record)
        self._follow_up(time.monotonic_ns())
        for history in filter(None, [self._history, self._model]):
            history.close()
        self._summarise()

    def _end(self) -> None:
        """The plan is done."""
        self._ended = True
        self.finish(self.workload.timeout_s)
        if isinstance(self.runner, WorkerRunner):
            report_done(self.runner, self._invoked)
            return
        if not self._invoked:
            self.not_whole(NOTHING_SENT)
        end_test(self._environment)

    @property
    def _stopped_early(self) -> bool:
        if self._ended or (self._share is not None and not self._share.users):
            return False
        # Locust asks a shape once a second, and its time starts before the users do.
        slack_s = 0.0 if self._environment.shape_class is None else SHAPE_SLACK_S
        due_ns = self._started_ns + int((self.workload.duration_s - slack_s) * 1e9)
        return not self._started.is_set() or self._stopped_ns < due_ns

    def _invoke(self, planned: PlannedOperation, now_ns: int, due_ns: int | None) -> bool:
        request = self._client.invoke(planned, now_ns, due_ns)
        if request is None:
            self._drop(planned, due_ns)
            return False
        self._invoked += 1
        if not self._outbox:
            # Runs after this turn's users: one PUBLISH per node for all of them.
            gevent.spawn_raw(self._flush)
        self._outbox.setdefault(self._client.node_of(request), []).append(request)
        return True

    def _drop(self, planned: PlannedOperation, due_ns: int | None) -> None:
        """Drop an operation, and with it its follow-up."""
        self._client.tasks.not_sent(planned.id)
        for dropped in (planned, *filter(None, [planned.then])):
            self._dropped += 1
            if due_ns is not None:
                self._dropped_ns.append(due_ns)
                self._dropped_nodes.append(dropped.node)
            self._wake(dropped.id)

    def _follow_up(self, now_ns: int) -> None:
        """Send the follow-ups of operations that ended."""
        client = self._client
        while client.given_up:
            self._drop(*client.given_up.pop())
        while client.due:
            planned, due_ns = client.due.pop()
            self._intended += self.workload.kind != "register"
            if now_ns < self._give_up_ns:
                self._invoke(planned, now_ns, due_ns)
            else:
                self._drop(planned, due_ns)
        while client.tasks.ended:
            task, records = client.tasks.ended.pop()
            for record in records:
                self._model_operations += 1
                if self._model is not None:
                    self._model.append_model(self._on_the_masters_clock(record))
            self._wake(task)

    def _wake(self, id_: int) -> None:
        if (waiting := self._waiting.pop(id_, None)) is not None:
            waiting.set()

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, {}
        for node, requests in outbox.items():
            for first in range(0, len(requests), self._frame_limit):
                frame = requests[first : first + self._frame_limit]
                if not self._transport.publish(node, frame):
                    now_ns = time.monotonic_ns()
                    for request in frame:
                        self._record(self._client.not_sent(request, now_ns))

    def _read(self) -> None:
        while self._reading:
            now_ns = time.monotonic_ns()
            deadline_ns = self._client.next_deadline_ns()
            self._transport.poll(1.0 if deadline_ns is None else (deadline_ns - now_ns) / 1e9)
            for record in self._client.expire(time.monotonic_ns()):
                self._record(record)
            if self._history is not None and now_ns - self._flushed_ns > FLUSH_EVERY_NS:
                self._flushed_ns = now_ns
                self._history.flush()
                if self._model is not None:
                    self._model.flush()

    def _on_reply(self, reply: Reply) -> None:
        record = self._client.on_reply(reply, time.monotonic_ns())
        if record is not None:
            self._record(record)

    def _record(self, record: OperationRecord) -> None:
        if self._history is not None:
            self._history.append(self._on_the_masters_clock(record))
        since_ns = record.invoked_ns if record.intended_ns is None else record.intended_ns
        until_ns = record.completed_ns or time.monotonic_ns()
        failure = None
        if record.outcome != "ok":
            failure = OperationFailed(f"{record.outcome}: {record.error or 'no reason given'}")
        self._environment.events.request.fire(
            request_type=self._cluster.protocol,
            name=record.op,
            response_time=(until_ns - since_ns) / 1e6,
            response_length=0,
            exception=failure,
            context={},
        )
        if self._client.due or self._client.given_up or self._client.tasks.ended:
            self._follow_up(time.monotonic_ns())
        self._wake(record.id)

    def _on_the_masters_clock(self, record: Recorded) -> Recorded:
        if self._ahead_ns == 0:
            return record
        stamps = ("intended_ns", "invoked_ns", "completed_ns")
        times = {name: getattr(record, name) for name in stamps}
        return msgspec.structs.replace(
            record,
            **{name: ns - self._ahead_ns for name, ns in times.items() if ns is not None},
        )

    def _summarise(self) -> None:
        rate = self.workload.offered_per_s
        summary = LoadSummary(
            client=self._name,
            started_ns=(self._started_ns or self._stopped_ns) - self._ahead_ns,
            ended_ns=self._stopped_ns - self._ahead_ns,
            offered_per_s=None if rate is None else rate * self._part,
            intended=self._intended,
            invoked=self._invoked,
            dropped=self._dropped,
            dropped_intended_ns=[ns - self._ahead_ns for ns in self._dropped_ns],
            dropped_nodes=self._dropped_nodes,
            lateness_ms_p50=self._lateness.quantile_ms(0.5),
            lateness_ms_p99=self._lateness.quantile_ms(0.99),
            stopped_early=self._stopped_early,
            model_operations=self._model_operations,
            asked_leader=self._client.asked_leader,
        )
        if summary.stopped_early:
            log.warning(
                "the load was stopped before its end: after %.1f s, of %g s",
                (summary.ended_ns - summary.started_ns) / 1e9,
                self.workload.duration_s,
            )
        if summary.dropped:
            log.warning(
                "%d of %d operations were dropped: more than %d would have been open at once, or "
                "the read of a read-modify-write did not end ok",
                summary.dropped,
                summary.intended,
                self.workload.in_flight,
            )
        if self._folder is not None and self._reader is not None:
            write_json(self._folder / "load" / f"{self._name}.json", summary)

    def broken(self, greenlet: gevent.Greenlet) -> None:
        """The reader died (a full disk): nothing more can be recorded."""
        self.not_whole(f"its operations cannot be recorded: {greenlet.exception}")
        gevent.spawn(self.runner.quit)

    def not_whole(self, why: str) -> None:
        """The history is incomplete: it must not pass for the whole load."""
        log.error("%s%s", NOT_WHOLE, why)
        if isinstance(self.runner, WorkerRunner):
            report_failure(self.runner, why)
        self._environment.process_exit_code = INFRASTRUCTURE_FAILED


current: Load | None = None
master: Master | None = None


class OpenLoopUser(User):
    """Sends its part of the plan at the intended times."""

    wait_time = constant(0)

    @tag(TASK)
    @task
    def run_plan(self) -> None:
        run(self, Load.run_open)


class ClosedLoopUser(User):
    """Has one operation open at a time."""

    wait_time = constant(0)

    @tag(TASK)
    @task
    def run_operations(self) -> None:
        run(self, Load.run_closed)


def run(user: User, part: Callable[[Load], None]) -> None:
    """Run a user. Afterwards it idles: Locust would not replace a user that stopped."""
    if current is None:
        raise StopUser
    current.run_part(part)
    while True:
        gevent.sleep(UNTIL_STOPPED_S)


def choose_users(environment: Any, workload: Workload) -> None:
    """Choose the users that fit the workload, unless they were named. In a closed loop they start
    and stop as the shape says; in an open loop the plan has the times."""
    if not environment.parsed_options.user_classes:
        chosen = ClosedLoopUser if workload.rate_per_s is None else OpenLoopUser
        environment.user_classes[:] = [chosen]
    if isinstance(environment.shape_class, UsersShape):
        environment.shape_class = None  # Of the previous load; a shape of the user's own stays.
    if environment.user_classes == [ClosedLoopUser] and workload.shape is not None:
        environment.shape_class = UsersShape(parse_shape(workload.shape), workload.duration_s)
        environment.shape_class.runner = environment.runner


def check_input(environment: Any, **kwargs: Any) -> None:
    """Reject invalid input before anything starts, and choose the users that fit the workload."""
    global current, master
    runner = environment.runner
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Python's own handler would interrupt whatever runs, perhaps halfway through a record.
        gevent.signal_handler(signal.SIGINT, interrupted)
    if isinstance(runner, MasterRunner):
        environment.dispatcher_class = SettledUsers
        master = Master(
            runner, lambda: end_test(environment), lambda why: stop_master(environment, why)
        )
    if isinstance(runner, WorkerRunner):
        on_share(runner, start_share)
    try:
        workload = workload_of(environment.parsed_options)
        choose_users(environment, workload)
        # Tags select operations, see `workload_of`; the users' only task is always selected.
        environment.tags, environment.exclude_tags = {TASK}, set()
        if environment.web_ui is not None:
            guard(environment.web_ui)
            environment.web_ui.app.before_request(lambda: choose_users_of_page(environment))
            show_cluster(environment)
        if environment.parsed_options.headless and not isinstance(runner, WorkerRunner):
            end_with_the_plan(environment, workload.duration_s)
        if isinstance(runner, LocalRunner):
            cluster = read_reachable(environment.parsed_options.cluster_file)
            # Locust's page asks for a host if none is set.
            environment.host = f"capbench://{cluster.cluster}"
            if isinstance(cluster, ClusterFile):
                environment.host = f"mqtt://{cluster.broker.host}:{cluster.broker.port}"
            if environment.parsed_options.headless:
                # Before Locust's run time starts.
                current = make_load(environment)
    except (BadClusterFile, BadWorkload) as error:
        leave(INVALID_INPUT, error)
    except BrokerUnreachable as error:
        leave(INFRASTRUCTURE_FAILED, error)


def interrupted() -> None:
    """Ctrl-C, between two turns of the event loop: gevent hands it to Locust's main greenlet."""
    raise KeyboardInterrupt


def show_cluster(environment: Any) -> None:
    """Add the cluster's tab to the page. A master needs the cluster file only for that, and does
    without the tab if there is none."""
    try:
        cluster = read_cluster_file(environment.parsed_options.cluster_file)
    except BadClusterFile as error:
        log.warning("the page has no tab of the cluster: %s", error)
        return
    watch = ClusterWatch(cluster)
    add_tab(environment.web_ui, watch)
    watch.start()


def end_with_the_plan(environment: Any, plan_s: float) -> None:
    """Let the load end when the users have done their parts, not some time after the first was
    requested: they may take long to start. Raises BadWorkload."""
    options = environment.parsed_options
    if options.num_users == 0 and environment.shape_class is None:
        raise BadWorkload("--users 0: there would be no load")
    options.plan_s = plan_s
    options.run_time = None


def choose_users_of_page(environment: Any) -> None:
    """Before a load starts from the web page, whose options may need other users."""
    running = environment.runner.state in (STATE_SPAWNING, STATE_RUNNING)
    if request.path.endswith("/swarm") and not running:
        options = Namespace(**{**vars(environment.parsed_options), **request.form.to_dict()})
        # Invalid options are reported when the load starts.
        with contextlib.suppress(BadWorkload):
            choose_users(environment, workload_of(options))


def leave(exit_code: int, error: Exception) -> NoReturn:
    """Nothing can run: report why in one line and exit."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(exit_code)


def make_load(environment: Any) -> Load:
    """A load connected to the cluster. Raises BadClusterFile, BadWorkload, BrokerUnreachable."""
    options, runner = environment.parsed_options, environment.runner
    try:
        name = check_name(options.client_name, "--client-name")
    except BadName as error:
        raise BadWorkload(str(error)) from None
    if isinstance(runner, WorkerRunner):
        name = f"{name}-{runner.worker_index}"
    cluster = read_reachable(options.cluster_file)
    workload = workload_of(options)
    if environment.user_classes == [ClosedLoopUser]:
        workload = msgspec.structs.replace(workload, rate_per_s=None)
    load = Load(environment, cluster, workload, name)
    load.connect()
    return load


def start_load(environment: Any, **kwargs: Any) -> None:
    """Connect to the cluster before any user starts, for each test of the web page or master."""
    global current
    if master is not None:
        master.begin()
        return
    if isinstance(environment.runner, LocalRunner) and environment.parsed_options.headless:
        return
    try:
        if isinstance(environment.runner, WorkerRunner):
            # The options of the master's web page may differ from this process's own.
            choose_users(environment, workload_of(environment.parsed_options))
        current = make_load(environment)
    except (BadClusterFile, BadWorkload, BrokerUnreachable) as error:
        current = None
        log.error("nothing can run: %s", error)
        if isinstance(environment.runner, WorkerRunner):
            report_failure(environment.runner, f"nothing can run: {error}")
        gevent.spawn(environment.runner.stop)


def start_clock(user_count: int, **kwargs: Any) -> None:
    """All users have started. Workers wait for their share from the master."""
    if master is not None:
        # Each load from its web page may have another length.
        master.share_out(workload_of(master.options).duration_s)
    elif current is not None and isinstance(current.runner, LocalRunner):
        (share,) = shares([user_count], current.workload.duration_s)
        current.start(share)


def start_share(share: Share) -> None:
    """The master sent this worker its share."""
    if current is not None:
        current.start(share)


def stop_load(environment: Any, **kwargs: Any) -> None:
    """The test ends; answers to open operations still count."""
    if master is not None:
        for lost in master.lost():
            log.error("%s: its latest operations may be missing from the history", lost)
            environment.process_exit_code = INFRASTRUCTURE_FAILED
        master.stop()
        if environment.parsed_options.headless:
            # Locust stops a test whose last worker is lost, and then waits for ever.
            gevent.spawn(environment.runner.quit)
    if current is not None:
        current.finish(current.workload.timeout_s)


def end_test(environment: Any) -> None:
    """The load has ended; a web page stays up for the next one."""
    if environment.parsed_options.headless:
        environment.runner.quit()
    else:
        environment.runner.stop()


def stop_master(environment: Any, why: str) -> None:
    """A worker cannot do its share."""
    log.error("%s%s", NOT_WHOLE, why)
    environment.process_exit_code = INFRASTRUCTURE_FAILED
    gevent.spawn(end_test, environment)


def stop_load_at_once(environment: Any, **kwargs: Any) -> None:
    """The process is to exit."""
    if current is not None:
        current.finish(min(QUICKLY_S, current.workload.timeout_s))


hooks: Any = events
hooks.init_command_line_parser.add_listener(add_options)
hooks.init.add_listener(check_input)
hooks.test_start.add_listener(start_load)
hooks.spawning_complete.add_listener(start_clock)
hooks.test_stopping.add_listener(stop_load)
hooks.quitting.add_listener(stop_load_at_once)
