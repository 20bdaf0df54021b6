#!/bin/sh
# Cut a node off from the others, or heal: ./cut.sh cut n1; ./cut.sh heal n1
# Everything in both directions of each of its links is held back, and no connection is closed.
set -eu
api=${TOXIPROXY:-http://127.0.0.1:8474}
for other in n1 n2 n3; do
    [ "$other" != "$2" ] || continue
    for link in "link_$2_$other" "link_${other}_$2"; do
        for stream in upstream downstream; do
            toxic="{\"name\": \"cut_$stream\", \"type\": \"timeout\", \"stream\": \"$stream\", \"attributes\": {\"timeout\": 0}}"
            case $1 in
            cut) curl -fsS -o /dev/null -X POST -d "$toxic" "$api/proxies/$link/toxics" ;;
            heal) curl -fsS -o /dev/null -X DELETE "$api/proxies/$link/toxics/cut_$stream" ;;
            esac
        done
    done
done
