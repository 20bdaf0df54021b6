"""Where there is no Mosquitto, the embedded broker does the job, and the run says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.record.run_folder import RunFolder
from chaos.clusters import broker
from chaos.clusters.local import LocalCluster
from chaos.targets.final_reads import final_reads
from nodes import registry

pytestmark = pytest.mark.live


def test_a_cluster_serves_over_the_embedded_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mosquitto is looked for outside PATH too, so hiding it takes more than an empty PATH.
    monkeypatch.setattr(broker, "find_mosquitto", lambda: None)
    folder = RunFolder(tmp_path)
    folder.history_dir.mkdir()
    folder.load_dir.mkdir()
    protocol, nodes = registry.get("raft"), registry.node_ids(3)
    with LocalCluster(protocol, nodes, tmp_path / "cluster", cluster="embedded") as cluster:
        assert cluster.cluster_file.mqtt_version == 4, "it speaks MQTT 3.1.1 only"
        final_reads(cluster.cluster_file, nodes, ["a", "b"], folder)
        assert any("embedded broker" in note for note in cluster.notes)
    reads = folder.operations()
    assert {(read.node, read.outcome) for read in reads} == {(node, "ok") for node in nodes}
    assert len(reads) == 2 * len(nodes)
