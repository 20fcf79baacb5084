#!/bin/sh
# Carry events on a stick. On the device, inside the closed network:
#     air_gap.sh device /var/lib/vevents /media/stick
# then outside, where the network is (needs ROBOFLOW_API_KEY and VEVENTS_USE_CASE):
#     air_gap.sh office /var/lib/vevents-office /media/stick
# and again on the device, with the same stick: it takes its receipts and the next events.
set -eu

where=${1:?device or office}
log=${2:?directory of the log}
stick=${3:?directory of the stick}
bundles=$stick/vevents

code=0
case $where in
    device)
        vevents export --dir "$log" --bundles "$bundles" --max-bytes "${STICK_SIZE:-8GB}" || code=$?
        sync
        # 7: a limit was reached, and the rest goes with the next stick.
        [ $code -eq 7 ] || exit $code
        ;;
    office)
        vevents import "$bundles" --dir "$log" || code=$?
        sync
        # 5: a file was refused; it stays on the stick, and the others went. 7: the log was full.
        case $code in
            0 | 5 | 7) vevents flush --dir "$log" ;;
            *) exit $code ;;
        esac
        ;;
    *)
        echo "air_gap.sh: device or office, not $where" >&2
        exit 2
        ;;
esac
