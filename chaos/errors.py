"""Our errors, and what the exit code of `capbench` says; 0: all is well.

    CapbenchError                 one line that says what is wrong, where, and what to do
    ├── InvalidInput            2 what was asked for, or a file that was given, cannot be
    │   ├── BadName               nodes: a name that cannot be one
    │   ├── InvalidConfiguration  nodes: an unknown protocol, or parameters that it cannot have
    │   ├── BadSettings           nodes: the settings of a node
    │   ├── NotReadable           bench: a file that is none, too large, or not to be read
    │   ├── BadHistory            bench: a history, with file and line
    │   ├── BadRunFolder          bench: a run folder
    │   ├── BadClusterFile        bench: the file by which a load finds its cluster
    │   ├── BadSweep              bench: a file of a sweep
    │   ├── BadQuantity           bench: a number with a unit
    │   ├── BadWorkload           bench: a workload, or an option of the load
    │   ├── BadShape              bench: the shape of a load
    │   ├── NotComparable         bench: saved benchmarks that are none
    │   ├── BadObjective          reports: an objective
    │   ├── InvalidExperiment     chaos: an experiment, with file and line
    │   ├── BadFinding            chaos: a published finding, with its file
    │   ├── BadYaml               chaos: a text that is no YAML, with its line
    │   ├── Unsupported           nodes: a fault that a target cannot make real
    │   ├── NoSuchFault           chaos: a fault by hand that is not on
    │   ├── UnknownLink           nodes: a link that the cluster does not have
    │   ├── NoSuchCluster         chaos: nothing has this name
    │   ├── WhichCluster          chaos: several run, and none is named
    │   ├── BadLoad               chaos: what Locust refused
    │   ├── BadGate               chaos: the record of a gate
    │   ├── BadRecord             chaos: the record of mutants
    │   ├── BadMarks              chaos: the list of equivalent mutants
    │   └── BadOption             chaos: an option of the command line
    ├── InfrastructureFailed    3 a part that a run needs could not be started, reached or kept up
    │   ├── BrokerUnreachable     bench: the load does not reach the broker
    │   ├── NoCluster             bench: the cluster to be measured did not start
    │   ├── LoadFailed            bench: operations failed although there was no fault
    │   ├── NodesSilent           bench: nodes that do not say what they counted
    │   ├── NoMessages            bench: a broker that hands on nothing
    │   ├── NoEtcd                bench: etcd is not there, or did not start
    │   ├── NoProfiler            bench: py-spy is not there, or did not start
    │   ├── TargetFailed          chaos: a cluster that could not be started, or did not stay up
    │   │   ├── EngineFailed        the container engine refused
    │   │   ├── NoLab               this machine refuses namespaces, or has no nft
    │   │   └── NotRunning          there is no such cluster
    │   ├── NotToBeHad            chaos: a system that is not here and cannot be got
    │   ├── NoBroker              chaos: there is no broker to start
    │   ├── BrokerSilent          chaos: the broker takes no connection
    │   ├── NodeSilent            chaos: a node that does not confirm a command
    │   ├── ToxiproxyMissing      chaos: there is no Toxiproxy to start
    │   ├── ToxiproxyError        chaos: Toxiproxy refused
    │   │   ├── ToxiproxyDown       it answers no more
    │   │   └── ToxiproxyWedged     it answers, and does nothing
    │   ├── ProcessError          chaos: a child process
    │   ├── NoFreePorts           chaos: no ports for a cluster
    │   └── WorkersFailed         chaos: processes that simulate for us
    ├── NotDone                 1 a running cluster would not do what it was asked
    └── Interrupted           130 chaos: a command was ended from outside; 128 + n by signal n

Python's own OSError ends a command with 3, its FileExistsError with 2. Anything else is a defect of
ours, and seen whole.
"""

from __future__ import annotations

from nodes.errors import InfrastructureFailed, InvalidInput

OBJECTIVE = 1
"""An objective was missed."""
INPUT = InvalidInput.exit_code
INFRASTRUCTURE = InfrastructureFailed.exit_code
VIOLATED = 4
"""A consistency claim was violated."""
UNKNOWN = 5
"""A verdict is unknown."""


class TargetFailed(InfrastructureFailed):
    """The infrastructure of a run could not be started, or did not stay up: one line that says
    what, where its log lies, and what to do."""


class BadOption(InvalidInput):
    """An option that cannot be: names it and says what would be right."""
