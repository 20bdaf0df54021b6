"""PostgreSQL: a primary, and standbys to which it streams its log; Patroni decides who is primary.

Each node has PostgreSQL, Patroni and a member of etcd. The primary holds a lease in etcd; who
cannot renew it ceases to be primary, and the most advanced standby takes it when it has run out.
*Synchronous* (Patroni's ``synchronous_mode``): a commit waits for a standby, and only that one may
be promoted, so that no acknowledged write is lost. *Asynchronous*: it does not wait. Patroni's
documentation says that what was not replicated then is lost in a failover.

A client is libpq with several hosts and ``target_session_attrs=read-write``: it asks one host after
the other until one is no standby, and stays with it. Reads go to the primary, too.

What it says of errors (the manual's appendix A, xact.c, syncrep.c):

- an answer of severity ERROR has rolled the transaction back: certainly not applied. Of its
  classes, 08 (connection), 40003 (completion unknown), 57P (going down), 58 and XX (system and
  internal errors) are not trusted to say so;
- FATAL and PANIC end the session, also while a commit waits for a standby: nobody knows;
- the WARNING that a commit was not waited for to the end: it is committed here, and may be lost;
- before a session has begun, nothing was asked: certainly not applied.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from bench.record.cluster_file import Address, SystemFile
from bench.record.transactions.verdict import Level
from bench.record.verdict import Model
from chaos.systems import etcd
from chaos.systems.connection import FORM_S, PROBE_S, Kept
from chaos.systems.getting import libraries, on_path, said_version, unpacked
from chaos.systems.postgres_connection import (
    IN_THE_WAY,
    STARTING,
    PostgresConnection,
    PostgresError,
    Row,
)
from chaos.systems.system import (
    Answer,
    Node,
    NotApplied,
    NotToBeHad,
    Probe,
    Process,
    Programs,
    System,
    SystemClient,
    Transaction,
    client_key,
    decode,
    encode,
)
from nodes.contract.replica import Operation, Value

POSTGRES, PATRONI = 5432, 8008
USER = "postgres"
PACKAGES = (
    *("postgresql-15", "postgresql-client-15", "libpq5", "libicu72", "libldap-2.5-0"),
    *("libsasl2-2", "libxml2", "libyaml-0-2"),
)
PATRONI_PACKAGES = (
    *("patroni", "python3-psycopg2", "python3-psutil", "python3-yaml", "python3-urllib3"),
    *("python3-click", "python3-dateutil", "python3-six", "python3-prettytable"),
    *("python3-wcwidth", "python3-cdiff", "python3-pkg-resources", "python3-dnspython"),
    "python3-etcd",
)
PYTHON = Path("/usr/bin/python3")
"""Debian's own, for which Debian's Patroni is."""
LEASE = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}
"""The least that Patroni's documentation allows; its defaults are 30, 10 and 10 s. With 5 s a
primary that was cut off held its lease for 9 s here: each try has time-outs of its own."""
NOBODY = 1000
"""PostgreSQL refuses to be root, which everybody is in a lab."""
TABLE = "CREATE TABLE IF NOT EXISTS capbench (key text PRIMARY KEY, value text NOT NULL)"
READ = "SELECT value FROM capbench WHERE key = $1"
WRITE = (
    "INSERT INTO capbench VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
DELETE = "DELETE FROM capbench WHERE key = $1"
CREATE = "INSERT INTO capbench VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING 1"
REPLACE = "UPDATE capbench SET value = $2 WHERE key = $1 AND value = $3 RETURNING 1"
STATUS = """\
SELECT CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
  CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END
    - '0/0',
  EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')
"""
"""The timeline of a primary, what is there or was replayed, and whether it streams from another."""
FOLLOWERS = """\
SELECT pg_is_in_recovery(), count(*), count(*) FILTER (WHERE sync_state = 'sync')
FROM pg_stat_replication WHERE state = 'streaming'
"""
APPEND = """\
INSERT INTO capbench VALUES ($1, '"' || $2)
ON CONFLICT (key) DO UPDATE SET value = left(capbench.value, -1) || ' ' || $2
"""
"""``$2``: a word as JSON, without its first quotation mark."""
ISOLATION: dict[Level, str] = {
    "serializable": "serializable",
    "snapshot-isolation": "repeatable read",
    "read-committed": "read committed",
}
"""PostgreSQL's own words for these levels (the manual's chapter on transaction isolation)."""
SETTINGS = {"default_transaction_isolation": "read committed"}
"""Of operations on single keys, each of which is one statement: it sees the newest version of its
row, and waits for whoever changes it, where a higher level would give up."""
_TRIES = 5
T = TypeVar("T")


class Postgres(System):
    """``isolation``: that of its transactions. ``synchronous``: a commit waits for a standby."""

    peer_ports = (POSTGRES, PATRONI, etcd.PEERS, etcd.CLIENTS)
    client_ports = (POSTGRES,)
    connections = 32  # Each is a process of the primary.

    def __init__(
        self,
        name: str,
        claim: Model,
        isolation: Level,
        summary: str,
        *,
        synchronous: bool = True,
    ) -> None:
        self.name, self.claim, self.isolation, self.summary = name, claim, isolation, summary
        self._synchronous = synchronous
        self._probes: dict[str, Kept[PostgresConnection]] = {}

    def programs(self) -> Programs:
        """PostgreSQL and Patroni: on PATH, where Debian installs them, or unpacked from its
        packages. And etcd."""
        bin_, found = _postgres()
        patroni, more = _patroni()
        environment = {**found, **more}
        server = said_version([bin_ / "postgres", "--version"], r"(\d\S+)", environment)
        keeper = said_version([*patroni, "--version"], r"(\d\S+)", environment)
        paths = {"bin": str(bin_), "patroni": "\n".join(patroni), "etcd": str(etcd.server())}
        version = f"{server}, Patroni {keeper}"
        return Programs(paths=paths, version=version, environment=environment)

    def prepare(self, node: Node, programs: Programs) -> None:
        """Patroni's configuration. JSON is YAML."""
        configuration = self._configuration(node, programs.paths["bin"])
        (node.data / "patroni.yml").write_bytes(msgspec.json.format(configuration, indent=2))

    def _configuration(self, node: Node, bin_: str) -> bytes:
        user = {"username": USER}
        settings = {
            "max_connections": 300,
            "shared_buffers": "32MB",
            "jit": "off",
            # Else a deadlock stands for as long as most clients wait, and so do its locks.
            "deadlock_timeout": "100ms",
            # And so do those of a client that has gone.
            "client_connection_check_interval": "200ms",
            # What is shared leaves nothing behind then.
            "dynamic_shared_memory_type": "mmap",
            "unix_socket_directories": "",
        }
        shared = {
            **LEASE,
            "synchronous_mode": self._synchronous,
            "postgresql": {"use_pg_rewind": True, "parameters": settings},
        }
        postgresql = {
            "listen": f"{node.host}:{POSTGRES}",
            "connect_address": f"{node.host}:{POSTGRES}",
            "data_dir": str(node.data / "postgres"),
            "bin_dir": bin_,
            "pgpass": str(node.data / "pgpass"),
            "authentication": {"superuser": user, "replication": user, "rewind": user},
            "basebackup": [{"checkpoint": "fast"}],
            "pg_hba": [f"host {what} all 0.0.0.0/0 trust" for what in ("all", "replication")],
            # What a node that was cut off has written and nobody else got cannot stay.
            "remove_data_directory_on_diverged_timelines": True,
            "remove_data_directory_on_rewind_failure": True,
        }
        return msgspec.json.encode(
            {
                "scope": "capbench",
                "name": node.name,
                "restapi": {
                    "listen": f"{node.host}:{PATRONI}",
                    "connect_address": f"{node.host}:{PATRONI}",
                },
                "etcd3": {"hosts": [f"{host}:{etcd.CLIENTS}" for host in node.hosts.values()]},
                "bootstrap": {"dcs": shared, "initdb": [{"locale": "C"}, {"encoding": "UTF8"}]},
                "postgresql": postgresql,
            }
        )

    def processes(self, node: Node, programs: Programs) -> Sequence[Process]:
        """etcd and Patroni, which starts PostgreSQL. All of the latter end with their first."""
        alone: list[str | Path] = [
            *("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"),
            *("--mount", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child"),
        ]
        # Whoever had that number before is in no namespace of this one.
        start = 'rm -f "$0/postgres/postmaster.pid"; exec "$@"'
        patroni = programs.paths["patroni"].splitlines()
        argv = [*alone, "sh", "-c", start, node.data, *patroni, node.data / "patroni.yml"]
        return [
            etcd.ETCD.processes(node, programs)[0],
            Process(argv=argv, name="patroni"),
        ]

    def form(self, hosts: Mapping[str, str]) -> None:
        """Wait until all standbys follow the primary, and make our table there."""
        deadline = time.monotonic() + FORM_S
        while not (primary := self._followed(hosts)):
            if time.monotonic() > deadline:
                raise OSError(f"waited {FORM_S:.0f} s in vain for the standbys")
            time.sleep(0.1)
        _asked(primary, FORM_S, TABLE)

    def _followed(self, hosts: Mapping[str, str]) -> str | None:
        """The address of the primary that has all its standbys, and waits for one if it shall."""
        shall_wait = self._synchronous and len(hosts) > 1
        for host in hosts.values():
            with contextlib.suppress(OSError):
                ((in_recovery, standbys, waited_for),) = _asked(host, PROBE_S, FOLLOWERS)
                if in_recovery == "f" and int(standbys or 0) == len(hosts) - 1:
                    return host if (waited_for != "0") == shall_wait else None
        return None

    def probe(self, host: str) -> Probe:
        """What PostgreSQL says of itself: a primary of which timeline, or a standby; or that it
        takes no sessions yet, as a standby does for ever whose log is none of its primary's."""
        session = self._probes.setdefault(
            host, Kept(lambda: PostgresConnection(Address(host, POSTGRES), USER, {}, PROBE_S))
        )
        try:
            ((timeline, position, streams),) = session.ready().ask(STATUS)
        except NotApplied as error:
            if isinstance(error.__cause__, PostgresError) and error.__cause__.state == STARTING:
                return Probe(ready=False, role="starting")
            raise OSError(str(error)) from None
        except OSError:
            session.close()
            raise
        leads = timeline is not None
        return Probe(
            ready=leads or streams == "t",
            role="leader" if leads else "follower",
            term=None if timeline is None else int(timeline, 16),
            position=int(position or 0),
        )

    def client(self, cluster: SystemFile, node: str, timeout_s: float) -> SystemClient:
        """That looks for the primary, at its own node first."""
        assert self.isolation is not None
        return _Client(cluster, node, timeout_s, ISOLATION[self.isolation])


class _Client(SystemClient):
    def __init__(self, cluster: SystemFile, node: str, timeout_s: float, isolation: str) -> None:
        first = cluster.nodes.index(node)
        self._addresses = [
            cluster.address(each, POSTGRES)
            for each in (*cluster.nodes[first:], *cluster.nodes[:first])
        ]
        self._timeout_s = timeout_s
        self._isolation = isolation
        self._kept = Kept(self._found)

    def close(self) -> None:
        self._kept.close()

    def invoke(self, operation: Operation) -> Answer:
        return self._until_nobody_is_in_the_way(lambda it: _carried_out(it, operation))

    def transaction(self, keys: Sequence[str], work: Callable[[Transaction], None]) -> None:
        """BEGIN, the work, COMMIT. Whatever fails before COMMIT is sent has committed nothing."""
        self._until_nobody_is_in_the_way(lambda it: self._transacted(it, work))

    def _transacted(self, it: PostgresConnection, work: Callable[[Transaction], None]) -> None:
        try:
            it.ask(f"BEGIN ISOLATION LEVEL {self._isolation}")
            work(_Open(it))
        except OSError as error:
            if isinstance(error, PostgresError) and error.state in IN_THE_WAY:
                self._roll_back(it)
                raise
            self.close()
            raise NotApplied(f"not committed: {error}") from None
        except BaseException:
            self._roll_back(it)
            raise
        it.ask("COMMIT")

    def _roll_back(self, it: PostgresConnection) -> None:
        try:
            it.ask("ROLLBACK")
        except OSError:
            self.close()

    def _until_nobody_is_in_the_way(self, do: Callable[[PostgresConnection], T]) -> T:
        """What it returns, as soon as no other transaction makes it roll back. Raises NotApplied,
        or anything else."""
        until = time.monotonic() + self._timeout_s
        for _ in range(_TRIES):
            connection = self._kept.ready()
            try:
                return do(connection)
            except PostgresError as error:
                if not error.has_rolled_back:
                    raise
                if error.state not in IN_THE_WAY:
                    # A primary no more, perhaps.
                    self.close()
                    raise NotApplied(str(error)) from None
                if time.monotonic() > until:
                    break
        raise NotApplied("other transactions were in the way")

    def _found(self) -> PostgresConnection:
        """A session with the first host that is no standby; that one is asked first the next time.
        Raises NotApplied."""
        why = ""
        for address in list(self._addresses):
            try:
                connection = PostgresConnection(address, USER, SETTINGS, self._timeout_s)
            except NotApplied as error:
                why = str(error)
                continue
            if not connection.in_recovery:
                self._addresses.remove(address)
                self._addresses.insert(0, address)
                return connection
            connection.close()
        raise NotApplied(why or "not sent: no host is a primary")


def _carried_out(connection: PostgresConnection, operation: Operation) -> Answer:
    key, value = client_key(operation.key), encode(operation.value).decode()
    match operation.op:
        case "read":
            return Answer(_read(connection, key))
        case "write":
            connection.ask(WRITE, key, value)
        case "delete":
            connection.ask(DELETE, key)
        case "cas":
            return _cas(connection, key, value, operation.expected)
    return Answer()


class _Open(Transaction):
    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    def read(self, key: str) -> Value:
        return _read(self._connection, client_key(key))

    def write(self, key: str, value: Value) -> None:
        self._connection.ask(WRITE, client_key(key), encode(value).decode())

    def append(self, key: str, word: str) -> None:
        self._connection.ask(APPEND, client_key(key), encode(word).decode()[1:])


def _cas(connection: PostgresConnection, key: str, value: str, expected: Value) -> Answer:
    """A refusal has seen another value than the one expected, at that time; so it tries again if it
    has not. Raises NotApplied."""
    for _ in range(_TRIES):
        if expected is None:
            changed = connection.ask(CREATE, key, value)
        else:
            changed = connection.ask(REPLACE, key, value, encode(expected).decode())
        if changed:
            return Answer(applied=True)
        if (seen := _read(connection, key)) != expected:
            return Answer(applied=False, seen=seen)
    raise NotApplied(f"changed by others and changed back, {_TRIES} times")


def _read(connection: PostgresConnection, key: str) -> Value:
    rows = connection.ask(READ, key)
    return decode((rows[0][0] or "").encode()) if rows else None


def _asked(host: str, timeout_s: float, statement: str) -> list[Row]:
    """The rows of a statement, asked past all proxies. Raises OSError."""
    try:
        connection = PostgresConnection(Address(host, POSTGRES), USER, {}, timeout_s)
    except NotApplied as error:
        raise OSError(str(error)) from None
    try:
        return connection.ask(statement)
    finally:
        connection.close()


def _postgres() -> tuple[Path, dict[str, str]]:
    """The folder of PostgreSQL's programs, and the environment that they need. Raises
    NotToBeHad."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent)
    server = on_path("postgres")
    places = [*([server.resolve().parent] if server else []), *reversed(installed)]
    for place in places:
        if all((place / name).is_file() for name in ("postgres", "initdb", "pg_basebackup")):
            return place, {}
    folder = unpacked(PACKAGES)
    return folder / "usr" / "lib" / "postgresql" / "15" / "bin", libraries(folder)


def _patroni() -> tuple[list[str], dict[str, str]]:
    """The command of Patroni, and the environment that it needs. Raises NotToBeHad."""
    found = on_path("patroni")
    if found is not None:
        return [str(found)], {}
    if not PYTHON.is_file():
        raise NotToBeHad(f"Debian's Patroni needs {PYTHON}: apt-get install python3")
    folder = unpacked(PATRONI_PACKAGES)
    modules = folder / "usr" / "lib" / "python3" / "dist-packages"
    return [str(PYTHON), "-m", "patroni"], {"PYTHONPATH": str(modules)}


POSTGRES_SYNCHRONOUS = Postgres(
    "postgres",
    "linearizable",
    "serializable",
    "PostgreSQL under Patroni: a commit waits for a standby; transactions are serializable",
)
POSTGRES_REPEATABLE_READ = Postgres(
    "postgres-repeatable-read",
    "linearizable",
    "snapshot-isolation",
    "as postgres, but transactions are repeatable read, which is snapshot isolation",
)
POSTGRES_READ_COMMITTED = Postgres(
    "postgres-read-committed",
    "linearizable",
    "read-committed",
    "as postgres, but transactions are read committed, which is PostgreSQL's default",
)
POSTGRES_ASYNCHRONOUS = Postgres(
    "postgres-async",
    "eventual",
    "serializable",
    "as postgres, but a commit waits for no standby, and is lost if the primary is",
    synchronous=False,
)
