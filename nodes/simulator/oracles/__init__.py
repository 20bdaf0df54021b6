"""What is judged once the faults are over: rest, service under a lasting fault, and what is left.

Each module is one question. They know a protocol by its registration, its probes and its clients
only; `nodes.contract.pace` says what it promises."""
