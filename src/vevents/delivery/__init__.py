"""From the log to the API.

tls         whom to trust, and the device's own certificate
client      one function per endpoint, and what its answers mean
sender      makes the requests: within limits, repeated when that may help
pause       the switch that stops every delivery
schedule    when delivery may run: windows and the switch
flusher     one pass from the log to the server; the rooms that it conducts, as the data flows:
  backlog   which pending events, in which order
  clock     when they were really seen
  items     records decoded, events as JSON
  images    their frames uploaded; `uploads` has the threads, `lanes` how many
  bundles   where wanted, events together with their frames
  batches   posted; a bad event is found among the others
  verdicts  what becomes of each: delivered, set aside, left pending
  notes     written down in delivery.ring; `digests` for what is known of images
  report    what a pass did
api         what a pass learns of the server: is it the API, its use cases, its time
pace        the cap on bytes per second
lock        one flush at a time
losses      what was lost, reported upstream
figures     how losses are counted and named
rejected    dead letters, listed and sent again
lookback    whether what is delivered late will still be shown
setup       a client and a flusher from the settings
network     news of links, addresses and routes from the kernel
sdnotify    what a service tells systemd
planner     when the agent makes its next pass
agent       delivers for as long as it runs
"""

from __future__ import annotations
