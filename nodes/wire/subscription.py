"""How every client of a cluster subscribes to what must be news."""

from __future__ import annotations

from paho.mqtt.subscribeoptions import SubscribeOptions

NOTHING_RETAINED = SubscribeOptions(qos=0, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
"""What a broker has kept is from before: with every connect a request would be applied again. (MQTT
3.1.1 cannot ask for this, so whoever subscribes drops what is marked as retained, too.)"""

CONNECT_TIMEOUT_S = 1.0
"""How long one attempt to connect may take."""
