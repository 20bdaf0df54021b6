"""What somebody in a container can reach and do: programs that run within it, with its rights."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.containers.conftest import Installation

REACH = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reached(where):
    host, _, port = where.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 2):
            return True
    except OSError:
        return False
wanted = sys.argv[1:]
with ThreadPoolExecutor(len(wanted)) as threads:
    print(json.dumps(dict(zip(wanted, threads.map(reached, wanted)))))
"""

STEAL = """
import http.client, json, sys
said = {}
for host in sys.argv[1:]:
    api = http.client.HTTPConnection(host, 8474, timeout=2)
    try:
        body = {"name": "mine", "listen": "0.0.0.0:29999", "upstream": "127.0.0.1:29998"}
        api.request("POST", "/proxies", json.dumps(body))
        said[host] = api.getresponse().status
    except OSError as error:
        said[host] = None
print(json.dumps(said))
"""

RIGHTS = """
import json, os, pathlib, signal
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
def refused(act):
    try:
        act()
    except OSError:
        return True
    return False
children = []
try:
    while len(children) < 200:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError:
    pass
finally:
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)
print(json.dumps({
    "uid": os.getuid(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapPrm"], 16),
    "no new privileges": status["NoNewPrivs"].strip(),
    "writes the root": not refused(lambda: pathlib.Path("/opt/capbench/x").write_text("x")),
    "has the engine": os.path.exists("/var/run/docker.sock"),
    "children": len(children),
    "logins": [str(path) for path in pathlib.Path("/").glob("*/login.json")],
    "passwords in the environment": [name for name in os.environ if "PASS" in name.upper()],
}))
"""


def within(installation: Installation, service: str, program: str, *arguments: str) -> Any:
    """What ``program`` (Python) prints, as JSON, when it runs in a container of ours."""
    done = installation.containers()[service].exec_run(["python", "-c", program, *arguments])
    assert done.exit_code == 0, done.output
    return msgspec.json.decode(done.output)


def beside(installation: Installation, service: str, program: str, *arguments: str) -> Any:
    """The same for a container that has no Python: in another one on its networks, with its
    addresses and without rights."""
    told = installation.engine.containers.run(
        installation.image,
        ["python", "-c", program, *arguments],
        network_mode=f"container:{installation.containers()[service].id}",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        read_only=True,
        remove=True,
    )
    return msgspec.json.decode(told)
