#!/bin/sh
# Deliver when the network comes back. As a NetworkManager hook: copy it to
# /etc/NetworkManager/dispatcher.d/90-vevents, owned by root, mode 0755, and put
#     VEVENTS_DIR=/var/lib/vevents
#     ROBOFLOW_API_KEY=...
#     VEVENTS_USE_CASE=...
# into /etc/vevents.env, mode 0600. Where systemd is at hand, `vevents install` does it better.
set -u

# NetworkManager says which interface, and what happened to it.
case "${2:-up}" in
    up | connectivity-change) ;;
    *) exit 0 ;;
esac

environment=${VEVENTS_ENV_FILE:-/etc/vevents.env}
if [ -r "$environment" ]; then
    set -a
    . "$environment"
    set +a
fi

# The hook's caller kills it after some seconds or minutes: end before, the next one goes on.
vevents flush --timeout "${VEVENTS_HOOK_TIMEOUT:-60s}" --quiet
code=$?
case $code in
    0 | 3 | 6 | 7 | 10) exit 0 ;; # done, or later: nothing is lost and nothing is to be done
    5) logger -t vevents "some events were refused; see: vevents rejected list" || true ;;
    *) logger -t vevents "flush ended with exit code $code; see: vevents check" || true ;;
esac
exit "$code"
